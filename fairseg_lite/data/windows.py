"""Changes of finished patches, beyond the papers' jitter: for small data sets, where a network learns pictures by heart.

Off unless asked for: `PatchSampler(..., colour=0.4, turn=20)`. Shapes: B patches.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def shaken(images: Tensor, by: np.ndarray) -> Tensor:
    """Patches with other brightness, contrast and saturation, so that a network cannot know a picture by its colours.

    Args:
        images: (B, 3, H, W) float, normalised.
        by: (3, B) shares: brightness moves by the share of a deviation, contrast and saturation by a factor of 1 + share.
    Returns:
        (B, 3, H, W).
    Example:
        >>> shaken(torch.ones(1, 3, 1, 1), np.array([[0.5], [0.0], [0.0]])).flatten().tolist()
        [1.5, 1.5, 1.5]

    Source: the usual practice; neither paper nor official code has it. Lesson: none.
    """
    brightness, contrast, saturation = torch.from_numpy(by).to(images.dtype)[..., None, None, None]
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + contrast) + brightness
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * (1 + saturation)


def turned(images: Tensor, masks: Tensor, degrees: np.ndarray) -> tuple[Tensor, Tensor]:
    """Patches and their masks turned about the centre.

    Args:
        images: (B, 3, H, H) float; what turns in from outside is the mirrored patch.
        masks: (B, T, T) bool, about the same centre; outside them there is no object.
        degrees: (B,) counter-clockwise.
    Returns:
        (B, 3, H, H) and (B, T, T) bool.
    Example:
        >>> left = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.bool)
        >>> turned(torch.zeros(1, 3, 2, 2), left, np.array([90.0]))[1].int().tolist()
        [[[0, 0], [1, 1]]]

    Source: the usual practice; neither paper nor official code has it. Lesson: none.
    """
    angle = torch.from_numpy(degrees).to(images.dtype) * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)  # from the new patch back to the old

    def sample(x: Tensor, outside: str) -> Tensor:
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode=outside, align_corners=False)

    return sample(images, "reflection"), sample(masks[:, None].to(images.dtype), "zeros")[:, 0] > 0.5
