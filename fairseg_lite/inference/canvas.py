"""The trunk on a picture in its grey border, without computing the border's features anew at every scale.

The border of half a patch makes the canvas 1.8 times the picture (640 x 480, seven scales). But far from the picture every
feature is what an all-grey canvas gives there, and that is the same for all pictures and scales: one value per channel inside,
other ones near the canvas's own edge. So each step of the trunk runs only on the cells that can see the picture, and the rest
comes from an all-grey template. Every feature stays the same up to rounding.

How much that saves is bounded: each convolution lets the picture reach further, and after 80 px (half a patch of 160) the whole
canvas sees it. The last third of ResNet-50's blocks must run on all of it.
"""

import math

import torch
from torch import Tensor

from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.trunks import STRIDE


def grey_template(model: DeepMask, grey: Tensor) -> list[Tensor]:
    """What each step of the trunk gets, and at last gives, on an all-grey square canvas wide enough to have an inside.

    Args:
        model: in evaluation mode.
        grey: (1, 3, 1, 1), the border's colour, normalised.
    Returns:
        A (1, C, t, t) tensor for the input of each step, and one for the output of the last.
    """
    reach, stride = 0, 1
    for step in model.trunk.steps:
        reach += step.reach * stride
        stride *= step.stride
    side = 2 * STRIDE * (math.ceil(reach / STRIDE) + 1)
    x = grey.expand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    features = [x]
    for step in model.trunk.steps:
        features.append(x := step.run(x))
    return features


def trunk_on_canvas(model: DeepMask, canvas: Tensor, size: tuple[int, int]) -> Tensor:
    """`model.trunk(canvas)` for a canvas that is grey but for a picture.

    Args:
        model: in evaluation mode; one from `prepare` keeps the grey template for its next pictures.
        canvas: (1, 3, H, W), multiples of 16; the colour of its corner is that of the border.
        size: (h, w) in pixels of the picture, whose top-left corner lies at half a patch.
    Returns:
        (1, C, H/16, W/16).
    Lesson: 04.
    """
    template = getattr(model, "grey_template", None)
    if template is None or template[0].dtype != canvas.dtype or template[0].device != canvas.device:
        template = grey_template(model, canvas[:, :, :1, :1])
        if getattr(model, "prepared", False):
            model.grey_template = template
    if min(canvas.shape[-2:]) < template[0].shape[-1]:
        return model.trunk(canvas)  # too small to have an inside
    corner = model.patch_size // 2
    whole = list(canvas.shape[-2:])  # cells of the canvas
    seen = [(corner, corner + n) for n in size]  # first and last + 1 cell that the picture reaches, in y and x
    x = canvas[:, :, slice(*seen[0]), slice(*seen[1])]
    for step, grey in zip(model.trunk.steps, template, strict=False):
        more = math.ceil(step.reach / step.stride)  # output cells spoilt by a border that is none
        outs, ins = [], []
        for (low, high), n in zip(seen, whole, strict=True):
            out = (
                max(math.ceil((low - step.reach) / step.stride), 0),
                min((high - 1 + step.reach) // step.stride + 1, n // step.stride),
            )
            outs.append(out)
            ins.append((max((out[0] - more) * step.stride, 0), min((out[1] + more) * step.stride, n)))
        y = step.run(_framed(x, seen, ins, whole, grey))
        (top, bottom), (left, right) = [
            (out[0] - low // step.stride, out[1] - low // step.stride) for out, (low, _) in zip(outs, ins, strict=True)
        ]
        x, seen, whole = y[:, :, top:bottom, left:right], outs, [n // step.stride for n in whole]
    return _framed(x, seen, [(0, n) for n in whole], whole, template[-1])


def _framed(x: Tensor, seen: list, wanted: list, whole: list, grey: Tensor) -> Tensor:
    """The cells `wanted` of a canvas: x where the picture reaches (`seen`), else the all-grey template."""
    if seen == wanted:
        return x.contiguous(memory_format=torch.channels_last)
    t = grey.shape[-1]
    rows, cols = (_in_template(*span, n, t).to(x.device) for span, n in zip(wanted, whole, strict=True))
    out = grey[:, :, rows[:, None], cols].contiguous(memory_format=torch.channels_last)
    (top, bottom), (left, right) = [(a - low, b - low) for (a, b), (low, _) in zip(seen, wanted, strict=True)]
    out[:, :, top:bottom, left:right] = x
    return out


def _in_template(low: int, high: int, n: int, t: int) -> Tensor:
    """Cells low .. high - 1 of n, as cells of a template of t: near an edge the same distance from it, else its middle."""
    i = torch.arange(low, high)
    return torch.where(i < t // 2, i, torch.where(n - i <= t // 2, t - n + i, t // 2))
