"""A network made ready for pictures: what is fixed is computed once, the rest in the type and the order that are fast."""

import copy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.models.network import Network
from fairseg_lite.models.roi_pooling import Region

N = TypeVar("N", bound=Network)


def prepare(model: N, *, dtype: torch.dtype | None = None) -> N:
    """A copy for inference: batch norm folded into the convolutions, channels last, in the type asked for.

    Args:
        model: any state; it is not changed.
        dtype: None keeps the model's; torch.bfloat16 pays off where the processor has units for it. A network's `exact` parts,
            a MultiPathNet's classifiers and boxes, stay as they are.
    Returns:
        A network in evaluation mode without gradients whose outputs differ from the model's by rounding only; the model
        itself where it is so already, with no norm left to fold: preparing twice costs nothing.
    Example:
        >>> from fairseg_lite.models.multipathnet import multipathnet_tiny
        >>> fast = prepare(multipathnet_tiny(num_classes=9), dtype=torch.bfloat16)
        >>> fast.device.type, next(fast.parameters()).dtype, fast.boxes.weight.dtype, prepare(fast) is fast
        ('cpu', torch.bfloat16, torch.float32, True)

    Lesson: 04.
    """
    first = next(model.parameters())
    dtype = dtype or first.dtype
    fixed = not model.training and first.dtype == dtype and not any(p.requires_grad for p in model.parameters())
    if fixed and not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in model.modules()):
        return model
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(fast.modules()):
        conv: Any
        norm: Any
        for (_, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                numbers: list[Any] = [norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias]
                conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *numbers)
                setattr(module, name, nn.Identity())
    for module in fast.modules():
        if isinstance(module, Region):
            module.join()
    exact = {name: copy.deepcopy(getattr(fast, name)) for name in fast.exact}
    fast = fast.requires_grad_(False).to(dtype=dtype).to(memory_format=torch.channels_last)
    for name, part in exact.items():
        setattr(fast, name, part)
    return fast
