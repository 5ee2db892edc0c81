"""Named objects: MultiPathNet looks at every proposal of a picture; scores, boxes and masks of what it recognises.

    picture --features, once--> levels --classify each proposal--> class probabilities + a box per class
            --above a score--> candidates --NMS per class--> the best 100, each with a mask

At test time more looks help (the paper's Table 2): the mirrored picture, shaken proposals, the boxes of a first look taken as
proposals of a second, several networks. Every look gives probabilities and boxes of the same objects; their mean counts.
Differs from the official code: box voting works there only with a field that nobody sets; NMS has no added pixel; shaken
proposals stand for the paper's fractional max pooling, of which it tells no detail.

N proposals or detections, K classes, H x W pixels of the picture. A network's class 0 is the background, label k its class k + 1.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import batched_nms

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import clip_boxes, mirrored, vote_boxes, xywh_to_xyxy, xyxy_to_xywh
from fairseg_lite.geometry.masks import rle_decode
from fairseg_lite.inference.box_masks import masks_in_boxes
from fairseg_lite.inference.propose import MAX_SIDE, Proposals
from fairseg_lite.inference.pyramid import Timer, resized
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.multipathnet import MultiPathNet, probabilities
from fairseg_lite.models.sharpmask import SharpMask

CHUNK = 512  # proposals that go through a network together
SHAKE = 0.05  # a shaken proposal moves each side by up to this share of its length


@dataclass(frozen=True)
class Detections:
    """Named objects of one picture, best first."""

    boxes: Tensor  # (N, 4) float32 xyxy in pixels
    labels: Tensor  # (N,) int64, index into the categories
    scores: Tensor  # (N,) float32, probability of the category
    rle: list[dict] | None  # N compressed COCO RLEs of H x W px; None: without masks
    size: tuple[int, int] | None  # (H, W); None where nothing says it

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: slice | Tensor) -> "Detections":
        """Some of them, by a slice or a tensor of indices or bools."""
        index = torch.arange(len(self))[which].reshape(-1)
        rle = None if self.rle is None else [self.rle[i] for i in index.tolist()]
        return Detections(self.boxes[index], self.labels[index], self.scores[index], rle, self.size)

    def masks(self) -> Tensor:
        """(N, H, W) bool. ValueError without masks."""
        if self.rle is None:
            raise InputError("these detections have boxes only; detect with masks='proposal' or 'refined'")
        decoded = [torch.from_numpy(rle_decode(r)) for r in self.rle]
        return torch.stack(decoded) if decoded else torch.zeros(0, *(self.size or (0, 0)), dtype=torch.bool)

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """COCO results, one dict a detection, as `COCO.loadRes` and `from_coco` read them.

        The box is the network's, not the smallest around the mask. Given both, `loadRes` takes the area of the *box* for the
        size classes of masks; `evaluate_detections` does not.

        Args:
            image_id: of the picture.
            category_ids: the data set's id for each label, gaps and any order allowed.
        Raises:
            InputError: a label without an id.
        Example:
            >>> one = Detections(torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([1]), torch.tensor([0.5]), None, (9, 9))
            >>> one.to_coco(7, category_ids=(90, 3))
            [{'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]

        Source: COCO's result format. Lesson: 08.
        """
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(category_ids):
            raise InputError(
                f"labels reach from {int(self.labels.min())} to {int(self.labels.max())}, but there are {len(category_ids)} "
                "category ids; is the network another data set's?"
            )
        ids = [int(category_ids[label]) for label in self.labels.tolist()]
        boxes = xyxy_to_xywh(self.boxes.double()).tolist()  # in double: the way back gives the same float32
        rows = zip(ids, boxes, self.scores.tolist(), self.rle or [None] * len(self), strict=True)
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score} | ({"segmentation": r} if r else {})
            for category, box, score, r in rows
        ]

    @classmethod
    def from_coco(
        cls, results: Iterable[dict], category_ids: Sequence[int], *, size: tuple[int, int] | None = None
    ) -> "Detections":
        """The detections of one picture from its COCO results, best first.

        Args:
            results: of one picture, or none.
            category_ids: as for `to_coco`.
            size: (H, W) of the picture, where no mask tells it.
        Raises:
            InputError: results of several pictures, of an unknown category, without box or score, some with a mask and
                some without.
        """
        rows = sorted(results, key=lambda r: -r.get("score", math.inf))
        if len({r.get("image_id") for r in rows}) > 1:
            raise InputError(f"{len(rows)} results of {len({r.get('image_id') for r in rows})} pictures; wanted those of one")
        label_of = {int(k): i for i, k in enumerate(category_ids)}
        for r in rows:
            for key in ("bbox", "score", "category_id"):
                if key not in r:
                    raise InputError(f"a result of picture {r.get('image_id')!r} has no {key!r}; are these detections?")
            if r["category_id"] not in label_of:
                known = ", ".join(map(str, sorted(label_of)))
                raise InputError(f"a result of picture {r['image_id']!r} has category_id {r['category_id']!r}; known are {known}")
        masks = [r["segmentation"] for r in rows if r.get("segmentation") is not None]
        if masks and len(masks) < len(rows):
            raise InputError(
                f"{len(masks)} of {len(rows)} results of picture {rows[0]['image_id']!r} have a mask; wanted all or none"
            )
        return cls(
            xywh_to_xyxy(torch.tensor([r["bbox"] for r in rows], dtype=torch.float64).reshape(-1, 4)).float(),
            torch.tensor([label_of[r["category_id"]] for r in rows], dtype=torch.int64),
            torch.tensor([r["score"] for r in rows], dtype=torch.float32),
            masks or (None if rows else []),
            tuple(masks[0]["size"]) if masks else size,
        )


@torch.inference_mode()
def detect(
    model: MultiPathNet | Sequence[MultiPathNet],
    image: np.ndarray,
    proposals: Proposals,
    *,
    sharpmask: SharpMask | DeepMask | None = None,
    short_side: int | None = None,
    max_side: int | None = None,
    score_threshold: float = 0.05,
    nms: float = 0.3,
    vote: float | None = None,
    iterations: int = 1,
    flip: bool = False,
    crops: int = 0,
    top: int = 100,
    masks: str | None = "proposal",
    mask_boxes: bool = False,
    timer: Timer = nullcontext,
) -> Detections:
    """Name what the proposals of a picture show, and correct their boxes.

    Args:
        model: in evaluation mode, or several of the same categories (an ensemble).
        image: (H, W, 3) uint8 RGB.
        proposals: of this picture. Only `boxes` (N, 4) is needed, but for masks="proposal".
        sharpmask: for masks="refined"; a DeepMask does, too.
        short_side: resize the picture so that its shorter side has so many pixels (the paper: 800); None takes what the
            network was trained with (its record).
        max_side: but the longer side never gets more (the paper: 1000); None as for short_side.
        score_threshold: probability above which a box counts.
        nms: of two boxes of a category that overlap by more than this IoU the better one stays.
        vote: box voting: what stays becomes the mean of the category's boxes that overlap it by this IoU (.5), weighted by score.
        iterations: looks; each takes as proposals the boxes that the look before found most likely, and all looks count.
        flip: look at the mirrored picture, too.
        crops: so many shaken copies of the proposals besides.
        top: detections at most.
        masks: "proposal" gives the mask of the proposal; "refined" runs `sharpmask` once more, centred on the final box at
            its scale; None gives none.
        mask_boxes: in the end each box is the smallest around its refined mask, where that is not empty.
        timer: called with a stage's name ("features", "rois", "nms", "masks"), gives the context it runs in (`bench`).
    Returns:
        Detections, best score first; none where no proposal has an area in the picture.
    Raises:
        InputError: no RGB picture, proposals of a picture of another size or with boxes that are no numbers, an option outside
            its range, networks that do not fit each other or whose outputs are no numbers.
    Source: MultiPath sections 3-4; official `ImageDetect.lua`, `Tester_FRCNN.lua`. Lesson: 11.
    """
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    _check(models, image, proposals, sharpmask, masks, mask_boxes)
    record = models[0].record
    short_side = record.short_side if short_side is None else short_side
    max_side = (record.max_side or MAX_SIDE) if max_side is None else max_side
    for what, value, low, high in (
        ("score_threshold", score_threshold, 0, 1), ("nms", nms, 0, 1), ("vote", 0.5 if vote is None else vote, 0, 1),
        ("iterations", iterations, 1, math.inf), ("crops", crops, 0, math.inf), ("top", top, 1, math.inf),
        ("max_side", max_side, 16, math.inf), ("short_side", 16 if short_side is None else short_side, 16, math.inf),
    ):  # fmt: skip
        if not low <= value <= high:
            raise InputError(f"{what} is {value}; it must be from {low} to {high}")
    height, width = image.shape[:2]
    rois = clip_boxes(proposals.boxes.float(), height, width)
    origin = torch.nonzero(_has_area(rois))[:, 0]
    rois = rois[origin].to(models[0].device)
    if not len(rois):
        empty = torch.zeros(0)
        return Detections(empty.view(0, 4), empty.long(), empty, None if masks is None else [], (height, width))

    with timer("features"):
        scale = min(1.0 if short_side is None else short_side / min(height, width), max_side / max(height, width))
        levels = []
        for m in models:
            pixels = resized(m.normalise(image), scale)
            levels.append(m.features(torch.stack([pixels, pixels.flip(-1)][: 1 + flip])))
    ratio = rois.new_tensor([pixels.shape[-1] / width, pixels.shape[-2] / height] * 2)
    looks = []
    with timer("rois"):
        for _ in range(iterations):
            probability, boxes = _mean_look(models, levels, rois, ratio, width, flip, crops)
            boxes = clip_boxes(boxes, height, width)
            looks.append((probability, boxes))
            likely = boxes[torch.arange(len(rois)), probability.argmax(1)]
            rois = torch.where(_has_area(likely)[:, None], likely, rois)
    probability, boxes = (torch.cat(parts).cpu() for parts in zip(*looks, strict=True))  # (iterations * N, K), (.., K, 4)
    if not (probability.isfinite().all() and boxes.isfinite().all()):
        raise InputError("the network's probabilities or boxes are no numbers; its weights are damaged or its training diverged")

    with timer("nms"):
        row, labels = torch.nonzero((probability > score_threshold) & _has_area(boxes), as_tuple=True)
        scores, boxes = probability[row, labels], boxes[row, labels]
        kept = batched_nms(boxes, scores, labels, nms)[:top]
        final = boxes[kept].clone()
        for label in labels[kept].unique() if vote is not None else ():
            mine, all_of_it = labels[kept] == label, labels == label
            final[mine] = vote_boxes(final[mine], boxes[all_of_it], scores[all_of_it], threshold=vote)
    rle = None
    with timer("masks"):
        if masks == "proposal":
            rle = [proposals.rle[i] for i in origin[row[kept] % len(origin)].tolist()]
        elif masks == "refined":
            rle = masks_in_boxes(sharpmask, image, final)
            if mask_boxes and rle:
                tight = xywh_to_xyxy(torch.from_numpy(coco_mask.toBbox(rle))).float()
                final = torch.where(_has_area(tight)[:, None], tight, final)
    return Detections(final, labels[kept], scores[kept], rle, (height, width))


def _mean_look(
    models: Sequence[MultiPathNet],
    levels: Sequence[list[Tensor]],
    rois: Tensor,
    ratio: Tensor,
    width: int,
    flip: bool,
    crops: int,
) -> tuple[Tensor, Tensor]:
    """Mean over networks, mirrored or not, shaken or not: probabilities (N, K) and boxes (N, K, 4), without background.

    `rois` (N, 4) and boxes are in pixels of the picture, whose width is given; `ratio` turns them into the network's pixels.
    """
    total, looks = None, 0
    for model, features in zip(models, levels, strict=True):
        for mirror in range(1 + flip):
            for crop in range(1 + crops):
                seen = shaken(rois, crop)
                seen = (mirrored(seen, width) if mirror else seen) * ratio
                seen = torch.cat([seen.new_full((len(seen), 1), mirror), seen], 1)
                parts = []
                for chunk in seen.split(CHUNK):
                    out = model.classify(features, chunk)
                    parts.append((probabilities(out)[:, 1:], model.boxes_of(chunk[:, 1:], out.deltas)[:, 1:] / ratio))
                p, boxes = (torch.cat(x) for x in zip(*parts, strict=True))
                boxes = mirrored(boxes, width) if mirror else boxes
                total = (p, boxes) if total is None else (total[0] + p, total[1] + boxes)
                looks += 1
    return total[0] / looks, total[1] / looks


def shaken(boxes: Tensor, seed: int) -> Tensor:
    """Boxes (N, 4) xyxy with each side moved by up to SHAKE of the box's length along that axis; seed 0 moves nothing.

    Example:
        >>> box = torch.tensor([[0.0, 0, 100, 100]])
        >>> torch.equal(shaken(box, 0), box), bool(((shaken(box, 1) - box).abs() <= 5).all())
        (True, True)
    """
    if seed == 0:
        return boxes
    share = torch.rand(boxes.shape, generator=torch.Generator().manual_seed(seed)).to(boxes) * 2 - 1
    return boxes + SHAKE * share * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _has_area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def _check(models: list, image: np.ndarray, proposals: Proposals, sharpmask: object, masks: str | None, mask_boxes: bool) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        what = f"{image.dtype} {tuple(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise InputError(f"picture is {what}; wanted an array of uint8 (H, W, 3), RGB, with H and W at least 1")
    if not models:
        raise InputError("no network was given; an ensemble needs at least one")
    if len(kinds := {m.num_classes for m in models}) > 1:
        raise InputError(f"the networks know {sorted(kinds)} categories; an ensemble needs networks of the same ones")
    if masks not in ("proposal", "refined", None):
        raise InputError(f"masks is {masks!r}; choose 'proposal', 'refined' or None")
    boxes, size = proposals.boxes, getattr(proposals, "size", None)
    if size is not None and tuple(size) != image.shape[:2]:
        raise InputError(
            f"the proposals are of a picture of {size[0]} x {size[1]} px (height x width), this one has "
            f"{image.shape[0]} x {image.shape[1]}; are they another picture's?"
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not bool(boxes.isfinite().all()):
        bad = f"{int((~boxes.isfinite()).any(-1).sum())} of {len(boxes)} are no numbers" if boxes.ndim == 2 else "not (N, 4)"
        raise InputError(f"proposal boxes of shape {tuple(boxes.shape)}: {bad}; wanted (N, 4), finite pixels")
    if masks == "proposal" and getattr(proposals, "rle", None) is None:
        raise InputError("these proposals have boxes only; take masks='refined' with a SharpMask, or masks=None")
    if masks == "refined" and sharpmask is None:
        raise InputError("masks='refined' needs a network for masks: give sharpmask=...")
    if mask_boxes and masks != "refined":
        raise InputError(f"mask_boxes takes boxes from refined masks, and masks is {masks!r}; choose masks='refined'")
