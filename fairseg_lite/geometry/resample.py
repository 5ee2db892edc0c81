"""Mirrored borders, exactly as the official code makes them."""

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
