"""Tables of numbers, maps, blocks, boxes: what is no curve."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.plots.charts import BLACK, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, finish, rgb
from fairseg_lite.plots.letters import families
from fairseg_lite.plots.pictures import grid

LETTERS = 32  # of a name beside a table
STOPS = ("picture", "trunk", "DeepMask", "SharpMask", "MultiPathNet", "named masks")


def pipeline_map(lit: str) -> Figure:
    """The course's map: the way of a picture, with today's stop lit; InputError if that is not a stop."""
    check_choice("lit", lit, STOPS)
    carried = ("pixels", "features", "coarse masks\n+ scores", "sharp masks", "names + boxes")
    figure, axis = plt.subplots(figsize=(9.6, 1.3), layout="constrained")
    for i, stop in enumerate(STOPS):
        today = stop == lit
        look = {"fc": ORANGE if today else "#EEEEEE", "ec": BLACK, "lw": 2 if today else 1}
        axis.add_patch(FancyBboxPatch((2 * i, 0), 1.36, 0.8, boxstyle="round,pad=0.08", **look))
        axis.text(2 * i + 0.68, 0.4, stop, ha="center", va="center", fontsize=10, weight="bold" if today else "normal")
        if i + 1 < len(STOPS):
            axis.annotate("", (2 * i + 1.94, 0.4), (2 * i + 1.42, 0.4), arrowprops={"arrowstyle": "-|>", "color": BLACK})
            axis.text(2 * i + 1.68, 0.98, carried[i], ha="center", va="bottom", fontsize=9, color="#555555")
    axis.set(xlim=(-0.12, 11.48), ylim=(-0.12, 1.6))
    axis.axis("off")
    return finish(figure)


def confusion_table(table: np.ndarray, names: Sequence[str], *, title: str = "") -> Figure:
    """What objects were taken for: rows what they are, columns what was said; the shade is the share of the row.

    Args:
        table: (K + 1, K + 1) counts, the last row background, the last column missed (`evaluation.errors.confusion_matrix`).
        names: K categories; title: above.
    Raises: InputError, another shape.
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
    as_written = {"parse_math": False, "fontfamily": families(names)}
    short = [name if len(name) <= LETTERS else f"{name[: LETTERS - 3].rstrip()}..." for name in names]
    axis.set_xticks(range(n), [*short, "missed"], rotation=40, ha="right", **as_written)
    axis.set_yticks(range(n), [*short, "background"], **as_written)
    axis.set(xlabel="taken for", ylabel="is", title=title)
    return finish(figure)


