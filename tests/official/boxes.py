"""Boxes as the official MultiPathNet reckons with them: a box ends *in* pixel x2, so its width is x2 - x1 + 1.

To compare with it, not to use: `torchvision.ops.nms`, `box_iou` and `vote_boxes` are this library's own. The extra pixel is
there in overlaps only, and makes small boxes overlap more; boxes are coded as `encode_boxes` does, and decoded without a limit.
Nothing here depends on whether corners count from 0 or 1.

Shapes: N, M boxes; a scored box is (x1, y1, x2, y2, score).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def official_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) IoU of (N, 4+) and (M, 4+) boxes with the extra pixel. Source: official `utils.boxoverlap`, `nms.c`."""
    inter = _overlap(a, b).clamp(min=0).prod(-1)
    return inter / (_area(a)[:, None] + _area(b)[None] - inter)


def official_intersection(boxes: Tensor, box: Tensor) -> Tensor:
    """The share of each box's area that lies in another: what decides which RoIs a crowd swallows.

    It has the official fault: where the boxes miss each other in both directions, minus times minus gives a share above 0, and
    far enough away above any limit; so RoIs diagonal to a crowd are dropped, too.

    Args:
        boxes: (N, 4) xyxy.
        box: (4,) xyxy.
    Returns:
        (N,), between minus and plus infinity.
    Example:
        >>> official_intersection(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([100.0, 100, 109, 109])).item()
        81.0

    Source: official `utils.intersection`. Lesson: none.
    """
    return _overlap(boxes, box[None])[:, 0].prod(-1) / _area(boxes)


def official_nms(boxes: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression, in a loop: what overlaps a kept box by more than the threshold goes.

    Args:
        boxes: (N, 5) scored boxes; N may be 0 (where the official code crashes).
        threshold: IoU with the extra pixel; one of exactly this stays.
    Returns:
        (M,) int64 indices of the kept boxes, the best first, of equals the first first.
    Example:
        >>> official_nms(torch.tensor([[1.0, 1, 10, 10, 0.5], [1, 1, 10, 10, 0.9], [11, 1, 20, 10, 0.1]]), 0.3).tolist()
        [1, 2]

    Source: official `nms.c` and `utils.nms_dense`. Lesson: none.
    """
    left, kept = boxes[:, 4].argsort(descending=True, stable=True), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[official_iou(boxes[left], boxes[best][None])[:, 0] <= threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64, device=boxes.device)


def official_vote(kept: Tensor, boxes: Tensor, *, threshold: float = 0.5, power: float = 1.0) -> Tensor:
    """Box voting as `vote_boxes` does it, on overlaps with the extra pixel and with scores to a power.

    Args:
        kept: (M, 5) scored boxes, from `official_nms`.
        boxes: (N, 5) all candidates.
        threshold: IoU from which on a candidate votes.
        power: of the voters' scores.
    Returns:
        (M, 5): the means, with the scores of the kept.
    Source: official `bbox_vote`; the official tester hands it a threshold that was never set, and crashes. Lesson: none.
    """
    weights = (official_iou(kept, boxes) >= threshold) * boxes[:, 4] ** power  # (M, N)
    return torch.cat([weights @ boxes[:, :4] / weights.sum(1, keepdim=True), kept[:, 4:]], 1)


def keep_top_k(boxes: Sequence[Tensor], k: int) -> list[Tensor]:
    """The k best of all classes together, and what has the same score as the last of them.

    Args:
        boxes: for each class (N_c, 5) scored boxes.
        k: how many.
    Returns:
        For each class (M_c, 5), in the order given.
    Example:
        >>> [len(b) for b in keep_top_k([torch.rand(3, 5), torch.rand(4, 5), torch.zeros(0, 5)], 5)][2]
        0

    Source: official `utils.keep_top_k`. Lesson: none.
    """
    scores = torch.cat([b[:, 4] for b in boxes]).sort(descending=True).values
    return [b[b[:, 4] >= scores[min(k, len(scores)) - 1]] for b in boxes] if len(scores) else list(boxes)


def select_boxes(probabilities: Tensor, boxes: Tensor) -> Tensor:
    """Each RoI's box of its most probable class, background too: where the official iterative localisation looks next.

    Args:
        probabilities: (N, K+1).
        boxes: (N, K+1, 4).
    Returns:
        (N, 4).
    Source: official `modules/SelectBoxes.lua`. Lesson: none.
    """
    return boxes[torch.arange(len(boxes), device=boxes.device), probabilities.argmax(1)]


def official_decode(boxes: Tensor, deltas: Tensor) -> Tensor:
    """The boxes that deltas lead to, as `decode_boxes`, which stops growth at 62 times the side; here it goes on.

    Args:
        boxes: (N, 4) xyxy.
        deltas: (N, C, 4).
    Returns:
        (N, C, 4) xyxy; infinite where the growth is.
    Source: official `utils.convertFrom`. Lesson: none.
    """
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centre, half = boxes[:, None, :2] + sides / 2 + deltas[..., :2] * sides, sides * deltas[..., 2:].exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """(N, M, 2) width and height of what two boxes share; below 0 where they miss each other by a pixel."""
    return torch.minimum(a[:, None, 2:4], b[None, :, 2:4]) - torch.maximum(a[:, None, :2], b[None, :, :2]) + 1


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:4] - boxes[:, :2] + 1).prod(-1)
