"""The segmentations of a COCO file: whether they can be used, and the boxes and areas that they have.

Also the numbers of such files, as tools write them. No mask is decoded where its runs or corners tell enough, and corners are
looked at many objects at a time: a data set has a million of them.
"""

import contextlib
import json
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import polygon_points, polygons_to_rle, rle_counts, rle_decode, rle_encode

BOX_SLACK, AREA_SLACK = 2.0, 1.25  # a box off by more pixels, an area off by a larger factor, is measured anew
REWRITTEN = "numbers written as text or fractions"


class Bad(Exception):
    """A fault of one entry; `kind` groups what can be said in one line; `file`: its picture's, where that is known."""

    def __init__(self, kind: str, text: str, file: str | None = None):
        super().__init__(text)
        self.kind, self.file = kind, file


class Shape(NamedTuple):
    """What an annotation says of its object's shape."""

    segmentation: list | dict  # usable polygons or RLE; an empty list: there is a box alone
    box: np.ndarray  # (4,) float32 xyxy in pixels
    area: float  # pixels of the mask, or of the box
    anew: bool  # box or area were measured, as the entry's own did not fit the mask
    mended: list[str]


def whole_number(value: Any) -> int | None:
    """An id as some tools write it: 7, 7.0, "7" or "7.0"; None for anything else.

    Example:
        >>> [whole_number(v) for v in (7, 7.0, "007", "7.0", 7.5, "seven", True, None)]
        [7, 7, 7, 7, None, None, None, None]
    """
    if type(value) is int:
        return value if abs(value) < 2**63 else None
    if isinstance(value, str):
        digits, _, rest = value.strip().partition(".")
        good = digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) < 20 and not rest.strip("0")
        return whole_number(int(digits)) if good else None
    return whole_number(int(value)) if type(value) is float and value.is_integer() else None


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


def packed(entry: dict) -> dict:
    """For `json.loads`: polygons as arrays of numbers, which take a tenth of a list's memory."""
    shape = entry.get("segmentation")
    if type(shape) is list and shape:
        with contextlib.suppress(TypeError, OverflowError):  # no plain polygons: `usable` says what they are
            entry["segmentation"] = [array("d", part) for part in shape]
    return entry


def shapes_of(entries: Sequence[tuple[dict, int, int]]) -> list[Shape | Bad]:
    """The shape of each annotation, or why it has none.

    Args: (annotation, height and width of its picture in pixels).
    """
    found: list[Any] = [_tried(*e) for e in entries]
    plain = [i for i, f in enumerate(found) if isinstance(f, list)]
    for i, box, area, fits in zip(plain, *_by_corners([found[i] for i in plain], [entries[i] for i in plain]), strict=True):
        found[i] = Shape(found[i], box, area, False, []) if fits else _tried(*entries[i], plain=False)
    return found


def _tried(entry: dict, h: int, w: int, *, plain: bool = True) -> Any:
    """Shape or Bad; of plain polygons themselves, to be looked at with many others."""
    segmentation = entry.get("segmentation")
    parts = segmentation if plain and isinstance(segmentation, list) else []
    if parts and all(type(p) is array and len(p) >= 6 and len(p) % 2 == 0 for p in parts):
        return parts
    try:
        if segmentation in (None, [], {}, [[]], "", [array("d")]):
            return _box_alone(entry.get("bbox"), h, w)
        good, mended = usable(segmentation, h, w)
    except Bad as bad:
        return bad
    return Shape(good, *_measured(good, h, w, entry), mended)


def _box_alone(bbox: Any, h: int, w: int) -> Shape:
    numbers = [v for b in bbox if (v := number(b)) is not None] if isinstance(bbox, list) else []
    if not isinstance(bbox, list) or not len(numbers) == len(bbox) == 4:
        raise Bad(
            "no mask and no box", f"it has no segmentation, and 'bbox' is {bbox!r}; wanted a mask, or four numbers of a box"
        )
    if max(numbers) <= 1:
        raise Bad("empty box", f"its bbox {bbox} lies between 0 and 1: multiply it by the picture's size")
    whole = np.array([*numbers[:2], numbers[0] + numbers[2], numbers[1] + numbers[3]])
    box = whole.clip(0, [w, h, w, h])
    if not (box[2:] > box[:2]).all():
        raise Bad("empty box", f"its bbox {bbox} has no area in the picture of {w} x {h} px")
    mended = ["boxes that reach beyond the picture, cut"] * bool((abs(whole - box) > BOX_SLACK).any())
    x, y, x2, y2 = numbers
    if mended and x < x2 <= w and y < y2 <= h:
        mended = [f"{mended[0]}; as x1, y1, x2, y2 they would fit, but COCO's are x, y, width, height"]
    return Shape([], box.astype(np.float32), float(np.prod(box[2:] - box[:2])), False, mended)


