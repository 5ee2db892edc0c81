"""COCO's own judge, pycocotools' `COCOeval`, and the checks it does not make: it trusts blindly what it is given.

Average recall and average precision both stand on it. Recall is class-agnostic: one category. Precision is per category.
Where faster-coco-eval is installed (the extra fairseg-lite[judge]) that judges instead: the same numbers, sooner.
"""

import contextlib
import io
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm.auto import tqdm

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.geometry.masks import rle_counts

KEYS = {"segm": "segmentation", "bbox": "bbox"}
MAX_DETS = 100  # detections of a category in a picture that count for AP (COCO)
KEPT = ("image_id", "segmentation", "bbox", "area")  # of an annotation, and asked for


def truth_of(truth: dict, iou_type: str, *, by_category: bool = False) -> tuple[dict[int, dict], list[dict]]:
    """Pictures by id, and annotations as the judge needs them: ids from 1, for it reads 0 as "not matched".

    What has no pixel is left out: nothing could find it. Crowds stay, as regions that do not count; where masks are compared,
    so does an object that has a box alone: a mask on it is neither right nor wrong.

    Args:
        truth: COCO dict as from `to_coco`; iou_type: "segm" or "bbox", what will be compared.
        by_category: keep the categories; else all become 1.
    Returns: ({image id: entry}, annotations).
    Raises: InputError, no object to find, a picture twice, or something the dict lacks.
    """
    _check_keys("the truth", truth, {"images", "annotations"} | ({"categories"} if by_category else set()))
    images: dict[int, dict] = {}
    for image in truth["images"]:
        _check_keys(f"picture {image.get('id')!r}", image, {"id", "height", "width"})
        if image["id"] in images:
            raise InputError(f"picture {image['id']!r} is twice in the data set; its objects would count twice")
        images[image["id"]] = image
    known = {c["id"] for c in truth["categories"]} if by_category else {1}
    objects: list[dict] = []
    for a in truth["annotations"]:
        where = f"annotation {a.get('id')!r}"
        _check_keys(where, a, KEPT)
        if a["image_id"] not in images:
            raise InputError(f"{where} is of picture {a['image_id']!r}, which the data set has not")
        if isinstance(a["segmentation"], dict):
            _check_rle(a["segmentation"], images[a["image_id"]], where)
        category = a.get("category_id") if by_category else 1
        if category not in known:
            raise InputError(f"{where} has category_id {category!r}, which is not among {sorted(known)}")
        if a["area"] > 0:
            same = {"id": len(objects) + 1, "category_id": category, "iscrowd": int(a.get("iscrowd", 0))}
            if iou_type == "segm" and not a["segmentation"]:
                image = images[a["image_id"]]
                same |= {
                    "iscrowd": 1,
                    "segmentation": coco_mask.frPyObjects(np.array([a["bbox"]], float), image["height"], image["width"])[0],
                }
            objects.append({k: a[k] for k in KEPT} | same)
    crowds = sum(o["iscrowd"] for o in objects)
    if crowds == len(objects):
        boxes = sum(iou_type == "segm" and not a["segmentation"] for a in truth["annotations"])
        raise InputError(
            f"no object to find in {len(images)} pictures with {len(truth['annotations'])} annotations ({crowds - boxes} crowds, "
            f"{boxes} with a box and no mask, the rest without a pixel); recall and precision have no meaning"
        )
    return images, objects


def most_objects(truth: dict) -> int:
    """Of one category in one picture of a COCO dict, crowds aside."""
    counted = Counter((a["image_id"], a["category_id"]) for a in truth["annotations"] if not a["iscrowd"])
    return max(counted.values(), default=0)


def results_of(
    images: Mapping[int, dict], results: Sequence[dict], iou_type: str, *, categories: Mapping[int, str] | None = None
) -> list[dict]:
    """Checked results as the judge needs them, in the given order.

    Args:
        images: entries by id, as from `truth_of`.
        results: COCO result dicts; nothing in them is changed.
        iou_type: "segm" or "bbox": which of segmentation and bbox is compared.
        categories: name by id, when each result is judged within its own category; None makes all category 1.
    Returns: Annotations with ids from 1. With categories `area` is that of mask or box: of what the judge leaves unmatched, it
        decides the size class that it counts against. Without, nothing is counted against, and it is 0.
    Raises: InputError, an iou_type that is neither, or a result that cannot be judged.
    """
    check_choice("iou_type", iou_type, KEYS)
    key = KEYS[iou_type]
    found: list[dict] = []
    for i, r in enumerate(results):
        image = images.get(r.get("image_id", ""))
        if image is None:
            raise InputError(
                f"result {i} is of picture {r.get('image_id')!r}, which is not one of the {len(images)} here; drop it, or give "
                "the data it was made for"
            )
        where = f"result {i} (picture {image['id']})"
        score: Any = r.get("score")
        shape: Any = r.get(key)
        category: Any = 1
        if not _finite(score):
            raise InputError(f"{where} has score {score!r}; wanted a finite number, the higher the better")
        if shape is None:
            raise InputError(f"{where} has no {key!r} but {sorted(r)}; iou_type {iou_type!r} compares just that")
        if iou_type == "segm":
            _check_rle(shape, image, where)
        elif len(shape) != 4 or not all(map(_finite, shape)) or min(shape[2:]) < 0:
            raise InputError(f"{where} has bbox {shape!r}; wanted x, y, width, height in pixels, no size below 0")
        else:
            shape = [float(v) for v in shape]
        area = 0
        if categories is not None:
            category = r.get("category_id")
            if category not in categories:
                known = ", ".join(f"{k} {name}" for k, name in list(categories.items())[:10])
                raise InputError(f"{where} has category_id {category!r}; the data set has {known}: write its ids, no counter's")
            area = shape[2] * shape[3] if iou_type == "bbox" else int(coco_mask.area(_compressed(shape, *shape["size"])))
        same = {"category_id": category, "iscrowd": 0, "area": area}
        found.append({**same, "id": i + 1, "image_id": image["id"], "score": float(score), key: shape})
    return found


