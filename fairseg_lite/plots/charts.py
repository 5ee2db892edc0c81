"""Colours and settings of every figure; curves and bars: what was measured, what it costs, where the time goes.

Colours are Okabe and Ito's, told apart by every kind of colour vision: green for positives and hits, vermillion for negatives and
misses, blue for predictions.
"""

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fairseg_lite.errors import InputError

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW, BLACK)
MARKERS = "osD^vPX*"
STAGES = {  # of `propose`, in their order
    "pyramid": BLACK, "trunk": BLUE, "512-d layer": GREEN, "score head": YELLOW, "lateral": ORANGE, "top k": PURPLE,
    "masks": VERMILLION, "paste": SKY,
}  # fmt: skip


def style() -> None:
    """Large, labelled, small on disk: called once by a lesson's set-up."""
    plt.rcParams.update(
        {
            "figure.dpi": 90, "savefig.dpi": 90, "font.size": 12, "axes.titlesize": 12, "axes.labelsize": 12,
            "axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color=CYCLE),
            "lines.linewidth": 2.2, "legend.frameon": False,
        }
    )  # fmt: skip
    try:  # in a notebook: pictures as JPEG, several times smaller than PNG
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("jpeg", pil_kwargs={"quality": 76, "optimize": True, "progressive": True})
    except ImportError:
        pass


def finish(figure: Figure, axis: plt.Axes | None = None, lines: Collection = ()) -> Figure:
    """Close a figure and return it; the axis of a chart gets a grid and, of several lines, a legend."""
    if axis is not None:
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend()
    plt.close(figure)  # a notebook shows what a cell returns; without this it would show it twice
    return figure


