"""The best proposals of a picture: scores of all windows at all scales, masks of the best few only.

    picture --resize by s--> (3, sH, sW) --grey border of P/2--> canvas --DeepMask.dense--> a grid of windows, stride 16

The border lets windows be centred on the picture's edge. Window (r, c) of a level covers the square of side P / s whose
top-left corner lies at (16 r - P/2) / s, (16 c - P/2) / s of the picture.
Differs from the official code: a score belongs to its own window (`getTopScores` pairs it with a neighbour's mask), there are
never more proposals than windows, and masks are placed to a fraction of a pixel, not with `floor`; pictures are not resized
with `image.scale`. `tests/official/inference.py` copies all four.

N proposals, H x W pixels of the picture, P patch side, M mask side.
"""

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops import nms as box_nms

from fairseg_lite.errors import InputError, check_range
from fairseg_lite.geometry.boxes import xywh_to_xyxy
from fairseg_lite.geometry.masks import paste_masks, rle_of_columns
from fairseg_lite.geometry.pixels import IMAGENET, Pixels, on_device, sent
from fairseg_lite.inference.found import Proposals, reranked
from fairseg_lite.models.deepmask import DeepMask, DenseFeatures
from fairseg_lite.models.network import Network, Timer
from fairseg_lite.models.roi_pooling import Region
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.models.trunks import STRIDE, Basic, activated


@dataclass(frozen=True)
class Level:
    """One scale of a picture, seen by the network."""

    scale: tuple[float, float]  # (y, x): pixels of the level per pixel of the picture; differ by rounding
    dense: DenseFeatures  # B = 1

    def windows(self, rows: Tensor, cols: Tensor, patch_size: int, stride: int) -> Tensor:
        """(N, 4) float32 xyxy in pixels of the picture: the squares that windows (rows, cols) look at."""
        corners = torch.stack([cols, rows], 1) * stride - patch_size / 2
        scale = corners.new_tensor([self.scale[1], self.scale[0]])
        return torch.cat([corners / scale, (corners + patch_size) / scale], 1)


