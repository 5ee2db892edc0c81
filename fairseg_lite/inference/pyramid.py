"""A picture at several scales, and the network on all windows of each: one convolution instead of thousands of patches.

    picture --resize by s--> (3, sH, sW) --grey border of P/2--> canvas --DeepMask.dense--> a grid of windows, stride 16

The border lets windows be centred on the picture's edge. Window (r, c) of a level covers the square of side P / s whose
top-left corner lies at (16 r - P/2) / s, (16 c - P/2) / s of the picture.
Differs from the official code: it resizes with `image.scale` and places with `floor`; see `tests/official/inference.py`.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import IMAGENET, Pixels
from fairseg_lite.models.deepmask import DeepMask, DenseFeatures
from fairseg_lite.models.network import Timer
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.models.trunks import STRIDE


@dataclass(frozen=True)
class Level:
    """One scale of a picture, seen by the network."""

    scale: tuple[float, float]  # (y, x): pixels of the level per pixel of the picture; differ by rounding
    dense: DenseFeatures  # B = 1

    def windows(self, rows: Tensor, cols: Tensor, patch_size: int, stride: int) -> Tensor:
        """(N, 4) float32 xyxy in pixels of the picture: the squares that windows (rows, cols) look at."""
        corners = torch.stack([cols, rows], 1) * stride - patch_size / 2
        scale = corners.new_tensor([self.scale[1], self.scale[0]])
        return torch.cat([corners / scale, (corners + patch_size) / scale], 1)


def prepare(model: DeepMask | SharpMask, *, dtype: torch.dtype | None = None) -> DeepMask | SharpMask:
    """A copy for inference: batch norm folded into the convolutions, channels last, in the type asked for.

    Args:
        model: any state; it is not changed.
        dtype: None keeps the model's; torch.bfloat16 pays off where the processor has units for it.
    Returns:
        A network in evaluation mode without gradients whose outputs differ from the model's by rounding only; the model
        itself where it is so already, with no norm left to fold: preparing twice costs nothing.
    Lesson: 04.
    """
    dtype = dtype or next(model.parameters()).dtype
    fixed = not model.training and all(p.dtype == dtype and not p.requires_grad for p in model.parameters())
    if fixed and not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in model.modules()):
        return model
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(fast.modules()):
        children = dict(module.named_children())
        pairs = [(a, a.replace("conv", "bn")) for a in children if a.startswith("conv")]
        if isinstance(module, nn.Sequential):
            pairs = [(a, b) for a, b in zip(list(children)[:-1], list(children)[1:], strict=True)]
        for a, b in pairs:
            conv: Any = children[a]
            norm: Any = children.get(b)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
                numbers: list[Any] = [norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias]
                conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *numbers)
                setattr(module, b, nn.Identity())
    return fast.requires_grad_(False).to(dtype=dtype).to(memory_format=torch.channels_last)


def check_picture(image: np.ndarray) -> tuple[int, int]:
    """(H, W) of a picture; InputError unless it is (H, W, 3) uint8 with at least a pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        what = f"{image.dtype} {tuple(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise InputError(f"picture is {what}; wanted an array of uint8 (H, W, 3), RGB, with H and W at least 1")
    return image.shape[0], image.shape[1]


def resized(image: Tensor, scale: float) -> Tensor:
    """The picture at one scale, antialiased.

    Args:
        image: (3, H, W) float.
        scale: pixels of the result per pixel of the picture.
    Returns:
        (3, max(round(scale H), 1), max(round(scale W), 1)).
    """
    size = [max(round(scale * n), 1) for n in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def on_canvas(image: Tensor, patch_size: int, pixels: Pixels = IMAGENET) -> Tensor:
    """The normalised picture (3, H, W) in middle grey: (1, 3, H + P, W + P), rounded up to multiples of the stride.

    Half a patch lies above and to the left, at least as much below and to the right. The rounding adds no window.
    """
    half = patch_size // 2
    right, bottom = (half + -n % STRIDE for n in (image.shape[-1] + patch_size, image.shape[-2] + patch_size))
    mean, std = image.new_tensor(pixels.mean), image.new_tensor(pixels.std)
    grey = ((pixels.white / 2 - mean) / std)[:, None, None]
    return (F.pad(image - grey, (half, right, half, bottom)) + grey)[None]


@torch.inference_mode()
def pyramid(model: DeepMask | SharpMask, image: Tensor, scales: Sequence[float], *, timer: Timer = nullcontext) -> list[Level]:
    """All windows of a picture at all scales.

    Args:
        model: in evaluation mode, on the picture's device.
        image: (3, H, W) float32, normalised.
        scales: pixels of a level per pixel of the picture.
        timer: as in `DeepMask.dense`.
    Returns:
        A level for each scale.
    Raises:
        InputError: no scale, or one that is not above 0.
    Source: DeepMask section 4; official `InferDeepMask.lua`. Lesson: 04.
    """
    if not scales or not min(scales) > 0:
        raise InputError(f"scales are {list(scales)}; wanted at least one, all above 0")
    levels, dtype = [], next(model.parameters()).dtype
    for scale in scales:
        with timer("pyramid"):
            level = resized(image, scale)
            canvas = on_canvas(level, model.patch_size, model.record.pixels).to(dtype=dtype, memory_format=torch.channels_last)
        size = [a / b for a, b in zip(level.shape[-2:], image.shape[-2:], strict=True)]
        levels.append(Level((size[0], size[1]), model.dense(canvas, timer=timer)))
    return levels
