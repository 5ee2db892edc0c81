"""COCO result files, ours or another program's: the one place where they are read, and where boxes are written.

What can be understood is read: ids and numbers written as text or as whole floats, pictures by file name, polygons and
RLE of every kind, annotations with scores. The rest is named with its file, row and value.
"""

import json
import sys
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from fairseg_lite.data.layouts import meant
from fairseg_lite.data.segmentations import compressed, number, whole_number
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import xywh_to_xyxy, xyxy_to_xywh
from fairseg_lite.geometry.files import read_json, whole
from fairseg_lite.geometry.masks import polygon_points, polygons_to_rle


class Boxes(NamedTuple):
    """Proposals of one picture, best first."""

    boxes: Tensor  # (N, 4) float32 xyxy in pixels
    scores: Tensor  # (N,) float32


def read_results(
    path: str | Path, images: Iterable[dict] = (), *, same: Mapping[int, int] | None = None, masks: bool = True
) -> list[dict]:
    """The rows of a COCO result file in COCO's own form, in the file's order.

    Args:
        path: JSON list of {"image_id", "category_id", "bbox" (xywh in pixels), "segmentation", "score"}, or a dict with such
            a list as "annotations"; other fields stay as they are.
        images: COCO entries of the pictures: "id", "file_name", "height", "width". They tell whose a file name is, and the
            size that polygons and an RLE without "size" need.
        same: category ids that stand for another (`CocoDataset.same_category`).
        masks: False leaves masks out, which then need no size.
    Returns: Rows with a whole "image_id" and, if they had them, "category_id", "score" and "segmentation" (compressed RLE);
        "bbox" is the smallest box around the mask where the row has none. What was read in another form is told on stderr.
    Raises: InputError, no such file, no list of results, or a row that cannot be understood: says which, and what to do.
    Lesson: 08.
    """
    rows = read_json(path)
    if isinstance(rows, dict):
        rows = rows.get("annotations", rows)
    if not isinstance(rows, list):
        raise InputError(f"results {str(path)!r} hold a {type(rows).__name__}; wanted a COCO result file: a list of results")
    images = list(images)
    sizes = {i["id"]: (i["height"], i["width"]) for i in images if i.get("height") and i.get("width")}
    ids = meant({i["file_name"]: i["id"] for i in images})
    known, seen = set(ids.values()), Counter[str]()
    out = []
    for place, row in enumerate(rows):
        try:
            out.append(_understood(row, ids, known, sizes, seen, masks=masks))
        except ValueError as error:
            raise InputError(f"results {str(path)!r}: result {place} {error}") from error
    same = same or {}
    for row in out:
        if row.get("category_id") in same:
            row["category_id"] = same[row["category_id"]]
            seen["category ids as the first id of the same name"] += 1
    if odd := +seen:
        print(f"{path}: read {', '.join(f'{n} {what}' for what, n in odd.items())}", file=sys.stderr)
    return out


def load_boxes(path: str | Path, images: Iterable[dict] = ()) -> dict[int, Boxes]:
    """Proposals by picture from any COCO result file.

    Args: as `read_results`; a bbox is taken as it stands, without scores the order is kept.
    Returns: Boxes of each picture, best first. A picture without a result is not in it.
    Raises: InputError, as `read_results`, or no result at all.
    Lesson: 08.
    """
    rows = read_results(path, images, masks=False)
    if not rows:
        raise InputError(f"results {str(path)!r} hold no proposal; make some with `fairseg-lite propose`")
    boxes = xywh_to_xyxy(torch.tensor([r["bbox"] for r in rows], dtype=torch.float64)).float()
    score = torch.tensor([r.get("score", 0.0) for r in rows], dtype=torch.float32)
    owner = np.array([r["image_id"] for r in rows])
    order = np.lexsort((np.arange(len(rows)), -score.numpy(), owner))  # by picture, best first, else as in the file
    starts = np.flatnonzero(np.diff(owner[order], prepend=owner.min() - 1))
    parts = np.split(order, starts[1:])
    return {int(owner[p[0]]): Boxes(boxes[p], score[p]) for p in parts}