def overlap_table(iou: np.ndarray, finders: Sequence[int] = (), *, title: str = "") -> Figure:
    """IoU of proposals (rows, best first) with objects (columns) as numbers; darker is more.

    Args:
        iou: (K, N), each 0..1.
        finders: row that finds each column, -1 for none; it gets a green frame. title: above.
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
        heads: chains of the same kind; title: above all.
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
    rows, columns = h // stride, w // stride
    axes[0, 0].set_title(f"{rows} x {columns} cells, {rows - 2 * border} x {columns - 2 * border} of the patch")
    for axis, (title, heat) in zip(axes[0, 1:], heats.items(), strict=True):
        axis.imshow(np.sqrt(heat / heat.max()), extent=(0, heat.shape[1], heat.shape[0], 0), cmap="viridis")
        seen_y, seen_x = np.flatnonzero(heat.any(1)), np.flatnonzero(heat.any(0))
        corner = (seen_x[[0, -1]].mean() + 0.5 - w / 2, seen_y[[0, -1]].mean() + 0.5 - h / 2)
        axis.add_patch(Rectangle(corner, w, h, fill=False, ec="white", lw=2, ls="--"))
        axis.set_title(title)
    axes[0, 0].add_patch(Rectangle((columns // 2 * stride, rows // 2 * stride), stride, stride, fc=ORANGE, ec=BLACK, lw=3))
    for at in range(0, max(h, w) + 1, stride):
        axes[0, 0].axhline(at, color="white", lw=1), axes[0, 0].axvline(at, color="white", lw=1)
    plt.setp(axes.flat, xticks=[], yticks=[])
    return finish(figure)


def windows(image: np.ndarray, squares: Sequence, spec, *, side: float = 5, title: str = "") -> Figure:
    """Patches drawn in their picture: the patch solid, the place of a canonical object dashed, the centre a cross.

    Args:
        image: (H, W, 3) uint8.
        squares: `data.patches.Window`s; they may reach outside the picture.
        spec: `data.patches.PatchSpec`, for the sides of patch and object.
        side, title: inches of the figure, and what stands above the picture.
    """
    h, w = image.shape[:2]
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(image, extent=(0, w, h, 0))
    corners = [np.array([[0, 0], [w, h]])]
    for i, s in enumerate(squares):
        colour = CYCLE[i % len(CYCLE)]
        for length, line, wide in ((spec.patch_size, "-", 2.5), (spec.object_size, "--", 1.6)):
            corners.append(np.array([s.x, s.y]) + np.array([[-0.5], [0.5]]) * length / s.scale)
            _frame(axis, corners[-1].ravel(), colour, wide, line)
        axis.plot(s.x, s.y, "+", color=colour, markersize=11, markeredgewidth=2.5)
    (left, top), (right, bottom) = np.min(corners, (0, 1)) - 3, np.max(corners, (0, 1)) + 3
    axis.set(xlim=(left, right), ylim=(bottom, top), xlabel="x, px", ylabel="y, px", title=title)
    return finish(figure)


def frames(image: np.ndarray, sets: Mapping[str, np.ndarray]) -> Figure:
    """The same picture once for each set of boxes (N, 4) xyxy in pixels, by title; boxes may reach beyond the picture."""
    figure, axes = plt.subplots(1, len(sets), figsize=(4.5 * len(sets), 4.5), squeeze=False, layout="constrained")
    for axis, (title, boxes) in zip(axes[0], sets.items(), strict=True):
        axis.imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            colour = CYCLE[i % len(CYCLE)]
            _frame(axis, (x1, y1, x2, y2), colour, 3)
            axis.plot((x1 + x2) / 2, (y1 + y2) / 2, "+", color=colour, markersize=16, markeredgewidth=3)
        axis.set(title=title, xticks=[], yticks=[])
    return finish(figure)


def box_close_ups(images: Sequence[np.ndarray], truths: np.ndarray, boxes: np.ndarray, titles: Sequence[str] = ()) -> Figure:
    """Boxes cut out of their pictures, each (vermillion) with the true box of its object (green).

    Args:
        images: (H, W, 3) uint8 each.
        truths, boxes: (N, 4) each, xyxy in pixels of the pictures.
        titles: above each, as far as given.
    Raises: InputError, not as many images as boxes and as truths.
    Example:
        >>> figure = box_close_ups([np.zeros((50, 60, 3), np.uint8)], np.array([[10, 10, 30, 40]]), np.array([[12, 14, 30, 40]]))
        >>> [int(r.get_width()) for r in figure.axes[0].patches]  # each on a white one
        [20, 20, 18, 18]

    Lesson: 10.
    """
    if not len(images) == len(truths) == len(boxes):
        raise InputError(f"{len(images)} pictures, {len(truths)} true boxes and {len(boxes)} others; wanted one of each")
    figure = grid(images, titles, columns=6, side=2.2)
    for axis, image, *pair in zip(figure.axes, images, truths, boxes, strict=False):
        axis.images[0].set_extent((0, image.shape[1], image.shape[0], 0))
        for box, colour in zip(pair, (GREEN, VERMILLION), strict=True):
            _frame(axis, box, colour, 2.5)
        low, high = np.minimum(*pair)[:2], np.maximum(*pair)[2:]
        half = max(14, 0.7 * (high - low).max())
        x, y = (min(max(at, half), max(n - half, half)) for at, n in zip((low + high) / 2, image.shape[1::-1], strict=True))
        axis.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    return figure


def _frame(axis: plt.Axes, box: Sequence[float], colour: str, wide: float, line: str = "-") -> None:
    """A box (4,) xyxy on a wider white one, to be seen on any ground."""
    x1, y1, x2, y2 = box
    for under, shade in ((wide + 2, "white"), (wide, colour)):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=shade, lw=under, ls=line))
