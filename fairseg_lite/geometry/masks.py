"""Masks in their three forms: arrays of bool, COCO's run-length code (RLE) and polygons; and pasting a small one.

N masks, H x W pixels, M side of a predicted mask. RLE counts pixels down the columns, zeros first. It comes as a list
of counts ("uncompressed") or as text, six bits a character ("compressed"). We read both and write the second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import sent

CHUNK, PASTE = 2**24, 2**20  # numbers that a step of mask_iou and of paste_masks holds at once


def mask_to_box(masks: Tensor) -> Tensor:
    """Smallest box around each mask.

    Args: masks (N, H, W) bool. Returns: (N, 4) float32, xyxy in pixels; an empty mask gives (0, 0, 0, 0).
    Raises: InputError, masks is not 3-d or not bool.
    Example:
        >>> mask_to_box(torch.ones(1, 2, 3, dtype=torch.bool)).tolist()
        [[0.0, 0.0, 3.0, 2.0]]

    Source: COCO `toBbox`. Lesson: 01.
    """
    _check_masks(masks)
    n, h, w = masks.shape
    if masks.numel() == 0:
        return torch.zeros(n, 4, device=masks.device)
    cols, rows = masks.any(1).byte(), masks.any(2).byte()  # argmax finds the first of several 1s
    x1, x2 = cols.argmax(1), w - cols.flip(1).argmax(1)
    y1, y2 = rows.argmax(1), h - rows.flip(1).argmax(1)
    return torch.stack([x1, y1, x2, y2], 1).float() * cols.any(1, keepdim=True)


def rle_encode(mask: np.ndarray | Tensor) -> Any:
    """Masks as compressed COCO RLE that `json.dump` takes.

    Args: mask (H, W) or (N, H, W) bool, array or tensor. Returns: {"size": [H, W], "counts": str}, or a list of N of them.
    Raises: InputError, not bool, or neither 2-d nor 3-d.
    Example:
        >>> rle_encode(np.array([[0, 1, 1], [0, 0, 1]], bool))  # counts 2, 1, 1, 2; the last is coded as 2 - 1
        {'size': [2, 3], 'counts': '2111'}

    Source: COCO `rleEncode`, `rleToString`. Lesson: 01.
    """
    if mask.dtype not in (bool, torch.bool) or mask.ndim not in (2, 3):
        raise InputError(f"mask is {mask.dtype} of shape {mask.shape}; wanted bool, (H, W) or (N, H, W)")
    stack = mask[None] if mask.ndim == 2 else mask
    rles = rle_of_columns(torch.from_numpy(stack.transpose(0, 2, 1).copy()) if isinstance(stack, np.ndarray) else stack.mT)
    return rles[0] if mask.ndim == 2 else rles


def rle_of_columns(masks: Tensor) -> list[dict]:
    """As `rle_encode`, of masks (N, W, H) bool whose rows are a picture's columns; from a device come the ends of runs alone."""
    n, w, h = masks.shape
    if not masks.numel():
        codes = [{"counts": b"0"} for _ in range(n)]  # no pixels: one run of no zeros
    elif masks.is_cpu:
        codes = coco_mask.encode(masks.contiguous().numpy().view(np.uint8).transpose(2, 1, 0))
    else:
        flat = F.pad(masks.flatten(1), (1, 0))  # begins with a zero
        mask, at = (flat[:, 1:] != flat[:, :-1]).nonzero().cpu().numpy().T
        ends = np.split(at, np.searchsorted(mask, np.arange(1, n)))
        codes = coco_mask.frPyObjects([{"size": [h, w], "counts": np.diff(e, prepend=0, append=w * h)} for e in ends], h, w)
    return [{"size": [h, w], "counts": c["counts"].decode()} for c in codes]


