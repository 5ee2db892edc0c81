"""Average precision (AP) of named detections, by COCO's own judge.

Precision: what share of the detections is right. Sorted by score and cut off anywhere, they give a precision and a recall;
AP is the mean precision over recalls 0, .01, ..., 1, for one category and one IoU threshold. "AP" alone is the mean over
the categories and over the thresholds .50, .55, ... .95; AP50 and AP75 keep one threshold.
`average_precision` is that sum for one category, slow and clear; pycocotools' `COCOeval` computes the report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError, check_range
from fairseg_lite.evaluation.judge import MAX_DETS, results_of, shown, summed, truth_of

RECALLS = np.linspace(0, 1, 101)


class CocoResults(Protocol):
    """What `inference.detection.Detections` is to a measure: something that gives COCO results."""

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]: ...


@dataclass(frozen=True)
class PrecisionReport:
    """Precision of detections; values lie in 0..1, None where there is no object; `asdict` of it is ready for JSON."""

    iou_type: str  # "segm": mask against mask, "bbox": box against box
    instances: int  # objects to find: neither crowds nor without a pixel
    pictures: int
    detections: int
    ap: float  # mean over categories and IoU thresholds .50:.95
    ap50: float
    ap75: float
    by_area: dict[str, float | None]  # small, medium, large -> AP
    by_threshold: dict[float, float]  # IoU threshold -> AP, mean over categories
    per_category: dict[str, float | None]  # name -> AP
    per_category_50: dict[str, float | None]  # name -> AP50
    category_instances: dict[str, int]  # name -> objects to find
    ar: dict[int, float]  # 1, 10, max_dets detections per picture -> average recall, mean over categories
    ar_by_area: dict[str, float | None]  # of the most detections

    def __str__(self) -> str:
        sizes = f"{' / '.join(self.by_area)} {' / '.join(map(shown, self.by_area.values()))}"
        return f"{self.instances} instances: AP {self.ap:.3f}, AP50 {self.ap50:.3f}, AP75 {self.ap75:.3f}, {sizes}"

    def table(self) -> str:
        """A line for each category: AP, AP50 and how many objects, for people."""
        width = max(8, *map(len, self.per_category))
        rows = [f"{'category':{width}}{'AP':>8}{'AP50':>8}{'objects':>9}"]
        for name, objects in self.category_instances.items():
            values = shown(self.per_category[name]), shown(self.per_category_50[name])
            rows.append(f"{name:{width}}{values[0]:>8}{values[1]:>8}{objects:9}")
        return "\n".join(rows)


def average_precision(hits: Sequence[bool], objects: int) -> float:
    """Mean precision over the recalls 0, .01, ..., 1, of one category at one IoU threshold.

    Where more detections raise the precision again, the higher precision counts for the recalls before, too; recalls that
    are never reached count 0.

    Args:
        hits: for each detection, best score first, whether it found an object that none before it found.
        objects: to be found, at least 1.
    Returns: a number in [0, 1].
    Raises: InputError, no object, or more hits than objects.
    Example:
        >>> average_precision([True, False], objects=1), average_precision([False, True], objects=1)
        (1.0, 0.5)

    Source: PASCAL VOC (Everingham et al., IJCV 2010), with COCO's 101 recalls. Lesson: 08.
    """
    if objects < 1 or sum(hits) > objects:
        raise InputError(f"{sum(hits)} hits and {objects} objects; wanted at least one object, and no more hits than objects")
    found, precision, recall = 0, [], []
    for rank, hit in enumerate(hits, 1):
        found += bool(hit)
        precision.append(found / rank)
        recall.append(found / objects)
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    reached = np.searchsorted(recall, RECALLS, side="left")  # the first rank with that recall
    return sum(precision[i] for i in reached if i < len(precision)) / len(RECALLS)


def evaluate_detections(
    dataset: SceneDataset | dict, detections: Mapping[int, CocoResults] | Sequence[dict], what: str = "segm", *,
    max_dets: int = MAX_DETS, progress: bool = False,
) -> PrecisionReport:  # fmt: skip
    """AP as COCO defines it, over every picture of the data set, at most `max_dets` detections of a category in a picture.

    Small objects have a mask up to 32^2 px, large ones from 96^2 px. A detection on a crowd is neither right nor wrong.

    Args:
        dataset: scenes, or their COCO dict (`to_coco`), which saves decoding the scenes a second time.
        detections: by picture id; or COCO result dicts in any order: image_id, category_id, score, and segmentation (RLE)
            or bbox (xywh in pixels), whichever is compared. Nothing in them is changed.
        what, progress: "segm" compares masks, "bbox" boxes; show a bar when it takes more than 2 s.
        max_dets: detections of a category in a picture that count, the best; COCO: 100.
    Returns: PrecisionReport; without a detection all is 0.
    Raises: InputError, no object to find, a picture twice, or a result that cannot be judged: of an unknown picture or category,
        with no mask or box, with a score or box that is not finite, or RLE that is damaged or of another size.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> truth = to_coco(ShapesDataset(2))
        >>> round(evaluate_detections(truth, [{**a, "score": 1.0} for a in truth["annotations"]]).ap, 6)
        1.0

    Source: COCO `cocoeval.py`; all tables of the third paper. Lesson: 08.
    """
    check_range("max_dets", max_dets, 1, None)
    truth = dataset if isinstance(dataset, dict) else to_coco(dataset, progress=progress)
    images, objects = truth_of(truth, what, by_category=True)
    names = categories_of(truth)
    found = results_of(images, rows_of(detections, list(names)), what, categories=names)
    p, counted = summed(
        images, objects, found, what, limits=sorted({1, min(10, max_dets), max_dets}), categories=list(names), progress=progress
    )
    precision, recall = counted["precision"], counted["recall"]  # (T, R, K, A, M) and (T, K, A, M); -1: no object
    by_threshold = {round(float(t), 2): _mean(precision[i, :, :, 0, -1]) for i, t in enumerate(p.iouThrs)}
    per_category = {names[k]: precision[:, :, i, 0, -1] for i, k in enumerate(p.catIds)}
    sizes = p.areaRngLbl[1:]  # the first is "all"
    counts = dict.fromkeys(names.values(), 0)
    for o in objects:
        counts[names[o["category_id"]]] += not o["iscrowd"]
    return PrecisionReport(
        iou_type=what,
        instances=sum(counts.values()),
        pictures=len(images),
        detections=len(found),
        ap=_mean(precision[:, :, :, 0, -1]),
        ap50=by_threshold[0.5],
        ap75=by_threshold[0.75],
        by_area={name: _mean(precision[:, :, :, i, -1]) for i, name in enumerate(sizes, 1)},
        by_threshold=by_threshold,
        per_category={name: _mean(per_category[name]) for name in names.values()},
        per_category_50={name: _mean(per_category[name][0]) for name in names.values()},
        category_instances=counts,
        ar={k: _mean(recall[:, :, 0, m]) for m, k in enumerate(p.maxDets)},
        ar_by_area={name: _mean(recall[:, :, i, -1]) for i, name in enumerate(sizes, 1)},
    )


def categories_of(truth: dict) -> dict[int, str]:
    """Names by category id, in the data set's order; a name that stands twice gets its id behind it."""
    names = [c["name"] for c in truth["categories"]]
    return {c["id"]: c["name"] if names.count(c["name"]) == 1 else f"{c['name']} {c['id']}" for c in truth["categories"]}


def rows_of(detections: Mapping[int, CocoResults] | Sequence[dict], category_ids: Sequence[int]) -> Sequence[dict]:
    """Detections by picture id as one list of COCO results; such a list as it is."""
    if not isinstance(detections, Mapping):
        return detections
    return [row for image_id, found in detections.items() for row in found.to_coco(image_id, category_ids)]


def _mean(values: np.ndarray) -> Any:
    """A float; None where nothing was counted."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None
