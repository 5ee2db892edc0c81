"""The official sampler's choices, where they differ from the paper: `OfficialSampler` in the place of `PatchSampler`.

    mask samples    jittered positives: +-16 px at the 160-px patch, 2^(+-1/4); the window is rounded to whole pixels
    score samples   positives are not moved; their scale is one of 2^(k/4), so objects have 1 to 1.19 times the
                    canonical size; crowds and tiny objects are among them. Negatives are points at least 48 px from
                    the centre of every object within 2.5 octaves - though each centre is measured at its own scale -
                    and after 100 tries any point will do
    pixels          0.5 grey outside the picture; resampled in floating point by `scale_weights`

Official training takes batches of mask samples and of score samples in turn. Here the positives of even steps are mask
samples and those of odd steps score samples, which carry masks, too, so that a joint loss can be used.
Randomness is anything with `integers(n)` (0 to n - 1) and `uniform(low, high)`: logged draws can be replayed.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fairseg_lite.data.patches import PatchSampler, PatchSpec, Window, crop_mask
from fairseg_lite.data.scenes import SceneDataset, Subset
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import polygons_to_mask
from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD

STEP = 0.25  # octaves: jitter of the scale, and grid of the score samples' scales
OCTAVES = range(-12, 9)  # scales of negatives, in STEPs: 2^-3 .. 2^2
TRIES = 100  # for one negative, then any point is taken


class Draws(Protocol):
    """What a numpy Generator offers, and a log of draws can."""

    def integers(self, high: int) -> int: ...
    def uniform(self, low: float = 0.0, high: float = 1.0) -> float: ...


class Sample(NamedTuple):
    """image (3, P + context, P + context) float32; mask (T, T) bool; category, -1 for a negative."""

    image: Tensor
    mask: np.ndarray
    category: int


class OfficialSampler(PatchSampler):
    """Batches of patches by the official code's rules; single ones by `mask_sample`, `score_positive`, `score_negative`.

    Args:
        dataset, spec, options: as for `PatchSampler`, of which padding, tries and hard do nothing here; jitter moves and
            scales mask samples, and mirrors all samples.
        label_shift: copy the official fault that mask labels lie one pixel of the picture too far right and down.
    Raises: InputError, as `PatchSampler`; or no picture has an object.
    Source: official `DataSampler.lua`. Lesson: 01.
    """

    rules = "official"

    def __init__(self, dataset: SceneDataset, spec: PatchSpec, *, label_shift: bool = False, **options: Any):
        super().__init__(dataset, spec, **options)
        self.label_shift = label_shift
        self.classes = [group for groups in self.by_class for group in groups]
        self.full, self.shift = spec.patch_size + spec.context, 16 * spec.patch_size / 160
        self.centres: dict[int, dict[int, list]] = {}  # picture -> scale in STEPs -> (x, y at that scale, row)
        for row, (i, (x1, y1, x2, y2)) in enumerate(zip(self.table.image, self.table.box.tolist(), strict=True)):
            if self.table.area[row] <= 0:
                continue
            k = math.ceil(math.log2(max(x2 - x1, y2 - y1) / spec.object_size) / STEP) - 1
            s = 2 ** (-k * STEP)
            at = self.centres.setdefault(int(i), {}).setdefault(-k, [])
            at.append(((x1 + x2) / 2 * s, (y1 + y2) / 2 * s, row))
        self.pictures = list(self.centres)
        if not self.pictures:
            raise InputError(f"no object in {len(dataset)} pictures; score samples are drawn around objects")

    def _drawn(self, g: np.random.Generator, step: int, counts: tuple[int, int]) -> tuple[Tensor, Sequence, Sequence]:
        positive = self.score_positive if step % 2 else self.mask_sample
        draws = [positive] * counts[0] + [self.score_negative] * counts[1]
        images, masks, categories = zip(*(self.finish(g, draw(g)) for draw in draws), strict=True)
        return torch.stack(images).contiguous(memory_format=torch.channels_last), masks, categories

    def finish(self, g: Draws, sample: Sample) -> Sample:
        """Mirror every other sample; take ImageNet's mean and deviation out."""
        image, mask, category = sample
        if self.jitter and g.uniform() > 0.5:
            image, mask = image.flip(-1), mask[:, ::-1]
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return Sample((image - mean) / std, mask, category)

    def mask_sample(self, g: Draws) -> Sample:
        """A category, one of its objects, a jittered window; pixels of 0 to 1."""
        rows = self.classes[int(g.integers(len(self.classes)))]
        row = int(rows[int(g.integers(len(rows)))])
        x1, y1, x2, y2 = self.table.box[row].tolist()
        octaves, dx, dy = math.log2(max(x2 - x1, y2 - y1) / self.spec.object_size), 0.0, 0.0
        if self.jitter:
            octaves += g.uniform(-STEP, STEP)
            dx, dy = g.uniform(-self.shift, self.shift), g.uniform(-self.shift, self.shift)
        s = 2**octaves
        left, top = (c + d * s - self.full * s / 2 for c, d in (((x1 + x2) / 2, dx), ((y1 + y2) / 2, dy)))
        side = max(_rounded(self.full * s), 1)
        return self._cut(int(self.table.image[row]), _rounded(left), _rounded(top), side, row)

    def score_positive(self, g: Draws) -> Sample:
        """A picture, a scale, the centre of one of its objects at that scale; pixels of 0 to 1."""
        return self._score_sample(g, self.pictures[int(g.integers(len(self.pictures)))], True)

    def score_negative(self, g: Draws) -> Sample:
        """A picture with objects, a scale, a point far from all of them; pixels of 0 to 1."""
        return self._score_sample(g, self.pictures[int(g.integers(len(self.pictures)))], False)

    def _score_sample(self, g: Draws, i: int, positive: bool) -> Sample:
        scales, (h, w), row = self.centres[i], self.dataset[i].image.shape[:2], None
        if positive:
            k = list(scales)[int(g.integers(len(scales)))]
            x, y, row = scales[k][int(g.integers(len(scales[k])))]
        else:
            k, x, y = self._far_point(g, scales, h, w)
        s = 2 ** (-k * STEP)
        side = max(self.full * s, 10)
        left, top = (math.floor(min(max(v * s, 1), n)) - 1 - math.floor(side / 2) for v, n in ((x, w), (y, h)))
        return self._cut(i, left, top, math.floor(side), row)

    def _far_point(self, g: Draws, scales: dict[int, list], h: int, w: int) -> tuple[int, int, int]:
        for _ in range(TRIES):
            k = OCTAVES[int(g.integers(len(OCTAVES)))]
            x, y = (1 + int(g.integers(max(math.floor(n * 2 ** (k * STEP)), 1))) for n in (w, h))
            near = (c for other in range(k - 10, k + 11) for c in scales.get(other, ()))
            if all(math.hypot(x - cx, y - cy) >= 3 * self.shift for cx, cy, _ in near):
                break
        return k, x, y

    def _cut(self, i: int, left: int, top: int, side: int, row: int | None) -> Sample:
        """A window of whole pixels, and the mask of a row's object: from its polygons, or else from its pixels."""
        scene, spec = self.dataset[i], self.spec
        image = crop_grey(scene.image, left, top, side, self.full)
        if row is None:
            return Sample(image, np.zeros((spec.target_size, spec.target_size), bool), -1)
        inner, instance = spec.patch_size * (side / self.full), int(self.table.instance[row])
        x, y = (v + side / 2 + self.label_shift for v in (left, top))
        outline = polygons_of(self.dataset, i, instance)
        if not outline:  # RLE, or a box alone
            window = Window(x, y, spec.patch_size / inner)
            mask = crop_mask(scene.masks[instance], window, inner, spec.target_size)
        else:
            mask = crop_polygons(outline, scene.image.shape, x - inner / 2, y - inner / 2, inner, spec.target_size)
        return Sample(image, mask, int(self.table.label[row]))