def rle_counts(rle: dict) -> np.ndarray:
    """Lengths of the runs, zeros first.

    Args: rle {"size": [H, W], "counts": str, bytes or list of int}. Returns: (R,) int64 that add up to H * W.
    Raises: InputError, no RLE, damaged text, negative counts, or counts that do not fill the picture.
    Example:
        >>> rle_counts({"size": [2, 3], "counts": "2111"}).tolist()
        [2, 1, 1, 2]

    Source: COCO `rleFrString`: 5 bits a character and one that says "more follow"; from the fourth run on the
        difference to the run before the last. Written anew because the C code trusts its text. Lesson: 01.
    """
    h, w = _rle_size(rle)
    counts = rle.get("counts")
    if isinstance(counts, (str, bytes)):
        code = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts  # only ASCII is valid
        values = _counts_of(code, h, w)
    elif isinstance(counts, (list, tuple)) and not set(map(type, counts)) - {int}:
        if max(map(abs, counts), default=0) > h * w:
            raise InputError(f"RLE has a run of more pixels than the {h} x {w} px of its size; the code is damaged")
        values = np.array(counts, np.int64)
    else:
        raise InputError(f"RLE counts are a {type(counts).__name__}; wanted text or a list of whole numbers")
    if (values < 0).any() or values.sum() != h * w:
        raise InputError(
            f"RLE counts add up to {values.sum()} (smallest {values.min(initial=0)}), but {h} x {w} has {h * w} px; "
            "the code is damaged or the size is that of another picture"
        )
    return values


def _counts_of(code: bytes, h: int, w: int) -> np.ndarray:
    bits = np.frombuffer(code, np.uint8).astype(np.int64) - 48
    if len(bits) == 0 or ((bits < 0) | (bits > 63)).any() or bits[-1] & 32:
        raise InputError(f"RLE counts {code[:20]!r}... are no whole run-length code; was the text cut or edited?")
    ends = np.flatnonzero(bits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(bits)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 8:
        raise InputError(f"RLE counts {code[:20]!r}... hold a number of more than 45 bits; the text is damaged")
    values = np.add.reduceat((bits & 31) << 5 * place, starts)
    negative = bits[ends] & 16 != 0  # the sign is the top bit of the last character
    values[negative] -= 1 << 5 * (place[ends[negative]] + 1)
    values[1::2], values[2::2] = values[1::2].cumsum(), values[2::2].cumsum()
    return values


def rle_decode(rle: dict) -> np.ndarray:
    """The mask of a COCO RLE, compressed or not.

    Args: rle as in `rle_counts`. Returns: (H, W) bool. Raises: InputError as `rle_counts`.
    Example:
        >>> rle_decode({"size": [2, 3], "counts": [2, 1, 1, 2]}).astype(int).tolist()
        [[0, 1, 1], [0, 0, 1]]

    Source: COCO `rleDecode`. Lesson: 01.
    """
    counts, (h, w) = rle_counts(rle), _rle_size(rle)
    return np.ascontiguousarray(np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(w, h).T)


def _rle_size(rle: dict) -> tuple[int, int]:
    size = rle.get("size") if isinstance(rle, dict) else None
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and all(type(s) is int and 0 <= s < 2**24 for s in size)):
        raise InputError(f"RLE size is {size!r}; wanted [height, width] in pixels, each below 2^24")
    return size[0], size[1]


def polygons_to_mask(polygons: Sequence[Sequence[float]], h: int, w: int) -> np.ndarray:
    """The union of COCO polygons; what lies outside the picture is cut off.

    Args:
        polygons: each x1, y1, x2, y2, ... in pixels, at least 3 points, closed by itself.
        h, w: of the picture, in pixels.
    Returns: (h, w) bool.
    Raises: InputError, less than 3 points, an odd number of coordinates, or one that is no number below 1e9.
    Example:
        >>> polygons_to_mask([[1, 0, 3, 0, 3, 2, 1, 2]], 2, 4).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0]]

    Source: COCO `rleFrPoly`, `rleMerge`. Far corners are cut off first: it walks every pixel of an edge. Lesson: 01.
    """
    return rle_decode(polygons_to_rle(polygons, h, w))