def check_picture(image: np.ndarray) -> tuple[int, int]:
    """(H, W) of a picture; InputError unless it is (H, W, 3) uint8 with at least a pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        what = f"{image.dtype} {tuple(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise InputError(f"picture is {what}; wanted an array of uint8 (H, W, 3), RGB, with H and W at least 1")
    return image.shape[0], image.shape[1]


def resized(image: Tensor, scale: float) -> Tensor:
    """The picture at one scale, antialiased.

    Args: image: (3, H, W) float. scale: pixels of the result per pixel of the picture.
    Returns: (3, max(round(scale H), 1), max(round(scale W), 1)).
    """
    size = [max(round(scale * n), 1) for n in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def on_canvas(image: Tensor, patch_size: int, pixels: Pixels = IMAGENET) -> Tensor:
    """The normalised picture (3, H, W) in middle grey: (1, 3, H + P, W + P), rounded up to multiples of the stride.

    Half a patch lies above and to the left, at least as much below and to the right. The rounding adds no window.
    """
    half = patch_size // 2
    right, bottom = (half + -n % STRIDE for n in (image.shape[-1] + patch_size, image.shape[-2] + patch_size))
    grey = on_device(pixels, image.device)[2][:, None, None]
    return (F.pad(image - grey, (half, right, half, bottom)) + grey)[None]


@torch.inference_mode()
def pyramid(model: DeepMask | SharpMask, image: Tensor, scales: Sequence[float], *, timer: Timer = nullcontext) -> list[Level]:
    """All windows of a picture at all scales.

    Args:
        model: in evaluation mode, on the picture's device. image: (3, H, W) float32, normalised.
        scales: pixels of a level per pixel of the picture, for each level returned. timer: as in `DeepMask.dense`.
    Raises: InputError, no scale, or one that is not above 0.
    Source: DeepMask, Full Scene Inference; official `InferDeepMask.lua`. Lesson: 04.
    """
    if not scales or not min(scales) > 0:
        raise InputError(f"scales are {list(scales)}; wanted at least one, all above 0")
    levels, dtype = [], next(model.parameters()).dtype
    for scale in scales:
        with timer("pyramid"):
            level = resized(image, scale)
            canvas = on_canvas(level, model.patch_size, model.record.pixels).to(dtype=dtype, memory_format=torch.channels_last)
        size = [a / b for a, b in zip(level.shape[-2:], image.shape[-2:], strict=True)]
        levels.append(Level((size[0], size[1]), model.dense(canvas, timer=timer)))
    return levels


POOL = 400, 2000  # windows that are reranked: twice as many as are listed, but not fewer or more
PASTE_PIXELS = 2**26, 2**28  # of full-size masks at once, on the CPU and on a device, which needs 6 bytes for each
MAX_SIDE, COCO_SIDE = 1024, 640  # px: where pictures are reduced; COCO's longest side, which the papers' scales are made for


@torch.inference_mode()
def propose(
    model: DeepMask | SharpMask, image: np.ndarray, *, refine: bool = True, scales: Sequence[float] | None = None,
    zoom: int = 0, top_k: int = 500, threshold: float = 0.5, nms: float | None = None, rerank: bool | None = None,
    dtype: torch.dtype | None = None, max_side: int = MAX_SIDE, timer: Timer = nullcontext,
) -> Proposals:  # fmt: skip
    """Find objects: the masks of the best-scored windows of a picture.

    Args:
        model: a DeepMask or SharpMask; what `prepare` gives saves its work at every picture. The picture goes to its device.
        image: (H, W, 3) uint8 RGB. top_k: proposals at most; official name np.
        refine: SharpMask's masks; False gives the coarse masks of the DeepMask in it (official option -dm).
        scales: of the pyramid; default the model's, and coarser ones in a picture beyond COCO's 640 px, whose objects may be
            larger, too. zoom: so many finer scales besides, for smaller objects (DeepMaskZoom: 1).
        threshold: mask probability above which a pixel belongs to the object; the paper has .1 or .2 for its networks.
        nms: drop a proposal whose box overlaps a better one's by more than this IoU; the papers do not.
        rerank: order them by score, level, mask and what is new in them (`reranked`); False: by score alone, as the papers do.
            None: as the network's record says.
        dtype: to compute in, such as torch.bfloat16; default the model's.
        max_side: a larger picture is first reduced to this longest side, in pixels, so memory stays bounded; masks
            come in the size of the picture all the same. Raise it to find smaller objects in large pictures.
        timer: called with a stage's name, gives the context it runs in (`bench`).
    Returns: Proposals, best score first; windows whose mask is empty are left out.
    Raises: InputError, not an RGB picture of uint8, no pixel, or an option outside its range.
    Source: DeepMask, Full Scene Inference, SharpMask section 5; official `InferDeepMask.lua`. Lesson: 04.
    """
    height, width = check_picture(image)
    check_range("top_k", top_k, 1, None)
    check_range("zoom", zoom, 0, 4)
    check_range("nms", nms, 0, 1)
    check_range("max_side", max_side, 16, None)
    cut, listed = logit(threshold), top_k if nms is None else 4 * top_k
    rerank = model.record.rerank if rerank is None else rerank
    model = prepare(model if refine else getattr(model, "deepmask", model), dtype=dtype)
    with timer("pyramid"):
        pixels = resized(model.normalise(image), min(1.0, max_side / max(height, width)))
    reduced = (pixels.shape[-2] / height, pixels.shape[-1] / width)
    coarser = max(0, math.ceil(2 * math.log2(max(pixels.shape) / COCO_SIDE)))
    scales = sorted(scales or [min(model.scales) * 2 ** (-(i + 1) / 2) for i in range(coarser)] + list(model.scales))
    scales += [scales[-1] * 2 ** ((i + 1) / 2) for i in range(zoom)]
    levels = pyramid(model, pixels, scales, timer=timer)
    with timer("top k"):
        pool = (max(POOL[0], min(2 * listed, POOL[1]), listed), [-2 * math.log(s) for s in scales]) if rerank else (listed,)
        scores, level, rows, cols = best_windows(levels, *pool)  # reranked, finer levels, which have more windows, come later
    with timer("masks"):
        logits, boxes = masks_of(model, levels, level, rows, cols)
    if rerank:
        with timer("rerank"):
            order, scores = reranked(scores, logits, boxes, pixels.shape[1:], cut, listed)
            logits, boxes, level, rows, cols = logits[sent(order, logits.device)], *(x[order] for x in (boxes, level, rows, cols))
    boxes = boxes / boxes.new_tensor([reduced[1], reduced[0]] * 2)
    with timer("paste"):
        rle, tight = paste_rle(logits, boxes, height, width, cut)
    found = Proposals(rle, tight, scores.sigmoid(), torch.tensor(scales)[level], torch.stack([rows, cols], 1), (height, width))
    found = found[torch.from_numpy(np.flatnonzero((tight[:, 2] > tight[:, 0]).numpy()))]
    if nms is not None:
        found = found[box_nms(found.boxes, found.scores, nms)]
    return found[:top_k]


def best_windows(
    levels: Sequence[Level], top_k: int, prior: Sequence[float] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The windows with the highest scores over all levels.

    Args: levels: of one picture. top_k: at most so many. prior: added to the scores of each level.
    Returns: scores (logits), level, row and column of each, (N,), best first; on the CPU.
    """
    flat = torch.cat([x.dense.scores[0].flatten() + p for x, p in zip(levels, prior or [0.0] * len(levels), strict=True)])
    scores, order = (x.cpu() for x in flat.float().topk(min(top_k, len(flat))))
    sizes = torch.tensor([level.dense.scores[0].numel() for level in levels])
    starts = sizes.cumsum(0) - sizes
    level = torch.searchsorted(sizes.cumsum(0), order, right=True)
    cell = order - starts[level]
    columns = torch.tensor([x.dense.scores.shape[-1] for x in levels])[level]
    return scores, level, cell // columns, cell % columns


