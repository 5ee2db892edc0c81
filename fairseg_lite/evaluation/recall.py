"""Average recall (AR) of class-agnostic proposals, by COCO's own judge.

AR@k asks: of all objects, what share do the k best proposals of each picture find? "Found" needs an IoU (intersection
over union); AR is the mean over the thresholds .50, .55, ... .95, as in SharpMask's paper (DeepMask's goes on to 1).
pycocotools' `COCOeval` matches proposals with objects (`evaluation/judge.py`); we count what it matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.judge import fast, judged, results_of, shown, summed, truth_of

LARGEST = (10, 0.7)


@dataclass(frozen=True)
class RecallReport:
    """Share of objects found; every value lies in 0..1, `dataclasses.asdict` of it is ready for JSON."""

    iou_type: str  # "segm": mask against mask, "bbox": box against box
    instances: int  # objects to find: neither crowds nor without a pixel
    pictures: int
    ar: dict[int, float]  # limit -> AR
    by_area: dict[int, dict[str, float | None]]  # limit -> small, medium, large -> AR; None: no object of that size
    by_threshold: dict[int, dict[float, float]]  # limit -> IoU threshold -> recall
    area_instances: dict[str, int]  # small, medium, large -> objects to find
    largest: float  # share of the pictures with an object whose largest is among the best LARGEST[0], at an IoU of LARGEST[1]

    def __str__(self) -> str:
        overall = ", ".join(f"AR@{limit} {shown(value)}" for limit, value in self.ar.items())
        limits = sorted({100, max(self.ar)} & set(self.ar))
        sizes = ", ".join(" / ".join(shown(v) for v in self.by_area[k].values()) + f" @{k}" for k in limits)
        largest = f"the largest among the best {LARGEST[0]} at IoU {LARGEST[1]:.2f} {shown(self.largest)}"
        return f"{self.instances} instances: {overall}, {' / '.join(self.area_instances)} {sizes}; {largest}"


def average_recall(
    dataset: SceneDataset | dict, results: Sequence[dict], *, iou_type: str = "segm",
    limits: Sequence[int] = (10, 100, 1000), progress: bool = False,
) -> RecallReport:  # fmt: skip
    """AR at several numbers of proposals per picture, and by the size of the objects.

    Small objects have a mask up to 32^2 px, large ones from 96^2 px; one of exactly that size counts on both sides, as
    in COCO. A proposal that lies on a crowd neither helps nor harms. Of equal scores the earlier result comes first.

    Args:
        dataset: scenes, or their COCO dict (`to_coco`), which saves decoding the scenes a second time.
        results: COCO result dicts in any order: image_id, score, and segmentation (RLE) or bbox (xywh in pixels),
            whichever iou_type compares. Categories are ignored. Nothing in it is changed.
        iou_type, limits: "segm" compares masks, "bbox" boxes; numbers of proposals per picture.
        progress: show bars when it takes more than 2 s.
    Returns: RecallReport over every picture of the data set, also those without a result.
    Raises: InputError, no object to find, a picture twice, or a result that cannot be judged: of an unknown picture, with no mask
        or box, with a score or box that is not finite, or RLE that is damaged or of another size.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> truth = to_coco(ShapesDataset(2))
        >>> report = average_recall(truth, [{**a, "score": 1.0} for a in truth["annotations"]])
        >>> report.ar
        {10: 1.0, 100: 1.0, 1000: 1.0}

    Source: COCO `cocoeval.py` with useCats = 0; DeepMask, Experimental Results, SharpMask section 4. Lesson: 05.
    """
    wrong = [k for k in limits if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1]
    if wrong or not len(limits):
        raise InputError(f"limits are {limits!r}; wanted numbers of proposals of at least 1, such as (10, 100)")
    limits = sorted({int(k) for k in limits})
    truth = dataset if isinstance(dataset, dict) else to_coco(dataset, progress=progress)
    images, objects = truth_of(truth, iou_type)
    given = images, objects, results_of(images, results, iou_type), iou_type
    judge = judged(*given, limits=limits[-1:] if fast() is None else [LARGEST[0]], progress=progress)
    p, ranges = judge.params, judge.params.areaRng
    if fast() is None:
        counts, recall = _count(judge, limits)
    else:
        counts = [sum(not o["iscrowd"] and low <= o["area"] <= high for o in objects) for low, high in ranges]
        table = summed(*given, limits=limits)[1]["recall"].clip(min=0)
        recall = {k: [table[:, 0, a, m] for a in range(len(ranges))] for m, k in enumerate(limits)}
    thresholds = [round(float(t), 2) for t in p.iouThrs]
    sizes = p.areaRngLbl[1:]  # the first is "all"
    ar: dict[int, list[Any]] = {
        k: [float(r.mean()) if n else None for n, r in zip(counts, recall[k], strict=True)] for k in limits
    }
    return RecallReport(
        iou_type=iou_type,
        instances=counts[0],
        pictures=len(images),
        ar={k: ar[k][0] for k in limits},
        by_area={k: dict(zip(sizes, ar[k][1:], strict=True)) for k in limits},
        by_threshold={k: dict(zip(thresholds, recall[k][0].tolist(), strict=True)) for k in limits},
        area_instances=dict(zip(sizes, counts[1:], strict=True)),
        largest=_largest(judge),
    )


def _largest(judge: COCOeval) -> float:
    best, threshold = LARGEST
    row = int(np.abs(judge.params.iouThrs - threshold).argmin())
    found = []
    for e in judge.evalImgs[: len(judge.params.imgIds)]:  # of all sizes
        if e is not None and not all(e["gtIgnore"]):
            areas = [
                judge.cocoGt.anns[key]["area"] * (not ignored) for key, ignored in zip(e["gtIds"], e["gtIgnore"], strict=True)
            ]
            found.append(e["gtMatches"][row, int(np.argmax(areas))] in e["dtIds"][:best])
    return float(np.mean(found))


def _count(judge: COCOeval, limits: list[int]) -> tuple[list[int], dict[int, list[np.ndarray]]]:
    """Objects to find of all sizes, small, medium, large, and at each limit their recall at each threshold.

    As `COCOeval.accumulate`, without the precision curves that take it most of its time.
    """
    p = judge.params
    totals, recall = [], {k: [] for k in limits}  # type: ignore[var-annotated]
    for a in range(len(p.areaRng)):
        judged = [e for e in judge.evalImgs[a * len(p.imgIds) : (a + 1) * len(p.imgIds)] if e is not None]
        totals.append(sum(int((e["gtIgnore"] == 0).sum()) for e in judged))
        for k in limits:  # the judge's proposals stand in order of score, (thresholds, proposals)
            hits = [((e["dtMatches"] > 0) & ~e["dtIgnore"].astype(bool))[:, :k].sum(1) for e in judged]
            recall[k].append(sum(hits, np.zeros(len(p.iouThrs))) / max(totals[-1], 1))
    return totals, recall
