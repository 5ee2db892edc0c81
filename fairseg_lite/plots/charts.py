"""Curves, bars, tables and the map of the course."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from fairseg_lite.errors import InputError
from fairseg_lite.plots.style import BLACK, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, finish, rgb

STOPS = ("picture", "trunk", "DeepMask", "SharpMask", "MultiPathNet", "named masks")


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]] | tuple[Sequence[float], Sequence[float], Sequence[float]]],
    *, x: str, y: str, title: str = "", logx: bool = False, size: tuple[float, float] = (8, 4.2), ymin: float | None = None,
) -> Figure:  # fmt: skip
    """Lines by name: (x, y) or (x, y, half-width of a band)."""
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for name, (xs, ys, *spread) in lines.items():
        (line,) = axis.plot(xs, ys, label=name, marker="o" if len(xs) < 15 else None)
        if spread:
            low, high = np.asarray(ys) - spread[0], np.asarray(ys) + spread[0]
            axis.fill_between(xs, low, high, color=line.get_color(), alpha=0.2)
    axis.set(xlabel=x, ylabel=y, title=title)
    if logx:
        axis.set_xscale("log")
    if ymin is not None:
        axis.set_ylim(bottom=ymin)
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend()
    return finish(figure)


def bars(groups: Mapping[str, Mapping[str, float]], *, y: str, title: str = "", size: tuple[float, float] = (8, 4)) -> Figure:
    """Bars by name and group: {name: {group: value}}, the value written on each."""
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    labels = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    for i, (name, values) in enumerate(groups.items()):
        at = np.arange(len(labels)) + (i - (len(groups) - 1) / 2) * width
        drawn = axis.bar(at, [values[k] for k in labels], width * 0.92, label=name)
        axis.bar_label(drawn, fmt="%.2f" if max(values.values()) < 10 else "%.0f", fontsize=9, padding=2)
    axis.set_xticks(range(len(labels)), labels)
    axis.set(ylabel=y, title=title)
    axis.margins(y=0.25)  # room for the legend
    if len(groups) > 1:
        axis.legend(loc="upper right", ncols=len(groups))
    return finish(figure)


def histogram(values: Mapping[str, Sequence[float]], *, x: str, bins: Sequence[float], title: str = "") -> Figure:
    """Histograms of shares in [0, 1], by name."""
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for name, numbers in values.items():
        axis.hist(numbers, bins=bins, weights=np.full(len(numbers), 1 / max(len(numbers), 1)), alpha=0.6, label=name)
    axis.set(xlabel=x, ylabel="share", title=title)
    if len(values) > 1:
        axis.legend()
    return finish(figure)


def boundary_curve(
    lines: Mapping[str, Mapping[float, float] | Sequence[Mapping[float, float]]], *, whole: Mapping[str, float] | None = None,
    title: str = "", size: tuple[float, float] = (8, 4.2),
) -> Figure:  # fmt: skip
    """IoU near the true boundary by the width of the band: one line a model, told apart by colour and marker.

    Args:
        lines: by name {width in px: IoU} (`BoundaryReport.trimap_iou`), or one of these for each of several runs, drawn as
            their mean in a band from the lowest to the highest. Models may have other widths, runs of one model not.
        whole: by name the IoU of the whole masks, dashed in the colour of its line.
        title: above.
        size: of the figure, inches.
    Returns:
        A figure, widths on a logarithmic axis.
    Raises:
        InputError: no line, a line without a width, runs of unlike widths, or a `whole` of no line.
    Example:
        >>> figure = boundary_curve({"DeepMask": {1: 0.4, 2: 0.5, 4: 0.6}, "SharpMask": [{1: 0.6, 2: 0.7}, {1: 0.7, 2: 0.8}]})
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines]
        [[0.4, 0.5, 0.6], [0.65, 0.75]]

    Lesson: 06.
    """
    runs = {name: [values] if isinstance(values, Mapping) else list(values) for name, values in lines.items()}
    if not runs or not all(runs.values()) or not all(run for several in runs.values() for run in several):
        raise InputError(
            f"lines {list(lines)} hold nothing to draw; wanted {{name: {{width: IoU}}}} with a width or more in each"
        )
    if unknown := set(whole or {}) - set(runs):
        raise InputError(f"whole names {sorted(unknown)}, but the lines are {list(runs)}")
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for i, (name, several) in enumerate(runs.items()):
        widths, colour = sorted(several[0]), CYCLE[i % len(CYCLE)]
        if any(sorted(run) != widths for run in several):
            raise InputError(
                f"runs of {name!r} have unlike widths: {[sorted(run) for run in several]}; measure all in the same bands"
            )
        values = np.array([[run[d] for d in widths] for run in several])
        axis.plot(widths, values.mean(0), color=colour, marker="osD^vPX*"[i % 8], markersize=7, label=name)
        if len(several) > 1:
            axis.fill_between(widths, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        if name in (whole or {}):
            axis.axhline(whole[name], color=colour, linestyle="--", linewidth=1.4, label=f"{name}, whole mask")
    ticks = sorted({d for several in runs.values() for d in several[0]})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{d:g}" for d in ticks], minor=False)
    axis.set_xticks([], minor=True)
    axis.set(xlabel="width of the band around the true boundary, px on either side", ylabel="IoU within the band", title=title)
    axis.grid(alpha=0.3)
    axis.legend()
    return finish(figure)


def ablation(
    rows: Mapping[str, Sequence[float]], *, y: str = "box AP, %", title: str = "", size: tuple[float, float] = (8, 4.2)
) -> Figure:
    """Each run of each variant as a dot, their mean as a bar; the first variant's mean goes on as a dashed line.

    Args:
        rows: by name the value of each run.
        y, title, size: as for the others here.
    Raises:
        InputError: no row, or one without a run.
    Example:
        >>> figure = ablation({"without": [40.0, 41.0], "with": [43.0, 42.0]})
        >>> float(figure.axes[0].lines[0].get_ydata()[0])  # the first variant's mean
        40.5

    Lesson: 10.
    """
    if not rows or not all(len(values) for values in rows.values()):
        raise InputError(f"rows are { ({k: len(v) for k, v in rows.items()}) } runs; wanted at least one row, and a run in each")
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.axhline(np.mean(next(iter(rows.values()))), color="#777777", linestyle="--", linewidth=1.2)
    for i, values in enumerate(rows.values()):
        colour = CYCLE[i % len(CYCLE)]
        axis.hlines(np.mean(values), i - 0.32, i + 0.32, color=colour, linewidth=4)
        axis.plot(np.linspace(-0.12, 0.12, len(values)) + i if len(values) > 1 else [i], values, "o", color=BLACK, markersize=5)
        axis.annotate(f"{np.mean(values):.1f}", (i + 0.35, np.mean(values)), va="center", fontsize=10)
    axis.set_xticks(range(len(rows)), [name.replace("-", "\n") for name in rows])
    axis.set(ylabel=y, title=title, xlim=(-0.6, len(rows) - 0.2))
    axis.grid(alpha=0.3, axis="y")
    return finish(figure)


def precision_curve(
    lines: Mapping[str, Mapping[float, float] | Sequence[Mapping[float, float]]], *, title: str = "",
    size: tuple[float, float] = (8, 4.2),
) -> Figure:  # fmt: skip
    """AP against the IoU from which on a detection counts as right, as the paper's figure 2: one line for each network.

    Args:
        lines: by name {IoU threshold: AP} (`PrecisionReport.by_threshold`), or one of these for each of several runs, drawn
            as their mean in a band from the lowest to the highest.
        title: above.
        size: of the figure, inches.
    Raises:
        InputError: no line, a line without a threshold, or runs of unlike thresholds.
    Example:
        >>> figure = precision_curve({"one": {0.5: 0.6, 0.75: 0.4}, "three": [{0.5: 0.5, 0.75: 0.2}, {0.5: 0.7, 0.75: 0.4}]})
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines]
        [[0.6, 0.4], [0.6, 0.3]]

    Lesson: 10.
    """
    runs = {name: [values] if isinstance(values, Mapping) else list(values) for name, values in lines.items()}
    if not runs or not all(runs.values()) or not all(run for several in runs.values() for run in several):
        raise InputError(f"lines {list(lines)} hold nothing to draw; wanted {{name: {{IoU threshold: AP}}}}, as by_threshold")
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for i, (name, several) in enumerate(runs.items()):
        at, colour = sorted(several[0]), CYCLE[i % len(CYCLE)]
        if any(sorted(run) != at for run in several):
            raise InputError(f"runs of {name!r} have unlike thresholds: {[sorted(run) for run in several]}; measure all alike")
        values = np.array([[run[t] for t in at] for run in several])
        axis.plot(at, values.mean(0), color=colour, marker="osD^vPX*"[i % 8], markersize=6, label=name)
        if len(several) > 1:
            axis.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="IoU from which on a detection is right", ylabel="AP", title=title, ylim=(0, None))
    axis.grid(alpha=0.3)
    if len(runs) > 1:
        axis.legend()
    return finish(figure)


def confusion_table(table: np.ndarray, names: Sequence[str], *, title: str = "") -> Figure:
    """What objects were taken for: rows what they are, columns what was said; the shade is the share of the row.

    Args:
        table: (K + 1, K + 1) counts, the last row background, the last column missed (`evaluation.errors.confusion_matrix`).
        names: K categories.
        title: above.
    Raises:
        InputError: another shape.
    Example:
        >>> figure = confusion_table(np.array([[8, 1, 1], [0, 5, 2], [3, 0, 0]]), ["cat", "dog"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['cat', 'dog', 'background']

    Lesson: 11.
    """
    n = len(names) + 1
    if table.shape != (n, n):
        raise InputError(f"table has shape {tuple(table.shape)} for {n - 1} names; wanted ({n}, {n}): background and missed, too")
    figure, axis = plt.subplots(figsize=(2.2 + 0.62 * n, 1.6 + 0.42 * n), layout="constrained")
    shares = table / table.sum(1, keepdims=True).clip(min=1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(n, n):
        if table[row, column]:
            shade = "white" if shares[row, column] > 0.6 else "#333333"
            axis.text(column, row, f"{table[row, column]}", ha="center", va="center", fontsize=10, color=shade)
    axis.set_xticks(range(n), [*names, "missed"], rotation=40, ha="right")
    axis.set_yticks(range(n), [*names, "background"])
    axis.set(xlabel="taken for", ylabel="is", title=title)
    axis.tick_params(length=0)
    return finish(figure)


def pipeline_map(lit: str) -> Figure:
    """The course's map: the way of a picture, with today's stop lit.

    Raises:
        InputError: lit is not a stop.
    """
    if lit not in STOPS:
        raise InputError(f"lit is {lit!r}; the stops are {', '.join(STOPS)}")
    carried = ("pixels", "features", "coarse masks\n+ scores", "sharp masks", "names + boxes")
    figure, axis = plt.subplots(figsize=(11, 1.5))
    for i, stop in enumerate(STOPS):
        today = stop == lit
        box = FancyBboxPatch(
            (2 * i, 0), 1.3, 0.8, boxstyle="round,pad=0.08", fc=ORANGE if today else "#EEEEEE", ec=BLACK, lw=2 if today else 1
        )
        axis.add_patch(box)
        axis.text(2 * i + 0.65, 0.4, stop, ha="center", va="center", fontsize=10, weight="bold" if today else "normal")
        if i + 1 < len(STOPS):
            axis.annotate("", (2 * i + 1.9, 0.4), (2 * i + 1.4, 0.4), arrowprops={"arrowstyle": "-|>", "color": BLACK})
            axis.text(2 * i + 1.65, 1.0, carried[i], ha="center", va="bottom", fontsize=9, color="#555555")
    axis.set(xlim=(-0.2, 11.6), ylim=(-0.2, 1.6))
    axis.axis("off")
    return finish(figure)


def zones(panels: Sequence[tuple[np.ndarray, tuple[float, float, float, float], str, str]], *, title: str = "") -> Figure:
    """Maps of what a window is: +1 positive (green), -1 negative (vermillion), 0 neither (grey).

    Args:
        panels: each (array of -1, 0, +1; (left, right, bottom, top) of its axes; x label; y label).
        title: above all.
    """
    colours = np.stack([rgb(VERMILLION), np.full(3, 205, np.float32), rgb(GREEN)]).astype(np.uint8)
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.9), squeeze=False, layout="constrained")
    for axis, (kinds, extent, x, y) in zip(axes.flat, panels, strict=True):
        axis.imshow(colours[np.asarray(kinds).astype(int) + 1], extent=extent, origin="lower", aspect="auto")
        axis.set(xlabel=x, ylabel=y)
    names = (("positive", GREEN), ("neither", "#CDCDCD"), ("negative", VERMILLION))
    handles = [Rectangle((0, 0), 1, 1, color=c) for _, c in names]
    figure.legend(handles, [n for n, _ in names], loc="outside lower center", ncols=3)
    if title:
        figure.suptitle(title)
    return finish(figure)


def overlap_table(iou: np.ndarray, finders: Sequence[int] = (), *, title: str = "") -> Figure:
    """IoU of proposals (rows, best first) with objects (columns) as numbers; darker is more.

    Args:
        iou: (K, N), each 0..1.
        finders: row that finds each column, -1 for none; it gets a green frame.
        title: above.
    """
    count, objects = iou.shape
    figure, axis = plt.subplots(figsize=(1.6 + 0.8 * objects, 1.0 + 0.34 * count), layout="constrained")
    axis.imshow(iou, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(count, objects):
        shade = "white" if iou[row, column] > 0.6 else "#555555"
        axis.text(column, row, f"{iou[row, column]:.2f}", ha="center", va="center", fontsize=10, color=shade)
    for column, row in enumerate(finders):
        if row >= 0:
            axis.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=GREEN, linewidth=3.5))
    axis.set_xticks(range(objects)), axis.set_yticks(range(count), range(1, count + 1))
    axis.set(xlabel="object", ylabel="proposal", title=title)
    axis.tick_params(length=0)
    return finish(figure)


def flow(chain: Sequence[tuple[str, int, int]], heads: Sequence[Sequence[tuple[str, int, int]]], *, title: str = "") -> Figure:
    """A network as blocks: one chain, then heads that all start at its end, one below the other.

    Args:
        chain: (name, channels, side in cells) of each block: taller for a larger side, wider for more channels
            (logarithms of both). Side 0 is a vector.
        heads: chains of the same kind.
        title: above all.
    """
    figure, axis = plt.subplots(figsize=(11.5, 3.6))

    def draw(row: Sequence[tuple[str, int, int]], x: float, y: float, colour: str) -> float:
        for j, (name, channels, size) in enumerate(row):
            tall, wide = (np.log2(size + 1) / 6, np.log2(channels + 1) / 13) if size else (np.log2(channels + 1) / 9, 0.12)
            axis.add_patch(Rectangle((x, y - tall / 2), wide, tall, fc=colour, ec=BLACK, alpha=0.85))
            shape = f"{channels}x{size}x{size}" if size else f"{channels}"
            axis.text(x + wide / 2, y + tall / 2 + 0.06, name, ha="center", va="bottom", fontsize=10)
            axis.text(x + wide / 2, y - tall / 2 - 0.06, shape, ha="center", va="top", fontsize=9, color="#444444")
            if j + 1 < len(row):
                axis.annotate("", (x + wide + 0.72, y), (x + wide + 0.12, y), arrowprops={"arrowstyle": "-|>", "color": BLACK})
            x += wide + 0.85
        return x

    right = end = draw(chain, 0, 0, SKY)
    for i, head in enumerate(heads):
        y = 1.6 * ((len(heads) - 1) / 2 - i)
        axis.annotate("", (end - 0.1, y), (end - 0.73, 0), arrowprops={"arrowstyle": "-|>", "color": BLACK})
        right = max(right, draw(head, end, y, (ORANGE, GREEN, PURPLE)[i % 3]))
    axis.set(xlim=(-0.5, right - 0.3), ylim=(-1.6, 1.65), title=title)
    axis.axis("off")
    return finish(figure)