def polygons_to_rle(polygons: Sequence[Sequence[float]], h: int, w: int) -> dict:
    """As `polygons_to_mask`, but {"size": [h, w], "counts": str}: quicker where only area, box or IoU are wanted."""
    low, high = np.array([-w, -h]), np.array([2 * w, 2 * h])
    kept = [_clip(polygon_points(polygon), low, high).ravel().tolist() for polygon in polygons]
    kept = [points for points in kept if points]
    if h * w == 0 or not kept:
        return rle_encode(np.zeros((h, w), bool))
    rle = coco_mask.merge(coco_mask.frPyObjects(kept, h, w))
    return {"size": [h, w], "counts": rle["counts"].decode()}


def polygon_points(polygon: Sequence[float]) -> np.ndarray:
    """(K, 2) float64 of a polygon x1, y1, x2, y2, ...; ValueError as in `polygons_to_mask`."""
    try:
        flat = np.array(polygon)
        if flat.ndim != 1 or flat.dtype.kind not in "iuf":
            raise ValueError
    except (ValueError, TypeError):
        raise InputError("polygon is not a flat list of numbers; wanted x1, y1, x2, y2, ...") from None
    if flat.size < 6 or flat.size % 2:
        raise InputError(f"polygon has {flat.size} coordinates; wanted an even number, at least 6 (3 points)")
    if not (np.abs(flat) < 1e9).all():  # nor NaN
        raise InputError("polygon has a coordinate beyond 1e9 px or not a number; correct or delete it")
    return flat.astype(np.float64).reshape(-1, 2)


