"""MultiPathNet's minibatches: pictures, regions of interest (RoIs) in them, and what each RoI is at each IoU threshold.

    RoIs of a picture:  its proposals and its ground-truth boxes, without those in crowds
    foreground:         IoU with an object >= the lowest threshold; a quarter of the RoIs
    background:         IoU in [.1, that threshold); below .1 only where there are too few
    label for head u:   the object's category where the IoU is >= u, else background (the paper's integral loss)

`untied=True` samples as the official code does: there a head is the number of a loading thread, and the threshold belongs
to a random loader of that thread, so that each mini-batch trains one head with a threshold that has nothing to do with it.
A batch is a pure function of (seed, step). Legend: B pictures, N RoIs of a batch, R RoIs of a picture, U heads. Class 0 is the
background, class k + 1 the data set's label k.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_area, box_iou

from fairseg_lite.data.mix import Mix
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.scenes import Scene, SceneDataset, cached, image_ids, share
from fairseg_lite.data.windows import recoloured
from fairseg_lite.errors import InputError, check_range
from fairseg_lite.geometry.boxes import clip_boxes, encode_boxes, mirrored
from fairseg_lite.geometry.pixels import IMAGENET, Pixels, normalise, sent

IN_CROWD = 0.7  # share of a RoI's own area
WHY = ("no area", "outside", "in a crowd")  # proposals are left out


class Assigned(NamedTuple):
    """All RoIs of a picture that may be drawn, the objects' own boxes first, each with the object it overlaps most."""

    boxes: Tensor  # (R, 4) float32 xyxy, inside the picture
    ious: Tensor  # (R,) float32 with that object; 0 without one
    labels: Tensor  # (R,) int64 label of that object; -1 without one
    truth: Tensor  # (R, 4) float32 box of that object; the RoI's own without one
    dropped: Counter  # proposals left out, by `WHY`


@dataclass(frozen=True)
class RoiBatch:
    """B pictures and N of their RoIs."""

    images: Tensor  # (B, 3, H, W) float32 normalised; zeros right of and below a smaller picture
    rois: Tensor  # (N, 5) float32: index of the picture, xyxy in its pixels
    labels: Tensor  # (U, N) int64: 0 background, k + 1 for label k, -1 where this head learns nothing
    targets: Tensor  # (N, 4) float32 dx, dy, dw, dh to the object's box, not normalised; 0 for background of all heads
    ious: Tensor  # (N,) float32
    known: Tensor  # (N, K + 1) bool: classes that the RoI's picture was searched for, background and its own objects' among them

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "RoiBatch":
        return RoiBatch(*(sent(x, device) for x in vars(self).values()))


def pictures_of(dataset: SceneDataset, boxes: Mapping[int, Boxes]) -> list[int]:
    """Indices of the scenes that proposals belong to, in the data set's order.

    Args: dataset; boxes by picture id, each (N, 4) and finite.
    Raises: ValueError, when there are none, they are of other pictures, or one of them is no box.
    """
    ids = image_ids(dataset)
    if not boxes:
        raise InputError("there are no proposals for any picture; make some with `fairseg-lite propose`")
    unknown = sorted(set(boxes) - set(ids))
    if unknown:
        known = f"its {len(ids)} pictures have ids from {min(ids)} to {max(ids)}" if ids else "it has no picture"
        raise InputError(
            f"proposals for {len(unknown)} of {len(boxes)} pictures (the first has id {unknown[0]}) are of no picture in the "
            f"data set: {known}; were they made for other data?"
        )
    for key, found in boxes.items():
        odd = int((~found.boxes.isfinite()).sum())
        if found.boxes.shape != (len(found.boxes), 4) or odd:
            what = f"shape {tuple(found.boxes.shape)}, {odd} numbers not finite"
            raise InputError(f"proposals of picture {key}: {what}; wanted (N, 4), all finite")
    return [i for i, key in enumerate(ids) if key in boxes]


def assign(scene: Scene, proposals: Tensor) -> Assigned:
    """What each proposal of a picture is: the object it overlaps most, and by how much.

    Args:
        scene: the picture and its objects.
        proposals: (N, 4) xyxy in pixels; cut to the picture.
    Returns: Assigned: the boxes of the objects (not of crowds, not of empty masks), then the proposals that are left.
    Source: Fast R-CNN; crowds: official `BatchProviderBase`. Lesson: 08.
    """
    h, w = scene.image.shape[:2]
    inside = clip_boxes(proposals.float(), h, w)
    no_area = ~(proposals[:, 2:] > proposals[:, :2]).all(1)
    outside = ~no_area & ~(inside[:, 2:] > inside[:, :2]).all(1)
    objects = torch.from_numpy(scene.boxes)
    real = box_area(objects) > 0
    crowd = torch.from_numpy(scene.crowd)
    in_crowd = ~no_area & ~outside & (_share_inside(inside, objects[crowd & real]) > IN_CROWD)
    truth = objects[real & ~crowd]
    labels = torch.from_numpy(scene.labels)[real & ~crowd]
    rois = torch.cat([truth, inside[~(no_area | outside | in_crowd)]])
    counted = +Counter({why: int(which.sum()) for why, which in zip(WHY, (no_area, outside, in_crowd), strict=True)})
    if len(truth) == 0:
        return Assigned(rois, torch.zeros(len(rois)), torch.full((len(rois),), -1), rois, counted)
    ious, best = box_iou(rois, truth).max(1)
    return Assigned(rois, ious, labels[best], truth[best], counted)


