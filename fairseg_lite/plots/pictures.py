"""Pictures with masks and boxes drawn in; what was found in them against the truth, near and far."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from torch import Tensor

from fairseg_lite.data.patches import evaluation_patches
from fairseg_lite.data.scenes import SceneDataset, Subset
from fairseg_lite.data.windows import usable_rows
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.patches import patch_spec
from fairseg_lite.geometry.masks import mask_to_box, rle_decode
from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.plots.charts import BLUE, CYCLE, GREEN, VERMILLION, finish, rgb
from fairseg_lite.plots.letters import fitting, font_for


def to_pixels(images: Tensor) -> np.ndarray:
    """Undo `geometry.pixels.normalise`: (..., 3, H, W) float -> (..., H, W, 3) uint8."""
    x = images.detach().cpu().float().movedim(-3, -1)
    x = x * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    return (x * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def tinted(image: np.ndarray, masks: Iterable[np.ndarray], colours: Sequence[str] = CYCLE, *, alpha: float = 0.45) -> np.ndarray:
    """The picture with each mask in a colour of its own, outlined by a pixel of it within a white one: seen on any ground.

    Args:
        image: (H, W, 3) uint8.
        masks: N times (H, W) bool, or of a picture that is a whole number of times smaller; later masks lie on top. One after the
            other is asked for: a large picture has room for few.
        colours, alpha: taken in turn; 0 shows the picture, 1 the colour.
    Returns: (H, W, 3) uint8.
    """
    out = image.copy()
    for i, mask in enumerate(masks):
        mask, colour = _as_large(mask, image), rgb(colours[i % len(colours)])
        out[mask] = ((1 - alpha) * out[mask] + alpha * colour).round()
        near = np.pad(mask, 1, constant_values=True)  # the border of the picture is no outline
        out[mask & ~(near[:-2, 1:-1] & near[2:, 1:-1] & near[1:-1, :-2] & near[1:-1, 2:])] = colour
        near = np.pad(mask, 1)
        out[~mask & (near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:])] = 255
    return out


def _as_large(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A mask with as many pixels as the picture."""
    times = image.shape[0] // mask.shape[0]
    return mask if times == 1 else mask.repeat(times, 0).repeat(times, 1)


def apart(masks: Iterable[np.ndarray], limit: int, *, shared: float = 0.3) -> list[int]:
    """Which of many masks a person wants to see: the surest, none of which lies on a surer one with more than a share of itself.

    Args: masks: N times (H, W) bool, surest first, asked for one by one; limit: at most so many; shared: the share.
    Example:
        >>> strip = np.arange(6) < np.array([4, 5, 6])[:, None]
        >>> apart(np.stack([strip[:1], strip[1:2], ~strip[:1]]), 9)
        [0, 2]
    """
    taken, rows = np.zeros((), bool), []
    for i, mask in enumerate(masks):
        if len(rows) == limit:
            break
        if mask.any() and (mask & taken).sum() <= shared * mask.sum():
            rows.append(i)
            taken = taken | mask
    return rows


