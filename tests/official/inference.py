"""Whole-picture inference as the official code does it, its faults included: to compare with it, not to use.

What differs from `propose`, and where it comes from (`InferDeepMask.lua`, `getTopScores` and `getTopMasks`):
- each score is paired with the cell one row up and one column right of its own (a 1-based index decoded as if 0-based);
- at most as many windows are taken as the last scale has, and the rest is filled with score 1 and the mask of the first corner;
- windows are placed at floor(16 (row - 1) / s - P / 2 / s), with a side of floor(P / s) pixels;
- pictures are resized with aligned corners and no averaging, masks with aligned corners or, where they shrink, an area mean;
- no proposal is left out for an empty mask.

SharpMask goes the same way (`InferSharpMask.lua`), each window refined by itself. Not copied: with -dm, the official code moves
windows beyond row or column `mask_size` of a level to that place, although masks and windows have nothing to do with each other.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD
from fairseg_lite.inference.propose import Level
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask
from tests.official.resample import aligned_resize, image_scale


class OfficialProposals(NamedTuple):
    """rows (N, 4): score, level, row, column, the last three counted from 1 (`topScores`); masks (N, H, W) bool."""

    rows: Tensor
    masks: Tensor


@torch.inference_mode()
def propose_official(
    model: DeepMask | SharpMask, image: Tensor, scales: Sequence[float], *, top_k: int = 500, threshold: float = 0.2
) -> OfficialProposals:
    """Proposals with the official code's arithmetic.

    Args:
        model: in evaluation mode; its dtype is the dtype of the computation. A SharpMask for the official masks has
            upsample="nearest"; its `deepmask` gives what the official option -dm should.
        image: (3, H, W) float32 RGB in [0, 1].
        scales: ascending; where a level has more windows than the last one, the official code crashes.
        top_k: official np.
        threshold: mask probability.
    Returns:
        OfficialProposals of exactly top_k rows.
    Raises:
        InputError: a picture of another shape or type.
    Source: official `InferDeepMask.lua`. Lesson: 04.
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.float32:
        raise InputError(f"picture is {image.dtype} {tuple(image.shape)}; wanted float32 (3, H, W) in [0, 1]")
    levels = official_pyramid(model, image, scales)
    rows = top_scores(levels, top_k)
    return OfficialProposals(rows, top_masks(model, levels, rows, scales, image.shape[1], image.shape[2], threshold))


def official_pyramid(model: DeepMask | SharpMask, image: Tensor, scales: Sequence[float]) -> list[Level]:
    """The levels of a picture (3, H, W) in [0, 1]: resized, bordered with .5, normalised."""
    dtype, half = next(model.parameters()).dtype, model.patch_size // 2
    mean, std = (torch.tensor(v, dtype=dtype, device=image.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    levels = []
    for s in scales:
        level = aligned_resize(image, *(math.floor(s * n + 0.5) for n in image.shape[1:]))
        canvas = torch.nn.functional.pad(level, (half,) * 4, value=0.5).to(dtype)
        levels.append(Level((s, s), model.dense(((canvas - mean) / std)[None])))
    return levels


def top_scores(levels: Sequence[Level], top_k: int) -> Tensor:
    """(top_k, 4) float64: score, level, row and column from 1, shifted, cut and filled up as `getTopScores` does."""
    rows = torch.ones(top_k, 4, dtype=torch.float64)
    found = []
    for i, level in enumerate(levels, 1):
        score = level.dense.scores[0].double().sigmoid().cpu()
        width = score.shape[1]
        number = torch.arange(1, score.numel() + 1)  # cells counted from 1 ...
        row, column = (number // width).clamp(min=1), number % width + 1  # ... and taken apart as if from 0
        found.append(torch.stack([score.flatten(), torch.full_like(row, i), row, column], 1))
    best = torch.cat(found)
    best = best[best[:, 0].argsort(descending=True, stable=True)][: min(top_k, len(found[-1]))]
    rows[: len(best)] = best
    return rows


def top_masks(
    model: DeepMask | SharpMask,
    levels: Sequence[Level],
    rows: Tensor,
    scales: Sequence[float],
    height: int,
    width: int,
    threshold: float,
) -> Tensor:
    """(N, height, width) bool: masks painted as `getTopMasks` does, strictly above logit(threshold)."""
    cut, half = math.log(threshold / (1 - threshold)), model.patch_size / 2
    masks = torch.zeros(len(rows), height, width, dtype=torch.bool)
    for out, (_, level, row, column) in zip(masks, rows.tolist(), strict=True):
        dense, s = levels[int(level) - 1].dense, scales[int(level) - 1]
        side = math.floor(model.patch_size / s)
        cell = [torch.tensor([int(v) - 1], device=dense.scores.device) for v in (row, column)]
        logits = model.masks_at(dense, torch.zeros_like(cell[0]), *cell)[0].float().cpu()
        painted = image_scale(logits, side, side) > cut
        top, left = (math.floor((v - 1) * model.stride / s - half / s) for v in (row, column))
        y, x = max(top, 0), max(left, 0)
        part = painted[y - top : max(height - top, 0), x - left : max(width - left, 0)]
        out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return masks
