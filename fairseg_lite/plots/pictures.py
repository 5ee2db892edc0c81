"""Pictures with masks, boxes and windows drawn in."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD
from fairseg_lite.plots.style import BLACK, BLUE, CYCLE, GREEN, ORANGE, VERMILLION, finish, rgb


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
        colour = rgb(colours[i % len(colours)])
        out[mask] = (1 - alpha) * out[mask] + alpha * colour
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        out[mask & ~inner] = colour
    return out.round().astype(np.uint8)


def named(
    image: np.ndarray, boxes: np.ndarray, names: Sequence[str], kinds: Sequence[int], masks: np.ndarray | None = None, *,
    side: int = 640,
) -> np.ndarray:  # fmt: skip
    """The picture with objects drawn in: mask tinted, box, and the name at its upper edge, a colour for each kind.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) xyxy in pixels, best first: the best lies on top.
        names: N texts, such as "cat .93".
        kinds: N numbers; equal ones get equal colours.
        masks: (N, H, W) bool, or none.
        side: a picture whose longer side is shorter is enlarged by a whole number, so that names can be read; px.
    Returns:
        (sH, sW, 3) uint8, s the whole number.
    Example:
        >>> named(np.zeros((200, 320, 3), np.uint8), np.array([[10, 20, 90, 80]]), ["cat .93"], [0]).shape
        (400, 640, 3)

    Lesson: 11.
    """
    colours = [CYCLE[k % len(CYCLE)] for k in kinds]
    order = list(reversed(range(len(boxes))))
    if masks is not None and len(masks):
        image = tinted(image, np.asarray(masks)[order], [colours[i] for i in order])
    factor = max(1, side // max(image.shape[:2]))
    canvas = Image.fromarray(image).resize((factor * image.shape[1], factor * image.shape[0]), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=max(11, max(canvas.size) // 45))
    for i in order:
        x1, y1, x2, y2 = (float(v) * factor for v in boxes[i])
        x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # the last pixel that belongs to the box
        draw.rectangle((x1, y1, x2, y2), outline=colours[i], width=max(1, max(canvas.size) // 320))
        left, top, right, bottom = draw.textbbox((0, 0), names[i], font=font)
        x = min(max(x1, 0), max(canvas.width - (right - left) - 4, 0))
        y = y1 - (bottom - top) - 5 if y1 >= bottom - top + 5 else min(max(y1, 0), canvas.height)
        draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colours[i])
        shade = "black" if rgb(colours[i]) @ (0.299, 0.587, 0.114) > 140 else "white"
        draw.text((x + 2 - left, y + 2 - top), names[i], fill=shade, font=font)
    return np.asarray(canvas)


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
        raise InputError("no picture to show; give at least one")
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
    return finish(figure)


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
    return finish(figure)


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
        out[mask] = 0.35 * out[mask] + 0.65 * rgb(colour)
    return out.clip(0, 255).astype(np.uint8)


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
    return finish(figure)


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
    return finish(figure)


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


def box_close_ups(
    images: Sequence[np.ndarray], truths: np.ndarray, boxes: np.ndarray, titles: Sequence[str] = (), *, columns: int = 6,
    side: float = 2.2,
) -> Figure:  # fmt: skip
    """Boxes cut out of their pictures, each (vermillion) with the true box of its object (green).

    Args:
        images: (H, W, 3) uint8 each.
        truths, boxes: (N, 4) each, xyxy in pixels of the pictures.
        titles: above each, as far as given.
        columns: cut-outs in a row.
        side: inches of a cut-out.
    Raises:
        InputError: not as many images as boxes and as truths.
    Example:
        >>> figure = box_close_ups([np.zeros((50, 60, 3), np.uint8)], np.array([[10, 10, 30, 40]]), np.array([[12, 14, 30, 40]]))
        >>> [int(r.get_width()) for r in figure.axes[0].patches]  # each on a white one
        [20, 20, 18, 18]

    Lesson: 10.
    """
    if not len(images) == len(truths) == len(boxes):
        raise InputError(f"{len(images)} pictures, {len(truths)} true boxes and {len(boxes)} others; wanted one of each")
    figure = grid(images, titles, columns=columns, side=side)
    for axis, image, *pair in zip(figure.axes, images, truths, boxes, strict=False):
        axis.images[0].set_extent((0, image.shape[1], image.shape[0], 0))
        for (x1, y1, x2, y2), colour in zip(pair, (GREEN, VERMILLION), strict=True):
            for under, shade in ((4.5, "white"), (2.5, colour)):
                axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=shade, linewidth=under))
        low, high = np.minimum(*pair)[:2], np.maximum(*pair)[2:]
        half = max(14, 0.7 * (high - low).max())
        x, y = (low + high) / 2
        x, y = (min(max(at, half), max(n - half, half)) for at, n in ((x, image.shape[1]), (y, image.shape[0])))
        axis.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    return figure


def cells(image: np.ndarray, heats: Mapping[str, np.ndarray], *, stride: int = 16, border: int = 0, side: float = 3.4) -> Figure:
    """A patch under the grid of its feature cells, and beside it how much each pixel matters to the middle cell.

    Args:
        image: (H, W, 3) uint8, sides multiples of the stride.
        heats: by title (H, W) numbers >= 0, drawn relative to their largest; the image's size is dashed around the middle.
        stride: pixels between cells.
        border: cells at each edge that are context, drawn pale.
        side: inches of one picture.
    """
    h, w = image.shape[:2]
    figure, axes = plt.subplots(
        1, 1 + len(heats), figsize=(side * (1 + len(heats)), side + 0.3), squeeze=False, layout="constrained"
    )
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
