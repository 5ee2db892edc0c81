"""Windows: the objects and squares of a picture that become patches, how they are cut out, and how patches may be changed.

The changes go beyond the papers' jitter, for small data sets, where a network learns pictures by heart; they are off unless asked
for: `PatchSampler(..., colour=0.4, turn=20)`. Shapes: B patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fairseg_lite.data.scenes import InstanceTable, SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import IMAGENET_MEAN, sent

JITTER, FAR = 16 / 224, 32 / 224  # of the patch side
GREY = tuple(round(255 * c) for c in IMAGENET_MEAN)
TOGETHER = 2**26  # pixels of pictures that a device holds at once, at 12 bytes each


@dataclass(frozen=True)
class PatchSpec:
    """Sizes in pixels. Official names: iSz patch_size, gSz target_size, objSz object_size, wSz patch_size + context."""

    patch_size: int = 160
    context: int = 32  # both sides together
    object_size: int = 92  # longer side of a canonical object, ceil(patch_size * 128 / 224)
    target_size: int = 112  # side of the label mask


@dataclass(frozen=True)
class Window:
    """A patch in a picture: centre in pixels, and scale = patch pixels per picture pixel."""

    x: float
    y: float
    scale: float
    flip: bool = False


def canonical(box: np.ndarray, spec: PatchSpec) -> Window:
    """The canonical window of a box: its centre, and the scale that makes its longer side object_size."""
    x1, y1, x2, y2 = (float(v) for v in box)
    return Window((x1 + x2) / 2, (y1 + y2) / 2, spec.object_size / max(x2 - x1, y2 - y1))


def is_negative(window: Window, objects: list[Window], spec: PatchSpec) -> bool:
    """True where a window is far from every canonical positive: 32/224 of the patch on an axis, or a factor 2."""
    far = FAR * spec.patch_size / window.scale
    return all(
        abs(window.x - o.x) >= far or abs(window.y - o.y) >= far or abs(math.log2(window.scale / o.scale)) >= 1 for o in objects
    )


class Piece(NamedTuple):
    """What a square shows of a picture, before it is cut out of it."""

    part: np.ndarray  # (h, w, 3) uint8: all that the square's filter looks at
    across: tuple[int, int, float, float]  # patch pixels [a, b) that lie in the picture, and their interval in px of the part
    down: tuple[int, int, float, float]
    flip: bool


def piece_of(image: np.ndarray, window: Window, side: float, size: int) -> Piece:
    """The square of `side` picture pixels around a window's centre, which will have (size, size) pixels."""
    step = side / size  # picture pixels per patch pixel
    spans = [_inside(c - side / 2, step, size, n) for c, n in ((window.x, image.shape[1]), (window.y, image.shape[0]))]
    (a, b, x0, x1), (c, d, y0, y1) = spans
    margin = math.ceil(step) + 1  # what the resampling filter may look at
    left, top = max(math.floor(x0) - margin, 0), max(math.floor(y0) - margin, 0)
    part = np.ascontiguousarray(image[top : math.ceil(y1) + margin, left : math.ceil(x1) + margin])
    return Piece(part, (a, b, x0 - left, x1 - left), (c, d, y0 - top, y1 - top), window.flip)


def crop_image(image: np.ndarray, window: Window, side: float, size: int, padding: str = "symmetric") -> np.ndarray:
    """Resample the square of `side` picture pixels around a window's centre to (size, size, 3) uint8, antialiased.

    What lies outside the picture is filled in the patch itself, from the first patch pixel that is wholly inside: a
    mirrored border is exact to less than a patch pixel, and costs nothing where a window is far larger than that.
    """
    return _cut_out(piece_of(image, window, side, size), size, padding)


