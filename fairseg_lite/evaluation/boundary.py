"""How well a mask follows the boundary of its object; the IoU of the whole mask hardly sees it.

A large object has few pixels at its edge: one that is wrong everywhere along it still has an IoU of .9. Two measures look
only there. Trimap IoU counts the pixels within d px of the true boundary. The boundary F-score asks how many pixels of the
predicted boundary lie near the true one, and the other way round.

The boundary runs between pixels: where a pixel of the mask touches one outside it by an edge. The rim of the picture is
none, for what lies beyond is not known ("Boundary IoU", Cheng et al., CVPR 2021, counts it). Distances are Euclidean, from
pixel centre to pixel centre. A true mask without a boundary (empty, or all of the picture) has nothing to measure: its
values are NaN, whatever was predicted.

Shapes: B masks, H x W pixels, D band widths.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.patches import patch_masks
from fairseg_lite.geometry.masks import _check_masks
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask

BANDS = (1, 2, 4, 8, 16)  # px


def trimap_iou(predicted: Tensor, truth: Tensor, *, widths: Sequence[float] = BANDS) -> Tensor:
    """IoU of the pixels near the true boundary: those that have a pixel of the other side within d px, on either side.

    A band that covers the picture gives the IoU of the whole masks. An empty prediction gives 0. Errors at the edge cost the
    narrow bands most; one wider than a band (a mask that is somewhere else) costs all of them alike.

    Args:
        predicted, truth: (B, H, W) bool.
        widths: d of each band, px, at least 1: the nearest pixel of the other side is 1 px away.
    Returns: (B, D) float32 in [0, 1]; NaN where the true mask is empty or fills the picture.
    Raises: InputError, not bool, not 3-d, other sizes, or a width below 1 px.
    Example:
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> truth[:, 2:6, 2:6] = True
        >>> trimap_iou(truth.roll(1, 2), truth, widths=(1, 8))  # 8 of 16 px; 12 of 20
        tensor([[0.5000, 0.6000]])

    Source: Kohli, Ladicky and Torr, IJCV 2009 (as accuracy); DeepLab, Chen et al., ICLR 2015 (as IoU). Lesson: 06.
    """
    _check_pair(predicted, truth)
    wrong = [d for d in widths if not (_real(d) and d >= 1)]
    if wrong or not len(widths):
        raise InputError(f"widths are {list(widths)!r}; wanted numbers of px of at least 1, such as (1, 2, 4)")
    reach = max(widths)
    squared = squared_distance(truth, reach) + squared_distance(~truth, reach)  # one of the two is 0
    both, either = predicted & truth, predicted | truth
    shares = []
    for d in widths:
        band = squared <= d * d
        common, total = (band & both).sum((1, 2)), (band & either).sum((1, 2))
        shares.append(common / total)  # no band: 0 / 0 is NaN; a band holds a pixel of the truth
    return torch.stack(shares, 1)


class BoundaryScore(NamedTuple):
    """Agreement of two boundaries, (B,) float32 each in [0, 1]."""

    f: Tensor  # harmonic mean of both
    precision: Tensor  # share of the predicted boundary near the true one
    recall: Tensor  # share of the true boundary near the predicted one


def boundary_f(predicted: Tensor, truth: Tensor, *, tolerance: float = 2) -> BoundaryScore:
    """Precision, recall and their harmonic mean for the boundary pixels of two masks, near each other up to a tolerance.

    Args:
        predicted, truth: (B, H, W) bool.
        tolerance: px between pixel centres that still count as the same place; 0 asks for the same pixel.
    Returns: BoundaryScore; all three are 0 where the prediction has no boundary, NaN where the true mask has none.
    Raises: InputError, not bool, not 3-d, other sizes, or a tolerance that is negative or not finite.
    Example:
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> truth[:, 2:6, 2:6] = True
        >>> [boundary_f(truth.roll(1, 2), truth, tolerance=t).f.item() for t in (0, 1)]  # 6 of 12 px; all
        [0.5, 1.0]

    Source: Martin, Fowlkes and Malik, PAMI 2004, and DAVIS, Perazzi et al., CVPR 2016, with a tolerance of .008 of the
        diagonal (rounded up 2 px on our patches). A pixel near enough counts here, matched one to one or not. Lesson: 06.
    """
    _check_pair(predicted, truth)
    if not (_real(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance is {tolerance!r} px; wanted a finite number of at least 0")
    edges = boundary_pixels(predicted), boundary_pixels(truth)
    shares = []
    for edge, other in (edges, edges[::-1]):
        near = squared_distance(other, tolerance) <= tolerance**2
        shares.append((edge & near).sum((1, 2)) / edge.sum((1, 2)).clamp(min=1))
    precision, recall = shares
    f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    measured = edges[1].any(2).any(1)
    return BoundaryScore(*(torch.where(measured, v, math.nan) for v in (f, precision, recall)))


def boundary_pixels(masks: Tensor) -> Tensor:
    """Pixels of each mask that touch a pixel outside it by an edge; the rim of the picture is no boundary.

    Args: masks (B, H, W) bool. Returns: (B, H, W) bool; an empty mask and one that fills the picture have none.
    Raises: InputError, not bool or not 3-d.
    Example:
        >>> boundary_pixels(torch.tensor([[[1, 1, 1, 0]]]).bool()).int().tolist()
        [[[0, 0, 1, 0]]]

    Lesson: 06.
    """
    _check_masks(masks)
    return masks & (squared_distance(~masks, 1) <= 1)


def squared_distance(masks: Tensor, reach: float) -> Tensor:
    """Square of the distance from each pixel to the nearest pixel of the mask, exact up to a reach.

    The nearest pixel of a row first, then the nearest row: two passes along a line give the distance in the plane.

    Args:
        masks: (B, H, W) bool.
        reach: px, at least 0. Further away the result is inf or too large, never too small: compare only up to the reach.
    Returns: (B, H, W) float32, px squared; 0 on the mask, inf where nothing is found.
    Raises: InputError, not bool, not 3-d, or a reach that is negative or not finite.
    Example:
        >>> squared_distance(torch.tensor([[[1, 0, 0], [0, 0, 0]]]).bool(), 2).tolist()
        [[[0.0, 1.0, 4.0], [1.0, 2.0, 5.0]]]

    Source: Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012 (the two passes). Lesson: 06.
    """
    _check_masks(masks)
    if not (_real(reach) and reach >= 0):
        raise InputError(f"reach is {reach!r} px; wanted a finite number of at least 0")
    squared = torch.zeros(masks.shape, device=masks.device).masked_fill_(~masks, math.inf)
    for dim in (2, 1):
        size, line = masks.shape[dim], squared.clone()
        for k in range(1, min(math.floor(reach), size - 1) + 1):
            ahead, behind = (0, size - k), (k, size - k)
            for to, source in ((ahead, behind), (behind, ahead)):
                target = squared.narrow(dim, *to)
                torch.minimum(target, line.narrow(dim, *source) + k * k, out=target)
    return squared


@dataclass(frozen=True)
class BoundaryReport:
    """Boundaries of a model's masks: means over the instances; `dataclasses.asdict` of it is ready for JSON."""

    instances: int  # whose true mask has a boundary
    mean_iou: float  # of whole masks, to compare
    trimap_iou: dict[float, float]  # width of the band, px -> IoU within
    f: float
    precision: float
    recall: float
    tolerance: float  # of the last three, px
    left_out: int  # instances whose true mask is empty in their patch, or fills it

    def __str__(self) -> str:
        bands = ", ".join(f"{d:g} px {v:.3f}" for d, v in self.trimap_iou.items())
        return (
            f"{self.instances} instances: mean IoU {self.mean_iou:.3f}, within {bands} of the boundary, "
            f"boundary F at {self.tolerance:g} px {self.f:.3f} (precision {self.precision:.3f}, recall {self.recall:.3f})"
        ) + (f", {self.left_out} without a boundary left out" if self.left_out else "")


