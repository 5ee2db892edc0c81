"""Proposals as boxes in files: COCO results, ours or another program's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import xywh_to_xyxy, xyxy_to_xywh
from fairseg_lite.geometry.files import whole
from fairseg_lite.geometry.masks import rle_counts


class Boxes(NamedTuple):
    """Proposals of one picture, best first."""

    boxes: Tensor  # (N, 4) float32 xyxy in pixels
    scores: Tensor  # (N,) float32


def load_boxes(path: str | Path) -> dict[int, Boxes]:
    """Proposals by picture from any COCO result file: ours, or another program's.

    Args:
        path: JSON list of {"image_id", "bbox" (xywh in pixels) or "segmentation" (RLE), "score"}; a bbox is taken as it
            stands, without one the smallest box around the mask is; without a score the order is kept.
    Returns:
        Boxes of each picture, best first. A picture without a result is not in it.
    Raises:
        InputError: no such file, no list of results, no result at all, or one that is damaged: says which.
    Lesson: 08.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"proposals {str(path)!r} cannot be read as JSON: {why}") from error
    if not isinstance(rows, list):
        raise InputError(f"proposals {str(path)!r} hold a {type(rows).__name__}; wanted a COCO result file: a list of results")
    if not rows:
        raise InputError(f"proposals {str(path)!r} hold no result; make some with `fairseg-lite propose`")
    ids, xywh, scores = [], [], []
    for number, row in enumerate(rows):
        try:
            ids.append(_image_id(row))
            xywh.append(_xywh(row))
            scores.append(_number(row.get("score", 0.0), "score"))
        except ValueError as error:
            raise InputError(f"proposals {str(path)!r}: result {number} {error}") from error
    boxes, score = xywh_to_xyxy(torch.tensor(xywh, dtype=torch.float64)).float(), torch.tensor(scores, dtype=torch.float32)
    bad = (~(boxes.isfinite().all(1) & score.isfinite())).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"proposals {str(path)!r}: result {bad[0]} (picture {ids[bad[0]]}) has a box or score that is not finite: "
            f"{xywh[bad[0]]}, {scores[bad[0]]} ({len(bad)} of {len(rows)} results)"
        )
    owner = np.array(ids)
    order = np.lexsort((np.arange(len(rows)), -score.numpy(), owner))  # by picture, best first, else as in the file
    starts = np.flatnonzero(np.diff(owner[order], prepend=owner.min() - 1))
    parts = np.split(order, starts[1:])
    return {int(owner[p[0]]): Boxes(boxes[p], score[p]) for p in parts}


def save_boxes(path: str | Path, boxes: Mapping[int, Boxes]) -> None:
    """Write proposals for `load_boxes`, without masks, to a tenth of a pixel; the file is whole or not there.

    Raises:
        InputError: it cannot be written.
    """
    rows = [
        {"image_id": key, "category_id": 1, "bbox": [round(v, 1) for v in box], "score": round(score, 5)}
        for key, found in boxes.items()
        for box, score in zip(xyxy_to_xywh(found.boxes).tolist(), found.scores.tolist(), strict=True)
    ]
    with whole(path) as part:
        part.write_text(json.dumps(rows) + "\n")


def _image_id(row: object) -> int:
    if not isinstance(row, dict):
        raise InputError(f"is a {type(row).__name__}, not a dict")
    value = row.get("image_id")
    if type(value) is not int or abs(value) >= 2**63:
        raise InputError(f"has image_id {value!r}; wanted a whole number")
    return value


def _number(value: object, what: str) -> float:
    if type(value) not in (int, float) or abs(value) > 1e30:
        raise InputError(f"has {what} {value!r}; wanted a number")
    return float(value)


def _xywh(row: dict) -> list[float]:
    box = row.get("bbox")
    if box is not None:
        if not isinstance(box, list) or len(box) != 4:
            raise InputError(f"has bbox {box!r}; wanted four numbers x, y, width, height")
        return [_number(v, "bbox") for v in box]
    rle = row.get("segmentation")
    if not isinstance(rle, dict):
        raise InputError("has neither a bbox nor an RLE segmentation")
    counts = rle_counts(rle)  # the C code trusts what it gets
    if len(counts) < 2:
        return [0.0] * 4
    packed = rle if isinstance(rle["counts"], (str, bytes)) else coco_mask.frPyObjects(rle, *rle["size"])
    return coco_mask.toBbox(packed).tolist()
