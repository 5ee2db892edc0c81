"""Named objects: MultiPathNet looks at every proposal of a picture; scores, boxes and masks of what it recognises.

    picture --features, once--> levels --classify each proposal--> class probabilities + a box per class
            --above a score--> candidates --NMS per class--> the best 100, each with a mask

At test time more looks help (the paper's Table 2): the mirrored picture, shaken proposals, the boxes of a first look taken as
proposals of a second, several networks. Every look gives probabilities and boxes of the same objects; their mean counts.
A proposal's mask belongs to the window it was found in; a refined one to the final box (`masks_in_boxes`).
Differs from the official code: box voting works there only with a field that nobody sets; NMS has no added pixel; shaken
proposals stand for the paper's fractional max pooling, of which it tells no detail.

N proposals or detections, K classes, H x W pixels of the picture. A network's class 0 is the background, label k its class k + 1.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import nms as box_nms

from fairseg_lite.data.results import Boxes
from fairseg_lite.data.windows import PatchSpec, canonical, cut_out, piece_of
from fairseg_lite.errors import InputError, check_choice, check_range
from fairseg_lite.geometry.boxes import clip_boxes, mirrored, vote_boxes, xywh_to_xyxy
from fairseg_lite.inference.found import Detections, Proposals
from fairseg_lite.inference.propose import MAX_SIDE, check_picture, paste_rle, prepare, propose, resized
from fairseg_lite.models.checkpoints import SHIPPED, load_model
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.multipathnet import MultiPathNet, probabilities
from fairseg_lite.models.network import Timer
from fairseg_lite.models.roi_pooling import Region, readable
from fairseg_lite.models.sharpmask import SharpMask

PROPOSALS = 200  # of a picture, where none are given
ROI_BYTES = 2**26  # of pooled features that are looked at together
RANGES = {  # of options
    "score_threshold": (0, 1), "nms": (0, 1), "vote": (0, 1), "prune": (0, 1), "iterations": (1, None), "crops": (0, None),
    "top": (1, None), "max_side": (16, None), "short_side": (16, None),
}  # fmt: skip
SHAKE = 0.05  # a shaken proposal moves each side by up to this share of its length
BATCH = 64  # patches that go through the network together


@torch.inference_mode()
def detect(
    model: MultiPathNet | Sequence[MultiPathNet], image: np.ndarray, proposals: Proposals | Boxes | None = None, *,
    proposer: SharpMask | DeepMask | str | Path | None = None, short_side: int | None = None, max_side: int | None = None,
    score_threshold: float = 0.05, nms: float = 0.3, vote: float | None = None, prune: float | None = None,
    iterations: int = 1, flip: bool = False, crops: int = 0, top: int = 100, masks: str | None = "proposal",
    mask_boxes: bool = False, timer: Timer = nullcontext,
) -> Detections:  # fmt: skip
    """Name what the proposals of a picture show, and correct their boxes.

    Args:
        model: in evaluation mode, best of `prepare`; or several of the same categories, an ensemble. image: (H, W, 3) uint8 RGB.
        proposals: of this picture; None makes 200 with the proposer. Only their `boxes` are needed, but for masks="proposal".
        proposer: makes proposals where none are given, and draws masks for masks="refined": a network, or a name or file for
            `load_model`; None takes the one whose proposals the (first) network was trained on, as its record says.
        short_side: resize the picture so that its shorter side has so many pixels (the paper: 800); None takes what the
            network was trained with (its record).
        max_side: but the longer side never gets more (the paper: 1000); None as for short_side.
        score_threshold: probability above which a box counts.
        nms: of two boxes of a category that overlap by more than this IoU the better one stays.
        vote: box voting: what stays becomes the mean of the category's boxes that overlap it by this IoU (.5), weighted by score.
        prune: a proposal that overlaps a better one by more than this IoU is not looked at.
        iterations: looks; each takes as proposals the boxes that the look before found most likely, and all looks count.
        flip: look at the mirrored picture, too. crops: so many shaken copies of the proposals besides. top: detections at most.
        masks: "proposal" gives the mask of the proposal; "refined" runs the proposer once more, centred on the final box at
            its scale; None gives none.
        mask_boxes: in the end each box is the smallest around its refined mask, where that is not empty.
        timer: called with a stage's name ("features", "rois", "nms", "masks"), gives the context it runs in (`bench`).
    Returns: Detections, best score first; none where no proposal has an area in the picture.
    Raises: InputError, no RGB picture, proposals of a picture of another size or with boxes that are no numbers, no proposer, an
        option outside its range, networks that do not fit each other or whose outputs are no numbers.
    Source: MultiPath sections 3-4; official `ImageDetect.lua`, `Tester_FRCNN.lua`. Lesson: 11.
    """
    models = [model] if isinstance(model, torch.nn.Module) else list(model)
    height, width = check_picture(image)
    _check(models, masks, mask_boxes)
    short_side = models[0].record.short_side if short_side is None else short_side
    max_side = (models[0].record.max_side or MAX_SIDE) if max_side is None else max_side
    given = locals()
    for what, (low, high) in RANGES.items():
        check_range(what, given[what], low, high)
    network: Any = _proposer(models[0], proposer) if proposals is None or masks == "refined" else None
    found: Any = propose(network, image, top_k=PROPOSALS) if proposals is None else proposals
    _check_proposals(found, height, width, masks)
    rois = clip_boxes(found.boxes.float(), height, width)
    origin = torch.nonzero(_has_area(rois))[:, 0]
    if prune is not None:
        origin = origin[box_nms(rois[origin], found.scores[origin].float(), prune)]
    if not len(origin):
        return Detections.none((height, width), masks=masks is not None)

    scale = min(short_side / min(height, width) if short_side else 1.0, max_side / max(height, width))
    looks = _looks(models, image, rois[origin].to(models[0].device), scale, iterations, flip, crops, timer)
    probability, boxes = (torch.cat(parts).cpu() for parts in zip(*looks, strict=True))  # (iterations * N, K), (.., K, 4)
    with timer("nms"):
        row, final, labels, scores = _best(probability, boxes, score_threshold, nms, vote, top)
    with timer("masks"):
        rle = [found.rle[i] for i in origin[row % len(origin)].tolist()] if masks == "proposal" else None
        if masks == "refined":
            rle = masks_in_boxes(network, image, final)
        if mask_boxes and rle:
            tight = xywh_to_xyxy(torch.from_numpy(coco_mask.toBbox(rle))).float()
            final = torch.where(_has_area(tight)[:, None], tight, final)
    return Detections(final, labels, scores, rle, (height, width))


def _looks(
    models: list[MultiPathNet], image: np.ndarray, rois: Tensor, scale: float, iterations: int, flip: bool, crops: int,
    timer: Timer,
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    """Probabilities (N, K) and boxes (N, K, 4) of each look at the picture, which the networks see at a scale."""
    height, width = image.shape[:2]
    levels = []
    with timer("features"):
        for model in models:
            pixels = resized(model.normalise(image), scale)
            both = torch.stack([pixels, pixels.flip(-1)][: 1 + flip]).to(next(model.parameters()).dtype)
            levels.append([readable(x, model.pooling) for x in model.features(both)])
    ratio = rois.new_tensor([pixels.shape[-1] / width, pixels.shape[-2] / height] * 2)
    looks = []
    with timer("rois"):
        for _ in range(iterations):
            probability, boxes = _mean_look(models, levels, rois, ratio, width, flip, crops)
            boxes = clip_boxes(boxes, height, width)
            looks.append((probability, boxes))
            likely = boxes[torch.arange(len(rois)), probability.argmax(1)]
            rois = torch.where(_has_area(likely)[:, None], likely, rois)
    return looks


def _best(
    probability: Tensor, boxes: Tensor, threshold: float, nms: float, vote: float | None, top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What stays of (N, K) and (N, K, 4) after NMS and voting: rows, boxes, labels and scores, best first."""
    if not (probability.isfinite().all() and boxes.isfinite().all()):
        raise InputError("the network's probabilities or boxes are no numbers; its weights are damaged or its training diverged")
    row, labels = torch.nonzero((probability > threshold) & _has_area(boxes), as_tuple=True)
    scores, boxes = probability[row, labels], boxes[row, labels]
    kept = batched_nms(boxes, scores, labels, nms)[:top]
    final = boxes[kept].clone()
    if vote is not None:
        for label in labels[kept].unique():
            mine, all_of_it = labels[kept] == label, labels == label
            final[mine] = vote_boxes(final[mine], boxes[all_of_it], scores[all_of_it], threshold=vote)
    return row[kept], final, labels[kept], scores[kept]


