"""Losses, as functions outside the networks.

DeepMask and SharpMask (DeepMask, Joint Learning), with m, y in {-1, +1}, for patches k:

    L = sum_k  (1 + y_k)/2 * mean_ij log(1 + exp(-m_ij f_ij))  +  lambda * log(1 + exp(-y_k s_k))

Differs from the official code: that one draws mask batches and score batches in turn and multiplies the mask gradient by the
batch size 32, which is lambda = 1/32 up to the learning rate; `deepmask_loss` does both at once, and in turn with `only`.

MultiPathNet: the integral loss (MultiPath section 3), of which Fast R-CNN's is the case of one classifier:

    L = 1/n  sum_u  [ L_cls(p_u, k*_u)  +  lambda [k*_u >= 1] L_loc(t, t*) ],     u = .50, .55 .. .75

k*_u is the category of a box if its IoU with an object is u or more, else background. Each classifier is tied to its u, and all
are trained in each step. Differs from the official code: there a random classifier is trained with a random u in each step, so
that every one sees all u.

Shapes: B patches, U classifiers, N RoIs, K categories.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.models.deepmask import DeepMaskOutput
from fairseg_lite.models.multipathnet import MultiPathOutput


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
    Returns: A scalar; without a positive 0, and still differentiable.
    Example:
        >>> mask_loss(torch.zeros(1, 4, 4), torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1)).item()
        0.693...

    Source: DeepMask, Joint Learning. Lesson: 03.
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
        output: masks (B, M, M) and scores (B,), logits. masks, labels: as for `mask_loss`. score_weight: lambda.
        only: None for the joint loss, "mask" or "score" for one branch (alternating training).
    Raises: InputError, shapes that do not fit, a mask that is not bool, a label other than -1 and +1, an unknown branch.
    Example:
        >>> output = DeepMaskOutput(torch.zeros(2, 4, 4), torch.zeros(2))
        >>> loss = deepmask_loss(output, torch.ones(2, 8, 8, dtype=torch.bool), torch.tensor([1.0, -1.0]))
        >>> [round(x.item(), 3) for x in loss]
        [0.715, 0.693, 0.693]

    Source: DeepMask, Joint Learning. Lesson: 03.
    """
    logits, scores = output
    if masks.dtype.is_floating_point or masks.ndim != 3 or len(masks) != len(logits):
        raise InputError(f"masks are {masks.dtype} {tuple(masks.shape)}; wanted bool ({len(logits)}, T, T)")
    if labels.shape != scores.shape or not bool((labels.abs() == 1).all()):
        raise InputError(f"labels are {labels.tolist()[:8]}; wanted {len(scores)} numbers, each -1 or +1")
    check_choice("only", only, (None, "mask", "score"))
    if logits.dtype in (torch.bfloat16, torch.float16):  # two or three digits are too few for a sum of small terms
        logits, scores = logits.float(), scores.float()
    mask = mask_loss(logits, masks, labels)
    score = F.softplus(-labels.to(scores.dtype) * scores).mean()
    total = {None: mask + score_weight * score, "mask": mask, "score": score_weight * score}[only]
    return DeepMaskLoss(total, mask, score)


class MultiPathLoss(NamedTuple):
    """total = classes + box_weight * boxes; each a scalar tensor."""

    total: Tensor
    classes: Tensor
    boxes: Tensor


def multipath_loss(output: MultiPathOutput, labels: Tensor, targets: Tensor, *, box_weight: float = 1.0) -> MultiPathLoss:
    """The mean over classifiers of cross entropy and smooth L1.

    Args:
        output: logits (U, N, K+1), deltas (N, K+1, 4).
        labels: (U, N) int64: 0 background, k + 1 for category k, -1 not counted.
        targets: (N, 4) deltas to the object's box, normalised by the model's mean and deviation; read where a label is >= 1.
        box_weight: lambda.
    Returns: MultiPathLoss of scalars. Both terms are sums over RoIs divided by how many RoIs count for that classifier,
        foreground or not, as in Fast R-CNN; smooth L1 is summed over the four numbers. Without a RoI 0, still differentiable.
    Raises: InputError, shapes that do not fit, a label that is none, or a target that is not a finite number.
    Example:
        >>> output = MultiPathOutput(torch.zeros(1, 2, 3), torch.zeros(2, 3, 4))
        >>> loss = multipath_loss(output, torch.tensor([[0, 2]]), torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0]]))
        >>> [round(x.item(), 3) for x in loss]
        [1.349, 1.099, 0.25]

    Source: MultiPath section 3; Girshick 2015, section 2.3. Lesson: 08, 10.
    """
    logits, deltas = output
    u, n, k = logits.shape
    if labels.shape != (u, n) or labels.is_floating_point():
        raise InputError(f"labels are {labels.dtype} {tuple(labels.shape)}; wanted int64 ({u}, {n}), a row for each classifier")
    if targets.shape != (n, 4):
        raise InputError(f"targets have shape {tuple(targets.shape)}; wanted ({n}, 4)")
    found = labels > 0  # (U, N)
    wrong = ((labels < -1) | (labels >= k)).any(), (found & ~targets.isfinite().all(1)).any()
    no_label, no_number = torch.stack(wrong).tolist()  # both at once: a GPU is waited for
    if no_label:
        raise InputError(f"labels are {labels.min()} .. {labels.max()}; wanted -1, 0 (background) or 1 .. {k - 1}")
    if no_number:
        raise InputError("a foreground target is not a finite number; has its box no area?")
    logits, deltas = logits.float(), deltas.float()  # half precision has too few digits for these sums
    counted = (labels >= 0).sum(1).clamp(min=1)  # (U,)
    entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none").view(u, n)
    classes = (entropy.sum(1) / counted).mean()
    chosen = deltas[torch.arange(n, device=labels.device), labels.clamp(min=0)]  # (U, N, 4)
    wanted = torch.where(found[..., None], targets.to(chosen.dtype), 0.0)
    distance = F.smooth_l1_loss(chosen, wanted, reduction="none").sum(2) * found
    boxes = (distance.sum(1) / counted).mean()
    return MultiPathLoss(classes + box_weight * boxes, classes, boxes)


def searched(output: MultiPathOutput, labels: Tensor, known: Tensor) -> MultiPathOutput:
    """The output without the classes that background may be, as nobody searched its picture for them: they leave its softmax.

    So an object that nobody annotated is not taught to be background (federated data: Gupta et al. 2019). What is annotated has
    one name: it is none of the others, whatever its picture was searched for.

    Args: output, labels: as for `multipath_loss`. known: (N, K+1) bool, classes searched for.
    """
    known = known | (labels > 0)[..., None]  # (U, N, K+1)
    return output._replace(logits=output.logits.masked_fill(~known, -torch.inf))
