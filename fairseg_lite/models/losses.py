"""Losses, as functions outside the networks.

DeepMask section 3.3, with m, y in {-1, +1}, for patches k:

    L = sum_k  (1 + y_k)/2 * mean_ij log(1 + exp(-m_ij f_ij))  +  lambda * log(1 + exp(-y_k s_k))

Differs from the official code: that one draws mask batches and score batches in turn and multiplies the mask gradient by the
batch size 32, which is lambda = 1/32 up to the learning rate; `deepmask_loss` does both at once, and in turn with `only`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import DeepMaskOutput


class DeepMaskLoss(NamedTuple):
    """total = mask + score_weight * score; each a scalar tensor."""

    total: Tensor
    mask: Tensor
    score: Tensor


def mask_loss(logits: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
    """The mask term: log(1 + exp(-m f)) averaged over pixels, then over the positives.

    Args:
        logits: (B, M, M), upsampled bilinearly to the target's side.
        masks: (B, T, T) bool, the centred object; ignored where the label is -1.
        labels: (B,) in {-1, +1}.
    Returns:
        A scalar; without a positive 0, and still differentiable.
    Example:
        >>> mask_loss(torch.zeros(1, 4, 4), torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1)).item()
        0.693...

    Source: DeepMask section 3.3. Lesson: 03.
    """
    logits = F.interpolate(logits[:, None], masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    sign = masks.to(logits.dtype) * 2 - 1  # m in {-1, +1}
    per_patch = F.softplus(-sign * logits).mean(dim=(1, 2))  # (B,)
    positive = labels > 0  # the gate (1 + y) / 2
    return (per_patch * positive).sum() / positive.sum().clamp(min=1)


def deepmask_loss(
    output: DeepMaskOutput, masks: Tensor, labels: Tensor, *, score_weight: float = 1 / 32, only: str | None = None
) -> DeepMaskLoss:
    """The joint loss. The mask term sees positives only and is their mean; the score term is the mean over the batch.

    Args:
        output: masks (B, M, M) and scores (B,), logits; the masks are upsampled bilinearly to the target's side.
        masks: (B, T, T) bool, the centred object; ignored where the label is -1.
        labels: (B,) in {-1, +1}.
        score_weight: lambda.
        only: None for the joint loss, "mask" or "score" for one branch (alternating training).
    Returns:
        DeepMaskLoss of scalars. Without a positive the mask term is 0 and still differentiable.
    Raises:
        InputError: shapes that do not fit, a mask that is not bool, a label other than -1 and +1, an unknown branch.
    Example:
        >>> output = DeepMaskOutput(torch.zeros(2, 4, 4), torch.zeros(2))
        >>> loss = deepmask_loss(output, torch.ones(2, 8, 8, dtype=torch.bool), torch.tensor([1.0, -1.0]))
        >>> [round(x.item(), 3) for x in loss]
        [0.715, 0.693, 0.693]

    Source: DeepMask section 3.3. Lesson: 03.
    """
    logits, scores = output
    if masks.dtype.is_floating_point or masks.ndim != 3 or len(masks) != len(logits):
        raise InputError(f"masks are {masks.dtype} {tuple(masks.shape)}; wanted bool ({len(logits)}, T, T)")
    if labels.shape != scores.shape or not bool((labels.abs() == 1).all()):
        raise InputError(f"labels are {labels.tolist()[:8]}; wanted {len(scores)} numbers, each -1 or +1")
    if only not in (None, "mask", "score"):
        raise InputError(f"only is {only!r}; choose None, 'mask' or 'score'")
    if logits.dtype in (torch.bfloat16, torch.float16):  # two or three digits are too few for a sum of small terms
        logits, scores = logits.float(), scores.float()
    mask = mask_loss(logits, masks, labels)
    score = F.softplus(-labels.to(scores.dtype) * scores).mean()
    total = {None: mask + score_weight * score, "mask": mask, "score": score_weight * score}[only]
    return DeepMaskLoss(total, mask, score)
