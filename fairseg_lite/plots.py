"""Every figure of the lessons and of the command line. Functions take arrays and return a matplotlib Figure.

Colours are Okabe and Ito's, told apart by every kind of colour vision: green for positives and hits, vermillion for negatives and
misses, blue for predictions.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW, BLACK)
STOPS = ("picture", "trunk", "DeepMask", "SharpMask", "MultiPathNet", "named masks")


def style() -> None:
    """Large, labelled, small on disk: called once by a lesson's set-up."""
    plt.rcParams.update(
        {
            "figure.dpi": 90, "savefig.dpi": 90, "font.size": 12, "axes.titlesize": 12, "axes.labelsize": 12,
            "axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color=CYCLE),
            "lines.linewidth": 2.2, "legend.frameon": False, "image.interpolation": "nearest",
        }
    )  # fmt: skip
    try:  # in a notebook: pictures as JPEG, several times smaller than PNG
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        if get_ipython() is not None:
            set_matplotlib_formats("jpeg", pil_kwargs={"quality": 76, "optimize": True, "progressive": True})
    except ImportError:
        pass


def _finish(figure: Figure) -> Figure:
    plt.close(figure)  # a notebook shows what a cell returns; without this it would show it twice
    return figure


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def to_pixels(images: Tensor) -> np.ndarray:
    """Undo `geometry.pixels.normalise`: (..., 3, H, W) float -> (..., H, W, 3) uint8."""
    x = images.detach().cpu().float().movedim(-3, -1)
    x = x * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    return (x * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def tinted(image: np.ndarray, masks: np.ndarray, colours: Sequence[str] = CYCLE, *, alpha: float = 0.45) -> np.ndarray:
    """The picture with each mask in a colour of its own and an outline of one pixel.

    Args:
        image: (H, W, 3) uint8.
        masks: (N, H, W) bool; later masks lie on top.
        colours: taken in turn.
        alpha: 0 shows the picture, 1 the colour.
    Returns:
        (H, W, 3) uint8.
    """
    out = image.astype(np.float32)
    for i, mask in enumerate(np.asarray(masks, bool)):
        colour = _rgb(colours[i % len(colours)])
        out[mask] = (1 - alpha) * out[mask] + alpha * colour
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        out[mask & ~inner] = colour
    return out.round().astype(np.uint8)


def grid(
    images: Sequence[np.ndarray], titles: Sequence[str] = (), *, columns: int = 4, side: float = 2.6,
    frames: Sequence[str] = (), cmap: str = "viridis", limits: tuple[float, float] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """Pictures side by side; (H, W, 3) uint8, or (H, W) numbers drawn with a colour map.

    Args:
        images: at least one.
        titles: above each, as far as given.
        columns: pictures in a row.
        side: inches of a picture's width.
        frames: a colour around each, as far as given.
        cmap, limits: for pictures of numbers.
        title: above all.
    """
    if not len(images):
        raise ValueError("no picture to show; give at least one")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    ratio = images[0].shape[0] / images[0].shape[1]
    height = rows * (side * ratio + (0.35 if titles else 0.08)) + (0.4 if title else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * side, height), squeeze=False, layout="constrained")
    for i, axis in enumerate(axes.flat):
        axis.set_xticks([]), axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(i < len(frames))
            if i < len(frames):
                spine.set(color=frames[i], linewidth=4)
        if i >= len(images):
            axis.axis("off")
            continue
        low, high = limits or (None, None)
        axis.imshow(images[i], cmap=cmap, vmin=low, vmax=high)
        if i < len(titles):
            axis.set_title(titles[i], fontsize=11)
    if title:
        figure.suptitle(title)
    return _finish(figure)


def scene(
    image: np.ndarray, masks: np.ndarray, boxes: np.ndarray | None = None, names: Sequence[str] = (), *, side: float = 5
) -> Figure:
    """A picture beside the same with its instances: masks tinted, boxes (N, 4) xyxy, names at the box."""
    ratio = image.shape[0] / image.shape[1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(2 * side, side * ratio), layout="constrained")
    left.imshow(image), right.imshow(tinted(image, masks))
    for axis in (left, right):
        axis.axis("off")
    for i, (x1, y1, x2, y2) in enumerate(boxes if boxes is not None else ()):
        colour = CYCLE[i % len(CYCLE)]
        right.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2))
        if i < len(names):
            label = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.15", "alpha": 0.85}
            right.text(x1, max(y1 - 2, 8), names[i], fontsize=10, bbox=label, va="bottom")
    return _finish(figure)


