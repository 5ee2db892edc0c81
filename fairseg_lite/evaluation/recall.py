"""Average recall (AR) of class-agnostic proposals, by COCO's own judge.

AR@k asks: of all objects, what share do the k best proposals of each picture find? "Found" needs an IoU (intersection
over union); AR is the mean over the thresholds .50, .55, ... .95, as in SharpMask's paper (DeepMask's goes on to 1).
pycocotools' `COCOeval` matches proposals with objects; we check what it trusts blindly, then count what it matched.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm.auto import tqdm

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.geometry.masks import rle_counts


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

    def __str__(self) -> str:
        overall = ", ".join(f"AR@{limit} {_shown(value)}" for limit, value in self.ar.items())
        limits = sorted({100, max(self.ar)} & set(self.ar))
        sizes = ", ".join(" / ".join(_shown(v) for v in self.by_area[k].values()) + f" @{k}" for k in limits)
        return f"{self.instances} instances: {overall}, {' / '.join(self.area_instances)} {sizes}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def average_recall(
    dataset: SceneDataset | dict,
    results: Sequence[dict],
    *,
    iou_type: str = "segm",
    limits: Sequence[int] = (10, 100, 1000),
    progress: bool = False,
) -> RecallReport:
    """AR at several numbers of proposals per picture, and by the size of the objects.

    Small objects have a mask up to 32^2 px, large ones from 96^2 px; one of exactly that size counts on both sides, as
    in COCO. A proposal that lies on a crowd neither helps nor harms. Of equal scores the earlier result comes first.

    Args:
        dataset: scenes, or their COCO dict (`to_coco`), which saves decoding the scenes a second time.
        results: COCO result dicts in any order: image_id, score, and segmentation (RLE) or bbox (xywh in pixels),
            whichever iou_type compares. Categories are ignored. Nothing in it is changed.
        iou_type: "segm" compares masks, "bbox" boxes.
        limits: numbers of proposals per picture.
        progress: show bars when it takes more than 2 s.
    Returns:
        RecallReport over every picture of the data set, also those without a result.
    Raises:
        ValueError: no object to find, a picture twice, or a result that cannot be judged: of an unknown picture, with
            no mask or box, with a score or box that is not finite, or RLE that is damaged or of another size.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> truth = to_coco(ShapesDataset(2))
        >>> report = average_recall(truth, [{**a, "score": 1.0} for a in truth["annotations"]])
        >>> report.ar
        {10: 1.0, 100: 1.0, 1000: 1.0}

    Source: COCO `cocoeval.py` with useCats = 0; DeepMask section 5, SharpMask section 4. Lesson: 05.
    """
    if iou_type not in ("segm", "bbox"):
        raise ValueError(f"iou_type is {iou_type!r}; choose 'segm' (masks) or 'bbox' (boxes)")
    wrong = [k for k in limits if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1]
    if wrong or not len(limits):
        raise ValueError(f"limits are {limits!r}; wanted numbers of proposals of at least 1, such as (10, 100)")
    limits = sorted({int(k) for k in limits})
    truth = dataset if isinstance(dataset, dict) else to_coco(dataset, progress=progress)
    images, objects = _truth(truth)
    found = _proposals(images, results, iou_type)

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints at every step
        judge = COCOeval(_indexed(images, objects), _indexed(images, found), iou_type)
    p = judge.params
    p.useCats, p.maxDets = 0, limits
    judge_one, total = judge.evaluateImg, len(images) * len(p.areaRng)  # it judges each picture once for every size
    with tqdm(total=total, desc="matching", disable=not progress, delay=2) as bar:

        def judge_and_show(*args):
            bar.update()
            return judge_one(*args)

        judge.evaluateImg = judge_and_show
        with contextlib.redirect_stdout(io.StringIO()):
            judge.evaluate()

    counts, recall = _count(judge, limits)
    thresholds = [round(float(t), 2) for t in p.iouThrs]
    sizes = p.areaRngLbl[1:]  # the first is "all"
    ar = {k: [float(r.mean()) if n else None for n, r in zip(counts, recall[k], strict=True)] for k in limits}
    return RecallReport(
        iou_type=iou_type,
        instances=counts[0],
        pictures=len(images),
        ar={k: ar[k][0] for k in limits},
        by_area={k: dict(zip(sizes, ar[k][1:], strict=True)) for k in limits},
        by_threshold={k: dict(zip(thresholds, recall[k][0].tolist(), strict=True)) for k in limits},
        area_instances=dict(zip(sizes, counts[1:], strict=True)),
    )


def _truth(truth: dict) -> tuple[dict[int, dict], list[dict]]:
    """Pictures by id, and annotations as the judge needs them: one category, ids from 1 (it reads 0 as "not matched").

    What has no pixel is left out: no proposal could find it. Crowds stay, as regions that do not count.
    """
    missing = [k for k in ("images", "annotations") if k not in truth]
    if missing:
        raise ValueError(f"the truth has no {missing[0]!r} but {sorted(truth)}; wanted a COCO dict as from to_coco")
    images: dict[int, dict] = {}
    for image in truth["images"]:
        if lacking := {"id", "height", "width"} - set(image):
            raise ValueError(f"picture {image.get('id')!r} has no {sorted(lacking)[0]!r}; make the dict with to_coco")
        if image["id"] in images:
            raise ValueError(f"picture {image['id']!r} is twice in the data set; its objects would count twice")
        images[image["id"]] = image
    objects = []
    for a in truth["annotations"]:
        if lacking := {"image_id", "segmentation", "bbox", "area"} - set(a):
            raise ValueError(f"annotation {a.get('id')!r} has no {sorted(lacking)[0]!r}; make the dict with to_coco")
        if a["image_id"] not in images:
            raise ValueError(f"annotation {a.get('id')!r} is of picture {a['image_id']!r}, which the data set has not")
        if isinstance(a["segmentation"], dict):
            _check_rle(a["segmentation"], images[a["image_id"]], f"annotation {a.get('id')!r}")
        if a["area"] > 0:
            kept = {k: a[k] for k in ("image_id", "segmentation", "bbox", "area")}
            objects.append({**kept, "id": len(objects) + 1, "category_id": 1, "iscrowd": int(a.get("iscrowd", 0))})
    crowds = sum(o["iscrowd"] for o in objects)
    if crowds == len(objects):
        raise ValueError(
            f"no object to find in {len(images)} pictures with {len(truth['annotations'])} annotations "
            f"({crowds} crowds, the rest without a pixel); recall has no meaning"
        )
    return images, objects


def _proposals(images: dict[int, dict], results: Sequence[dict], iou_type: str) -> list[dict]:
    """Checked results as the judge needs them; `area` would decide only what is a false positive, so it is 0."""
    key, found = {"segm": "segmentation", "bbox": "bbox"}[iou_type], []
    for i, r in enumerate(results):
        image = images.get(r.get("image_id"))
        if image is None:
            raise ValueError(f"result {i} is of picture {r.get('image_id')!r}, which is not one of the {len(images)} here")
        where = f"result {i} (picture {image['id']})"
        score, shape = r.get("score"), r.get(key)
        if not _finite(score):
            raise ValueError(f"{where} has score {score!r}; wanted a finite number, the higher the better")
        if shape is None:
            raise ValueError(f"{where} has no {key!r} but {sorted(r)}; iou_type {iou_type!r} compares just that")
        if iou_type == "segm":
            _check_rle(shape, image, where)
        elif len(shape) != 4 or not all(map(_finite, shape)) or min(shape[2:]) < 0:
            raise ValueError(f"{where} has bbox {shape!r}; wanted x, y, width, height in pixels, no size below 0")
        else:
            shape = [float(v) for v in shape]
        same = {"category_id": 1, "iscrowd": 0, "area": 0}
        found.append({**same, "id": i + 1, "image_id": image["id"], "score": float(score), key: shape})
    return found


def _finite(value: object) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):
        return False


def _check_rle(rle: dict, image: dict, where: str) -> None:
    try:
        rle_counts(rle)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if list(rle["size"]) != [image["height"], image["width"]]:
        h, w = rle["size"]
        raise ValueError(
            f"{where} has a mask of {h} x {w} px in a picture of {image['height']} x {image['width']}; "
            "paste it into the whole picture first"
        )


def _indexed(images: dict[int, dict], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": list(images.values()), "annotations": annotations, "categories": [{"id": 1}]}
    coco.createIndex()
    return coco


def _count(judge: COCOeval, limits: list[int]) -> tuple[list[int], dict[int, list[np.ndarray]]]:
    """Objects to find of all sizes, small, medium, large, and at each limit their recall at each threshold.

    As `COCOeval.accumulate`, without the precision curves that take it most of its time.
    """
    p = judge.params
    totals, recall = [], {k: [] for k in limits}
    for a in range(len(p.areaRng)):
        judged = [e for e in judge.evalImgs[a * len(p.imgIds) : (a + 1) * len(p.imgIds)] if e is not None]
        totals.append(sum(int((e["gtIgnore"] == 0).sum()) for e in judged))
        for k in limits:  # the judge's proposals stand in order of score, (thresholds, proposals)
            hits = [((e["dtMatches"] > 0) & ~e["dtIgnore"].astype(bool))[:, :k].sum(1) for e in judged]
            recall[k].append(sum(hits, np.zeros(len(p.iouThrs))) / max(totals[-1], 1))
    return totals, recall