def rgb(colour: str) -> np.ndarray:
    """ "#RRGGBB" as (3,) float32 of 0 to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


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
    axis.set(xlabel=x, ylabel=y, title=title, xscale="log" if logx else "linear", ylim=(ymin, None))
    return finish(figure, axis, lines)


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


def histogram(values: Mapping[str, Sequence[float]], *, x: str, bins: Sequence[float]) -> Figure:
    """Histograms of shares in [0, 1], by name."""
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for name, numbers in values.items():
        axis.hist(numbers, bins=bins, weights=np.full(len(numbers), 1 / max(len(numbers), 1)), alpha=0.6, label=name)
    axis.set(xlabel=x, ylabel="share")
    if len(values) > 1:
        axis.legend()
    return finish(figure)


def boundary_curve(lines: Mapping[str, Mapping[float, float] | Sequence[Mapping[float, float]]]) -> Figure:
    """IoU near the true boundary by the width of the band, on a logarithmic axis: one line a model.

    Args:
        lines: by name {width in px: IoU} (`BoundaryReport.trimap_iou`), or one of these for each of several runs, drawn as
            their mean in a band from the lowest to the highest. Models may have other widths, runs of one model not.
    Raises: InputError, no line, a line without a width, or runs of unlike widths.
    Example:
        >>> figure = boundary_curve({"DeepMask": {1: 0.4, 2: 0.5, 4: 0.6}, "SharpMask": [{1: 0.6, 2: 0.7}, {1: 0.7, 2: 0.8}]})
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines]
        [[0.4, 0.5, 0.6], [0.65, 0.75]]

    Lesson: 06.
    """
    figure, axis, ticks = _runs(lines, (8, 4.2))
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{d:g}" for d in ticks], minor=False)
    axis.set_xticks([], minor=True)
    axis.set(xlabel="width of the band around the true boundary, px on either side", ylabel="IoU within the band")
    return figure


def precision_curve(
    lines: Mapping[str, Mapping[float, float] | Sequence[Mapping[float, float]]], *, size: tuple[float, float] = (8, 4.2)
) -> Figure:
    """AP against the IoU from which on a detection counts as right, as the paper's figure 2: one line for each network.

    Args:
        lines: by name {IoU threshold: AP} (`PrecisionReport.by_threshold`), or one for each run; InputErrors as `boundary_curve`.
        size: of the figure, inches.
    Example:
        >>> figure = precision_curve({"one": {0.5: 0.6, 0.75: 0.4}, "three": [{0.5: 0.5, 0.75: 0.2}, {0.5: 0.7, 0.75: 0.4}]})
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines]
        [[0.6, 0.4], [0.6, 0.3]]

    Lesson: 10.
    """
    figure, axis, _ = _runs(lines, size)
    axis.set(xlabel="IoU from which on a detection is right", ylabel="AP", ylim=(0, None))
    return figure


def _runs(lines: Mapping, size: tuple[float, float]) -> tuple[Figure, plt.Axes, list[float]]:
    """A line for each name, told apart by colour and marker; of several runs their mean in a band. And all x values."""
    runs = {name: [values] if isinstance(values, Mapping) else list(values) for name, values in lines.items()}
    if not runs or not all(several and all(several) for several in runs.values()):
        raise InputError(f"lines {list(lines)} hold nothing to draw; wanted {{name: {{x: value}}}} with a value or more in each")
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for i, (name, several) in enumerate(runs.items()):
        at, colour = sorted(several[0]), CYCLE[i % len(CYCLE)]
        if any(sorted(run) != at for run in several):
            raise InputError(f"runs of {name!r} are unlike: measured at {[sorted(run) for run in several]}; measure all alike")
        values = np.array([[run[x] for x in at] for run in several])
        axis.plot(at, values.mean(0), color=colour, marker=MARKERS[i % 8], markersize=6, label=name)
        if len(several) > 1:
            axis.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    return finish(figure, axis, runs), axis, sorted({x for several in runs.values() for x in several[0]})


def ablation(rows: Mapping[str, Sequence[float]]) -> Figure:
    """Each run of each variant as a dot, their mean as a bar; the first variant's mean goes on as a dashed line.

    Args: rows, by name the box AP of each run, %. Raises: InputError, no row, or one without a run.
    Example:
        >>> figure = ablation({"without": [40.0, 41.0], "with": [43.0, 42.0]})
        >>> float(figure.axes[0].lines[0].get_ydata()[0])  # the first variant's mean
        40.5

    Lesson: 10.
    """
    if not rows or not all(len(values) for values in rows.values()):
        raise InputError(f"rows are { ({k: len(v) for k, v in rows.items()}) } runs; wanted at least one row, and a run in each")
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    axis.axhline(np.mean(next(iter(rows.values()))), color="#777777", linestyle="--", linewidth=1.2)
    for i, values in enumerate(rows.values()):
        colour = CYCLE[i % len(CYCLE)]
        axis.hlines(np.mean(values), i - 0.32, i + 0.32, color=colour, linewidth=4)
        axis.plot(np.linspace(-0.12, 0.12, len(values)) + i if len(values) > 1 else [i], values, "o", color=BLACK, markersize=5)
        axis.annotate(f"{np.mean(values):.1f}", (i + 0.35, np.mean(values)), va="center", fontsize=10)
    axis.set_xticks(range(len(rows)), [name.replace("-", "\n") for name in rows])
    axis.set(ylabel="box AP, %", xlim=(-0.6, len(rows) - 0.2))
    axis.grid(alpha=0.3, axis="y")
    return finish(figure)


def stages(seconds: Mapping[str, Mapping[str, float]]) -> Figure:
    """Where the time goes: a bar for each run, cut into its stages, with the share of the larger ones.

    Args:
        seconds: by run {stage: seconds} (`bench.Stopwatch.seconds`), drawn in milliseconds. The stages of `propose` have
            the same colours in every figure.
    Raises: InputError, nothing to draw.
    Example:
        >>> figure = stages({"coarse": {"trunk": 0.03}, "sharp": {"trunk": 0.03, "masks": 0.06}})
        >>> [round(bar.get_width()) for bar in figure.axes[0].patches]
        [30, 30, 60]

    Lesson: 07.
    """
    if not seconds or not all(sum(run.values()) > 0 for run in seconds.values()):
        raise InputError(f"seconds hold a run without a stage to draw: {dict(seconds)}; wanted {{run: {{stage: seconds}}}}")
    unknown = [s for run in seconds.values() for s in run if s not in STAGES]
    colours = STAGES | {s: CYCLE[i % len(CYCLE)] for i, s in enumerate(dict.fromkeys(unknown))}
    figure, axis = plt.subplots(figsize=(10, 1.1 + 0.62 * len(seconds)), layout="constrained")
    longest = max(sum(run.values()) for run in seconds.values())
    for row, run in enumerate(seconds.values()):
        left, total = 0.0, sum(run.values())
        for stage, value in sorted(run.items(), key=lambda item: list(colours).index(item[0])):
            axis.barh(row, 1e3 * value, left=1e3 * left, height=0.7, color=colours[stage], edgecolor="white")
            if value > 0.05 * longest:
                shade = "white" if rgb(colours[stage]).mean() < 110 else "black"
                place = {"ha": "center", "va": "center", "fontsize": 10, "color": shade}
                axis.text(1e3 * (left + value / 2), row, f"{value / total:.0%}", **place)
            left += value
    axis.set_yticks(range(len(seconds)), list(seconds))
    axis.invert_yaxis()
    axis.set(xlabel="milliseconds")
    names = [s for s in colours if any(s in run for run in seconds.values())]
    handles = [Rectangle((0, 0), 1, 1, color=colours[n]) for n in names]
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 8), fontsize=10)
    return finish(figure)


def tradeoff(lines: Mapping[str, Sequence[tuple]], *, x: str, y: str, joined: bool = True) -> Figure:
    """What is gained for what it costs: labelled points, up is better and left is cheaper.

    Args:
        lines: by name the points (cost, gain, label) or (cost, gain, label, lowest, highest), the range of several runs.
        x, y, joined: labels; and whether a line goes through the points of a name.
    Raises: InputError, nothing to draw.
    Example:
        >>> figure = tradeoff({"DeepMask": [(0.1, 0.4, "10"), (0.2, 0.5, "100")]}, x="seconds", y="AR")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['10', '100']

    Lesson: 07.
    """
    if not lines or not all(lines.values()):
        raise InputError(f"lines {list(lines)} hold no point to draw; wanted {{name: [(cost, gain, label), ...]}}")
    figure, axis = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
    for i, (name, points) in enumerate(lines.items()):
        colour, xs, ys = CYCLE[i % len(CYCLE)], [p[0] for p in points], [p[1] for p in points]
        axis.plot(xs, ys, linestyle="-" if joined else "none", marker=MARKERS[i % 8], markersize=7, color=colour, label=name)
        for cost, gain, label, *ends in points:
            if ends:
                axis.vlines(cost, *ends, color=colour, linewidth=1.5)
            at = (5, -13 if i % 2 == 0 and joined else 7)  # of two lines the labels stay apart
            axis.annotate(label, (cost, gain), xytext=at, textcoords="offset points", fontsize=9, color=colour)
    axis.set(xlabel=x, ylabel=y)
    axis.margins(0.12)
    return finish(figure, axis, lines)
