"""Reading and judging a COCO 'instances' file: every fault gets a kind, a file and, if there is one, an annotation id.

Masks stay as they are written (polygons or RLE). No picture is decoded: only head and tail of its file are read.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairseg_lite.data.pictures import WrongSize, probe_image
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import mask_to_box, polygon_points, polygons_to_mask, rle_counts

BOX_SLACK, AREA_SLACK = 2.0, 1.25  # a box off by more pixels, an area off by a larger factor, is measured anew


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong; `kind` groups what can be said in one line."""

    kind: str
    file: str
    annotation: int | None
    text: str

    def __str__(self) -> str:
        where = self.file if self.annotation is None else f"{self.file}: annotation {self.annotation}"
        return f"{where}: {self.text}"


@dataclass
class Annotation:
    """One instance as written, with the box and area that a sampler needs."""

    id: int
    label: int
    crowd: bool
    segmentation: list | dict
    box: np.ndarray  # (4,) float32 xyxy
    area: float  # pixels


@dataclass
class Picture:
    """One picture as listed, and its instances in the file's order."""

    id: int
    file_name: str
    path: Path
    height: int
    width: int
    annotations: list[Annotation] = field(default_factory=list)


@dataclass
class Content:
    """What a COCO file holds, faults set aside."""

    categories: tuple[str, ...]
    category_ids: tuple[int, ...]
    pictures: list[Picture]
    faults: list[Fault]
    measured: int  # annotations whose box or area was missing or did not fit the segmentation


class _Bad(Exception):
    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


def locate(folder: str | Path, annotations: str | Path | None = None) -> tuple[Path, Path]:
    """Where the pictures and the annotations of a data set are.

    Args:
        folder: holds `images/` and `instances.json`; or holds the pictures, with FOLDER.json beside it.
        annotations: the JSON file, where it lies elsewhere.
    Returns:
        (folder of pictures, JSON file).
    Raises:
        InputError: one of them is not there.
    """
    folder = Path(folder).absolute() if str(folder) in (".", "") else Path(folder)
    if not folder.is_dir():
        raise InputError(f"data {str(folder)!r}: no such folder; wanted images/ and instances.json in it")
    own, beside = folder / "instances.json", folder.with_name(folder.name + ".json")
    path = Path(annotations) if annotations is not None else own if own.is_file() else beside
    if not path.is_file():
        wanted = f"{str(path)!r}" if annotations is not None else f"{str(own)!r} or {str(beside)!r}"
        raise InputError(f"data {str(folder)!r}: there is no annotation file {wanted}")
    return (folder / "images" if (folder / "images").is_dir() else folder), path


def read_coco(images: Path, annotations: Path) -> Content:
    """Read an 'instances' file and look at every picture's head.

    Args:
        images: folder that file names start from; a name that is not there is also tried from the JSON file's folder.
        annotations: JSON file.
    Returns:
        Content; a picture with a fault is left out with its annotations, an annotation with a fault alone.
    Raises:
        InputError: the file is no JSON, lacks a list, lists no picture, or its categories are damaged.

    Source: COCO's data format. Lesson: 01.
    """
    content = _load(annotations)
    ids, names = _categories(content["categories"], annotations)
    faults: list[Fault] = []
    listed, pictures = set(), {}  # type: ignore[var-annotated]
    for number, entry in enumerate(content["images"]):
        try:
            picture = _picture(entry, number, images, annotations.parent, listed)
            pictures[picture.id] = picture
        except _Bad as bad:
            file = entry.get("file_name") if isinstance(entry, dict) else None
            faults.append(Fault(bad.kind, str(file or annotations.name), None, str(bad)))
    labels, seen, measured = {c: k for k, c in enumerate(ids)}, set(), 0  # type: ignore[var-annotated]
    for number, entry in enumerate(content["annotations"]):
        try:
            key = _annotation_key(entry, number, seen, listed)
            if key not in pictures:
                continue  # its picture's fault stands in the list already
            annotation, anew = _annotation(entry, pictures[key], labels)
            pictures[key].annotations.append(annotation)
            measured += anew
        except _Bad as bad:
            entry = entry if isinstance(entry, dict) else {}
            image = entry.get("image_id")
            file = pictures[image].file_name if _whole(image) and image in pictures else annotations.name
            faults.append(Fault(bad.kind, file, entry.get("id"), str(bad)))
    return Content(names, ids, list(pictures.values()), faults, measured)