def crop_grey(image: np.ndarray, left: int, top: int, side: int, size: int) -> Tensor:
    """A square window of whole pixels, scaled by `scale_weights`; outside the picture it is 0.5 grey.

    Args:
        image: (H, W, 3), uint8 or float of 0 to 1.
        left, top, side: of the window, in pixels of the picture. size: side of the result, in pixels.
    Returns: (3, size, size) float32 of 0 to 1.
    Source: official `DataSampler:cropTensor`. Only the part in the picture is made: a window may be far larger.
    Lesson: 01.
    """
    h, w = image.shape[:2]
    (a, b), (c, d) = ([min(max(e, 0), n) for e in (v, v + side)] for v, n in ((top, h), (left, w)))
    part = torch.from_numpy(image[a:b, c:d].astype(np.float32)).permute(2, 0, 1)
    part = part / 255 if image.dtype == np.uint8 else part
    weights = scale_weights(side, size)
    return 0.5 + weights[:, a - top : b - top] @ ((part - 0.5) @ weights[:, c - left : d - left].mT)


def scale_weights(n: int, m: int) -> Tensor:
    """How much each of n pixels counts in each of m: the rows of a matrix that scales one axis as Torch7 did.

    Args: n, m: pixels before and after.
    Returns: (m, n) float32, each row adds up to 1. Larger: linear, corners aligned; smaller: mean over the pixel's area.
    Raises: InputError, n or m below 1.
    Example:
        >>> scale_weights(3, 2)
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 0.3333, 0.6667]])

    Source: Torch7 `image.scale` (its C code), places in float32 as there. Lesson: none.
    """
    if min(n, m) < 1:
        raise InputError(f"cannot scale {n} px to {m}; both need a pixel")
    pixel = torch.arange(n, dtype=torch.float32)
    if m > n:
        at = torch.arange(m, dtype=torch.float32) * torch.tensor((n - 1) / (m - 1), dtype=torch.float32)
        at[-1] = n - 1
        return (1 - (at[:, None] - pixel).abs()).clamp(min=0)
    edges = torch.arange(m + 1, dtype=torch.float32) * torch.tensor(n / m, dtype=torch.float32)
    shared = (torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)).clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


