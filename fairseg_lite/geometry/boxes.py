"""Boxes are xyxy in continuous pixels: pixel (row i, column j) covers [j, j+1) x [i, i+1), so a width is x2 - x1.

COCO's xywh is met only where files are read and written. Area and IoU are `torchvision.ops.box_area` and `box_iou`.
"""

import torch
from torch import Tensor


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners to COCO's corner and size.

    Args:
        boxes: (..., 4) xyxy in pixels.
    Returns:
        (..., 4) x, y, width, height, of the same dtype.
    Raises:
        ValueError: the last axis is not 4 long.
    Example:
        >>> xyxy_to_xywh(torch.tensor([1.0, 2.0, 4.0, 8.0])).tolist()
        [1.0, 2.0, 3.0, 6.0]

    Source: COCO's data format, "bbox". Lesson: 01.
    """
    _check(boxes)
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """COCO's corner and size to corners.

    Args:
        boxes: (..., 4) x, y, width, height in pixels.
    Returns:
        (..., 4) xyxy, of the same dtype.
    Raises:
        ValueError: the last axis is not 4 long.
    Example:
        >>> xywh_to_xyxy(torch.tensor([1.0, 2.0, 3.0, 6.0])).tolist()
        [1.0, 2.0, 4.0, 8.0]

    Source: COCO's data format, "bbox". Lesson: 01.
    """
    _check(boxes)
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box that lies in the picture; a box wholly outside becomes one without area at the border.

    Args:
        boxes: (..., 4) xyxy in pixels.
        height, width: of the picture, in pixels.
    Returns:
        (..., 4) xyxy with 0 <= x <= width and 0 <= y <= height.
    Raises:
        ValueError: the last axis is not 4 long, or a negative height or width.
    Example:
        >>> clip_boxes(torch.tensor([[-3.0, 2.0, 50.0, 8.0]]), height=6, width=10).tolist()
        [[0.0, 2.0, 10.0, 6.0]]

    Source: none, a definition. Lesson: 01.
    """
    _check(boxes)
    if height < 0 or width < 0:
        raise ValueError(f"picture of {height} x {width} px; height and width must not be negative")
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def _check(boxes: Tensor) -> None:
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes have shape {tuple(boxes.shape)}; wanted (..., 4): four numbers for each box")
