"""The integral loss (MultiPath section 3), of which Fast R-CNN's is the case of one classifier:

    L = 1/n  sum_u  [ L_cls(p_u, k*_u)  +  lambda [k*_u >= 1] L_loc(t, t*) ],     u = .50, .55 .. .75

k*_u is the category of a box if its IoU with an object is u or more, else background. Each classifier is tied to its u, and all
are trained in each step. Differs from the official code: there a random classifier is trained with a random u in each step, so
that every one sees all u.

Shapes: U classifiers, N RoIs, K categories.
"""

from typing import NamedTuple

import torch  # noqa: F401  (the example uses it)
import torch.nn.functional as F
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.models.multipathnet import MultiPathOutput


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
    Returns:
        MultiPathLoss of scalars. Both terms are sums over RoIs divided by how many RoIs count for that classifier,
        foreground or not, as in Fast R-CNN; smooth L1 is summed over the four numbers. Without a RoI 0, still differentiable.
    Raises:
        InputError: shapes that do not fit, a label that is none, or a target that is not a finite number.
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
    if n and (labels.min() < -1 or labels.max() >= k):
        raise InputError(f"labels are {labels.min()} .. {labels.max()}; wanted -1, 0 (background) or 1 .. {k - 1}")
    if not bool(targets[(labels > 0).any(0)].isfinite().all()):
        raise InputError("a foreground target is not a finite number; has its box no area?")
    logits, deltas = logits.float(), deltas.float()  # half precision has too few digits for these sums
    counted = (labels >= 0).sum(1).clamp(min=1)  # (U,)
    entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none").view(u, n)
    classes = (entropy.sum(1) / counted).mean()
    head, roi = (labels > 0).nonzero(as_tuple=True)
    chosen = deltas[roi, labels[head, roi]]  # (foreground of all classifiers, 4)
    distance = F.smooth_l1_loss(chosen, targets[roi].to(chosen.dtype), reduction="none").sum(1)
    boxes = (distance / counted[head]).sum() / u
    return MultiPathLoss(classes + box_weight * boxes, classes, boxes)
