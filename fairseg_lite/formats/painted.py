"""Annotations of other tools that are pictures: PASCAL VOC's, and folders of masks; as `convert` says."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fairseg_lite.data.layouts import Names, list_pictures
from fairseg_lite.data.pictures import probe_image
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import rle_encode

VOC = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
VOID = 0xE0E0C0  # VOC's colour of what is no class
Found = tuple[str, dict[str, Any]]  # category; what COCO says of the shape: "segmentation", or "bbox" alone


class Annotated(NamedTuple):
    """A picture and what is annotated in it."""

    path: Path
    size: tuple[int, int]  # (height, width)
    objects: list[Found]


def sized(path: Path | None, size: tuple[Any, Any], name: str, left_out: Counter[str]) -> tuple[Path, tuple[int, int]] | None:
    """A picture with its size; None where it is not there."""
    if path is None:
        left_out[f"pictures that are not there (first: {name})"] += 1
        return None
    whole = (int(size[0]), int(size[1])) if all(isinstance(s, int | float) and s > 0 for s in size) else None
    return path, whole or probe_image(path)


def _values(path: Path) -> np.ndarray:
    """(H, W) what each pixel of a mask is: its value or place in the palette, or its colour as one number."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("L", "P", "1") or image.mode.startswith("I"):
                return np.asarray(image).astype(np.int64)
            return np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    except OSError as error:
        raise InputError(f"mask {str(path)!r} cannot be decoded: {error}") from error


def voc(source: Path, left_out: Counter[str], categories: list[str]) -> Iterator[Annotated]:
    """The pictures of a folder with SegmentationObject/ and SegmentationClass/, or with boxes in *.xml. Args: as `convert`."""
    things_in, classes_in = (
        next((p for p in (source / n, source / f"{n}PNG") if p.is_dir()), None)
        for n in ("SegmentationObject", "SegmentationClass")
    )
    if things_in is None and (files := sorted(source.rglob("*.xml"))):
        yield from _voc_boxes(source, files, left_out)
        return
    if things_in is None or classes_in is None:
        raise InputError(
            f"{str(source)!r} needs folders SegmentationObject/ and SegmentationClass/: without the first no object has an end; "
            "or boxes in XML files"
        )
    names, pictures = _voc_names(source), Names([source / "JPEGImages" if (source / "JPEGImages").is_dir() else source])
    for path in sorted(things_in.glob("*.png")):
        likely = pictures.likely(f"{path.stem}.jpg") or pictures.likely(path.name)
        found = [p for p in likely if not (p.is_relative_to(things_in) or p.is_relative_to(classes_in))]
        at = sized(found[0] if len(found) == 1 else None, (None, None), path.name, left_out)
        if at is None:
            continue
        things, classes = _values(path), _values(classes_in / path.name)
        if not things.shape == classes.shape == at[1]:
            sizes = f"{things.shape} and {classes.shape} px, the picture of {at[1]} (height, width)"
            raise InputError(f"masks of {path.name} in {str(source)!r} are of {sizes}")
        objects: list[Found] = []
        for value in np.unique(things):
            mask = things == value
            kinds, counts = np.unique(classes[mask], return_counts=True)
            kind = int(kinds[counts.argmax()])
            name = names.get(kind, f"class {kind}")
            if value not in (0, 255, VOID) and name != "background":
                objects.append((name, {"segmentation": rle_encode(mask)}))
        yield Annotated(*at, objects)


def _voc_boxes(source: Path, files: list[Path], left_out: Counter[str]) -> Iterator[Annotated]:
    """Pictures with boxes, as VOC's Annotations/*.xml and labelImg have them: of whole pixels, the first pixel is 1."""
    pictures = Names([source / "JPEGImages" if (source / "JPEGImages").is_dir() else source])
    for path in files:
        try:
            content = ElementTree.parse(path).getroot()
            name = content.findtext("filename") or f"{path.stem}.jpg"
            at = sized(pictures.only(name) or pictures.only(f"{path.stem}.jpg"), (None, None), name, left_out)
            objects: list[Found] = []
            for found in content.findall("object"):
                x1, y1, x2, y2 = (float(found.findtext(f"bndbox/{k}") or "nan") for k in ("xmin", "ymin", "xmax", "ymax"))
                objects.append((found.findtext("name") or "object", {"bbox": [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]}))
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise InputError(f"{str(path)!r} is no XML file of boxes: {error}") from error
        if at:
            yield Annotated(*at, objects)