def usable(segmentation: Any, h: int, w: int) -> tuple[list | dict, list[str]]:
    """A segmentation without the parts that cannot be used, and what was mended.

    Args: segmentation as written, not empty; h, w: of its picture, in pixels.
    Raises: Bad, nothing of it can be used.
    """
    mended: list[str] = []
    if isinstance(segmentation, str):
        with contextlib.suppress(ValueError):
            segmentation, mended = json.loads(segmentation), ["segmentations written as text"]
    if isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict):
        segmentation, mended = segmentation[0], [*mended, "RLEs in a list"]
    if isinstance(segmentation, dict):
        return _usable_rle(segmentation, h, w, mended)
    if not isinstance(segmentation, list):
        raise Bad("bad segmentation", "its segmentation is neither an RLE nor a list of polygons [[x1, y1, ...], ...]")
    if not any(isinstance(p, (list, dict, array)) for p in segmentation) or _points(segmentation):
        segmentation, mended = [segmentation], [*mended, "polygons that are no list of lists"]
    good, why = [], None
    for part in segmentation:
        try:
            if isinstance(part, list) and (_points(part) or any(isinstance(v, str) for v in part)):
                part = array("d", np.array(part, np.float64).ravel())
                mended.append("polygons written as points or as text")
            polygon_points(part)
            good.append(part)
        except (ValueError, TypeError) as error:
            why = error
    if not good:
        raise Bad("bad polygon", str(why))
    return good, mended + ["bad parts of masks, left out"] * (len(segmentation) - len(good))


def _points(part: Any) -> bool:
    """Whether it is [[x, y], [x, y], ...]."""
    return isinstance(part, list) and len(part) > 2 and all(isinstance(p, (list, array)) and len(p) == 2 for p in part)


def _usable_rle(rle: dict, h: int, w: int, mended: list[str]) -> tuple[dict, list[str]]:
    counts, size = rle.get("counts"), rle.get("size", [h, w])
    if "size" not in rle:
        mended = [*mended, "RLEs without a size"]
    if isinstance(counts, str) and counts.startswith(("b'", 'b"')):  # what Python shows of bytes
        counts, mended = counts[2:-1].replace("\\\\", "\\"), [*mended, "RLEs with the marks of Python's bytes"]
    for value in (counts, size):
        if isinstance(value, list) and {str, float} & set(map(type, value)):
            whole = [whole_number(v) for v in value]
            if None not in whole:
                counts, size = (whole, size) if value is counts else (counts, whole)
                mended = [*mended, REWRITTEN]
    try:
        rle = compressed({"size": size, "counts": counts})
    except InputError as error:
        raise Bad("bad RLE", str(error)) from None
    if tuple(size) != (h, w):
        raise Bad("bad RLE", f"its RLE is {size[1]} x {size[0]} px, the picture {w} x {h}")
    return rle, mended