def _load(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise InputError(f"{str(path)!r} is not JSON: {error}") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{str(path)!r} has no list {key!r}; is it a COCO 'instances' file?")
    if not content["images"]:
        raise InputError(f"{str(path)!r} lists no picture; a data set needs at least one")
    return content


def _categories(entries: list, path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    for c in entries:
        if not isinstance(c, dict) or not _whole(c.get("id")) or not isinstance(c.get("name"), str):
            raise InputError(f"{str(path)!r}: category {str(c)[:80]} is not {{'id': a whole number, 'name': text}}")
    ids = tuple(c["id"] for c in entries)
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise InputError(f"{str(path)!r}: category id {twice} is given twice; give each category its own")
    return ids, tuple(c["name"] for c in entries)


def _picture(entry: dict, number: int, images: Path, beside: Path, listed: set) -> Picture:
    if not isinstance(entry, dict) or not _whole(entry.get("id")) or not isinstance(entry.get("file_name"), str):
        raise _Bad("bad picture entry", f"picture number {number} needs a whole number 'id' and a text 'file_name'")
    key, name = entry["id"], entry["file_name"]
    if key in listed:
        raise _Bad("picture id given twice", f"picture id {key} is given twice")
    listed.add(key)
    size: Any = (entry.get("height"), entry.get("width"))
    if size != (None, None) and not all(type(s) is int and s > 0 for s in size):
        raise _Bad("bad picture entry", f"height {size[0]!r} and width {size[1]!r} are not whole numbers above 0")
    path = next((p for p in (images / name, beside / name) if p.is_file()), images / name)
    if not path.is_file():
        raise _Bad("picture missing", f"there is no file {str(path)!r}")
    try:
        height, width = probe_image(path, size if size != (None, None) else None)
    except WrongSize as error:
        raise _Bad("picture of another size", str(error)) from None
    except InputError as error:
        raise _Bad("picture damaged", str(error)) from None
    return Picture(key, name, path, height, width)


def _annotation_key(entry: dict, number: int, seen: set, listed: set) -> int:
    """Id of the annotation's picture."""
    if not isinstance(entry, dict) or not _whole(entry.get("id")):
        raise _Bad("bad annotation entry", f"annotation number {number} needs a whole number 'id'")
    if entry["id"] in seen:
        raise _Bad("annotation id given twice", "its id is given twice")
    seen.add(entry["id"])
    key: Any = entry.get("image_id")
    if not _whole(key) or key not in listed:
        raise _Bad("unknown picture", f"its picture {key!r} is not in 'images'")
    return key


def _annotation(entry: dict, picture: Picture, labels: dict[int, int]) -> tuple[Annotation, bool]:
    category, crowd = entry.get("category_id"), entry.get("iscrowd", 0)
    if not _whole(category) or category not in labels:
        raise _Bad("unknown category", f"its category {category!r} is not in 'categories'")
    if crowd not in (0, 1):
        raise _Bad("bad annotation entry", f"'iscrowd' is {crowd!r}; wanted 0 or 1")
    segmentation = entry.get("segmentation")
    if not segmentation:
        raise _Bad("no segmentation", "it has no segmentation; a box alone cannot train a mask")
    if isinstance(segmentation, dict):
        box, area, anew = _measure_rle(segmentation, entry, picture)
    elif isinstance(segmentation, list) and all(isinstance(p, list) for p in segmentation):
        box, area, anew = _measure_polygons(segmentation, entry, picture)
    else:
        raise _Bad("bad segmentation", "its segmentation is neither an RLE nor a list of polygons [[x1, y1, ...], ...]")
    if not area > 0:
        raise _Bad("empty mask", "its mask has no pixel in the picture")
    return Annotation(entry["id"], labels[category], bool(crowd), segmentation, box, area), anew


def _measure_rle(rle: dict, entry: dict, picture: Picture) -> tuple[np.ndarray, float, bool]:
    """Exact, as the runs tell everything."""
    try:
        counts = rle_counts(rle)
    except InputError as error:
        raise _Bad("bad RLE", str(error)) from None
    h, w = rle["size"]
    if (h, w) != (picture.height, picture.width):
        raise _Bad("bad RLE", f"its RLE is {w} x {h} px, the picture {picture.width} x {picture.height}")
    stop = counts.cumsum()[1::2]
    start, stop = (stop - counts[1::2])[counts[1::2] > 0], stop[counts[1::2] > 0] - 1
    if len(start) == 0:
        return np.zeros(4, np.float32), 0.0, True
    low, high = (0, h - 1) if (start // h != stop // h).any() else ((start % h).min(), (stop % h).max())
    box = np.array([start[0] // h, low, stop[-1] // h + 1, high + 1], np.float32)
    area = float(counts[1::2].sum())
    return box, area, not (_box_fits(entry.get("bbox"), box) and _area_fits(entry.get("area"), area))


def _measure_polygons(polygons: list, entry: dict, picture: Picture) -> tuple[np.ndarray, float, bool]:
    """The file's box and area where they fit the corners; else, and for hair-thin ones, from the pixels."""
    h, w = picture.height, picture.width
    try:
        parts = [polygon_points(p) for p in polygons]
    except InputError as error:
        raise _Bad("bad polygon", str(error)) from None
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


def _whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


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
    return value if _whole(value) else None


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


def _box_fits(bbox: object, box: np.ndarray) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(type(b) in (int, float) and abs(b) < 1e9 for b in bbox):
        return False
    x, y, w, h = bbox
    return bool((np.abs(np.array([x, y, x + w, y + h]) - box) <= BOX_SLACK).all()) and w > 0 and h > 0


def _area_fits(area: Any, measured: float) -> bool:
    return type(area) in (int, float) and measured / AREA_SLACK <= area <= measured * AREA_SLACK
