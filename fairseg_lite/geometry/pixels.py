"""Pixels as numbers: the one normalisation every network here takes."""

import numpy as np
import torch
from torch import Tensor

from fairseg_lite.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixel values in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: np.ndarray | Tensor) -> Tensor:
    """Pictures as the trunks want them: channels first, ImageNet's mean and deviation taken out.

    Args:
        images: (..., H, W, 3) uint8 RGB, array or tensor.
    Returns:
        (..., 3, H, W) float32, a channels-last view.
    Raises:
        InputError: not uint8, or the last axis is not RGB.
    Example:
        >>> normalise(np.full((2, 4, 3), 255, np.uint8))[0, 0, 0].item()  # (1 - .485) / .229
        2.2489...

    Source: torchvision's ImageNet weights; the same numbers in the official `trainMeters`/`InferDeepMask`. Lesson: 01.
    """
    x = torch.as_tensor(images)
    if x.dtype != torch.uint8 or x.ndim < 3 or x.shape[-1] != 3:
        raise InputError(f"picture is {x.dtype} {tuple(x.shape)}; wanted uint8 (..., H, W, 3), RGB")
    mean, std = torch.tensor(IMAGENET_MEAN, device=x.device), torch.tensor(IMAGENET_STD, device=x.device)
    return x.float().mul_(1 / (255 * std)).sub_(mean / std).movedim(-1, -3)