def _cut_out(piece: Piece, size: int, padding: str) -> np.ndarray:
    part, (a, b, x0, x1), (c, d, y0, y1), flip = piece
    resized = Image.fromarray(part).resize((b - a, d - c), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
    patch = np.asarray(resized)
    if (a, b, c, d) != (0, size, 0, size):
        if padding == "mean":
            inner, patch = patch, np.full((size, size, 3), GREY, np.uint8)
            patch[c:d, a:b] = inner
        else:
            patch = patch[_mirrored(np.arange(-c, size - c), d - c)][:, _mirrored(np.arange(-a, size - a), b - a)]
    return patch[:, ::-1] if flip else patch


def cut_out(pieces: Sequence[Piece], size: int, padding: str, device: torch.device | str) -> Tensor:
    """(N, size, size, 3) uint8 on a device: squares as `crop_image` cuts them.

    On the CPU Pillow does. On others its filter is two matrix products, for all squares at once and to within 1 of 255.
    """
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.stack([_cut_out(piece, size, padding) for piece in pieces]))
    h, w = (max(p.part.shape[axis] for p in pieces) for axis in (0, 1))
    if (n := len(pieces)) > 1 and n * h * w > TOGETHER:
        return torch.cat([cut_out(half, size, padding, device) for half in (pieces[: n // 2], pieces[n // 2 :])])
    pictures, axes = torch.zeros(len(pieces), h, w, 3, dtype=torch.uint8), []
    for picture, p in zip(pictures, pieces, strict=True):
        picture[: p.part.shape[0], : p.part.shape[1]] = torch.from_numpy(p.part)
        axes += [[*p.down, p.part.shape[0], 0.0], [*p.across, p.part.shape[1], float(p.flip)]]
    x, numbers = sent(pictures, device).movedim(3, 1).float(), sent(torch.tensor(axes, dtype=torch.float32), device)  # (2 N, 6)
    down, across = (_filter(numbers[i::2], size, n, padding)[:, None] for i, n in enumerate((h, w)))  # (N, 1, size, h or w)
    seen = (down.sum(3, keepdim=True) * across.sum(3)[:, :, None])[:, 0, :, :, None]  # 0 where there is no picture
    patches = (down @ x @ across.mT).movedim(1, 3) + (1 - seen) * sent(torch.tensor(GREY), device)
    return patches.round_().clamp_(0, 255).to(torch.uint8)


def _filter(axis: Tensor, size: int, cells: int, padding: str) -> Tensor:
    """How much each cell of N parts counts in each patch pixel along one axis, as Pillow has it: (N, size, cells)."""
    a, b, low, high, n, flip = axis.T[:, :, None]
    i, at = (torch.arange(k, dtype=axis.dtype, device=axis.device) for k in (size, cells))
    i = torch.where(flip > 0, size - 1 - i, i) - a
    inside, count = (i >= 0) & (i < b - a), b - a
    i = i % (2 * count)
    step = (high - low) / count
    centre = low + (torch.where(i < count, i, 2 * count - 1 - i) + 0.5) * step
    weights = (1 - (at + 0.5 - centre[:, :, None]).abs() / step.clamp(min=1)[:, :, None]).clamp_(min=0) * (at < n)[:, None]
    weights = weights / weights.sum(2, keepdim=True)
    return weights * inside[:, :, None] if padding == "mean" else weights


def _inside(start: float, step: float, size: int, n: int) -> tuple[int, int, float, float]:
    """The patch pixels [a, b) that lie in the picture along one axis, and their interval [lo, hi] in picture pixels."""
    a = min(max(math.ceil(-start / step), 0), size - 1)
    b = max(min(math.floor((n - start) / step), size), a + 1)
    lo, hi = start + a * step, start + b * step
    if lo < 0 or hi > n:  # less than one patch pixel of picture: take what there is
        lo, hi = (0.0, min(step, n)) if lo < 0 else (max(n - step, 0.0), float(n))
    return a, b, lo, hi


def crop_mask(mask: np.ndarray, window: Window, side: float, size: int) -> np.ndarray:
    """The mask in the same square, (size, size) bool: more than half of a target pixel belongs to the object."""
    x0, y0 = window.x - side / 2, window.y - side / 2
    h, w = mask.shape
    margin = math.ceil(side / size) + 1
    left, top = math.floor(x0) - margin, math.floor(y0) - margin
    right, bottom = math.ceil(x0 + side) + margin, math.ceil(y0 + side) + margin
    part = np.zeros((bottom - top, right - left), np.uint8)  # outside the picture there is no object
    a, b, c, d = max(top, 0), min(bottom, h), max(left, 0), min(right, w)
    if a < b and c < d:
        part[a - top : b - top, c - left : d - left] = mask[a:b, c:d].view(np.uint8) * 255
    box = (x0 - left, y0 - top, x0 - left + side, y0 - top + side)
    patch = np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BILINEAR, box=box)) > 127
    return patch[:, ::-1] if window.flip else patch


def _mirrored(i: np.ndarray, n: int) -> np.ndarray:
    i = i % (2 * n)
    return np.where(i < n, i, 2 * n - 1 - i)


def recoloured(images: Tensor, by: np.ndarray) -> Tensor:
    """Patches with other brightness, contrast and saturation, so that a network cannot know a picture by its colours.

    Args:
        images: (B, 3, H, W) float, normalised.
        by: (3, B) shares: brightness moves by the share of a deviation, contrast and saturation by a factor of 1 + share.
    Returns: (B, 3, H, W).
    Example:
        >>> recoloured(torch.ones(1, 3, 1, 1), np.array([[0.5], [0.0], [0.0]])).flatten().tolist()
        [1.5, 1.5, 1.5]

    Source: the usual practice; neither paper nor official code has it. Lesson: none.
    """
    brightness, contrast, saturation = sent(torch.from_numpy(by).to(images.dtype), images.device)[..., None, None, None]
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + contrast) + brightness
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * (1 + saturation)


def turned(images: Tensor, masks: Tensor, degrees: np.ndarray) -> tuple[Tensor, Tensor]:
    """Patches and their masks turned about the centre.

    Args:
        images: (B, 3, H, H) float; what turns in from outside is the mirrored patch.
        masks: (B, T, T) bool, about the same centre; outside them there is no object.
        degrees: (B,) counter-clockwise.
    Returns: (B, 3, H, H) and (B, T, T) bool.
    Example:
        >>> left = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.bool)
        >>> turned(torch.zeros(1, 3, 2, 2), left, np.array([90.0]))[1].int().tolist()
        [[[0, 0], [1, 1]]]

    Source: the usual practice; neither paper nor official code has it. Lesson: none.
    """
    angle = sent(torch.from_numpy(degrees).to(images.dtype), images.device) * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)  # from the new patch back to the old

    def sample(x: Tensor, outside: str) -> Tensor:
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode=outside, align_corners=False)

    return sample(images, "reflection"), sample(masks[:, None].to(images.dtype), "zeros")[:, 0] > 0.5