def judged(
    images: Mapping[int, dict], objects: Sequence[dict], found: Sequence[dict], iou_type: str, *, limits: Sequence[int],
    categories: Sequence[int] | None = None, progress: bool = False,
) -> COCOeval:  # fmt: skip
    """The judge after it matched results with objects in every picture, in silence.

    Args:
        images, objects: as from `truth_of`; found: as from `results_of`; iou_type: as there.
        limits: numbers of results per picture, ascending; with categories per category of a picture.
        categories, progress: ids, when each is judged by itself; show a bar when it takes more than 2 s.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints at every step
        pair = (_indexed(images, annotations, categories or [1]) for annotations in (objects, found))
        judge = COCOeval(*pair, iou_type)
    p = judge.params
    p.useCats, p.maxDets = int(categories is not None), list(limits)
    judge_one = judge.evaluateImg
    total = len(images) * len(p.areaRng) * (len(p.catIds) if p.useCats else 1)  # it judges each picture once for every size
    silence = contextlib.redirect_stdout(io.StringIO())
    with silence, tqdm(total=total, desc="matching", disable=not progress, delay=2) as bar:

        def judge_and_show(*args):
            bar.update()
            return judge_one(*args)

        judge.evaluateImg = judge_and_show
        judge.evaluate()
    return judge


def summed(
    images: Mapping[int, dict], objects: Sequence[dict], found: Sequence[dict], iou_type: str, **options: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """What the judge counted, by faster-coco-eval where that is installed.

    Args: as `judged`.
    Returns: its params, and {"precision": (T, R, K, A, M), "recall": (T, K, A, M)}; -1 where there is no object.
    """
    if (faster := fast()) is None:
        judge = judged(images, objects, found, iou_type, **options)
        with contextlib.redirect_stdout(io.StringIO()):
            judge.accumulate()
    else:
        categories = options.get("categories")
        pair = (_indexed(images, part, categories or [1], faster.COCO) for part in (objects, found))
        judge = faster.COCOeval_faster(*pair, iou_type)
        judge.params.useCats, judge.params.maxDets = int(categories is not None), list(options["limits"])
        judge.evaluate()
        judge.accumulate()
    return judge.params, judge.eval


def fast() -> Any:
    """The module faster_coco_eval, or None where it is not installed."""
    try:
        import faster_coco_eval
    except ImportError:
        return None
    return faster_coco_eval


def shown(value: float | None) -> str:
    """A measure for people; "-" where there was nothing to measure."""
    return "-" if value is None else f"{value:.3f}"


def _finite(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]  # that is the question
    except (TypeError, ValueError):
        return False


def _check_keys(what: str, entry: Mapping, keys: Collection[str]) -> None:
    if lacking := sorted(set(keys) - set(entry)):
        raise InputError(f"{what} has no {lacking[0]!r}; make the dict with to_coco (it has {', '.join(map(repr, entry))})")


def _check_rle(rle: dict, image: dict, where: str) -> None:
    """InputError unless a mask is whole and of the size of its picture."""
    try:
        rle_counts(rle)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    (h, w), size = rle["size"], (image["height"], image["width"])
    if (h, w) != size:
        raise InputError(f"{where} has a mask of {h} x {w} px in a picture of {size[0]} x {size[1]}; paste it into the whole one")


def overlaps(results: Sequence[dict], objects: Sequence[dict], image: Mapping, iou_type: str) -> np.ndarray:
    """IoU of results with objects, as the judge computes it: with a crowd, the share of the result that lies on it.

    Args: results, objects: annotations of one picture, as from `results_of` and `truth_of`; image: its entry; iou_type: as there.
    Returns: (results, objects) float64.
    """
    if not len(results) or not len(objects):
        return np.zeros((len(results), len(objects)))
    key, size = KEYS[iou_type], (image["height"], image["width"])
    ours, theirs = ([_compressed(a[key], *size) if iou_type == "segm" else a[key] for a in part] for part in (results, objects))
    return np.asarray(coco_mask.iou(ours, theirs, [o["iscrowd"] for o in objects]))


def _compressed(segmentation: dict | list, h: int, w: int) -> dict:
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, h, w))
    return coco_mask.frPyObjects(segmentation, h, w) if isinstance(segmentation["counts"], (list, tuple)) else segmentation


def _indexed(images: Mapping[int, dict], annotations: Sequence[dict], categories: Sequence[int], make: Any = COCO) -> COCO:
    coco = make()
    kinds = [{"id": k} for k in categories]
    coco.dataset = {"images": list(images.values()), "annotations": list(annotations), "categories": kinds}
    coco.createIndex()
    return coco