def _mean_look(
    models: list[MultiPathNet], levels: list[list[Tensor]], rois: Tensor, ratio: Tensor, width: int, flip: bool, crops: int
) -> tuple[Tensor, Tensor]:
    """Mean over networks, mirrored or not, shaken or not: probabilities (N, K) and boxes (N, K, 4), without background.

    `rois` (N, 4) and boxes are in pixels of the picture, whose width is given; `ratio` turns them into the network's pixels.
    """
    looks: list[tuple[Tensor, Tensor]] = []
    for model, features in zip(models, levels, strict=True):
        seen_by = [sum(features[i].shape[1] for i in m.levels) for m in model.modules() if isinstance(m, Region)]
        each = 3 * max([1, *seen_by]) * model.pooled**2 * features[0].element_size()  # a RoI's grids, and twice more to join them
        together = max(1, ROI_BYTES // each)
        for mirror in range(1 + flip):
            for crop in range(1 + crops):
                seen = (mirrored(shaken(rois, crop), width) if mirror else shaken(rois, crop)) * ratio
                seen = torch.cat([seen.new_full((len(seen), 1), mirror), seen], 1)
                parts = []
                for chunk in seen.split(together):
                    out = model.classify(features, chunk)
                    parts.append((probabilities(out)[:, 1:], model.boxes_of(chunk[:, 1:], out.deltas)[:, 1:] / ratio))
                p, boxes = (torch.cat(x) for x in zip(*parts, strict=True))
                looks.append((p, mirrored(boxes, width) if mirror else boxes))
    p, boxes = (torch.stack(x).mean(0) for x in zip(*looks, strict=True))
    return p, boxes


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


def _proposer(model: MultiPathNet, given: SharpMask | DeepMask | str | Path | None) -> SharpMask | DeepMask:
    """The network that proposes for another: the one given, or the one its record names."""
    if isinstance(given, torch.nn.Module):
        return given
    name = str(given or model.record.proposals)
    path = SHIPPED.get(name, Path(name))
    if given is None and (path.suffix == ".json" or not path.is_file()):
        advice = "give proposer='shapes-sharp', another network or a checkpoint"
        raise InputError(f"the network was trained on proposals of {name!r}, and no such network is here; {advice}")
    dtype = next(model.parameters()).dtype
    return _ready(name, str(model.device), dtype, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=2)
def _ready(name: str, device: str, dtype: torch.dtype, written: int) -> SharpMask | DeepMask:
    """A proposer from its file, prepared once for all pictures; `written` tells a new file of the same name."""
    network = load_model(name, device=device)
    if isinstance(network, MultiPathNet):
        raise InputError(f"proposer {name!r} holds a MultiPathNet, which proposes nothing; wanted a DeepMask or SharpMask")
    return prepare(network, dtype=dtype)


def _check(models: Sequence[MultiPathNet], masks: str | None, mask_boxes: bool) -> None:
    if not models:
        raise InputError("no network was given; an ensemble needs at least one")
    if len(kinds := {m.num_classes for m in models}) > 1:
        raise InputError(f"the networks know {sorted(kinds)} categories; an ensemble needs networks of the same ones")
    check_choice("masks", masks, ("proposal", "refined", None))
    if mask_boxes and masks != "refined":
        raise InputError(f"mask_boxes takes boxes from refined masks, and masks is {masks!r}; choose masks='refined'")


def _check_proposals(proposals: Proposals | Boxes, height: int, width: int, masks: str | None) -> None:
    boxes, (h, w) = proposals.boxes, getattr(proposals, "size", (height, width))
    if (h, w) != (height, width):
        here = f"this one has {height} x {width}; are they another picture's?"
        raise InputError(f"the proposals are of a picture of {h} x {w} px (height x width), {here}")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not bool(boxes.isfinite().all()):
        bad = f"{int((~boxes.isfinite()).any(-1).sum())} of {len(boxes)} are no numbers" if boxes.ndim == 2 else "not (N, 4)"
        raise InputError(f"proposal boxes of shape {tuple(boxes.shape)}: {bad}; wanted (N, 4), finite pixels")
    if masks == "proposal" and not hasattr(proposals, "rle"):
        raise InputError("these proposals have boxes only; take masks='refined' with a SharpMask, or masks=None")


@torch.inference_mode()
def masks_in_boxes(model: DeepMask | SharpMask, image: np.ndarray, boxes: Tensor) -> list[dict]:
    """The mask of the object in each box, which may reach a little beyond the box.

    In training the networks saw the object centred and its longer side at a fixed length: that is the patch cut here.

    Args: model: in evaluation mode; one from `prepare` is faster. image: (H, W, 3) uint8 RGB. boxes: (N, 4) xyxy in pixels.
    Returns: N compressed RLEs of H x W px, of pixels more likely the object's than not; a mask can be empty.
    Raises: InputError, a box without area or with a corner that is no number.
    Example:
        >>> from fairseg_lite.models.deepmask import deepmask_tiny
        >>> rle = masks_in_boxes(deepmask_tiny().eval(), np.zeros((30, 40, 3), np.uint8), torch.tensor([[5.0, 5, 20, 15]]))
        >>> rle[0]["size"]
        [30, 40]

    Source: ours; of the paper's masks nothing is known. Lesson: 11.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    if not bool((boxes.isfinite().all(1) & (sides > 0).all(1)).all()):
        raise InputError(f"{len(boxes)} boxes, some without an area or with a corner that is no number; leave those out")
    spec = PatchSpec(model.patch_size, model.context, model.object_size, model.target_size)
    full, weight = spec.patch_size + spec.context, next(model.parameters())
    windows = [canonical(box, spec) for box in boxes.tolist()]
    places = [[w.x, w.y, spec.patch_size / w.scale] for w in windows]  # what the mask covers: the patch without context
    x, y, side = torch.tensor(places, device=weight.device).reshape(-1, 3).T
    squares = torch.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], 1)
    rle: list[dict] = []
    for start in range(0, len(windows), BATCH):
        pieces = [piece_of(image, w, full / w.scale, full) for w in windows[start : start + BATCH]]
        patches = cut_out(pieces, full, model.record.padding, weight.device)
        logits = model(model.normalise(patches).to(weight.dtype)).masks.float()
        rle += paste_rle(logits, squares[start : start + BATCH], image.shape[0], image.shape[1], 0.0)[0]
    return rle
