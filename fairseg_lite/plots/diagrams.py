"""Tables of numbers, maps, blocks: what is no curve."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from fairseg_lite.errors import InputError
from fairseg_lite.plots.style import BLACK, GREEN, ORANGE, PURPLE, SKY, VERMILLION, finish, rgb

STOPS = ("picture", "trunk", "DeepMask", "SharpMask", "MultiPathNet", "named masks")


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
    shares = table / table.sum(1, keepdims=True).clip(min=1)
    figure, axis = _numbers(table, shares, (2.2 + 0.62 * n, 1.6 + 0.42 * n), "d", 1)
    axis.set_xticks(range(n), [*names, "missed"], rotation=40, ha="right")
    axis.set_yticks(range(n), [*names, "background"])
    axis.set(xlabel="taken for", ylabel="is", title=title)
    return finish(figure)


def overlap_table(iou: np.ndarray, finders: Sequence[int] = (), *, title: str = "") -> Figure:
    """IoU of proposals (rows, best first) with objects (columns) as numbers; darker is more.

    Args:
        iou: (K, N), each 0..1.
        finders: row that finds each column, -1 for none; it gets a green frame.
        title: above.
    """
    count, objects = iou.shape
    figure, axis = _numbers(iou, iou, (1.6 + 0.8 * objects, 1.0 + 0.34 * count), ".2f", 0)
    for column, row in enumerate(finders):
        if row >= 0:
            axis.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=GREEN, linewidth=3.5))
    axis.set_xticks(range(objects)), axis.set_yticks(range(count), range(1, count + 1))
    axis.set(xlabel="object", ylabel="proposal", title=title)
    return finish(figure)


def _numbers(table: np.ndarray, shades: np.ndarray, size: tuple[float, float], text: str, least: float) -> tuple:
    """A table drawn as numbers, darker where the shade (0..1) is more; those below the least are left out."""
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    axis.imshow(shades, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(*table.shape):
        if table[row, column] >= least:
            shade = "white" if shades[row, column] > 0.6 else "#444444"
            axis.text(column, row, format(table[row, column], text), ha="center", va="center", fontsize=10, color=shade)
    axis.tick_params(length=0)
    return figure, axis


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


def cells(image: np.ndarray, heats: Mapping[str, np.ndarray], *, border: int = 0) -> Figure:
    """A patch under the grid of its feature cells, and beside it how much each pixel matters to the middle cell.

    Args:
        image: (H, W, 3) uint8, sides multiples of the stride, 16 px.
        heats: by title (H, W) numbers >= 0, drawn relative to their largest; the image's size is dashed around the middle.
        border: cells at each edge that are context, drawn pale.
    """
    (h, w), stride = image.shape[:2], 16
    figure, axes = plt.subplots(1, 1 + len(heats), figsize=(3.4 * (1 + len(heats)), 3.7), squeeze=False, layout="constrained")
    edge = border * stride
    pale = (image * 0.5 + 120).astype(np.uint8)
    pale[edge : h - edge, edge : w - edge] = image[edge : h - edge, edge : w - edge]
    axes[0, 0].imshow(pale, extent=(0, w, h, 0))
    axes[0, 0].set_title(
        f"{h // stride} x {w // stride} cells, {h // stride - 2 * border} x {w // stride - 2 * border} of the patch"
    )
    for axis, (title, heat) in zip(axes[0, 1:], heats.items(), strict=True):
        axis.imshow(np.sqrt(heat / heat.max()), extent=(0, heat.shape[1], heat.shape[0], 0), cmap="viridis")
        seen_y, seen_x = np.flatnonzero(heat.any(1)), np.flatnonzero(heat.any(0))
        corner = (seen_x[[0, -1]].mean() + 0.5 - w / 2, seen_y[[0, -1]].mean() + 0.5 - h / 2)
        axis.add_patch(Rectangle(corner, w, h, fill=False, ec="white", lw=2, ls="--"))
        axis.set_title(title)
    row, column = h // stride // 2 * stride, w // stride // 2 * stride
    axes[0, 0].add_patch(Rectangle((column, row), stride, stride, fc=ORANGE, ec=BLACK, lw=3))
    for at in range(0, max(h, w) + 1, stride):
        axes[0, 0].axhline(at, color="white", lw=1), axes[0, 0].axvline(at, color="white", lw=1)
    for axis in axes.flat:
        axis.set_xticks([]), axis.set_yticks([])
    return finish(figure)
