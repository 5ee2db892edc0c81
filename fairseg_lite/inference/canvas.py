"""The trunk on a picture in its grey border, without computing the border's features anew at every scale.

The border of half a patch makes the canvas 1.8 times the picture (640 x 480, seven scales). But far from the picture every
feature is what an all-grey canvas gives there, and that is the same for all pictures and scales: one value per channel inside,
other ones near the canvas's own edge. So each step of the trunk runs only on the cells that can see the picture, and the rest
comes from an all-grey template. Every feature stays the same up to rounding.

How much that saves is bounded: each convolution lets the picture reach further, and after 80 px (half a patch of 160) the whole
canvas sees it. The last third of ResNet-50's blocks must run on all of it. SharpMask's lateral features gain more: those of
strides 2, 4 and 8 branch off early, where the picture has not reached far.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from fairseg_lite.models.deepmask import DeepMask, DenseFeatures
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.models.trunks import STRIDE, Step


class View(NamedTuple):
    """Features of a canvas, kept where the picture reaches; everywhere else they are those of an all-grey canvas."""

    x: Tensor  # (1, C, bottom - top, right - left)
    seen: list[tuple[int, int]]  # (top, bottom), (left, right): the cells of x
    whole: list[int]  # [H, W], cells of the canvas
    grey: Tensor  # (1, C, t, t), the template

    def after(self, step: Step, grey: Tensor) -> "View":
        """What a step gives, computed on the cells that can see the picture only; `grey`: what it gives for the template."""
        more = math.ceil(step.reach / step.stride)  # output cells spoilt by a border that is none
        outs, ins, inside = [], [], step.inside is not None
        for (low, high), n in zip(self.seen, self.whole, strict=True):
            out = (
                max(math.ceil((low - step.reach) / step.stride), 0),
                min((high - 1 + step.reach) // step.stride + 1, n // step.stride),
            )
            outs.append(out)
            ins.append((max((out[0] - more) * step.stride, 0), min((out[1] + more) * step.stride, n)))
            inside &= more <= out[0] and out[1] + more <= n // step.stride  # all of the canvas's own border lies elsewhere
        y = (step.inside if inside else step.run)(self.cells(ins))
        (top, bottom), (left, right) = [
            (out[0] - low // step.stride, out[1] - low // step.stride) for out, (low, _) in zip(outs, ins, strict=True)
        ]
        return View(y[:, :, top:bottom, left:right], outs, [n // step.stride for n in self.whole], grey)

    def cells(self, wanted: list[tuple[int, int]] | None = None) -> Tensor:
        """These cells of the canvas (rows, columns), by default all: x where the picture reaches, else the template."""
        wanted = wanted or [(0, n) for n in self.whole]
        if self.seen == wanted:
            return self.x.contiguous(memory_format=torch.channels_last)
        t = self.grey.shape[-1]
        rows, cols = (_in_template(*span, n, t).to(self.x.device) for span, n in zip(wanted, self.whole, strict=True))
        out = self.x.new_empty(1, self.x.shape[1], len(rows), len(cols)).contiguous(memory_format=torch.channels_last)
        (top, bottom), (left, right) = [(a - low, b - low) for (a, b), (low, _) in zip(self.seen, wanted, strict=True)]
        above, below, beside = slice(0, top), slice(bottom, None), slice(top, bottom)
        for down, across in ((above, slice(None)), (below, slice(None)), (beside, slice(0, left)), (beside, slice(right, None))):
            out[:, :, down, across] = self.grey[:, :, rows[down, None], cols[across]]
        out[:, :, top:bottom, left:right] = self.x
        return out


def _in_template(low: int, high: int, n: int, t: int) -> Tensor:
    """Cells low .. high - 1 of n, as cells of a template of t: near an edge the same distance from it, else its middle."""
    i = torch.arange(low, high)
    return torch.where(i < t // 2, i, torch.where(n - i <= t // 2, t - n + i, t // 2))


def grey_template(model: DeepMask | SharpMask, grey: Tensor) -> list[Tensor]:
    """What each step of the trunk gets, and at last gives, on an all-grey square canvas wide enough to have an inside.

    Args:
        model: in evaluation mode.
        grey: (1, 3, 1, 1), the border's colour, normalised.
    Returns:
        A (1, C, t, t) tensor for the input of each step, and one for the output of the last.
    """
    side = 2 * STRIDE * (math.ceil(_reach(model.trunk.steps) / STRIDE) + 1)
    x = grey.expand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    return _all(model.trunk.steps, x)


def _reach(steps: Sequence[Step], stride: int = 1) -> int:
    """How far a chain of steps looks, in pixels; `stride` is that of its input."""
    reach = 0
    for step in steps:
        reach += step.reach * stride
        stride *= step.stride
    return reach


def _all(steps: Sequence[Step], x: Tensor) -> list[Tensor]:
    """x, and what each step in turn makes of it."""
    return [x, *(x := step.run(x) for step in steps)]


def views_on_canvas(model: DeepMask | SharpMask, canvas: Tensor, size: tuple[int, int], after: Sequence[int]) -> list[View]:
    """The features of a canvas after some of the trunk's steps, counted from 1; none where it is too small to have an inside.

    Args: `model`, `canvas` and `size` as for `trunk_on_canvas`.
    """
    template = _kept(model, "trunk", canvas, lambda: grey_template(model, canvas[:, :, :1, :1]))
    if min(canvas.shape[-2:]) < template[0].shape[-1]:
        return []
    corner = model.patch_size // 2
    seen = [(corner, corner + n) for n in size]
    view = View(canvas[:, :, slice(*seen[0]), slice(*seen[1])], seen, list(canvas.shape[-2:]), template[0])
    found = []
    for number, (step, grey) in enumerate(zip(model.trunk.steps, template[1:], strict=True), 1):
        view = view.after(step, grey)
        if number in after:
            found.append(view)
    return found


def _kept(model: DeepMask | SharpMask, name: str, like: Tensor, make: Callable[[], list]) -> list:
    """Templates in the type and on the device of a tensor: a model from `prepare` makes them once, and keeps them."""
    store = vars(model).setdefault("grey", {}) if getattr(model, "prepared", False) else {}
    key = (name, like.dtype, like.device)
    if key not in store:
        store[key] = make()
    return store[key]


def trunk_on_canvas(model: DeepMask | SharpMask, canvas: Tensor, size: tuple[int, int]) -> Tensor:
    """`model.trunk(canvas)` for a canvas that is grey but for a picture.

    Args:
        model: in evaluation mode; one from `prepare` keeps the grey template for its next pictures.
        canvas: (1, 3, H, W), multiples of 16; the colour of its corner is that of the border.
        size: (h, w) in pixels of the picture, whose top-left corner lies at half a patch.
    Returns:
        (1, C, H/16, W/16).
    Lesson: 04.
    """
    views = views_on_canvas(model, canvas, size, [len(model.trunk.steps)])
    return views[0].cells() if views else model.trunk(canvas)


def dense_on_canvas(
    model: DeepMask | SharpMask,
    canvas: Tensor,
    size: tuple[int, int],
    timer: Callable[[str], AbstractContextManager] = nullcontext,
) -> DenseFeatures:
    """`model.dense(canvas)` for a canvas that is grey but for a picture, lateral features of SharpMask included.

    Args: as for `trunk_on_canvas`; `timer` as in `DeepMask.dense`.
    Source: official `InferSharpMask.lua` computes lateral features on the whole canvas, too. Lesson: 07.
    """
    if not isinstance(model, SharpMask):
        with timer("trunk"):
            features = trunk_on_canvas(model, canvas, size)
        return model.heads(features, timer)
    with timer("trunk"):
        views = views_on_canvas(model, canvas, size, model.trunk.tap_steps)
        taps = [views[-1].cells()] if views else model.trunk.taps(canvas)
    if not views:
        return model.heads(taps, timer)
    dense = model.deepmask.heads(taps[-1], timer)
    with timer("lateral"):
        return model.joined(dense, _laterals(model, views, taps[-1]))


def _laterals(model: SharpMask, views: list[View], last: Tensor) -> list[Tensor]:
    """Lateral features from the trunk's taps; those that the picture reaches everywhere, from `last`, in the plain way."""

    def make() -> list[list[Tensor]]:
        return [_all(r.steps, view.grey)[1:] for r, view in zip(model.refinements, reversed(views), strict=True)]

    steps, found = model.trunk.steps, []
    templates = _kept(model, "laterals", last, make)
    ends = reversed(model.trunk.tap_steps)
    for i, (module, view, greys, end) in enumerate(zip(model.refinements, reversed(views), templates, ends, strict=True)):
        if module.lateral is None:
            continue
        if _reach(steps[:end]) + _reach(module.steps, STRIDE >> i) > _reach(steps):  # the template has no inside left
            found.append(module.lateral(view.cells() if i else last))
            continue
        for step, grey in zip(module.steps, greys, strict=True):
            view = view.after(step, grey)
        found.append(view.cells())
    return found