def crop_polygons(
    polygons: Sequence[Sequence[float]], shape: tuple[int, ...], left: float, top: float, side: float, size: int
) -> np.ndarray:
    """The mask of polygons in a square window, drawn at the window's own resolution.

    Args:
        polygons: each x1, y1, x2, y2, ... in pixels of the picture.
        shape: of the picture, height and width first; beyond it there is no object.
        left, top, side, size: as for `crop_grey`.
    Returns: (size, size) bool.
    Source: official `DataSampler:cropMask`. Lesson: 01.
    """
    scale = size / side
    x, y = _rounded(left * scale), _rounded(top * scale)
    scaled = [np.asarray(p, np.float64) * scale for p in polygons]
    # COCO draws alike wherever a polygon is moved by whole pixels, as long as no corner is below zero
    x0, y0 = (min(v, max(math.floor(min(p[k::2].min() for p in scaled)), v - 4 * size)) for k, v in ((0, x), (1, y)))
    moved = [p - np.tile([x0, y0], len(p) // 2) for p in scaled]
    mask = polygons_to_mask(moved, y - y0 + size, x - x0 + size)[y - y0 :, x - x0 :]
    bottom, right = math.floor(shape[0] * scale) - y, math.floor(shape[1] * scale) - x
    mask[: max(-y, 0)] = mask[max(bottom, 0) :] = False
    mask[:, : max(-x, 0)] = mask[:, max(right, 0) :] = False
    return mask


def polygons_of(dataset: SceneDataset, index: int, instance: int) -> list | None:
    """The polygons of an instance, where a COCO file gave them; None for an RLE and for other datasets."""
    while not hasattr(dataset, "pictures"):
        if isinstance(dataset, Subset):
            index = dataset.indices[index]
        if (dataset := getattr(dataset, "dataset", None)) is None:
            return None
    segmentation = dataset.pictures[index].annotations[instance].segmentation
    return segmentation if isinstance(segmentation, list) else None


def _rounded(x: float) -> int:
    """Halves away from zero, as C does."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))
