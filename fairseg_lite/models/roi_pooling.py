"""How MultiPathNet looks at a RoI: whatever its size, a P x P grid of what the features say inside it, and a vector of that.

    features -> roi_pool, for each level -> Mix (skip connections) -> tower (fc6 and fc7, or ResNet's conv5) -> width numbers

Ways to pool:
    "v1"     torchvision's `roi_pool`, Fast R-CNN's own: cells round(x1 s) .. round(x2 s), the last one included, cut into bins
             that may share a row of cells. The official `inn.ROIPooling` v1 to the bit.
    "v2"     the official default. Cells round(x1 s) .. round(x2 s) without the last, and bins that share nothing; a bin
             without a cell, as a small RoI has many, is 0.
    "align"  torchvision's `roi_align` (He et al. 2017): nothing is rounded, bilinear samples are averaged.

Boxes are ours, xyxy in continuous pixels; the official code's have 1 added to every corner.

Shapes: B batch, C channels, h x w cells of a feature map of stride 1/s, N RoIs, P grid side.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.ops import roi_pool as roi_pool_v1

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.models.trunks import Bottleneck, residual_layer

METHODS = ("v1", "v2", "align")
SAMPLES = 2  # of "align", in each direction of a bin


def roi_pool(features: Tensor, rois: Tensor, size: int | tuple[int, int], *, scale: float, how: str = "v2") -> Tensor:
    """The features inside each RoI, as a small grid of fixed size.

    Args:
        features: (B, C, h, w). size: (rows, columns) of the grid, or one number P. how: "v1", "v2" or "align", see above.
        rois: (N, 5) index of the picture in the batch, then xyxy in pixels of the picture. Parts outside count as empty.
        scale: s, cells of the feature map for each pixel of the picture: 1/16 at stride 16.
    Returns: (N, C, rows, columns); N may be 0.
    Raises: InputError, an unknown method.
    Example:
        >>> features = torch.arange(16.0).view(1, 1, 4, 4)
        >>> roi_pool(features, torch.tensor([[0.0, 0, 0, 32, 64]]), 2, scale=1 / 16)
        tensor([[[[ 4.,  5.],
                  [12., 13.]]]])

    Source: Girshick 2015, section 2.1; official `inn.ROIPooling`. Lesson: 08.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    check_choice("how", how, METHODS)
    plain = features.is_cpu and not (torch.is_grad_enabled() and features.requires_grad)  # nothing goes back
    short = features.dtype in (torch.float16, torch.bfloat16)
    if short and not (how == "v2" and plain):  # in 8 or 11 bits boxes would move; the largest cell stays the largest
        return roi_pool(features.float(), rois, size, scale=scale, how=how).to(features.dtype)
    if how == "v1":
        return roi_pool_v1(features, rois.to(features.dtype), (rows, columns), scale)
    if how == "align":
        align = _weighted if features.is_cpu else partial(roi_align, sampling_ratio=SAMPLES, aligned=True)
        return align(features, rois.to(features.dtype), (rows, columns), scale)
    y1, y2 = _bins(rois[:, 2], rois[:, 4], rows, scale, features.shape[2])  # (N, rows) first cell, and first cell after
    x1, x2 = _bins(rois[:, 1], rois[:, 3], columns, scale, features.shape[3])
    if plain:
        pooled = _largest(features, rois[:, 0], y1, y2, x1, x2)
    else:  # every bin becomes a RoI of its own, in whole cells, for torchvision's pooling to one number
        edges = (rois[:, 0, None, None], x1[:, None], y1[:, :, None], x2[:, None] - 1, y2[:, :, None] - 1)
        bins = torch.stack([e.expand(-1, rows, columns) for e in edges], -1)  # (N, rows, columns, 5)
        pooled = roi_pool_v1(features, bins.reshape(-1, 5).to(features.dtype), 1, 1.0)  # (N rows columns, C, 1, 1)
        pooled = pooled.view(-1, rows, columns, features.shape[1])
    empty = (y2 <= y1)[:, :, None, None] | (x2 <= x1)[:, None, :, None]
    return pooled.masked_fill(empty, 0.0).permute(0, 3, 1, 2)  # (N, C, rows, columns)


def readable(features: Tensor, how: str) -> Tensor:
    """Features in the type and the order in which `roi_pool` reads them fastest where no gradient is wanted."""
    if features.is_cpu and how != "v1":
        return (features if how == "v2" else features.float()).contiguous(memory_format=torch.channels_last)
    return features.float().contiguous()


