"""One step of refinement, in its two forms: how a mask and the trunk's features become a mask of twice the side.

    naive (paper, figure 2b)                      refactored (figure 2c)

    F --reduce--> S --.                           F --reduce--> S --3x3 --.
                       cat -- 3x3 -- ReLU -- x2                            + -- ReLU -- x2
    M --3x3----------'                            M --3x3-------- 3x3 ----'

A convolution of a concatenation is the sum of two convolutions, so both compute the same (`refactor`). But the upper arm of the
second does not see the mask: for a picture it is computed once, and only the lower arm for each window.

Shapes: B batch, C channels; M and S have `channels` channels and the side of F.
Differs from the official code: up-sampling is bilinear as in the paper (official: `upsample="nearest"`), and the gradient goes
back through mirrored borders, too (official: `padding="official"` discards it). Official names: lateral `neth`, top_down `netv`.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseg_lite.errors import InputError, check_choice


class OfficialConv2d(nn.Conv2d):
    """3x3 convolution with mirrored borders that send no gradient back, as the official ones.

    Source: official `SpatialSymmetricPadding.lua`, whose `updateGradInput` crops where it should add.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        inside = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(inside + (F.pad(x, (1, 1, 1, 1), mode="replicate") - inside).detach(), weight, bias)


def conv3x3(channels_in: int, channels_out: int, padding: str) -> nn.Conv2d:
    if padding == "official":
        return OfficialConv2d(channels_in, channels_out, 3)
    # one pixel mirrored is one pixel repeated
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="replicate" if padding == "symmetric" else "zeros")


def _reduce(features: int, channels: int, padding: str) -> list[nn.Module]:
    """F to S in two convolutions: one trains badly (SharpMask 3.1) where `features` are far more than `channels`."""
    hidden = min(64, features // 2)
    return [conv3x3(features, hidden, padding), nn.ReLU(), conv3x3(hidden, channels, padding), nn.ReLU()]


def _doubled(x: Tensor, mode: str) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None)


# the 3x3 convolution of a doubled map, along one axis: output 2i (first) and 2i + 1 see cells i-1, i, i+1 of the map so
TAPS = {
    "bilinear": [[[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25]], [[0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]]],
    "nearest": [[[1, 0, 0], [0, 1, 0], [0, 1, 0]], [[0, 1, 0], [0, 1, 0], [0, 0, 1]]],
}


def doubled_conv(x: Tensor, conv: nn.Conv2d, mode: str) -> Tensor:
    """`conv` of the map with its side doubled, without making the doubled map.

    Doubling is linear, so both together are one 3x3 convolution at the small side, with four outputs for the four pixels
    that a cell becomes. The borders agree because the mirror of a doubled map is the double of the mirrored one.

    Args: x: (B, C, side, side); conv: from `conv3x3`, C to O channels; mode: "bilinear" or "nearest".
    Returns: (B, O, 2 side, 2 side).
    Example:
        >>> x, conv = torch.rand(1, 2, 5, 5), conv3x3(2, 1, "symmetric")
        >>> torch.allclose(doubled_conv(x, conv, "bilinear"), conv(_doubled(x, "bilinear")), atol=1e-6)
        True

    Source: ours. Lesson: 07.
    """
    if conv.padding_mode != "replicate":  # zeros, or the official gradient: another border
        return conv(_doubled(x, mode))
    once = _taps.__wrapped__ if torch.compiler.is_compiling() else _taps  # what stands for a tensor then is not to be kept
    taps = once(mode, torch.promote_types(x.dtype, torch.float32), x.device)
    weight = torch.einsum("ocij,aip,bjq->oabcpq", conv.weight.to(taps), taps, taps).flatten(0, 2)  # (4 O, C, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    bias = None if conv.bias is None else conv.bias.to(x).repeat_interleave(4)
    y = F.conv2d(padded, weight.to(x), bias)
    return F.pixel_shuffle(y, 2)