def _share_inside(boxes: Tensor, others: Tensor) -> Tensor:
    """(N,) largest share of each box's own area that lies in one of the others."""
    if len(others) == 0:
        return torch.zeros(len(boxes))
    corner = torch.minimum(boxes[:, None, 2:], others[:, 2:]) - torch.maximum(boxes[:, None, :2], others[:, :2])
    return (corner.clamp(min=0).prod(2) / box_area(boxes).clamp(min=1e-9)[:, None]).amax(1)


class RoiSampler:
    """Batches of pictures and RoIs from any data set and any proposals.

    Args:
        dataset: scenes; wrapped in a `SceneCache`, unless it is one. Of a `Mix` a set is drawn first, by its weight.
        boxes: proposals by picture id, from `load_boxes`; only pictures that are in it are drawn, each of a set once in a round.
        thresholds: IoU from which a RoI is its object, for each head, ascending.
        images: pictures in a batch; paper: 4.
        rois: RoIs of each picture at most; paper: 64.
        fg_fraction: share of foreground, where there is so much.
        background: lowest IoU of background, unless there is too little of it; 0 draws from all.
        top: use the best so many proposals of a picture; None: all. Paper: 1000.
        flip: mirror every other picture, drawn by chance.
        short_side: px; each picture is resized so that its shorter side has a length drawn from (lo, hi); None: as it is.
        max_side: px; the longer side is never longer.
        colour: shake brightness, contrast and saturation of each picture by up to this share; the paper does not.
        untied: the official code's sampling: one random head learns, with a random threshold.
        seed: batches depend on (seed, step) alone.
        pixels: how the network wants its pictures.
    Attributes: dropped, the proposals left out of the pictures drawn so far, by why; `left_out`, the same for each picture.
    Raises: InputError, proposals of other pictures or not finite, no proposals, or an option outside its range.
    Source: MultiPath section 4.1 [papers 3.3]; official `DataSampler.lua`, `BatchProviderROI.lua`. Lesson: 08.
    """

    def __init__(
        self, dataset: SceneDataset, boxes: Mapping[int, Boxes], *, thresholds: Sequence[float] = (0.5,), images: int = 2,
        rois: int = 64, fg_fraction: float = 0.25, background: float = 0.1, top: int | None = None, flip: bool = True,
        short_side: tuple[int, int] | None = None, max_side: int = 1000, colour: float = 0.0, untied: bool = False,
        seed: int = 0, pixels: Pixels = IMAGENET,
    ):  # fmt: skip
        thresholds = tuple(float(u) for u in thresholds)
        if not thresholds or list(thresholds) != sorted(set(thresholds)) or not 0 < thresholds[0] <= thresholds[-1] <= 1:
            raise InputError(f"thresholds are {thresholds}; wanted ascending IoUs above 0, at most 1")
        for what, value in (("images", images), ("rois", rois), ("top", top)):
            check_range(what, value, 1, None)
        if not 0 <= fg_fraction <= 1 or not 0 <= background < thresholds[0]:
            raise InputError(
                f"fg_fraction is {fg_fraction} and background {background}; wanted a share, and an IoU from 0 to below "
                f"the lowest threshold {thresholds[0]}"
            )
        low, high = short_side or (1, 1)
        if not 1 <= low <= high or max_side < max(low, 16):
            raise InputError(f"short_side is {short_side} and max_side {max_side}; wanted 1 <= lo <= hi, lo <= max_side >= 16")
        self.indices = pictures_of(dataset, boxes)
        below = getattr(dataset, "dataset", dataset)  # of a SceneCache
        self.mix = below if isinstance(below, Mix) else Mix([dataset])
        self.parts = np.split(self.indices, np.searchsorted(self.indices, self.mix.starts[1:-1]))  # of each set
        if empty := [i + 1 for i, part in enumerate(self.parts) if not len(part)]:
            raise InputError(f"there are no proposals for any picture of data set {empty[0]}; leave it out, or make some")
        self.dataset = cached(dataset)
        self.boxes = {key: found.boxes[:top] for key, found in boxes.items()}
        self.thresholds, self.images, self.rois, self.seed = thresholds, images, rois, seed
        self.fg_fraction, self.background, self.flip, self.untied = fg_fraction, background, flip, untied
        self.short_side, self.max_side, self.colour, self.pixels = short_side, max_side, colour, pixels
        self.left_out = torch.zeros(len(dataset), len(WHY), dtype=torch.int32).share_memory_()  # by processes that draw

    def __len__(self) -> int:
        """Pictures that are drawn from."""
        return len(self.indices)

    @property
    def dropped(self) -> Counter[str]:
        return +Counter(dict(zip(WHY, self.left_out.sum(0).tolist(), strict=True)))

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> RoiBatch:
        """Batch number `step`, or one of its equal parts."""
        g = np.random.default_rng((self.seed, step, shard, shards) if shards > 1 else (self.seed, step))
        cut, head = self.thresholds[0], None
        if self.untied:
            cut, head = self.thresholds[g.integers(len(self.thresholds))], int(g.integers(len(self.thresholds)))
        n = share("images", self.images, shards)
        parts = [self._picture(g, index, cut) for index in self.pictures(step)[shard * n : (shard + 1) * n]]
        images = _padded([part[0] for part in parts])
        rois = torch.cat([F.pad(part[1], (1, 0), value=float(b)) for b, part in enumerate(parts)])
        truth = torch.cat([part[2] for part in parts])
        ious, classes = (torch.cat([part[3][k] for part in parts]) for k in (0, 1))
        labels = torch.stack([torch.where(ious >= (cut if self.untied else u), classes, 0) for u in self.thresholds])
        if head is not None:
            labels[torch.arange(len(labels)) != head] = -1
        targets = torch.where((ious >= cut)[:, None], encode_boxes(rois[:, 1:], truth), 0.0)
        known = torch.stack([part[4] for part in parts])[rois[:, 0].long()]
        return RoiBatch(images, rois, labels, targets, ious, known)

    def pictures(self, step: int) -> list[int]:
        """Indices of the scenes of a batch: every picture once, in an order of its own for each round, then again; of a `Mix`
        one of a set that is drawn by its weight."""
        if len(self.parts) > 1:
            g = np.random.default_rng((self.seed, step, 2))
            return [int(g.choice(self.parts[i])) for i in g.choice(len(self.parts), self.images, p=self.mix.shares)]
        n, places = len(self.indices), range(step * self.images, (step + 1) * self.images)
        orders = {r: np.random.default_rng((self.seed, r, 1)).permutation(n) for r in {i // n for i in places}}
        return [self.indices[orders[i // n][i % n]] for i in places]

    def _picture(self, g: np.random.Generator, index: int, cut: float) -> tuple:
        """One picture (3, H, W), RoIs drawn in it (n, 4), their objects' boxes (n, 4), (IoUs, classes), known (K + 1,)."""
        scene = self.dataset[index]
        found = assign(scene, self.boxes[scene.image_id])
        self.left_out[index] = torch.tensor([found.dropped[why] for why in WHY])
        at = draw(found.ious.numpy(), g, count=self.rois, fg_fraction=self.fg_fraction, background=self.background, cut=cut)
        rois, truth, image = found.boxes[at], found.truth[at], scene.image
        h, w = image.shape[:2]
        low, high = self.short_side or (0, 0)
        scale = min(g.integers(low, high + 1) / min(h, w) if high else 1.0, self.max_side / max(h, w))
        if self.flip and g.integers(2):
            image = np.ascontiguousarray(image[:, ::-1])
            rois, truth = mirrored(rois, w), mirrored(truth, w)
        pixels = normalise(image, self.pixels)
        size = [max(round(scale * n), 1) for n in (h, w)]
        if size != [h, w]:  # as `inference` resizes
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
            by = rois.new_tensor([size[1] / w, size[0] / h] * 2)
            rois, truth = rois * by, truth * by
        if self.colour:
            pixels = recoloured(pixels[None], g.uniform(-self.colour, self.colour, (3, 1)))[0]
        known = torch.from_numpy(np.concatenate([[True], self.mix.searched[self.mix.set_of(index)]]))
        known[scene.labels + 1] = True  # what is annotated in a picture was seen there
        return pixels, rois, truth, (found.ious[at], found.labels[at] + 1), known


def draw(
    ious: np.ndarray, g: np.random.Generator, *, count: int, fg_fraction: float, background: float, cut: float
) -> np.ndarray:
    """Choose RoIs of one picture.

    Args:
        ious: (R,) of all its RoIs with their objects.
        count: at most so many; fewer where there are fewer.
        fg_fraction: at most this share, rounded, has an IoU of `cut` or more.
        background: the rest has an IoU from here to `cut`; where there are too few, also from below.
        cut: IoU from which a RoI is foreground.
    Returns: their indices, foreground first, each at most once.
    """
    kinds = (ious >= cut, (ious < cut) & (ious >= background), ious < min(background, cut))
    chosen: list[np.ndarray] = []
    for which, most in zip(kinds, (round(count * fg_fraction), count, count), strict=True):
        rows = np.flatnonzero(which)
        chosen.append(g.permutation(rows)[: min(most, count - sum(map(len, chosen)))])
    return np.concatenate(chosen)


def _padded(images: list[Tensor]) -> Tensor:
    """(B, 3, H, W), channels last: each picture at the top left, zeros (the mean colour) beside it."""
    h, w = (max(image.shape[k] for image in images) for k in (1, 2))
    same = torch.stack([F.pad(image, (0, w - image.shape[2], 0, h - image.shape[1])) for image in images])
    return same.contiguous(memory_format=torch.channels_last)