def usable_rows(dataset: SceneDataset, *, min_area: float = 100, min_side: float = 5) -> np.ndarray:
    """Rows of the instance table that can be positives: no crowd, with a mask, not tiny.

    Raises: InputError, none is left; says how many each limit excluded.
    """
    t = dataset.instances
    sides = (t.box[:, 2:] - t.box[:, :2]).min(1) if len(t) else np.zeros(0)
    able = ~t.crowd & t.masked
    tiny = able & ((t.area < min_area) | (sides < min_side))
    rows = np.flatnonzero(able & ~tiny)
    if len(rows) == 0:
        boxes = int((~t.crowd & ~t.masked).sum())
        counts = {
            "are crowds": int(t.crowd.sum()),
            "have a box and no mask": boxes,
            f"are smaller than {limits_in_words(min_area, min_side)}": int(tiny.sum()),
        }
        why = "".join(f", {n} {what}" for what, n in counts.items() if n)
        advice = (
            "DeepMask and SharpMask need masks (boxes are enough for train multipathnet)" if boxes else "add annotated pictures"
        )
        raise InputError(f"no object to learn from: {len(t)} instances in {len(dataset)} pictures{why}; {advice}")
    return rows


def limits_in_words(min_area: float, min_side: float) -> str:
    """What `usable_rows` asks of an object's size, and how to ask for less.

    Example:
        >>> limits_in_words(100, 5)
        '100 px of area or 5 px of side (--set min_area=100, --set min_side=5)'
    """
    return f"{min_area:g} px of area or {min_side:g} px of side (--set min_area={min_area:g}, --set min_side={min_side:g})"


def too_small(dataset: SceneDataset, *, min_area: float = 100, min_side: float = 5) -> str:
    """How many objects with a mask `usable_rows` leaves out, as a sentence; "" where it is none."""
    able = int((~dataset.instances.crowd & dataset.instances.masked).sum())
    if not (left := able - len(usable_rows(dataset, min_area=min_area, min_side=min_side))):
        return ""
    return f"{left:,} of {able:,} objects are left out, as they are smaller than {limits_in_words(min_area, min_side)}"


def rows_by_image(table: InstanceTable, count: int) -> list[np.ndarray]:
    """Of every picture the rows that are not empty."""
    rows = np.flatnonzero(table.area > 0)
    rows = rows[np.argsort(table.image[rows], kind="stable")]
    return np.split(rows, np.searchsorted(table.image[rows], np.arange(1, count)))
