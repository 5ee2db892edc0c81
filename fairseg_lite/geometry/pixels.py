"""Pixels as numbers: how a network wants its pictures; and mirrored borders, exactly as the official code makes them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fairseg_lite.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixel values in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pixels:
    """How a network wants its pictures; the default is what torchvision's ImageNet weights were trained with.

    Raises: InputError, an order that is neither, or numbers that are no three channels, or a white or deviation of 0 and less.
    Example:
        >>> caffe = Pixels(mean=(102.98, 115.95, 122.77), std=(1, 1, 1), order="BGR", white=255)
        >>> normalise(np.array([[[255, 0, 0]]], np.uint8), caffe).flatten().tolist()  # red comes last
        [-102.98..., -115.94..., 132.23...]
    """

    mean: tuple[float, ...] = IMAGENET_MEAN  # of each channel, in this order and range
    std: tuple[float, ...] = IMAGENET_STD
    order: str = "RGB"  # or "BGR"
    white: float = 1.0  # what 255 becomes before the mean is taken out: 1, or 255

    def __post_init__(self):
        for name in ("mean", "std"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.order not in ("RGB", "BGR") or len(self.mean) != 3 or len(self.std) != 3 or not min(*self.std, self.white) > 0:
            raise InputError(f"{self}: wanted three means, three deviations above 0, order RGB or BGR, white 1 or 255")


IMAGENET = Pixels()


def normalise(images: np.ndarray | Tensor, pixels: Pixels = IMAGENET) -> Tensor:
    """Pictures as a network wants them: channels first and in its order, mean and deviation taken out.

    Args:
        images: (..., H, W, 3) uint8 RGB, array or tensor.
        pixels: the network's; `Network.normalise` gives its own.
    Returns: (..., 3, H, W) float32, a channels-last view.
    Raises: InputError, not uint8, or the last axis is not RGB.
    Example:
        >>> normalise(np.full((2, 4, 3), 255, np.uint8))[0, 0, 0].item()  # (1 - .485) / .229
        2.2489...

    Source: torchvision's ImageNet weights; the same numbers in the official `trainMeters`/`InferDeepMask`. Lesson: 01.
    """
    x = torch.as_tensor(images)
    if x.dtype != torch.uint8 or x.ndim < 3 or x.shape[-1] != 3:
        raise InputError(f"picture is {x.dtype} {tuple(x.shape)}; wanted uint8 (..., H, W, 3), RGB")
    x = x.flip(-1) if pixels.order == "BGR" else x
    factor, shift, _ = on_device(pixels, x.device)
    return x.float().mul_(factor).sub_(shift).movedim(-1, -3)


@cache
@torch.inference_mode(False)
def on_device(pixels: Pixels, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(3,) each, once for a device: factors and shifts that make a network's numbers of 0 .. 255, and its middle grey."""
    mean, std = torch.tensor(pixels.mean), torch.tensor(pixels.std)
    numbers = torch.stack([pixels.white / (255 * std), mean / std, (pixels.white / 2 - mean) / std]).to(device)
    return numbers[0], numbers[1], numbers[2]


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the CPU on a device; the host waits for no copy to a CUDA device."""
    cuda = torch.device(device).type == "cuda"
    return x.pin_memory().to(device, non_blocking=True) if x.is_cpu and cuda else x.to(device)


def symmetric_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Mirror a picture at its border, repeating the edge pixel: ... b a | a b ...; negative widths crop.

    Args: x (..., H, W); left, right, top, bottom in pixels; wider than the picture goes on mirroring.
    Returns: (..., H + top + bottom, W + left + right).
    Raises: InputError, an empty picture, or one from which more is cropped than there is.
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
