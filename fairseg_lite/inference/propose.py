"""The best proposals of a picture: scores of all windows at all scales, masks of the best few only.

Differs from the official code: a score belongs to its own window (`getTopScores` pairs it with a neighbour's mask), there
are never more proposals than windows, and masks are placed to a fraction of a pixel; `tests/official` copies all three.

N proposals, H x W pixels of the picture, M mask side.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import nms as box_nms

from fairseg_lite.errors import InputError, check_range
from fairseg_lite.geometry.boxes import xywh_to_xyxy
from fairseg_lite.geometry.masks import paste_masks
from fairseg_lite.inference.found import Proposals
from fairseg_lite.inference.pyramid import Level, check_picture, prepare, pyramid, resized
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.network import Timer
from fairseg_lite.models.sharpmask import SharpMask

PASTE_BYTES = 2**26  # of full-size masks at once
MAX_SIDE = 1024


@torch.inference_mode()
def propose(
    model: DeepMask | SharpMask,
    image: np.ndarray,
    *,
    refine: bool = True,
    scales: Sequence[float] | None = None,
    zoom: int = 0,
    top_k: int = 500,
    threshold: float = 0.5,
    nms: float | None = None,
    dtype: torch.dtype | None = None,
    max_side: int = MAX_SIDE,
    timer: Timer = nullcontext,
) -> Proposals:
    """Find objects: the masks of the best-scored windows of a picture.

    Args:
        model: a DeepMask or SharpMask; what `prepare` gives saves its work at every picture. The picture goes to its device.
        image: (H, W, 3) uint8 RGB.
        refine: SharpMask's masks; False gives the coarse masks of the DeepMask in it (official option -dm).
        scales: of the pyramid; default the model's.
        zoom: so many larger scales besides, for smaller objects (DeepMaskZoom: 1).
        top_k: proposals at most; official name np.
        threshold: mask probability above which a pixel belongs to the object; the paper has .1 or .2 for its networks.
        nms: drop a proposal whose box overlaps a better one's by more than this IoU; the papers do not.
        dtype: to compute in, such as torch.bfloat16; default the model's.
        max_side: a larger picture is first reduced to this longest side, in pixels, so memory stays bounded; masks
            come in the size of the picture all the same. Raise it to find smaller objects in large pictures.
        timer: called with a stage's name, gives the context it runs in (`bench`).
    Returns:
        Proposals, best score first; windows whose mask is empty are left out.
    Raises:
        InputError: not an RGB picture of uint8, no pixel, or an option outside its range.
    Source: DeepMask section 4, SharpMask section 5; official `InferDeepMask.lua`. Lesson: 04.
    """
    height, width = check_picture(image)
    check_range("top_k", top_k, 1, None)
    check_range("zoom", zoom, 0, 4)
    check_range("nms", nms, 0, 1)
    check_range("max_side", max_side, 16, None)
    cut = logit(threshold)
    model = prepare(model, dtype=dtype)
    if not refine:
        model = getattr(model, "deepmask", model)
    scales = sorted(scales or model.scales)
    scales += [scales[-1] * 2 ** ((i + 1) / 2) for i in range(zoom)]
    with timer("pyramid"):
        pixels = resized(model.normalise(image), min(1.0, max_side / max(height, width)))
    reduced = (pixels.shape[-2] / height, pixels.shape[-1] / width)
    levels = pyramid(model, pixels, scales, timer=timer)
    with timer("top k"):
        scores, level, rows, cols = best_windows(levels, top_k if nms is None else 4 * top_k)
    with timer("masks"):
        logits, boxes = masks_of(model, levels, level, rows, cols)
    boxes = boxes / boxes.new_tensor([reduced[1], reduced[0]] * 2)
    with timer("paste"):
        rle, tight = paste_rle(logits, boxes, height, width, cut)
    scale = torch.tensor(scales)[level.cpu()]
    found = Proposals(rle, tight, scores.float().sigmoid().cpu(), scale, torch.stack([rows, cols], 1).cpu(), (height, width))
    found = found[torch.from_numpy(np.flatnonzero((tight[:, 2] > tight[:, 0]).numpy()))]
    if nms is not None:
        found = found[box_nms(found.boxes, found.scores, nms)]
    return found[:top_k]


def best_windows(levels: Sequence[Level], top_k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The windows with the highest scores over all levels.

    Args:
        levels: of one picture.
        top_k: at most so many.
    Returns:
        scores (logits), level, row and column of each, (N,), best first.
    """
    flat = torch.cat([level.dense.scores[0].flatten() for level in levels])
    scores, order = flat.float().topk(min(top_k, len(flat)))
    sizes = torch.tensor([level.dense.scores[0].numel() for level in levels], device=flat.device)
    starts = sizes.cumsum(0) - sizes
    level = torch.searchsorted(sizes.cumsum(0), order, right=True)
    cell = order - starts[level]
    columns = torch.tensor([x.dense.scores.shape[-1] for x in levels], device=flat.device)[level]
    return scores, level, cell // columns, cell % columns


def masks_of(
    model: DeepMask | SharpMask, levels: Sequence[Level], level: Tensor, rows: Tensor, cols: Tensor
) -> tuple[Tensor, Tensor]:
    """Masks of chosen windows, and where they lie.

    Args:
        model, levels: as from `pyramid`.
        level, rows, cols: (N,) int64.
    Returns:
        (N, M, M) float32 logits and (N, 4) float32 windows, xyxy in pixels of the picture that the levels were made of.
    """
    logits = torch.zeros(len(level), model.mask_size, model.mask_size, device=level.device)
    boxes = torch.zeros(len(level), 4, device=level.device)
    for i in level.unique().tolist():
        here = level == i
        r, c = rows[here], cols[here]
        logits[here] = model.masks_at(levels[i].dense, torch.zeros_like(r), r, c).float()
        boxes[here] = levels[i].windows(r, c, model.patch_size, model.stride)
    return logits, boxes


def logit(probability: float) -> float:
    """The logit of a mask threshold.

    Raises:
        InputError: no probability above 0 and below 1.
    Example:
        >>> logit(0.5)
        0.0
    """
    if not 0 < probability < 1:
        raise InputError(f"threshold is {probability}; it is a probability, above 0 and below 1")
    return math.log(probability / (1 - probability))


def paste_rle(logits: Tensor, boxes: Tensor, height: int, width: int, cut: float) -> tuple[list[dict], Tensor]:
    """Masks enlarged into their windows as RLE, without ever holding all of them at full size.

    Args:
        logits: (N, M, M); boxes: (N, 4) xyxy in pixels; height, width: of the picture; cut: logit above which a pixel counts.
    Returns:
        N RLEs, and (N, 4) float32 boxes xyxy around them.
    """
    rle: list[dict] = []
    step = max(1, PASTE_BYTES // (height * width))
    for i in range(0, len(logits), step):
        # pasted with rows and columns exchanged: RLE runs down the columns, so that nothing is copied
        part = paste_masks(logits[i : i + step].mT, boxes[i : i + step][:, [1, 0, 3, 2]], width, height, cut)
        rle += coco_mask.encode(part.cpu().numpy().view(np.uint8).transpose(2, 1, 0))
    tight = torch.from_numpy(coco_mask.toBbox(rle).reshape(-1, 4)).float()
    return [{"size": [height, width], "counts": r["counts"].decode()} for r in rle], xywh_to_xyxy(tight)
