"""Padding and resampling exactly as the official code does it."""

import torch
from torch import Tensor

from fairseg_lite.errors import InputError


def symmetric_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Mirror a picture at its border, repeating the edge pixel: ... b a | a b ...; negative widths crop.

    Args:
        x: (..., H, W).
        left, right, top, bottom: pixels; wider than the picture goes on mirroring.
    Returns:
        (..., H + top + bottom, W + left + right).
    Raises:
        InputError: an empty picture, or one from which more is cropped than there is.
    Example:
        >>> symmetric_pad(torch.arange(3)[None], 2, 1, 0, 0).tolist()
        [[1, 0, 0, 1, 2, 2]]

    Source: official `SpatialSymmetricPadding.lua`. Lesson: 02.
    """
    if min(x.shape[-2:]) == 0:
        raise InputError(f"picture of {tuple(x.shape[-2:])} px is empty; there is nothing to mirror")
    if x.shape[-2] + top + bottom < 0 or x.shape[-1] + left + right < 0:
        raise InputError(f"cropping {(left, right, top, bottom)} px takes more than the {tuple(x.shape[-2:])} px there are")

    def mirrored(n: int, before: int, after: int) -> Tensor:
        i = torch.arange(-before, n + after, device=x.device) % (2 * n)
        return torch.where(i < n, i, 2 * n - 1 - i)

    rows, cols = mirrored(x.shape[-2], top, bottom), mirrored(x.shape[-1], left, right)
    return x.index_select(-2, rows).index_select(-1, cols)


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


def scale_weights(n: int, m: int) -> Tensor:
    """How much each of n pixels counts in each of m: the rows of a matrix that scales one axis as Torch7 did.

    Args:
        n, m: pixels before and after.
    Returns:
        (m, n) float32, each row adds up to 1. Larger: linear, corners aligned; smaller: mean over the pixel's area.
    Raises:
        InputError: n or m below 1.
    Example:
        >>> scale_weights(3, 2)
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 0.3333, 0.6667]])

    Source: Torch7 `image.scale` (its C code), places in float32 as there. Lesson: 04.
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
