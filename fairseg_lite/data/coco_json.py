"""Reading a COCO 'instances' file as annotation tools write it: what can be mended is, and counted; the rest is a fault.

Every fault has a kind, a file and, if there is one, an annotation id. Masks stay as they are written (polygons or RLE).
No picture is decoded: only head and tail of its file are read.
"""

import json
import os
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseg_lite.data.layouts import Names
from fairseg_lite.data.pictures import WrongSize, probe_image
from fairseg_lite.data.segmentations import Bad, measured, usable, whole_number
from fairseg_lite.errors import InputError


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


class Mended:
    """What was read in another form than it was written: how often, and where first."""

    def __init__(self):
        self.counts, self.first = Counter(), {}

    def note(self, kind: str, where: object) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, where)

    def lines(self) -> list[str]:
        """One for each kind, such as "6 annotation ids that repeat, made anew (first: annotation 1 of p1.png)"."""
        return [f"{n:,} {kind} (first: {self.first[kind]})" for kind, n in self.counts.items()]


class Content:
    """What a COCO file holds, faults set aside.

    Attributes: categories, category_ids (by label); same_category {other ids of a name: its first id}; pictures; faults; mended;
    measured, the number of annotations whose box or area was missing or did not fit the segmentation; written, the raw file.
    """

    def __init__(self, images: Path, annotations: Path):
        self.path, self.written, self.mended, self.measured = annotations, _load(annotations), Mended(), 0
        self.faults: list[Fault] = []
        root = annotations.parent
        self.names = Names([images, root, *([root.parent] if root.name == "annotations" else [])])
        self.by_id: dict[int, Picture | None] = {}  # None: a fault stands for it
        self.unfit: dict[str, str] = {}  # real paths of files that are not the pictures that the entries mean, and why
        self._read_pictures()
        self.pictures = [p for p in self.by_id.values() if p is not None]

    def _whole(self, value: object, what: str) -> int | None:
        key = whole_number(value)
        if key is not None and type(value) is not int:
            self.mended.note("numbers written as text or fractions", f"{what} {value!r}")
        return key

    # pictures

    def _read_pictures(self) -> None:
        entries = [e if isinstance(e, dict) else {} for e in self.written["images"]]
        fresh = max([0, *(k for e in entries if (k := whole_number(e.get("id"))) is not None)])
        texts = [e["id"] for e in entries if isinstance(e.get("id"), str) and e["id"] and whole_number(e["id"]) is None]
        self.same = {text: k for k, text in enumerate(dict.fromkeys(texts), fresh + 1)}  # ids that are none: their numbers
        for text, new in self.same.items():
            self.mended.note("picture ids that are no numbers, numbered anew", f"{text!r} is {new}")
        taken: dict[Path, int] = {}
        unclear = []
        for number, entry in enumerate(entries):
            key, name = self._key(entry.get("id"), "picture id"), entry.get("file_name")
            if key is None or not isinstance(name, str):
                text = f"picture number {number} needs a whole number 'id' and a text 'file_name'"
                self.faults.append(Fault("bad picture entry", str(name or self.path.name), None, text))
            elif key in self.by_id:
                self.faults.append(Fault("picture id given twice", name, None, f"picture id {key} is given twice"))
            elif (path := self.names.exact(name)) in taken:
                self.same[key] = taken[path]
                self.mended.note("pictures listed under two ids, taken as one", f"{name} under {taken[path]} and {key}")
            else:
                self.by_id[key] = None
                if path is None:
                    unclear.append((key, name, entry))
                else:
                    taken[path] = key
                    self._keep(key, name, path, entry)
        self._find(unclear, taken)

    def _key(self, raw: object, what: str) -> int | None:
        """The number of a picture."""
        key = self.same.get(raw) if isinstance(raw, Hashable) else None
        return self._whole(raw, what) if key is None else key

    def _keep(self, key: int, name: str, path: Path, entry: dict) -> None:
        size = entry.get("height"), entry.get("width")
        whole = tuple(self._whole(s, "size") for s in size)
        try:
            if size != (None, None) and not all(s is not None and s > 0 for s in whole):
                raise Bad("bad picture entry", f"height {size[0]!r} and width {size[1]!r} are not whole numbers above 0")
            self.by_id[key] = Picture(key, name, path, *_probed(path, whole if all(whole) else None))
        except Bad as bad:
            self.unfit[os.path.realpath(path)] = str(bad)
            self.faults.append(Fault(bad.kind, name, None, str(bad)))

    def _find(self, unclear: list[tuple[int, str, dict]], taken: dict[Path, int]) -> None:
        """Files for names that are not there: where just one fits, and it fits no other name."""
        fitting = {key: [p for p in self.names.likely(name) if p not in taken] for key, name, _ in unclear}
        wanted = Counter(p for found in fitting.values() for p in found)
        for key, name, entry in unclear:
            found = fitting[key]
            if len(found) == 1 and wanted[found[0]] == 1:
                self.mended.note("names of pictures that stand for another path", f"{name!r} for {str(found[0])!r}")
                self._keep(key, name, found[0], entry)
                continue
            text = f"there is no file {str(self.names.folders[0] / name)!r}"
            if found:
                text += f"; {str(found[0])!r} fits, and so does another" + (" name" if len(found) == 1 else "")
            self.faults.append(Fault("picture missing", name or self.path.name, None, text))

    # annotations

    def read_annotations(self, *, crowds_are_objects: bool = False) -> "Content":
        """Categories, and the pictures' annotations. Raises: InputError, for damaged categories."""
        entries = [e if isinstance(e, dict) else {} for e in self.written["annotations"]]
        self._read_categories({str(e.get("category_id")) for e in entries})
        self.seen: dict[int, dict] = {}
        self.fresh = max([0, *(k for e in entries if (k := whole_number(e.get("id"))) is not None)])
        for number, entry in enumerate(entries):
            raw, picture = entry.get("image_id"), None
            try:
                if (key := self._key(raw, "image_id")) not in self.by_id:
                    raise Bad("unknown picture", f"its picture {raw!r} is not in 'images'")
                if (picture := self.by_id[key]) is not None:  # else its picture's fault stands in the list already
                    self._annotation(entry, picture, crowds_are_objects)
            except Bad as bad:
                file = self.path.name if picture is None else picture.file_name
                self.faults.append(Fault(bad.kind, file, entry.get("id", f"number {number}"), str(bad)))
        del self.seen
        return self

    def _annotation(self, entry: dict, picture: Picture, crowds_are_objects: bool) -> None:
        category, crowd = self._whole(entry.get("category_id"), "category_id"), entry.get("iscrowd", 0)
        if category not in self.labels:
            raise Bad("unknown category", f"its category {entry.get('category_id')!r} is not in 'categories'")
        if crowd not in (0, 1, "0", "1"):
            raise Bad("bad annotation entry", f"'iscrowd' is {crowd!r}; wanted 0 or 1")
        segmentation, mended = usable(entry.get("segmentation"), picture.height, picture.width)
        box, area, anew = measured(segmentation, picture.height, picture.width, entry)
        if not area > 0:
            raise Bad("empty mask", "its mask has no pixel in the picture")
        key, where = self._whole(entry.get("id"), "annotation id"), f"annotation {entry.get('id')} of {picture.file_name}"
        if key in self.seen and self.seen[key] == entry:
            self.mended.note("annotations that are listed twice, taken once", where)
            return
        if key is None or key in self.seen:
            kind = "annotations without a whole id" if key is None else "annotation ids that repeat"
            self.mended.note(f"{kind}, made anew", where)
            self.fresh += 1
            key = self.fresh
        self.seen[key] = entry
        for kind in mended:
            self.mended.note(kind, where)
        self.measured += anew
        crowd = bool(int(crowd)) and not crowds_are_objects
        picture.annotations.append(Annotation(key, self.labels[category], crowd, segmentation, box, area))

    def _read_categories(self, used: set[str]) -> None:
        entries = self.written["categories"]
        groups = {c.get("supercategory") for c in entries if isinstance(c, dict) and isinstance(c.get("supercategory"), str)}
        names: dict[int, str] = {}
        ids: dict[str, int] = {}
        self.same_category: dict[int, int] = {}
        for c in entries:
            key = self._whole(c.get("id"), "category id") if isinstance(c, dict) else None
            if key is None or not isinstance(name := c.get("name"), str):
                raise InputError(f"{str(self.path)!r}: category {str(c)[:80]} is not {{'id': a whole number, 'name': text}}")
            if names.setdefault(key, name) != name:
                raise InputError(f"{str(self.path)!r}: category id {key} is given twice; give each category its own")
            if name in groups and c.get("supercategory") != name and not used & {str(key), str(float(key))}:
                self.mended.note("categories that are mere groups of others, left out", name)
            elif (first := ids.setdefault(name, key)) != key:
                self.same_category[key] = first
                self.mended.note("ids of categories whose name has one already, taken as that", f"{name}: {key} as {first}")
        self.categories, self.category_ids = tuple(ids), tuple(ids.values())
        self.labels = {key: list(ids).index(name) for key, name in names.items() if name in ids}


def read_coco(images: Path, annotations: Path, *, crowds_are_objects: bool = False) -> Content:
    """Read an 'instances' file and look at every picture's head.

    Args:
        images: folder that file names start from; a name that is not there is also tried from the JSON file's folder, and
            then as the one file below `images` that it can mean.
        annotations: JSON file, in UTF-8 with or without a mark.
        crowds_are_objects: take "iscrowd" as 0 everywhere.
    Returns:
        Content; a picture with a fault is left out with its annotations, an annotation with a fault alone.
    Raises:
        InputError: the file is no JSON, lacks a list, lists no picture, or its categories are damaged.

    Source: COCO's data format. Lesson: 01.
    """
    return Content(images, annotations).read_annotations(crowds_are_objects=crowds_are_objects)


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


def _probed(path: Path, size: Any) -> tuple[int, int]:
    try:
        return probe_image(path, size)
    except WrongSize as error:
        raise Bad("picture of another size", str(error)) from None
    except InputError as error:
        raise Bad("picture damaged", str(error)) from None
