"""Boxes are xyxy in continuous pixels: pixel (row i, column j) covers [j, j+1) x [i, i+1), so a width is x2 - x1.

COCO's xywh is met only where files are read and written. Area and IoU are `torchvision.ops.box_area` and `box_iou`.
The forms of the official MultiPathNet that differ, by a pixel, are in tests/official/boxes.py.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou, clip_boxes_to_image

from fairseg_lite.errors import InputError

FOVEAL = (1.0, 1.5, 2.0, 4.0)  # MultiPath, section 3.1
MAX_GROWTH = math.log(1000 / 16)  # in `decode_boxes`: exp of more would soon be infinite; Detectron's limit
# COCO's corner and size, (..., 4) x, y, width, height in pixels, of our corners (..., 4), and back; of the same dtype. Lesson: 01
xyxy_to_xywh = partial(box_convert, in_fmt="xyxy", out_fmt="xywh")
xywh_to_xyxy = partial(box_convert, in_fmt="xywh", out_fmt="xyxy")


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box that lies in the picture; a box wholly outside becomes one without area at the border.

    Args: boxes (..., 4) xyxy, height and width of the picture, all in pixels.
    Returns: (..., 4) xyxy with 0 <= x <= width and 0 <= y <= height.
    Raises: InputError, the last axis is not 4 long, or a negative height or width.
    Example:
        >>> clip_boxes(torch.tensor([[-3.0, 2.0, 50.0, 8.0]]), height=6, width=10).tolist()
        [[0.0, 2.0, 10.0, 6.0]]

    Source: none, a definition. Lesson: 01.
    """
    _check(boxes)
    if height < 0 or width < 0:
        raise InputError(f"picture of {height} x {width} px; height and width must not be negative")
    return clip_boxes_to_image(boxes, (height, width))


def mirrored(boxes: Tensor, width: float) -> Tensor:
    """Where boxes (..., 4) xyxy lie in the mirrored picture of that width.

    Example:
        >>> mirrored(torch.tensor([1.0, 2, 4, 8]), 10).tolist()
        [6.0, 2.0, 9.0, 8.0]
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], -1)


def foveal_boxes(boxes: Tensor, factors: Sequence[float] = FOVEAL, *, clip: tuple[int, int] | None = None) -> Tensor:
    """What lies around each box: regions of the same centre with the sides times each factor.

    Args:
        boxes: (N, 4) xyxy in pixels.
        factors: F numbers above 0. The official `Foveal` is the default, `ContextRegion` is one number of your own.
        clip: (height, width) of the picture in pixels, to cut the regions at its border; the official code does not.
    Returns: (F, N, 4) xyxy, of the same dtype.
    Raises: InputError, boxes of another shape, or a factor that is not above 0.
    Example:
        >>> foveal_boxes(torch.tensor([[10.0, 10.0, 20.0, 14.0]]), (1, 2))[:, 0].tolist()
        [[10.0, 10.0, 20.0, 14.0], [5.0, 8.0, 25.0, 16.0]]

    Source: MultiPath section 3; official `modules/Foveal.lua`, `ContextRegion.lua`. Lesson: 09.
    """
    _check(boxes)
    if not all(f > 0 for f in factors):
        raise InputError(f"factors are {tuple(factors)}; each must be above 0")
    sides = boxes[..., 2:] - boxes[..., :2]  # (N, 2)
    regions = torch.stack([boxes + (f - 1) / 2 * torch.cat([-sides, sides], -1) for f in factors])
    return regions if clip is None else clip_boxes(regions, *clip)


def encode_boxes(boxes: Tensor, targets: Tensor) -> Tensor:
    """How to move and scale each box so that it becomes its target: what a box head learns.

    Args: boxes and targets, (..., 4) xyxy in pixels, with an area.
    Returns: (..., 4) dx, dy (of the centre, in widths and heights of the box), dw, dh (logarithms of the growth).
    Raises: InputError, a box or target without area, or another last axis.
    Example:
        >>> encode_boxes(torch.tensor([0.0, 0, 10, 20]), torch.tensor([5.0, 0, 15, 20])).tolist()
        [0.5, 0.0, 0.0, 0.0]

    Source: Girshick et al. 2014, appendix C; official `utils.convertTo`. Lesson: 08.
    """
    _check(boxes)
    _check(targets)
    centre, sides = _centres(boxes)
    target_centre, target_sides = _centres(targets)
    for what, s in (("box", sides), ("target", target_sides)):
        if not bool((s > 0).all()):
            raise InputError(f"a {what} has a side of {s.min():.4g} px; encoding divides by sides: drop boxes without area")
    return torch.cat([(target_centre - centre) / sides, torch.log(target_sides / sides)], -1)


def decode_boxes(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Undo `encode_boxes`: the boxes that the deltas lead to.

    Args:
        boxes: (N, 4) xyxy in pixels.
        deltas: (N, ..., 4), one set for each box or several (one for each class). Growth stops at 62 times the side.
    Returns: like deltas, xyxy in pixels; not clipped to a picture.
    Raises: InputError, shapes that do not fit.
    Example:
        >>> decode_boxes(torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[0.5, 0, 0, 0]])).tolist()
        [[5.0, 0.0, 15.0, 20.0]]

    Source: Girshick et al. 2014, appendix C; official `utils.convertFrom`. Lesson: 08.
    """
    _check(boxes)
    _check(deltas)
    if boxes.ndim != 2 or len(deltas) != len(boxes):
        raise InputError(f"boxes {tuple(boxes.shape)} and deltas {tuple(deltas.shape)} do not fit; wanted (N, 4) and (N, ..., 4)")
    centre, sides = (x.view(-1, *[1] * (deltas.ndim - 2), 2) for x in _centres(boxes))
    centre = centre + deltas[..., :2] * sides
    half = sides * deltas[..., 2:].clamp(max=MAX_GROWTH).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def vote_boxes(kept: Tensor, boxes: Tensor, scores: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Box voting: each box that NMS kept becomes the mean of its neighbours, the suppressed ones too, weighted by score.

    Args:
        kept: (M, 4) xyxy in pixels.
        boxes, scores: (N, 4) xyxy, all candidates of the class; (N,) at least 0.
        threshold: IoU from which on a candidate votes.
    Returns: (M, 4) xyxy; a box that nobody with a positive score votes for stays as it is.
    Raises: InputError, shapes that do not fit, or a negative score.
    Example:
        >>> kept, boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
        >>> vote_boxes(kept, boxes, torch.tensor([0.75, 0.25, 0.9])).tolist()
        [[0.5, 0.0, 10.5, 10.0]]

    Source: Gidaris and Komodakis 2015, section 4.2; official `bbox_vote` (which squares scores on demand). Lesson: 11.
    """
    _check(kept)
    _check(boxes)
    if scores.shape != boxes.shape[:1] or bool((scores < 0).any()):
        raise InputError(f"scores have shape {tuple(scores.shape)}; wanted ({len(boxes)},), none below 0")
    weights = (box_iou(kept, boxes) >= threshold) * scores  # (M, N)
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total.clamp(min=torch.finfo(total.dtype).tiny), kept)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def _check(boxes: Tensor) -> None:
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise InputError(f"boxes have shape {tuple(boxes.shape)}; wanted (..., 4): four numbers for each box")
