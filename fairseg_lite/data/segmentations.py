"""One segmentation of a COCO file: whether it can be used, and the box and the area that it has.

Also the numbers of such files, as tools write them. No mask is decoded where its runs or corners tell enough.
"""

from typing import Any

import numpy as np
import torch

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import mask_to_box, polygon_points, polygons_to_mask, rle_counts

BOX_SLACK, AREA_SLACK = 2.0, 1.25  # a box off by more pixels, an area off by a larger factor, is measured anew


class Bad(Exception):
    """A fault of one entry; `kind` groups what can be said in one line."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


def whole_number(value: Any) -> int | None:
    """An id as some tools write it: 7, 7.0 or "7"; None for anything else.

    Example:
        >>> [whole_number(v) for v in (7, 7.0, "007", 7.5, "seven", True, None)]
        [7, 7, 7, None, None, None, None]
    """
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20:
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 2**63 else None


def number(value: Any) -> float | None:
    """A finite number, also one that is written as text; None for anything else.

    Example:
        >>> [number(v) for v in (1, "0.5", "high", True, float("nan"))]
        [1.0, 0.5, None, None, None]
    """
    try:
        value = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return float(value) if type(value) in (int, float) and abs(value) <= 1e30 else None


def usable(segmentation: object, h: int, w: int) -> tuple[list | dict, list[str]]:
    """A segmentation without the parts that cannot be used, and what was mended.

    Args: segmentation as written; h, w: of its picture, in pixels.
    Raises:
        Bad: nothing of it can be used.
    """
    if not segmentation:
        raise Bad("no segmentation", "it has no segmentation; a box alone cannot train a mask")
    if isinstance(segmentation, dict):
        try:
            rle_counts(segmentation)
        except InputError as error:
            raise Bad("bad RLE", str(error)) from None
        if tuple(segmentation["size"]) != (h, w):
            size = segmentation["size"]
            raise Bad("bad RLE", f"its RLE is {size[1]} x {size[0]} px, the picture {w} x {h}")
        return segmentation, []
    if not isinstance(segmentation, list):
        raise Bad("bad segmentation", "its segmentation is neither an RLE nor a list of polygons [[x1, y1, ...], ...]")
    mended = []
    if not any(isinstance(p, (list, dict)) for p in segmentation):
        segmentation, mended = [segmentation], ["polygons that are no list of lists"]
    good, why = [], None
    for part in segmentation:
        try:
            polygon_points(part)
            good.append(part)
        except InputError as error:
            why = error
    if not good:
        raise Bad("bad polygon", str(why))
    return good, mended + ["bad parts of masks, left out"] * (len(segmentation) - len(good))


def measured(segmentation: list | dict, h: int, w: int, entry: dict) -> tuple[np.ndarray, float, bool]:
    """Box and area of a usable segmentation.

    Args: segmentation as from `usable`; h, w: of its picture, in pixels; entry: the annotation, perhaps with "bbox" and "area".
    Returns:
        (4,) float32 xyxy in pixels; area in pixels, 0 for no pixel in the picture; whether the entry's own did not fit.
    """
    if isinstance(segmentation, dict):
        return _of_rle(segmentation, h, w, entry)
    return _of_polygons(segmentation, h, w, entry)


def _of_rle(rle: dict, h: int, w: int, entry: dict) -> tuple[np.ndarray, float, bool]:
    """Exact, as the runs tell everything."""
    counts = rle_counts(rle)
    stop = counts.cumsum()[1::2]
    start, stop = (stop - counts[1::2])[counts[1::2] > 0], stop[counts[1::2] > 0] - 1
    if len(start) == 0:
        return np.zeros(4, np.float32), 0.0, True
    low, high = (0, h - 1) if (start // h != stop // h).any() else ((start % h).min(), (stop % h).max())
    box = np.array([start[0] // h, low, stop[-1] // h + 1, high + 1], np.float32)
    area = float(counts[1::2].sum())
    return box, area, not (_box_fits(entry.get("bbox"), box) and _area_fits(entry.get("area"), area))


def _of_polygons(polygons: list, h: int, w: int, entry: dict) -> tuple[np.ndarray, float, bool]:
    """The file's box and area where they fit the corners; else, and for hair-thin ones, from the pixels."""
    parts = [polygon_points(p) for p in polygons]
    corners = np.concatenate(parts)
    box = np.concatenate([corners.min(0), corners.max(0)]).clip(0, [w, h, w, h]).astype(np.float32)
    area = length = 0.0
    inside = (corners >= -BOX_SLACK).all() and (corners <= np.array([w, h]) + BOX_SLACK).all()
    for points in parts:
        after = np.concatenate([points[1:], points[:1]])
        area += abs(np.sum(points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0])) / 2
        length += np.sqrt(((after - points) ** 2).sum(1)).sum()
    if inside and area > length / 2 and _area_fits(entry.get("area"), area) and _box_fits(entry.get("bbox"), box):
        x, y, bw, bh = entry["bbox"]
        return np.array([x, y, x + bw, y + bh]).clip(0, [w, h, w, h]).astype(np.float32), float(entry["area"]), False
    mask = polygons_to_mask(polygons, h, w)
    if mask.any():
        box = mask_to_box(torch.from_numpy(mask)[None])[0].numpy()
    fits = _box_fits(entry.get("bbox"), box) and _area_fits(entry.get("area"), float(mask.sum()))
    return box, float(mask.sum()), not fits


def _box_fits(bbox: object, box: np.ndarray) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(type(b) in (int, float) and abs(b) < 1e9 for b in bbox):
        return False
    x, y, w, h = bbox
    return bool((np.abs(np.array([x, y, x + w, y + h]) - box) <= BOX_SLACK).all()) and w > 0 and h > 0


def _area_fits(area: Any, measured: float) -> bool:
    return type(area) in (int, float) and measured / AREA_SLACK <= area <= measured * AREA_SLACK