def _clip(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Sutherland and Hodgman: cut a polygon at the four sides of a rectangle; fewer than 3 points give none."""
    if (points >= low).all() and (points <= high).all():
        return points
    for axis, limit, sign in ((0, low[0], 1), (0, high[0], -1), (1, low[1], 1), (1, high[1], -1)):
        out = []
        for p, q in zip(points, np.roll(points, -1, 0), strict=True):
            inside_p, inside_q = sign * (p[axis] - limit) >= 0, sign * (q[axis] - limit) >= 0
            if inside_p:
                out.append(p)
            if inside_p != inside_q:
                cut = p + (q - p) * ((limit - p[axis]) / (q[axis] - p[axis]))
                cut[axis] = limit
                out.append(cut)
        points = np.array(out).reshape(-1, 2)
    return points if len(points) >= 3 else points[:0]


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every mask of a with every mask of b.

    Args: a (N, H, W), b (M, H, W), both bool. Returns: (N, M) float32 in [0, 1]; 0 where both are empty.
    Raises: InputError, not bool, not 3-d, or other sizes.
    Example:
        >>> half, whole = torch.tensor([[[1, 0]]]).bool(), torch.ones(1, 1, 2, dtype=torch.bool)
        >>> mask_iou(half, whole).tolist()
        [[0.5]]

    Source: paper 1 section 5 (the measure of all its tables). Lesson: 01.
    """
    _check_masks(a)
    _check_masks(b)
    if a.shape[1:] != b.shape[1:]:
        raise InputError(f"masks of {tuple(a.shape[1:])} and {tuple(b.shape[1:])} px cannot overlap; paste them first")
    a, b = a.flatten(1), b.flatten(1)
    exact = torch.float32 if a.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    area_a, area_b, common = (a.new_zeros(s, dtype=exact) for s in (len(a), len(b), (len(a), len(b))))
    step = max(1, CHUNK // max(1, len(a) + len(b)))  # below 2^24 pixels at once float32 counts exactly
    for start in range(0, a.shape[1], step):
        x, y = a[:, start : start + step].float(), b[:, start : start + step].float()
        common += x @ y.T
        area_a += x.sum(1)
        area_b += y.sum(1)
    return (common / (area_a[:, None] + area_b - common).clamp(min=1)).float()


def paste_masks(logits: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.0) -> Tensor:
    """Small masks enlarged into their windows of a picture, then cut at the threshold.

    Args:
        logits: (N, M, M) of any float dtype.
        boxes: (N, 4) windows, xyxy in pixels, with any fraction and any part outside the picture.
        height, width: of the picture, in pixels.
        threshold: in the unit of logits; 0 is a probability of one half.
    Returns: (N, height, width) bool: bilinear value > threshold, and False outside the window.
    Raises: InputError, shapes do not fit.
    Example:
        >>> paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.0, 0, 3, 2]]), 2, 4).int().tolist()
        [[[0, 1, 1, 0], [0, 1, 1, 0]]]

    Source: official `InferDeepMask:getTopMasks`, with half-pixel centres instead of aligned corners. Lesson: 04.
    """
    n = len(logits)
    if logits.ndim != 3 or boxes.shape != (n, 4):
        raise InputError(f"logits {tuple(logits.shape)} and boxes {tuple(boxes.shape)}; wanted (N, M, M) and (N, 4)")
    logits, boxes = logits.float() - threshold, sent(boxes.float(), logits.device)
    edges = (boxes - 0.5).ceil()  # of the pixels whose centres are in the window
    if not logits.is_cpu:  # all pixels of every mask at once: six times the work, and nothing to wait for
        cols, rows = (_everywhere(boxes[:, i::2], edges[:, i::2], (width, height)[i], logits.shape[2 - i]) for i in (0, 1))
        return rows @ logits @ cols.mT > 0
    out = torch.zeros(n, height, width, dtype=torch.bool)
    first = edges[:, :2].clamp(min=0)
    size = torch.minimum(edges[:, 2:], edges.new_tensor([width, height])) - first
    spans = torch.cat([first, size], 1).long().tolist()
    order = sorted((i for i in range(n) if min(spans[i][2:]) > 0), key=lambda i: -spans[i][2] * spans[i][3])
    while order:  # windows of about the same size together, each on a canvas of their own
        count = max(1, PASTE // (spans[order[0]][2] * spans[order[0]][3]))
        part, order = order[:count], order[count:]
        rows = _grown(logits[part], boxes[part, 1::2], first[part, 1], max(spans[i][3] for i in part))
        pasted = _grown(rows, boxes[part, ::2], first[part, 0], max(spans[i][2] for i in part)) > 0
        for i, mask in zip(part, pasted, strict=True):
            x, y, w, h = spans[i]
            out[i, y : y + h, x : x + w] = mask[:h, :w]
    return out


def _places(window: Tensor, first: Tensor, length: int, cells: int) -> Tensor:
    """(N, length): where pixels first, first + 1, .. lie in windows (N, 2), counted in cells from the middle of the first."""
    at = torch.arange(length, device=window.device) + (first + 0.5 - window[:, 0])[:, None]
    return (at * (cells / (window[:, 1] - window[:, 0]))[:, None] - 0.5).clamp_(0, cells - 1)


def _grown(x: Tensor, window: Tensor, first: Tensor, length: int) -> Tensor:
    """(N, M, K) -> (N, K, length): bilinear values at `_places` along the second axis, which becomes the last."""
    at, (n, cells, _) = _places(window, first, length, x.shape[1]), x.shape
    low = at.long()
    both = torch.stack([low, (low + 1).clamp(max=cells - 1)]) + torch.arange(0, n * cells, cells)[:, None]
    one, two = x.flatten(0, 1).index_select(0, both.flatten()).view(2, n, length, x.shape[2])
    return torch.lerp(one, two, at.frac()[..., None]).mT


def _everywhere(window: Tensor, edges: Tensor, length: int, cells: int) -> Tensor:
    """(N, length, cells): how much each cell counts at every pixel of a picture: nothing beyond the edges (N, 2) of a window."""
    at = _places(window, torch.zeros_like(window[:, 0]), length, cells)[..., None] - torch.arange(cells, device=window.device)
    weights = (1 - at.abs()).clamp(min=0)
    pixel = torch.arange(length, device=window.device)
    return weights * ((pixel >= edges[:, :1]) & (pixel < edges[:, 1:]))[..., None]


def _check_masks(masks: Tensor, what: str = "masks") -> None:
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise InputError(f"{what} are {masks.dtype} of shape {tuple(masks.shape)}; wanted bool, (N, H, W)")