@cache
@torch.inference_mode(False)
def _taps(mode: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(TAPS[mode], dtype=dtype, device=device)


class NaiveRefinementModule(nn.Module):
    """One refinement as one says it: reduce the features, concatenate them with the mask, convolve, double the side.

    Args:
        features, channels, out: channels of F; of the mask encoding M, and of S; of the next mask encoding.
        upsample: "bilinear" (paper) or "nearest" (official code).
        padding: "zeros", "symmetric", or "official" (symmetric without the gradient of the border).
    Example:
        >>> NaiveRefinementModule(features=64, channels=8, out=4)(torch.zeros(2, 64, 6, 6), torch.zeros(2, 8, 6, 6)).shape
        torch.Size([2, 4, 12, 12])

    Source: SharpMask section 3.1, figure 2b. Lesson: 06.
    """

    def __init__(self, *, features: int, channels: int, out: int, upsample: str = "bilinear", padding: str = "symmetric"):
        super().__init__()
        self.upsample = upsample
        self.reduce: Any = nn.Sequential(*_reduce(features, channels, padding))
        self.top_down = nn.Sequential(conv3x3(channels, channels, padding), nn.ReLU())
        self.join = conv3x3(2 * channels, out, padding)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        both = torch.cat([self.reduce(features), self.top_down(mask)], 1)  # (B, 2 channels, side, side)
        return _doubled(F.relu(self.join(both)), self.upsample)  # (B, out, 2 side, 2 side)


class RefinementModule(nn.Module):
    """The same refinement as a sum: `lateral` sees the features alone, `top_down` the mask alone.

    Args:
        features, channels, out, upsample, padding: as in `NaiveRefinementModule`.
        paths: "both"; "skip" leaves the mask as it is (out = channels); "deconvolution" does not look at the features.
    Raises: InputError, an unknown option, or "skip" with another number of channels out than in.
    Example:
        >>> RefinementModule(features=64, channels=8, out=4)(torch.zeros(2, 64, 6, 6), torch.zeros(2, 8, 6, 6)).shape
        torch.Size([2, 4, 12, 12])

    Source: SharpMask section 3.1, figure 2c; official `SharpMask.lua` `refinement`. Lesson: 07.
    """

    def __init__(
        self, *, features: int, channels: int, out: int, upsample: str = "bilinear", padding: str = "symmetric",
        paths: str = "both",
    ):  # fmt: skip
        super().__init__()
        for what, value, options in (
            ("upsample", upsample, ("bilinear", "nearest")),
            ("padding", padding, ("zeros", "symmetric", "official")),
            ("paths", paths, ("both", "skip", "deconvolution")),
        ):
            check_choice(what, value, options)
        if paths == "skip" and channels != out:
            raise InputError(f"paths 'skip' adds to a mask of {channels} channels, not {out}; it needs schedule='constant'")
        self.upsample = upsample
        self.lateral: Any = None
        self.top_down: Any = None
        if paths != "deconvolution":
            self.lateral = nn.Sequential(*_reduce(features, channels, padding), conv3x3(channels, out, padding))
        if paths != "skip":
            self.top_down = nn.Sequential(conv3x3(channels, channels, padding), nn.ReLU(), conv3x3(channels, out, padding))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.merge(None if self.lateral is None else self.lateral(features), mask)

    def merge(self, lateral: Tensor | None, mask: Tensor, *, double: bool = True) -> Tensor:
        """What is left to do for a window: (B, out, side, side) and (B, channels, side, side) -> (B, out, 2 side, 2 side).

        Without `double` the side stays, for `doubled_conv` to go on from.
        """
        x = mask if self.top_down is None else self.top_down(mask)
        x = F.relu(x if lateral is None else x + lateral)
        return _doubled(x, self.upsample) if double else x


def refactor(naive: NaiveRefinementModule) -> RefinementModule:
    """The same function as a sum of two parts, with the same weights: outputs differ by rounding only; `naive` stays as it is.

    Source: SharpMask section 3.1. Lesson: 07.
    """
    first, second, join = naive.reduce[0], naive.reduce[2], naive.join
    padding = {"zeros": "zeros", "replicate": "symmetric"}[join.padding_mode]
    channels, out = second.out_channels, join.out_channels
    module = RefinementModule(
        features=first.in_channels, channels=channels, out=out, upsample=naive.upsample, padding=padding
    ).to(join.weight)  # fmt: skip
    module.lateral[:4].load_state_dict(naive.reduce.state_dict())
    module.top_down[:2].load_state_dict(naive.top_down.state_dict())
    with torch.no_grad():
        module.lateral[4].weight.copy_(join.weight[:, :channels])  # the columns that multiply S ...
        module.top_down[2].weight.copy_(join.weight[:, channels:])  # ... and those that multiply M
        module.lateral[4].bias.copy_(join.bias)
        module.top_down[2].bias.zero_()
    return module