def masks_of(
    model: DeepMask | SharpMask, levels: Sequence[Level], level: Tensor, rows: Tensor, cols: Tensor
) -> tuple[Tensor, Tensor]:
    """Masks of chosen windows, and where they lie.

    Args: model, levels: as from `pyramid`. level, rows, cols: (N,) int64, on the CPU.
    Returns:
        (N, M, M) float32 logits, and on the CPU (N, 4) float32 windows, xyxy in pixels of the picture the levels were made of.
    """
    order, counts = level.argsort(stable=True), level.bincount(minlength=len(levels)).tolist()
    places = sent(torch.stack([rows[order], cols[order], order.argsort()]), levels[0].dense.scores.device)  # all at once
    logits, boxes = [], torch.zeros(len(level), 4)
    for one, at, (r, c, _) in zip(levels, order.split(counts), places.split(counts, 1), strict=True):
        if len(at):
            logits.append(model.masks_at(one.dense, torch.zeros_like(r), r, c).float())
            boxes[at] = one.windows(rows[at], cols[at], model.patch_size, model.stride)
    return torch.cat(logits)[places[2]], boxes


def logit(probability: float) -> float:
    """The logit of a mask threshold; InputError unless that is above 0 and below 1.

    Example:
        >>> logit(0.5)
        0.0
    """
    if not 0 < probability < 1:
        raise InputError(f"threshold is {probability}; it is a probability, above 0 and below 1")
    return math.log(probability / (1 - probability))


def paste_rle(logits: Tensor, boxes: Tensor, height: int, width: int, cut: float) -> tuple[list[dict], Tensor]:
    """Masks enlarged into their windows as RLE, without ever holding all of them at full size.

    Args: logits: (N, M, M); boxes: (N, 4) xyxy in pixels; height, width: of the picture; cut: logit above which a pixel counts.
    Returns: N RLEs, and (N, 4) float32 boxes xyxy around them.
    """
    rle: list[dict] = []
    step = max(1, PASTE_PIXELS[not logits.is_cpu] // (height * width))
    for i in range(0, len(logits), step):
        # pasted with rows and columns exchanged: RLE runs down the columns, so that nothing is copied
        rle += rle_of_columns(paste_masks(logits[i : i + step].mT, boxes[i : i + step][:, [1, 0, 3, 2]], width, height, cut))
    return rle, xywh_to_xyxy(torch.from_numpy(coco_mask.toBbox(rle).reshape(-1, 4)).float())


class Joined(Basic):
    """A basic block as two calls of oneDNN: what `prepare` makes of it."""

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.downsample is None else self.downsample(x)
        return activated(self.conv2, self.bn2, activated(self.conv1, self.bn1, x), plus=short)


N = TypeVar("N", bound=Network)


def prepare(model: N, *, dtype: torch.dtype | None = None) -> N:
    """A copy for inference: batch norm folded into the convolutions, channels last, in the type asked for.

    Args:
        model: any state; it is not changed.
        dtype: None keeps the model's; torch.bfloat16 pays off where the processor has units for it. A network's `exact` parts,
            a MultiPathNet's classifiers and boxes, stay as they are.
    Returns: A network in evaluation mode without gradients whose outputs differ from the model's by rounding only; the model
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
        elif type(module) is Basic:
            module.__class__ = Joined
    exact = {name: copy.deepcopy(getattr(fast, name)) for name in fast.exact}
    fast = fast.requires_grad_(False).to(dtype=dtype).to(memory_format=torch.channels_last)
    for name, part in exact.items():
        setattr(fast, name, part)
    return fast
