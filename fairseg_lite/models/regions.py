"""The parts of MultiPathNet: one way of looking at a RoI, from pooled features to a vector.

    pooled levels -> Mix (skip connections) -> tower (fc6 and fc7, or ResNet's conv5) -> width numbers

Shapes: N RoIs, C channels, P grid side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fairseg_lite.models.trunks import residual_layer


class Mix(nn.Module):
    """Pooled levels of one region -> one grid: scaled, joined, and a 1x1 convolution.

    Args:
        channels: of each level, finest first.
        out: channels of the result.
        normalise: divide the whole pooled C x P x P of a level by its length, for each RoI, then multiply by scale.
            Without it the levels are multiplied by 1, 1/30, 1/200 (conv5, conv4, conv3), and where `out` is conv5's number of
            channels the convolution starts as a copy of it: a network that begins as the one without skips.
        scale: of the normalised levels.
    Example:
        >>> Mix([4, 8], 16)([torch.rand(2, 4, 7, 7), torch.rand(2, 8, 7, 7)]).shape
        torch.Size([2, 16, 7, 7])

    Source: MultiPath section 3; official `model_utils.lua` `conv345Combine`. Lesson: 09.
    """

    def __init__(self, channels: Sequence[int], out: int, *, normalise: bool = True, scale: float = 1000.0):
        super().__init__()
        self.conv = nn.Conv2d(sum(channels), out, 1)
        self.normalise, self.scale = normalise, scale
        if not normalise and out == channels[-1]:
            nn.init.zeros_(self.conv.bias)
            nn.init.zeros_(self.conv.weight)
            nn.init.eye_(self.conv.weight[:, :out, 0, 0])

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        levels = list(reversed(pooled))  # conv5 first, as in official weights
        if self.normalise:
            levels = [_of_length(self.scale, x) for x in levels]
        else:
            levels = [x * s for x, s in zip(levels, (1, 1 / 30, 1 / 200), strict=False)]
        return self.conv(torch.cat(levels, 1))  # (N, out, P, P)


def _of_length(length: float, x: Tensor) -> Tensor:
    """Each RoI's whole grid scaled to a length; in single precision at least, for thousands of squares are added up."""
    wide = x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
    norm = wide.norm(dim=1, keepdim=True)
    norm = norm.where(norm > 1e-10, 1)  # a grid of zeros, outside the picture, stays one and has a gradient of this size
    return (wide * (length / norm)).view_as(x).to(x.dtype)


class LinearTower(nn.Sequential):
    """VGG's fc6 and fc7 with dropout: (N, C, P, P) -> (N, width). hidden: what fc6 gives; default width."""

    def __init__(self, channels: int, pooled: int, *, width: int = 4096, hidden: int | None = None, dropout: float = 0.5):
        hidden = hidden or width
        fc6, fc7 = nn.Linear(channels * pooled**2, hidden), nn.Linear(hidden, width)
        super().__init__(nn.Flatten(), fc6, nn.ReLU(), nn.Dropout(dropout), fc7, nn.ReLU(), nn.Dropout(dropout))
        self.width = width


class ResidualTower(nn.Module):
    """ResNet's conv5 (layer4) and the mean over its cells: (N, C, P, P) -> (N, width). Options: `residual_layer`'s."""

    def __init__(
        self, channels: int, pooled: int, *, inner: int, width: int, depth: int, block: str, stride: int = 2, eps: float = 1e-5,
        stride_in_1x1: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.layer4 = residual_layer(channels, inner, width, stride, depth, block=block, eps=eps, stride_in_1x1=stride_in_1x1)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(x).mean((2, 3))


class Region(nn.Module):
    """One way of looking at each RoI: how wide (factor), how fine (levels), and what it makes of it (mix, tower)."""

    def __init__(self, factor: float, levels: Sequence[int], mix: nn.Module | None, tower: nn.Module):
        super().__init__()
        self.factor, self.levels, self.mix, self.tower = factor, tuple(levels), mix, tower

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """(N, C_i, P, P) of each of its levels -> (N, width)."""
        return self.tower(self.mix(pooled) if self.mix is not None else pooled[0])