def compressed(segmentation: list | dict, h: int = 0, w: int = 0) -> dict:
    """Polygons in a picture of h x w px, or an RLE of any kind, as `rle_encode` would give them; errors as for these."""
    if isinstance(segmentation, list):
        return polygons_to_rle(segmentation, h, w)
    runs, (h, w), counts = rle_counts(segmentation), segmentation["size"], segmentation["counts"]
    if not runs[1:].all():  # runs of no pixels, on which the C code stumbles
        return rle_encode(rle_decode(segmentation))
    if not isinstance(counts, (str, bytes)):
        counts = coco_mask.frPyObjects({"counts": runs.tolist(), "size": [h, w]}, h, w)["counts"]
    return {"size": [h, w], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def fitted(segmentation: list | dict, size: tuple[int, int], wanted: tuple[int, int]) -> dict:
    """`compressed`, of a segmentation in a picture of (h, w) px that is resized to the size wanted."""
    if size == wanted:
        return compressed(segmentation, *size)
    if isinstance(segmentation, list):
        by = np.array(wanted[::-1]) / size[::-1]
        return compressed([(polygon_points(part) * by).ravel().tolist() for part in segmentation], *wanted)
    mask = Image.fromarray(rle_decode(segmentation).astype(np.uint8) * 255).resize(wanted[::-1], Image.Resampling.BOX)
    return rle_encode(np.asarray(mask) >= 128)


def _given(entries: Sequence[dict]) -> np.ndarray:
    """(N, 5) x, y, width, height and area as entries have them; NaN where they have none."""
    try:
        return np.array([(*e["bbox"], e["area"]) for e in entries], np.float64).reshape(len(entries), 5)
    except (KeyError, TypeError, ValueError, OverflowError):  # one of them has it otherwise
        boxes = [b if isinstance(b := e.get("bbox"), list) and len(b) == 4 else [None] * 4 for e in entries]
        rows = [(*b, e.get("area")) for b, e in zip(boxes, entries, strict=True)]
        return np.array([[np.nan if (v := number(n)) is None else v for n in row] for row in rows])


def _fit(given: np.ndarray, box: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) xyxy of (N, 5) given numbers, and whether these agree with (N, 4) boxes and (N,) areas."""
    own = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:4]], 1)
    near = (np.abs(own - box) <= BOX_SLACK).all(1) & (given[:, 2:4] > 0).all(1)
    return own, near & (area / AREA_SLACK <= given[:, 4]) & (given[:, 4] <= area * AREA_SLACK)


def _measured(good: list | dict, h: int, w: int, entry: dict) -> tuple[np.ndarray, float, bool]:
    """Box and area of the mask itself, and whether the entry's own do not fit: exact, but slow."""
    rle = good if isinstance(good, dict) else polygons_to_rle(good, h, w)
    x, y, wide, high = coco_mask.toBbox(rle)
    box, area = np.array([x, y, x + wide, y + high], np.float32), float(coco_mask.area(rle))
    return box, area, not _fit(_given([entry]), box[None], np.array([area]))[1][0]


def _by_corners(shapes: Sequence[list], entries: Sequence[tuple[dict, int, int]]) -> tuple[np.ndarray, list[float], list[bool]]:
    """(N, 4) boxes and N areas as given, and whether they agree with the corners of objects that are not hair-thin.

    Args: shapes: of each object its polygons, arrays of at least 3 points; entries as for `shapes_of`.
    """
    if not shapes:
        return np.zeros((0, 4), np.float32), [], []
    parts = [part for polygons in shapes for part in polygons]
    points = np.frombuffer(b"".join(parts)).reshape(-1, 2)
    lengths, counts = np.array([len(p) // 2 for p in parts]), np.array([len(polygons) for polygons in shapes])
    first = lengths.cumsum() - lengths  # point of each part
    after = np.arange(1, len(points) + 1)
    after[first + lengths - 1] = first
    part = counts.cumsum() - counts  # of each object its first part, and its first point
    point = first[part]
    size = np.array([[w, h, w, h] for _, h, w in entries], np.float64)
    given = _given([e for e, _, _ in entries])
    x, y = points.T
    with np.errstate(all="ignore"):
        area = np.add.reduceat(np.abs(np.add.reduceat(x * y[after] - x[after] * y, first)) / 2, part)
        length = np.add.reduceat(np.hypot(x[after] - x, y[after] - y), point)
        low, high = np.minimum.reduceat(points, point), np.maximum.reduceat(points, point)
        own, agree = _fit(given, np.concatenate([low, high], 1).clip(0, size), area)
        inside = (low >= -BOX_SLACK).all(1) & (high <= size[:, :2] + BOX_SLACK).all(1)  # NaN is nowhere
    fits = inside & (area > length / 2) & agree
    return own.clip(0, size).astype(np.float32), given[:, 4].tolist(), fits.tolist()
