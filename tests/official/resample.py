"""Resizing as the official code does it: to compare with it, not to use; pictures of ours are resized with half-pixel centres."""

import torch
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.official.patches import scale_weights


def aligned_resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with aligned corners: the first and last pixels keep their places, nothing is averaged.

    Args:
        x: (..., H, W) float.
        height, width: of the result, in pixels.
    Returns:
        (..., height, width), summed in the type of x.
    Raises:
        InputError: an empty picture or result.
    Example:
        >>> aligned_resize(torch.tensor([[0.0, 1.0]]), 1, 3).tolist()
        [[0.0, 0.5, 1.0]]

    Source: official `SpatialReSamplingEx` (its C code): 1-d places in float32, products of two weights rounded to
        float32. Lesson: 04.
    """
    if min(*x.shape[-2:], height, width) < 1:
        raise InputError(f"cannot resize a picture of {tuple(x.shape[-2:])} px to {height} x {width}; both need a pixel")

    def places(n: int, m: int) -> list[tuple[Tensor, Tensor]]:
        step = torch.tensor((n - 1) / (m - 1) if m > 1 else 0.0, dtype=torch.float32)
        at = torch.arange(m, dtype=torch.float32) * step
        low = at.long().clamp(max=n - 1)
        far = at - low
        return [(low.to(x.device), 1 - far), ((low + 1).clamp(max=n - 1).to(x.device), far)]

    out = torch.zeros((), dtype=x.dtype, device=x.device)
    for rows, wy in places(x.shape[-2], height):
        for cols, wx in places(x.shape[-1], width):
            weight = (wy[:, None] * wx[None]).to(x.dtype).to(x.device)
            out = out + weight * x[..., rows[:, None], cols[None]]
    return out


def image_scale(x: Tensor, height: int, width: int) -> Tensor:
    """Resize a picture as Torch7's `image.scale` does, each axis by itself.

    Args:
        x: (..., H, W) float.
        height, width: of the result, in pixels.
    Returns:
        (..., height, width), of the type of x.
    Raises:
        InputError: an empty picture or result.
    Example:
        >>> image_scale(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 1, 2).tolist()
        [[1.5, 3.5]]

    Source: Torch7 `image.scale`, bilinear; `scale_weights` tells how. Lesson: 04.
    """
    rows, cols = (scale_weights(n, m).to(x) for n, m in zip(x.shape[-2:], (height, width), strict=True))
    return rows @ (x @ cols.mT)