def named(
    image: np.ndarray, boxes: np.ndarray, names: Sequence[str], kinds: Sequence[int], masks: Any = None, *,
    side: int = 640,
) -> np.ndarray:  # fmt: skip
    """The picture with objects drawn in: mask tinted, box, and the name at its upper edge, a colour for each kind.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) xyxy in pixels, best first: the best lies on top.
        names, kinds: N texts of any script, such as "cat .93", too long ones cut; N numbers, equal ones get equal colours.
        masks: (N, H, W) bool, or `Masks`, which are decoded one by one; or none.
        side: a picture whose longer side is shorter is enlarged by a whole number, so that names can be read; px.
    Returns: (sH, sW, 3) uint8, s the whole number.
    Example:
        >>> named(np.zeros((200, 320, 3), np.uint8), np.array([[10, 20, 90, 80]]), ["cat .93"], [0]).shape
        (400, 640, 3)

    Lesson: 11.
    """
    colours = [CYCLE[k % len(CYCLE)] for k in kinds]
    order = list(reversed(range(len(boxes))))
    if masks is not None and len(masks):
        image = tinted(image, (masks[i] for i in order), [colours[i] for i in order])
    factor = max(1, side // max(image.shape[:2]))
    canvas = Image.fromarray(image).resize((factor * image.shape[1], factor * image.shape[0]), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for i in order:
        font = font_for(names[i], max(11, max(canvas.size) // 32))
        name = fitting(names[i], canvas.width - 4, font)
        x1, y1, x2, y2 = (float(v) * factor for v in boxes[i])
        x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # the last pixel that belongs to the box
        draw.rectangle((x1, y1, x2, y2), outline=colours[i], width=max(1, max(canvas.size) // 320))
        left, top, right, bottom = draw.textbbox((0, 0), name, font=font)
        x = min(max(x1, 0), max(canvas.width - (right - left) - 4, 0))
        y = y1 - (bottom - top) - 5 if y1 >= bottom - top + 5 else min(max(y1, 0), canvas.height)
        draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colours[i])
        shade = "black" if rgb(colours[i]) @ (0.299, 0.587, 0.114) > 140 else "white"
        draw.text((x + 2 - left, y + 2 - top), name, fill=shade, font=font)
    return np.asarray(canvas)


def grid(
    images: Sequence[np.ndarray], titles: Sequence[str] = (), *, columns: int = 4, side: float = 2.6,
    frames: Sequence[str] = (), limits: tuple[float, float] | None = None, title: str = "", rows: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Pictures side by side; (H, W, 3) uint8, or (H, W) numbers drawn with a colour map.

    Args:
        images, titles: at least one; above each, as far as given.
        columns, side: pictures in a row; inches of a picture's width.
        frames: a colour around each, as far as given.
        limits, title, rows: of the colours, for pictures of numbers; above all; at the left of each row.
    """
    if not len(images):
        raise InputError("no picture to show; give at least one")
    columns = min(columns, len(images))
    count = -(-len(images) // columns)
    ratios = [max(x.shape[0] / x.shape[1] for x in images[i : i + columns]) for i in range(0, len(images), columns)]
    height = side * sum(ratios) + 0.08 * count + 0.27 * -(-len(titles) // columns) + (0.4 if title else 0)
    options = {"squeeze": False, "layout": "constrained", "height_ratios": ratios}
    figure, axes = plt.subplots(count, columns, figsize=(columns * side + 0.3 * bool(rows), height), **options)
    plt.setp(axes.flat, xticks=[], yticks=[])
    low, high = limits or (None, None)
    for i, axis in enumerate(axes.flat):
        axis.spines[:].set_visible(i < len(frames))
        if i < len(frames):
            axis.spines[:].set(color=frames[i], linewidth=4)
        if i < len(images):
            axis.imshow(images[i], vmin=low, vmax=high)
            axis.set_title(titles[i] if i < len(titles) else "", fontsize=11)
        else:
            axis.axis("off")
    for axis, name in zip(axes[:, 0], rows, strict=False):
        axis.set_ylabel(name, fontsize=11)
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
    left.axis("off"), right.axis("off")
    for i, (x1, y1, x2, y2) in enumerate(boxes if boxes is not None else ()):
        colour = CYCLE[i % len(CYCLE)]
        for width, shade in ((4, "white"), (2, colour)):
            right.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=shade, linewidth=width))
        if i < len(names):
            label = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.15", "alpha": 0.85}
            right.text(x1, max(y1 - 2, 8), names[i], fontsize=10, bbox=label, va="bottom")
    return finish(figure)


def patches(images: Tensor, masks: Tensor, labels: Tensor, *, context: int = 32, columns: int = 8, side: float = 1.5) -> Figure:
    """Training patches: green frames for positives with the mask tinted, vermillion for negatives; the context is dimmed."""
    pictures, inside = to_pixels(images), to_pixels(_inside(images, context))
    half, size = context // 2, inside.shape[1]
    up = F.interpolate(masks.cpu()[:, None].float(), (size, size), mode="bilinear").numpy() > 0.5
    shown = (pictures * 0.5 + 100).astype(np.uint8)
    for dim, picture, mask in zip(shown, inside, up, strict=True):
        dim[half : half + size, half : half + size] = tinted(picture, mask, [GREEN])
    return grid(shown, columns=columns, side=side, frames=[GREEN if y > 0 else VERMILLION for y in labels])


def hits(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Prediction against truth on a picture: green where both, vermillion where missed, blue where too much."""
    truth, predicted = _as_large(truth, image), _as_large(predicted, image)
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2)
    out = 0.6 * grey + 60
    for mask, colour in ((truth & predicted, GREEN), (truth & ~predicted, VERMILLION), (predicted & ~truth, BLUE)):
        out[mask] = 0.35 * out[mask] + 0.65 * rgb(colour)
    return out.clip(0, 255).astype(np.uint8)


def patch_hits(
    images: Tensor, masks: Tensor, predicted: Tensor, *, context: int = 32, side: float = 1.6, rows: Sequence[str] = ()
) -> Figure:
    """Patches without their context, eight in a row, truth against prediction as `hits` colours it; masks are (B, T, T) bool."""
    pictures = to_pixels(_inside(images, context))
    both = torch.stack([masks.cpu(), predicted.cpu()], 1).float()
    both = F.interpolate(both, pictures.shape[1:3], mode="nearest").bool().numpy()
    return grid([hits(p, *pair) for p, pair in zip(pictures, both, strict=True)], columns=8, side=side, rows=rows)


def _inside(images: Tensor, context: int) -> Tensor:
    """Patches (B, 3, H, W) without their context."""
    half, size = context // 2, images.shape[-1] - context
    return images[..., half : half + size, half : half + size]


def close_ups(
    images: Sequence[np.ndarray], truths: Sequence[np.ndarray], found: Sequence[np.ndarray], titles: Sequence[str] = (), *,
    side: float = 1.6, rows: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Objects cut out of their pictures: above as they are, below the best proposal against the truth (see `hits`).

    Args:
        images: (H, W, 3) uint8 each.
        truths, found: (H, W) bool each, or a whole number of times smaller; a truth has at least one pixel.
        titles, side, rows: above each, as far as given; inches of a cut-out; at the left of the two rows.
    """
    above, below = [], []
    for image, truth, mask in ((i, _as_large(t, i), _as_large(m, i)) for i, t, m in zip(images, truths, found, strict=True)):
        x1, y1, x2, y2 = mask_to_box(torch.from_numpy(np.ascontiguousarray(truth))[None])[0].int().tolist()
        half = max(16, int(0.9 * (max(y2 - y1, x2 - x1) - 1)))
        corner = (y1 + y2 - 1) // 2 - half, (x1 + x2 - 1) // 2 - half
        top, left = (int(np.clip(c, 0, max(n - 2 * half, 0))) for c, n in zip(corner, truth.shape, strict=True))
        cut = slice(top, top + 2 * half), slice(left, left + 2 * half)
        above.append(image[cut]), below.append(hits(image, truth, mask)[cut])
    return grid(above + below, titles, columns=len(above), side=side, rows=rows)


def extremes(data: SceneDataset, truth: dict, results: list[dict], count: int = 3) -> Figure:
    """The pictures whose objects were found best, at the median and worst: the best of 100 proposals for each object."""
    objects, found = {}, {}
    for a in truth["annotations"]:
        if not a["iscrowd"] and a["segmentation"]:
            objects.setdefault(a["image_id"], []).append(a["segmentation"])
    for r in results:  # best first, picture by picture
        if len(found.setdefault(r["image_id"], [])) < 100:
            found[r["image_id"]].append(r["segmentation"])
    ranked = []
    for i, entry in enumerate(truth["images"]):
        rles, proposals = objects.get(entry["id"], []), found.get(entry["id"], [])
        if rles and proposals:
            iou = coco_mask.iou(proposals, rles, [0] * len(rles))
            ranked.append((iou.max(0).mean(), i, rles, [proposals[k] for k in iou.argmax(0)]))
        elif rles:
            ranked.append((0.0, i, rles, []))
    ranked.sort(key=lambda row: -row[0])
    count = max(min(count, len(ranked) // 3), 1)  # no picture twice, where there are three
    middle = (len(ranked) - count) // 2
    parts = {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}
    pictures, titles = [], []
    for word, value, i, *masks in ((word, *row) for word, rows in parts.items() for row in rows):
        image = data[i].image
        pictures.append(hits(image, *(np.any([np.zeros(image.shape[:2], bool), *map(rle_decode, m)], axis=0) for m in masks)))
        titles.append(f"{word}: mean IoU {value:.2f}")
    legend = "the best of 100 masks for each object: green found, orange missed, blue too much"
    return grid(pictures, titles, columns=count, side=4, title=legend)


@torch.inference_mode()
def edges_of(model: DeepMask | SharpMask, data: SceneDataset, count: int = 8, **least: float) -> Figure:
    """Objects of pictures evenly spread over the data, close up where the coarse mask is most wrong.

    One row of pictures and one for each kind of mask: DeepMask's and, where the network has them, SharpMask's.

    Args: least: limits of `usable_rows`, which leaves smaller objects out.
    """
    pictures = sorted({int(i) for i in data.instances.image[usable_rows(data, **least)]})
    some = [pictures[i * len(pictures) // count] for i in range(min(count, len(pictures)))]
    device, spec = next(model.parameters()).device, patch_spec(model)
    side, near = spec.patch_size, spec.patch_size // 2  # near: pixels of a close-up
    rows: list[list[np.ndarray]] = []
    stages = {"DeepMask": getattr(model, "deepmask", model)} | ({"SharpMask": model} if isinstance(model, SharpMask) else {})
    for i in some:
        batch = next(iter(evaluation_patches(Subset(data, [i]), spec, padding=model.record.padding, batch_size=1, **least)))
        image = to_pixels(_inside(batch.images, spec.context))[0]
        truth = batch.masks[0].bool()
        masks = []
        for network in stages.values():
            logits = network(batch.images.to(device)).masks[:, None].float()
            masks.append(F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[0, 0].cpu() > 0)
        wrong = F.avg_pool2d((masks[0] != truth)[None, None].float(), near, stride=4)[0, 0]
        y, x = (4 * n for n in divmod(int(wrong.argmax()), wrong.shape[1]))
        cut = slice(y, y + near), slice(x, x + near)
        rows.append([image[cut], *(hits(image, truth.numpy(), m.numpy())[cut] for m in masks)])
    shown = [row[k] for k in range(1 + len(stages)) for row in rows]
    legend = f"as they are, {' and '.join(stages)}: green found, orange missed, blue too much"
    return grid(shown, columns=len(rows), side=1.8, title=legend)
