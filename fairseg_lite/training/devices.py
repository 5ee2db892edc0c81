"""Where it is computed, and in which type: what "auto" means on this machine."""

import math
import time
from functools import cache

import torch
import torch.nn.functional as F

from fairseg_lite.errors import check_choice
from fairseg_lite.training.recipes import PRECISIONS


def best_device() -> torch.device:
    """The first of "cuda", "mps" and "cpu" that is here."""
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


@cache
def bf16_is_faster(device: torch.device | str = "cpu") -> bool:
    """Whether bfloat16 pays off on a device; no random number of the caller's is drawn.

    A CUDA device says whether it has units for it. Elsewhere a 3x3 convolution is measured in both types, a fifth of a second:
    some processors have such units (AMX), others emulate the type many times slower. True from 1.2 times faster on.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    shapes = (8, 64, 56, 56), (64, 64, 3, 3)
    x, w = (torch.ones(shape, device=device).to(memory_format=torch.channels_last) for shape in shapes)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):  # in turns: what else the machine does meanwhile hits both
        for dtype in best:
            a, b, start = x.to(dtype), w.to(dtype), time.perf_counter()
            F.conv2d(a, b, padding=1).sum().item()  # waits for the device
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] > 1.2 * best[torch.bfloat16]


def wants_bf16(precision: str, device: torch.device | str) -> bool:
    """What "fp32", "bf16" or "auto" (`bf16_is_faster`) comes to on a device; InputError for another word."""
    check_choice("precision", precision, PRECISIONS)
    return precision == "bf16" or (precision == "auto" and bf16_is_faster(device))


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that was asked of it: before a clock is read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