def _voc_names(source: Path) -> dict[int, str]:
    """{value in the palette, or colour: name}."""
    if (path := source / "labelmap.txt").is_file():  # CVAT's: name:red,green,blue:parts:actions
        rows = [line.split(":") for line in path.read_text("utf-8-sig").splitlines() if line.strip() and line[0] != "#"]
        colours = [[int(c) for c in row[1].split(",")] for row in rows]
        return {
            n: row[0] for i, (row, (r, g, b)) in enumerate(zip(rows, colours, strict=True)) for n in (i, r << 16 | g << 8 | b)
        }
    listed = VOC
    if (path := source / "class_names.txt").is_file():  # labelme's
        listed = [
            line.strip().strip("_") for line in path.read_text("utf-8-sig").splitlines() if line.strip() not in ("", "__ignore__")
        ]
    return {n: name for i, name in enumerate(listed) for n in (i, _voc_colour(i))}


def _voc_colour(i: int) -> int:
    """The i-th colour of VOC's palette: its bits are dealt to red, green and blue, the highest first."""
    return sum((i >> (3 * j + c) & 1) << (7 - j) << (16 - 8 * c) for j in range(8) for c in range(3))


def masks(source: Path, left_out: Counter[str], categories: list[str]) -> Iterator[Annotated]:
    """The pictures of a folder, and the masks that lie in folders of that name. Args: as `convert`."""
    files = list_pictures(source)
    drawn = [p for p in files if {"masks", "mask"} & {part.lower() for part in p.relative_to(source).parts[:-1]}]
    pictures = [p for p in files if p not in set(drawn)]
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for p in pictures:
        by_stem[p.stem].append(p)
    owned: dict[Path, list[tuple[str, bool, Path]]] = defaultdict(list)  # picture: category, whether the file is one object, file
    for path in drawn:
        at = max(i for i, part in enumerate(path.parts) if part.lower() in ("masks", "mask"))
        owner, category, alone = _owner(path, path.parts[at + 1 : -1], Path(*path.parts[:at]), by_stem)
        if owner is None:
            left_out[f"masks of no picture (first: {path.name})"] += 1
        else:
            owned[owner].append((category, alone, path))
    for picture in pictures:
        size, objects = probe_image(picture), []
        for category, alone, path in owned[picture]:
            values = _values(path)
            if values.shape != size:
                raise InputError(f"mask {str(path)!r} is of {values.shape} px, its picture of {size} (height, width)")
            found = [values > values.max() / 2] if alone else [values == v for v in np.unique(values) if v]
            objects += [(category, {"segmentation": rle_encode(mask)}) for mask in found if mask.any()]
        yield Annotated(picture, size, objects)


def _owner(path: Path, between: tuple[str, ...], above: Path, by_stem: dict[str, list[Path]]) -> tuple[Path | None, str, bool]:
    """The picture of a mask, the mask's category, and whether the file is of one object."""
    inside = [ps[0] for stem in between if (ps := by_stem.get(stem))]
    kinds = [part for part in between if part not in by_stem]
    category = "/".join(kinds) or "object"
    if inside:
        return inside[-1], category, True
    beside = [
        p for ps in by_stem.values() for p in ps if p.is_relative_to(above) and p.parent.name.lower() in ("images", "image")
    ]
    if len(beside) == 1 and len(by_stem) > 1:
        return beside[0], category, True
    if path.stem in by_stem:
        return _nearest(by_stem[path.stem], path), category, False
    stem, end = path.stem, ""
    while "_" in stem or "-" in stem:
        stem, end = re.match(r"(.*)[_-](.*)", stem).groups()  # type: ignore[union-attr]
        if stem in by_stem:
            return _nearest(by_stem[stem], path), category, end.lower() not in ("mask", "masks", "label", "labels", "gt", "seg")
    return None, category, False


def _nearest(pictures: Iterable[Path], path: Path) -> Path:
    """The picture with most folders in common with a mask."""
    return max(pictures, key=lambda p: len([1 for a, b in zip(p.parts, path.parts, strict=False) if a == b]))