def patches(images: Tensor, masks: Tensor, labels: Tensor, *, context: int = 32, columns: int = 8, side: float = 1.5) -> Figure:
    """Training patches: green frames for positives with the mask tinted, vermillion for negatives; the context is dimmed."""
    pictures, half = to_pixels(images), context // 2
    size = pictures.shape[1] - context
    shown = []
    for picture, mask in zip(pictures, masks.cpu(), strict=True):
        inside = picture[half : half + size, half : half + size]
        up = torch.nn.functional.interpolate(mask[None, None].float(), (size, size), mode="bilinear")[0, 0] > 0.5
        dim = (picture * 0.5 + 100).astype(np.uint8)
        dim[half : half + size, half : half + size] = tinted(inside, up[None].numpy(), [GREEN])
        shown.append(dim)
    return grid(shown, columns=columns, side=side, frames=[GREEN if y > 0 else VERMILLION for y in labels])


def hits(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Prediction against truth on a picture: green where both, vermillion where missed, blue where too much."""
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2)
    out = 0.6 * grey + 60
    for mask, colour in ((truth & predicted, GREEN), (truth & ~predicted, VERMILLION), (predicted & ~truth, BLUE)):
        out[mask] = 0.35 * out[mask] + 0.65 * _rgb(colour)
    return out.clip(0, 255).astype(np.uint8)


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
    return _finish(figure)


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
    return _finish(figure)


def histogram(values: Mapping[str, Sequence[float]], *, x: str, bins: Sequence[float], title: str = "") -> Figure:
    """Histograms of shares in [0, 1], by name."""
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for name, numbers in values.items():
        axis.hist(numbers, bins=bins, weights=np.full(len(numbers), 1 / max(len(numbers), 1)), alpha=0.6, label=name)
    axis.set(xlabel=x, ylabel="share", title=title)
    if len(values) > 1:
        axis.legend()
    return _finish(figure)


def pipeline_map(lit: str) -> Figure:
    """The course's map: the way of a picture, with today's stop lit.

    Raises:
        ValueError: lit is not a stop.
    """
    if lit not in STOPS:
        raise ValueError(f"lit is {lit!r}; the stops are {', '.join(STOPS)}")
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
    return _finish(figure)


def patch_hits(
    images: Tensor, masks: Tensor, predicted: Tensor, *, context: int = 32, columns: int = 8, side: float = 1.6
) -> Figure:
    """Patches without their context, truth against prediction in the colours of `hits`; masks are (B, T, T) bool."""
    pictures, half = to_pixels(images), context // 2
    size = pictures.shape[1] - context
    both = torch.stack([masks.cpu(), predicted.cpu()], 1).float()
    both = torch.nn.functional.interpolate(both, (size, size), mode="nearest").bool().numpy()
    shown = [hits(p[half : half + size, half : half + size], *pair) for p, pair in zip(pictures, both, strict=True)]
    return grid(shown, columns=columns, side=side)


def windows(
    image: np.ndarray, squares: Sequence, spec, *, labels: Sequence[float] = (), side: float = 5, title: str = ""
) -> Figure:
    """Patches drawn in their picture: the patch solid, the place of a canonical object dashed, the centre a cross.

    Args:
        image: (H, W, 3) uint8.
        squares: `data.patches.Window`s; they may reach outside the picture.
        spec: `data.patches.PatchSpec`, for the sides of patch and object.
        labels: green for +1, vermillion for -1; without labels each window has a colour of its own.
        side: inches of the figure.
        title: above the picture.
    """
    h, w = image.shape[:2]
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(image, extent=(0, w, h, 0))
    reach = [0.0, 0.0, w, h]
    for i, s in enumerate(squares):
        colour = (GREEN if labels[i] > 0 else VERMILLION) if len(labels) else CYCLE[i % len(CYCLE)]
        for length, line, wide in ((spec.patch_size, "-", 2.5), (spec.object_size, "--", 1.6)):
            half = length / s.scale / 2
            for under, shade in ((wide + 2, "white"), (wide, colour)):
                axis.add_patch(Rectangle((s.x - half, s.y - half), 2 * half, 2 * half, fill=False, ec=shade, lw=under, ls=line))
        axis.plot(s.x, s.y, "+", color=colour, markersize=11, markeredgewidth=2.5)
        half = spec.patch_size / s.scale / 2
        reach = [min(reach[0], s.x - half), min(reach[1], s.y - half), max(reach[2], s.x + half), max(reach[3], s.y + half)]
    axis.set(xlim=(reach[0] - 3, reach[2] + 3), ylim=(reach[3] + 3, reach[1] - 3), xlabel="x, px", ylabel="y, px", title=title)
    return _finish(figure)


def zones(panels: Sequence[tuple[np.ndarray, tuple[float, float, float, float], str, str]], *, title: str = "") -> Figure:
    """Maps of what a window is: +1 positive (green), -1 negative (vermillion), 0 neither (grey).

    Args:
        panels: each (array of -1, 0, +1; (left, right, bottom, top) of its axes; x label; y label).
        title: above all.
    """
    colours = np.stack([_rgb(VERMILLION), np.full(3, 205, np.float32), _rgb(GREEN)]).astype(np.uint8)
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.9), squeeze=False, layout="constrained")
    for axis, (kinds, extent, x, y) in zip(axes.flat, panels, strict=True):
        axis.imshow(colours[np.asarray(kinds).astype(int) + 1], extent=extent, origin="lower", aspect="auto")
        axis.set(xlabel=x, ylabel=y)
    names = (("positive", GREEN), ("neither", "#CDCDCD"), ("negative", VERMILLION))
    handles = [Rectangle((0, 0), 1, 1, color=c) for _, c in names]
    figure.legend(handles, [n for n, _ in names], loc="outside lower center", ncols=3)
    if title:
        figure.suptitle(title)
    return _finish(figure)


def frames(image: np.ndarray, sets: Mapping[str, np.ndarray], *, side: float = 4.5) -> Figure:
    """The same picture once for each set of boxes (N, 4) xyxy in pixels, by title; boxes may reach beyond the picture."""
    figure, axes = plt.subplots(1, len(sets), figsize=(side * len(sets), side), squeeze=False, layout="constrained")
    for axis, (title, boxes) in zip(axes[0], sets.items(), strict=True):
        axis.imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=CYCLE[i % len(CYCLE)], linewidth=3))
            axis.plot((x1 + x2) / 2, (y1 + y2) / 2, "+", color=CYCLE[i % len(CYCLE)], markersize=16, markeredgewidth=3)
        axis.set_title(title)
        axis.set_xticks([]), axis.set_yticks([])
    return _finish(figure)


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
    return _finish(figure)


def close_ups(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    *,
    side: float = 1.6,
) -> Figure:
    """Objects cut out of their pictures: above as they are, below the best proposal against the truth (see `hits`).

    Args:
        images: (H, W, 3) uint8 each.
        truths, found: (H, W) bool each; a truth has at least one pixel.
        titles: above each, as far as given.
        side: inches of a cut-out.
    """
    above, below = [], []
    for image, truth, mask in zip(images, truths, found, strict=True):
        rows, cols = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
        half = max(16, int(0.9 * max(np.ptp(rows), np.ptp(cols))))
        corner = (rows[0] + rows[-1]) // 2 - half, (cols[0] + cols[-1]) // 2 - half
        top, left = (int(np.clip(c, 0, max(n - 2 * half, 0))) for c, n in zip(corner, truth.shape, strict=True))
        cut = slice(top, top + 2 * half), slice(left, left + 2 * half)
        above.append(image[cut]), below.append(hits(image, truth, mask)[cut])
    return grid(above + below, titles, columns=len(above), side=side)