def boundary_report(
    model: DeepMask | SharpMask, dataset: SceneDataset, *, widths: Sequence[float] = BANDS, tolerance: float = 2, **options: Any
) -> BoundaryReport:
    """Boundary quality on the patches of `patch_report`: centred, unjittered, at full resolution, every usable instance.

    Args:
        model: in evaluation mode. A SharpMask's coarse masks: its `deepmask`, with the padding of the SharpMask.
        dataset: held-out scenes.
        widths, tolerance: of the bands for `trimap_iou` and for `boundary_f`, px of the patch.
        options: padding, limit and progress of `patch_masks`.
    Raises: InputError, no usable instance, none with a boundary, or widths and tolerance that the measures refuse.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> from fairseg_lite.models.deepmask import deepmask_tiny
        >>> report = boundary_report(deepmask_tiny().eval(), ShapesDataset(1), widths=(1, 4), progress=False)
        >>> list(report.trimap_iou), report.tolerance
        ([1, 4], 2)

    Lesson: 06.
    """
    rows = []  # (B, D + 4): bands, f, precision, recall, IoU
    for predicted, truth in patch_masks(model, dataset, **options):
        iou = (predicted & truth).sum((1, 2)) / (predicted | truth).sum((1, 2))
        parts = trimap_iou(predicted, truth, widths=widths), *boundary_f(predicted, truth, tolerance=tolerance), iou
        rows.append(torch.cat([p.reshape(len(p), -1) for p in parts], 1).cpu().double())
    values = torch.cat(rows)
    measured = values[~values[:, 0].isnan()]
    if not len(measured):
        raise InputError(f"none of {len(values)} true masks has a boundary: each is empty in its patch, or fills it")
    *bands, f, precision, recall, iou = measured.mean(0).tolist()
    by_width = dict(zip(widths, bands, strict=True))
    return BoundaryReport(len(measured), iou, by_width, f, precision, recall, tolerance, len(values) - len(measured))


def _real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_pair(predicted: Tensor, truth: Tensor) -> None:
    _check_masks(predicted, "predicted masks")
    _check_masks(truth, "true masks")
    if predicted.shape != truth.shape:
        shapes = tuple(predicted.shape), tuple(truth.shape)
        raise InputError(f"predicted masks of {shapes[0]} and true ones of {shapes[1]}; each needs its partner of the same size")