def _largest(features: Tensor, picture: Tensor, y1: Tensor, y2: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
    """(N, rows, columns, C): the largest cell of each bin, by rows and then by columns; of an empty bin, any number.

    Several times faster than torchvision's, which goes through a map for each channel anew. Features are best channels last.
    """
    grid = features.permute(0, 2, 3, 1)  # (B, h, w, C)
    pooled, step = grid.new_empty(len(y1), y1.shape[1], x1.shape[1], grid.shape[3]), torch.arange(max(grid.shape[1:3]))
    left = x1[:, 0].clamp(max=grid.shape[2] - 1)
    most = ((b - a).amax(1).clamp(min=1) for a, b in ((y1, y2), (x1, x2)))
    sizes = torch.stack([picture.long(), left, torch.maximum(x2[:, -1], left + 1), *most], 1)
    for i, (one, left, right, tall, wide) in enumerate(sizes.tolist()):
        part = grid[one, :, left:right]
        for axis, first, after, most in ((0, y1[i], y2[i], tall), (1, x1[i] - left, x2[i] - left, wide)):
            at = torch.minimum(first[:, None] + step[:most], after[:, None] - 1).clamp_(0, part.shape[axis] - 1)
            part = part.index_select(axis, at.flatten()).unflatten(axis, at.shape)
            part = part.amax(axis + 1) if most > 1 else part.squeeze(axis + 1)
        pooled[i] = part
    return pooled


def check_rois(rois: Tensor, pictures: int) -> None:
    """InputError unless these are (N, 5) finite RoIs of a batch of so many pictures."""
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise InputError(f"rois have shape {tuple(rois.shape)}; wanted (N, 5): index of the picture, x1, y1, x2, y2")
    if not len(rois):
        return
    finite, low, high = torch.stack([rois.isfinite().all(), *rois[:, 0].aminmax()]).tolist()  # one wait for a GPU
    if not finite:
        bad = rois[~rois.isfinite().all(1)][0].tolist()
        raise InputError(f"RoI {bad} has a coordinate that is not a finite number; drop it before the network")
    if low < 0 or high >= pictures:
        raise InputError(f"rois are of pictures {low:.0f} .. {high:.0f}, and the batch has {pictures}, counted from 0")


def _weighted(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    """torchvision's `roi_align` on a CPU: each bin is a sum of 16 cells with weights, what `embedding_bag` is made for.

    Forwards and backwards several times faster, most of all with many channels. Features are best channels last.
    """
    (_, c, h, w), box = features.shape, rois[:, 1:] * scale - 0.5
    row, down = _samples(box[:, 1], box[:, 3], size[0], h)  # (N, rows, 4)
    column, right = _samples(box[:, 0], box[:, 2], size[1], w)
    row = row + rois[:, :1, None].long() * h
    cells = row[:, :, None, :, None] * w + column[:, None, :, None]  # (N, rows, columns, 4, 4)
    weights = (down[:, :, None, :, None] * right[:, None, :, None]).reshape(-1, 16)
    table = features.permute(0, 2, 3, 1).reshape(-1, c)
    pooled = F.embedding_bag(cells.reshape(-1, 16), table, mode="sum", per_sample_weights=weights)
    return pooled.view(len(rois), *size, c).permute(0, 3, 1, 2)


def _samples(low: Tensor, high: Tensor, bins: int, cells: int) -> tuple[Tensor, Tensor]:
    """Cells and weights (N, bins, 4) of two bilinear samples in each bin between two edges; a cell outside they are 0."""
    place = (torch.arange(bins * SAMPLES, dtype=low.dtype) + 0.5) / (bins * SAMPLES)
    at = low[:, None] + place * (high - low)[:, None]  # (N, bins * SAMPLES)
    inside, at = ((at >= -1) & (at <= cells)) / SAMPLES, at.clamp(0, cells - 1)
    first = at.long()
    index = torch.stack([first, (first + 1).clamp(max=cells - 1)], -1)
    weights = torch.stack([1 - at.frac(), at.frac()], -1) * inside[..., None]
    return index.view(-1, bins, 2 * SAMPLES), weights.view(-1, bins, 2 * SAMPLES)


def _bins(low: Tensor, high: Tensor, bins: int, scale: float, cells: int) -> tuple[Tensor, Tensor]:
    """First cell and first cell after each of the bins between two edges in pixels, of cells that are there: (N, bins) each."""
    first = _round(low.float() * scale)
    length = (_round(high.float() * scale) - first).clamp(min=1)  # of no length: one cell
    edges = _round(torch.arange(bins + 1, device=low.device) * (length / bins)[:, None])  # float32, as official
    edges = (edges + first[:, None]).clamp(0, cells).long()
    return edges[:, :-1], edges[:, 1:]


def _round(x: Tensor) -> Tensor:
    """Halves away from zero, as C rounds; `torch.round` takes them to the even number."""
    return x.sign() * (x.abs() + 0.5).floor()


class Mix(nn.Module):
    """Pooled levels of one region -> one grid: scaled, joined, and a 1x1 convolution.

    Args:
        channels: of each level, finest first.
        out: channels of the result.
        normalise: divide the whole pooled C x P x P of a level by its length, for each RoI, then multiply by scale.
            Without it the levels are multiplied by 1, 1/30, 1/200 (conv5, conv4, conv3), and where `out` is conv5's number of
            channels the convolution starts as a copy of it: a network that begins as the one without skips.
        scale: of the normalised levels.
    Example:
        >>> Mix([4, 8], 16)([torch.rand(2, 4, 7, 7), torch.rand(2, 8, 7, 7)]).shape
        torch.Size([2, 16, 7, 7])

    Source: MultiPath section 3; official `model_utils.lua` `conv345Combine`. Lesson: 09.
    """

    def __init__(self, channels: Sequence[int], out: int, *, normalise: bool = True, scale: float = 1000.0):
        super().__init__()
        self.conv = nn.Conv2d(sum(channels), out, 1)
        self.normalise, self.scale = normalise, scale
        if not normalise and out == channels[-1]:
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # it has one
            nn.init.zeros_(self.conv.weight)
            nn.init.eye_(self.conv.weight[:, :out, 0, 0])

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        levels = list(reversed(pooled))  # conv5 first, as in official weights
        if self.normalise:
            levels = [_of_length(self.scale, x) for x in levels]
        else:
            levels = [x * s for x, s in zip(levels, (1, 1 / 30, 1 / 200), strict=False)]
        return self.conv(torch.cat(levels, 1))  # (N, out, P, P)


def _of_length(length: float, x: Tensor) -> Tensor:
    """Each RoI's whole grid scaled to a length; in single precision at least, for thousands of squares are added up."""
    wide = x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
    norm = wide.norm(dim=1, keepdim=True)
    norm = norm.where(norm > 1e-10, 1)  # a grid of zeros, outside the picture, stays one and has a gradient of this size
    return (wide * (length / norm)).view_as(x).to(x.dtype)


class LinearTower(nn.Sequential):
    """VGG's fc6 and fc7 with dropout: (N, C, P, P) -> (N, width). hidden: what fc6 gives; default width."""

    def __init__(self, channels: int, pooled: int, *, width: int = 4096, hidden: int | None = None, dropout: float = 0.5):
        hidden = hidden or width
        fc6, fc7 = nn.Linear(channels * pooled**2, hidden), nn.Linear(hidden, width)
        super().__init__(nn.Flatten(), fc6, nn.ReLU(), nn.Dropout(dropout), fc7, nn.ReLU(), nn.Dropout(dropout))
        self.width = width


class ResidualTower(nn.Module):
    """ResNet's conv5 (layer4) and the mean over its cells: (N, C, P, P) -> (N, width). Options: `residual_layer`'s."""

    def __init__(
        self, channels: int, pooled: int, *, inner: int, width: int, depth: int, block: str, stride: int = 2, eps: float = 1e-5,
        stride_in_1x1: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.layer4 = residual_layer(channels, inner, width, stride, depth, block=block, eps=eps, stride_in_1x1=stride_in_1x1)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(x).mean((2, 3))


class Region(nn.Module):
    """One way of looking at each RoI: how wide (factor), how fine (levels), and what it makes of it (mix, tower)."""

    def __init__(self, factor: float, levels: Sequence[int], mix: nn.Module | None, tower: nn.Module):
        super().__init__()
        self.factor, self.levels = factor, tuple(levels)
        self.mix: Any = mix
        self.tower: Any = tower

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """(N, C_i, P, P) of each of its levels -> (N, width)."""
        return self.tower(self.mix(pooled) if self.mix is not None else pooled[0])

    @torch.no_grad()
    def join(self) -> None:
        """One 1x1 convolution of two with nothing between, where the tower begins with one (ResNet-50's, its norms folded)."""
        block, mix = getattr(self.tower, "layer4", [None])[0], getattr(self.mix, "conv", None)
        if not isinstance(mix, nn.Conv2d) or not isinstance(block, Bottleneck) or block.downsample is None:
            return
        bias: Any = mix.bias
        for conv in (block.conv1, block.downsample[0]):
            conv.bias = nn.Parameter(conv.weight.flatten(1) @ bias + (0 if conv.bias is None else conv.bias))
            conv.weight = nn.Parameter((conv.weight.flatten(1) @ mix.weight.flatten(1))[:, :, None, None])
        self.mix.conv = nn.Identity()


def levels_seen(factor: float, skip: bool, sees: str) -> tuple[int, ...]:
    """Which of conv3, conv4, conv5 (0, 1, 2) a region of this factor sees. Options: `MultiPathNet`'s."""
    if not skip:
        return (2,)
    if sees == "figure" or factor <= 1:
        return (0, 1, 2)
    return (1, 2) if factor <= 2 else (2,)