def save_boxes(path: str | Path, boxes: Mapping[int, Boxes], made_of: dict | None = None) -> None:
    """Write proposals for `load_boxes`, without masks, to a tenth of a pixel; the file is whole or not there.

    Args:
        path, boxes: the file; by picture id.
        made_of: what they were made of, for `made_of` to read.
    Raises: InputError, it cannot be written.
    """
    rows = [
        {"image_id": key, "category_id": 1, "bbox": [round(v, 1) for v in box], "score": round(score, 5)}
        for key, found in boxes.items()
        for box, score in zip(xyxy_to_xywh(found.boxes).tolist(), found.scores.tolist(), strict=True)
    ]
    text = json.dumps(rows)
    if made_of is not None:
        text = json.dumps({"info": made_of}).removesuffix("}") + f',\n"annotations": {text}}}'
    with whole(path) as part:
        part.write_text(text + "\n", "utf-8")


def made_of(path: str | Path) -> dict:
    """What the first line of a file of `save_boxes` says that its proposals were made of; {} of any other file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_boxes(Path(folder) / "p.json", {}, {"network": "mine"})
        ...     made_of(Path(folder) / "p.json")
        {'network': 'mine'}
    """
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.loads(file.readline().rstrip().removesuffix(",") + "}")["info"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _understood(row: Any, ids: Mapping, known: Container[int], sizes: Mapping[int, tuple], seen: Counter, *, masks: bool) -> dict:
    if not isinstance(row, dict):
        raise InputError(f"is a {type(row).__name__}, not a dict")
    row = {k: v for k, v in row.items() if v is not None}
    for key in ("image_id", "category_id"):
        value: Any = row.get(key)
        if key in row or key == "image_id":
            names = ids if key == "image_id" and isinstance(value, str) else {}
            row[key] = whole = whole_number(value)
            if names and whole not in known and value in names:
                row[key] = names[value]
            if row[key] is None:
                raise InputError(f"has {key} {value!r}; wanted a whole number" + ", or a file name of the data" * bool(names))
            seen[f"{key}s written as {'text' if isinstance(value, str) else 'fractions'}"] += type(value) is not int
    shape = row.pop("segmentation", None) or None
    size = sizes.get(row["image_id"])
    if "score" in row:
        row["score"] = _number(row["score"], "score", seen)
    if "bbox" in row:
        if not isinstance(row["bbox"], list) or len(row["bbox"]) != 4:
            raise InputError(f"has bbox {row['bbox']!r}; wanted four numbers x, y, width, height")
        row["bbox"] = [_number(v, "bbox", seen) for v in row["bbox"]]
    elif shape is None:
        raise InputError("has neither a bbox nor a segmentation; write at least one of them")
    elif isinstance(shape, list) and not masks:
        corners = np.concatenate([polygon_points(p) for p in _parts(shape)])
        row["bbox"] = xyxy_to_xywh(torch.from_numpy(np.concatenate([corners.min(0), corners.max(0)]))).tolist()
    if shape is not None and (masks or "bbox" not in row):
        rle = _packed(shape, size, seen)
        row.setdefault("bbox", coco_mask.toBbox(rle).tolist() if min(rle["size"]) else [0.0] * 4)
        row |= {"segmentation": rle} if masks else {}
    return row


def _number(value: object, what: str, seen: Counter) -> float:
    found = number(value)
    if found is None:
        raise InputError(f"has {what} {value!r}; wanted a finite number")
    seen[f"values of {what} written as text"] += isinstance(value, str)
    return found


def _parts(shape: list) -> list:
    return shape if isinstance(shape[0], list) else [shape]


def _packed(shape: Any, size: tuple[int, int] | None, seen: Counter) -> dict:
    """Any segmentation as compressed RLE; the C code trusts what it gets, so all of it is checked."""
    if isinstance(shape, list):
        if size is None:
            raise InputError("has polygons, which need the picture's size, and the picture is not in the data: give masks as RLE")
        seen["polygons"] += 1
        return polygons_to_rle(_parts(shape), *size)
    if isinstance(shape, dict) and "size" not in shape and size is not None:
        seen["RLEs without a size"] += 1
        shape = {**shape, "size": list(size)}
    return compressed(shape)
