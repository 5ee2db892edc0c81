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
from fairseg_lite.geometry.masks import mask_to_box
from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD
from fairseg_lite.plots.style import BLUE, CYCLE, GREEN, VERMILLION, finish, rgb


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


def apart(masks: np.ndarray, limit: int, *, shared: float = 0.3) -> list[int]:
    """Which of many masks a person wants to see: the surest, none of which lies on a surer one with more than a share of itself.

    Args:
        masks: (N, H, W) bool, surest first; limit: at most so many; shared: the share.
    Example:
        >>> strip = np.arange(6) < np.array([4, 5, 6])[:, None]
        >>> apart(np.stack([strip[:1], strip[1:2], ~strip[:1]]), 9)
        [0, 2]
    """
    taken, rows = np.zeros(masks.shape[1:], bool), []
    for i, mask in enumerate(np.asarray(masks, bool)):
        if len(rows) < limit and mask.any() and (mask & taken).sum() <= shared * mask.sum():
            rows.append(i)
            taken |= mask
    return rows


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
    frames: Sequence[str] = (), limits: tuple[float, float] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """Pictures side by side; (H, W, 3) uint8, or (H, W) numbers drawn with a colour map.

    Args:
        images: at least one.
        titles: above each, as far as given.
        columns: pictures in a row.
        side: inches of a picture's width.
        frames: a colour around each, as far as given.
        limits: of the colours, for pictures of numbers.
        title: above all.
    """
    if not len(images):
        raise InputError("no picture to show; give at least one")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    ratios = [max(x.shape[0] / x.shape[1] for x in images[i : i + columns]) for i in range(0, len(images), columns)]
    height = side * sum(ratios) + rows * (0.35 if titles else 0.08) + (0.4 if title else 0)
    options = {"squeeze": False, "layout": "constrained", "height_ratios": ratios}
    figure, axes = plt.subplots(rows, columns, figsize=(columns * side, height), **options)
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
        axis.imshow(images[i], vmin=low, vmax=high)
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


def windows(image: np.ndarray, squares: Sequence, spec, *, side: float = 5, title: str = "") -> Figure:
    """Patches drawn in their picture: the patch solid, the place of a canonical object dashed, the centre a cross.

    Args:
        image: (H, W, 3) uint8.
        squares: `data.patches.Window`s; they may reach outside the picture.
        spec: `data.patches.PatchSpec`, for the sides of patch and object.
        side: inches of the figure.
        title: above the picture.
    """
    h, w = image.shape[:2]
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(image, extent=(0, w, h, 0))
    reach = [0.0, 0.0, w, h]
    for i, s in enumerate(squares):
        colour = CYCLE[i % len(CYCLE)]
        for length, line, wide in ((spec.patch_size, "-", 2.5), (spec.object_size, "--", 1.6)):
            half = length / s.scale / 2
            _frame(axis, (s.x - half, s.y - half, s.x + half, s.y + half), colour, wide, line)
        axis.plot(s.x, s.y, "+", color=colour, markersize=11, markeredgewidth=2.5)
        half = spec.patch_size / s.scale / 2
        reach = [min(reach[0], s.x - half), min(reach[1], s.y - half), max(reach[2], s.x + half), max(reach[3], s.y + half)]
    axis.set(xlim=(reach[0] - 3, reach[2] + 3), ylim=(reach[3] + 3, reach[1] - 3), xlabel="x, px", ylabel="y, px", title=title)
    return finish(figure)


def frames(image: np.ndarray, sets: Mapping[str, np.ndarray]) -> Figure:
    """The same picture once for each set of boxes (N, 4) xyxy in pixels, by title; boxes may reach beyond the picture."""
    figure, axes = plt.subplots(1, len(sets), figsize=(4.5 * len(sets), 4.5), squeeze=False, layout="constrained")
    for axis, (title, boxes) in zip(axes[0], sets.items(), strict=True):
        axis.imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=CYCLE[i % len(CYCLE)], linewidth=3))
            axis.plot((x1 + x2) / 2, (y1 + y2) / 2, "+", color=CYCLE[i % len(CYCLE)], markersize=16, markeredgewidth=3)
        axis.set_title(title)
        axis.set_xticks([]), axis.set_yticks([])
    return finish(figure)


def close_ups(
    images: Sequence[np.ndarray], truths: Sequence[np.ndarray], found: Sequence[np.ndarray], titles: Sequence[str] = (), *,
    side: float = 1.6,
) -> Figure:  # fmt: skip
    """Objects cut out of their pictures: above as they are, below the best proposal against the truth (see `hits`).

    Args:
        images: (H, W, 3) uint8 each.
        truths, found: (H, W) bool each; a truth has at least one pixel.
        titles: above each, as far as given.
        side: inches of a cut-out.
    """
    above, below = [], []
    for image, truth, mask in zip(images, truths, found, strict=True):
        x1, y1, x2, y2 = mask_to_box(torch.from_numpy(np.ascontiguousarray(truth))[None])[0].int().tolist()
        half = max(16, int(0.9 * (max(y2 - y1, x2 - x1) - 1)))
        corner = (y1 + y2 - 1) // 2 - half, (x1 + x2 - 1) // 2 - half
        top, left = (int(np.clip(c, 0, max(n - 2 * half, 0))) for c, n in zip(corner, truth.shape, strict=True))
        cut = slice(top, top + 2 * half), slice(left, left + 2 * half)
        above.append(image[cut]), below.append(hits(image, truth, mask)[cut])
    return grid(above + below, titles, columns=len(above), side=side)


def box_close_ups(images: Sequence[np.ndarray], truths: np.ndarray, boxes: np.ndarray, titles: Sequence[str] = ()) -> Figure:
    """Boxes cut out of their pictures, each (vermillion) with the true box of its object (green).

    Args:
        images: (H, W, 3) uint8 each.
        truths, boxes: (N, 4) each, xyxy in pixels of the pictures.
        titles: above each, as far as given.
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
    figure = grid(images, titles, columns=6, side=2.2)
    for axis, image, *pair in zip(figure.axes, images, truths, boxes, strict=False):
        axis.images[0].set_extent((0, image.shape[1], image.shape[0], 0))
        for box, colour in zip(pair, (GREEN, VERMILLION), strict=True):
            _frame(axis, box, colour, 2.5)
        low, high = np.minimum(*pair)[:2], np.maximum(*pair)[2:]
        half = max(14, 0.7 * (high - low).max())
        x, y = (low + high) / 2
        x, y = (min(max(at, half), max(n - half, half)) for at, n in ((x, image.shape[1]), (y, image.shape[0])))
        axis.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    return figure


def _frame(axis: plt.Axes, box: Sequence[float], colour: str, wide: float, line: str = "-") -> None:
    """A box (4,) xyxy on a wider white one, to be seen on any ground."""
    x1, y1, x2, y2 = box
    for under, shade in ((wide + 2, "white"), (wide, colour)):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=shade, lw=under, ls=line))
