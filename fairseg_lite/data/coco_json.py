"""Reading a COCO 'instances' file as annotation tools write it: what can be mended is, and counted; the rest is a fault.

Every fault has a kind, a file and, if there is one, an annotation id. Polygons stay as they are written; RLEs are compressed.
No picture is decoded: only head and tail of its file are read.
"""

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

from fairseg_lite.data.entries import Annotation, Fault, Mended, Picture, read_categories
from fairseg_lite.data.layouts import Names, meant, other_format
from fairseg_lite.data.pictures import probe_image
from fairseg_lite.data.segmentations import REWRITTEN, Bad, Shape, packed, shapes_of, whole_number
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.files import read_json

AT_ONCE = 20_000  # annotations whose corners are looked at together


class Content:
    """What a COCO file holds, faults set aside.

    Args: as for `read_coco`.
    Attributes: categories, category_ids (by label); same_category {other ids of a name: its first id}; pictures; absent, whether
    none of their files is there; faults; mended; measured, the number of annotations whose box or area was missing or did not fit
    the segmentation; written, the raw file, less its annotations when these are read; fresh, the highest id of a picture.
    """

    def __init__(self, images: Path, annotations: Path, *, may_be_absent: bool = False):
        self.path, self.written, self.mended, self.measured = annotations, _load(annotations), Mended(), 0
        self.faults: list[Fault] = []
        root = annotations.parent
        self.names = Names([images, root, *([root.parent] if root.name == "annotations" else [])])
        self.by_id: dict[int, Picture | None] = {}  # None: a fault stands for it
        self.by_name: dict[str, int] = {}
        self.entries: dict[int, dict] = {}  # of pictures, as written
        self.unfit: dict[str, str] = {}  # real paths of files that are not the pictures that the entries mean, and why
        self._read_pictures(may_be_absent)
        self.by_name = meant(self.by_name)
        self.pictures = [p for p in self.by_id.values() if p is not None]

    def _whole(self, value: object, what: str) -> int | None:
        key = whole_number(value)
        if key is not None and type(value) is not int:
            self.mended.note(REWRITTEN, f"{what} {value!r}")
        return key

    # pictures

    def _read_pictures(self, may_be_absent: bool) -> None:
        entries = [e if isinstance(e, dict) else {} for e in self.written["images"]]
        self.fresh = max([0, *(k for e in entries if (k := whole_number(e.get("id"))) is not None)])
        texts = [e["id"] for e in entries if isinstance(e.get("id"), str) and e["id"] and whole_number(e["id"]) is None]
        self.same = {text: k for k, text in enumerate(dict.fromkeys(texts), self.fresh + 1)}  # ids that are none: their numbers
        self.fresh += len(self.same)
        for text, new in self.same.items():
            self.mended.note("picture ids that are no numbers, numbered anew", f"{text!r} is {new}")
        taken: dict[Path, int] = {}
        unclear = []
        for number, entry in enumerate(entries):
            key, name = self._key(entry.get("id"), "picture id"), entry.get("file_name")
            if not isinstance(name, str):
                name = next((v for k in ("path", "coco_url") if isinstance(v := entry.get(k), str)), None)
            if key is None or name is None:
                text = f"picture number {number} needs a whole number 'id' and a text 'file_name'"
                self.faults.append(Fault("bad picture entry", str(name or self.path.name), None, text))
            elif key in self.by_id and self.entries[key] == entry:
                self.mended.note("pictures that are listed twice, taken once", name)
            elif key in self.by_id:
                self.faults.append(Fault("picture id given twice", name, None, f"picture id {key} is given twice"))
            elif (path := self.names.exact(name)) in taken:
                self.same[key] = taken[path]
                self.mended.note("pictures listed under two ids, taken as one", f"{name} under {taken[path]} and {key}")
            else:
                self.by_id[key], self.entries[key] = None, entry
                self.by_name.setdefault(name, key)
                if path is None:
                    unclear.append((key, name, entry))
                else:
                    taken[path] = key
                    self._keep(key, name, path, entry)
        self.absent = may_be_absent and not taken and not self.names.files
        if self.absent:
            unclear = [(key, name, entry) for key, name, entry in unclear if not self._listed_only(key, name, entry)]
        self._find(unclear, taken)

    def _listed_only(self, key: int, name: str, entry: dict) -> bool:
        height, width = (whole_number(entry.get(k)) or 0 for k in ("height", "width"))
        if min(height, width) > 0:
            self.by_id[key] = Picture(key, name, self.names.folders[0] / name, height, width)
        return min(height, width) > 0

    def _key(self, raw: object, what: str) -> int | None:
        """The number of a picture."""
        if self.same and isinstance(raw, Hashable) and raw in self.same:
            return self.same[raw]
        key = self._whole(raw, what)
        return key if key is None or not self.same else self.same.get(key, key)

    def _keep(self, key: int, name: str, path: Path, entry: dict) -> None:
        size = entry.get("height"), entry.get("width")
        if size in ((0, 0), (None, None)):
            size = None, None
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

    def read_annotations(self, *, crowds_are_objects: bool = False, keep: bool = False) -> "Content":
        """Categories and annotations; `keep` remembers these as they were written. Raises: InputError, for categories."""
        entries = [e if isinstance(e, dict) else {} for e in self.written.pop("annotations")]
        used = {e.get("category_id") for e in entries if isinstance(e.get("category_id"), Hashable)}
        ids_of, self.labels, self.same_category = read_categories(self.path, self.written.get("categories"), used, self.mended)
        self.categories, self.category_ids = tuple(ids_of), tuple(ids_of.values())
        ids = Counter(k for e in entries if (k := whole_number(e.get("id"))) is not None)
        self.fresh_annotation = max(ids, default=0)
        self.kept: dict[int, dict] | None = {} if keep else None  # by id
        self.seen: dict[int, dict | None] = {k: None for k, n in ids.items() if n > 1}  # ids that repeat: whose they are
        for start in range(0, len(entries), AT_ONCE):
            some = [(start + i, e, self._placed(e)) for i, e in enumerate(entries[start : start + AT_ONCE])]
            shapes = iter(shapes_of([(e, at[0].height, at[0].width) for _, e, at in some if isinstance(at, tuple)]))
            for number, entry, at in some:
                bad = at if isinstance(at, Bad) else None
                if isinstance(at, tuple):
                    shape = next(shapes)
                    bad = self._add(entry, *at, shape, crowds_are_objects) if not isinstance(shape, Bad) else shape
                if bad is not None:
                    file = at[0].file_name if isinstance(at, tuple) else bad.file or self.path.name
                    self.faults.append(Fault(bad.kind, file, entry.get("id", f"number {number}"), str(bad)))
                entries[number] = {}
        return self

    def _placed(self, entry: dict) -> tuple[Picture, int, bool] | Bad | None:
        """Picture, label and crowd of an annotation; None where its picture's fault stands in the list already."""
        raw, category = entry.get("image_id"), entry.get("category_id")
        key = self._key(raw, "image_id")
        if key not in self.by_id and isinstance(raw, str) and raw in self.by_name:
            key = self.by_name[raw]
            self.mended.note("pictures of annotations given by name", raw)
        if key is None or key not in self.by_id:
            return Bad("unknown picture", f"its picture {raw!r} is not in 'images'")
        if (picture := self.by_id[key]) is None:
            return None
        whole = self._whole(category, "category_id")
        label = None if whole is None else self.labels.get(whole)
        if label is None and isinstance(category, str) and category in self.categories:
            label = self.categories.index(category)
            self.mended.note("categories of annotations given by name", category)
        if label is None and category is None and len(self.categories) == 1:
            label = 0
            self.mended.note("annotations without a category, where there is just one", picture.file_name)
        crowd = entry.get("iscrowd")
        if label is None:
            return Bad("unknown category", f"its category {category!r} is not in 'categories'", picture.file_name)
        if crowd not in (0, 1, "0", "1", None):
            return Bad("bad annotation entry", f"'iscrowd' is {crowd!r}; wanted 0 or 1", picture.file_name)
        return picture, label, bool(int(crowd or 0))

    def _add(self, entry: dict, picture: Picture, label: int, crowd: bool, shape: Shape, crowds_are_objects: bool) -> Bad | None:
        if not shape.area > 0:
            return Bad("empty mask", "its mask has no pixel in the picture" + _shares(shape.segmentation))
        raw = entry.get("id")
        key = self._whole(raw, "annotation id")
        if key is None or key in self.seen:
            where = f"annotation {raw} of {picture.file_name}"
            if key is not None and self.seen[key] == entry:
                self.mended.note("annotations that are listed twice, taken once", where)
                return None
            if key is None or self.seen[key] is not None:
                kind = "annotations without a whole id" if key is None else "annotation ids that repeat"
                self.mended.note(f"{kind}, made anew", where)
                self.fresh_annotation += 1
                key = self.fresh_annotation
            self.seen[key] = entry
        for kind in shape.mended:
            self.mended.note(kind, f"annotation {raw} of {picture.file_name}")
        self.measured += shape.anew
        crowd = crowd and not crowds_are_objects
        picture.annotations.append(Annotation(key, label, crowd, shape.segmentation, shape.box, shape.area))
        if self.kept is not None:
            self.kept[key] = entry
        return None


def _shares(polygons: Any) -> str:
    """A word about corners that are no pixels."""
    small = isinstance(polygons, list) and all(0 <= v <= 1 for part in polygons for v in part)
    return "; its corners lie between 0 and 1: multiply them by the picture's size" if small else ""


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small objects are made and none of them goes in circles: looking for these would take half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_no_collection()
def read_coco(
    images: Path, annotations: Path, *, crowds_are_objects: bool = False, may_be_absent: bool = False, keep: bool = False
) -> Content:
    """Read an 'instances' file and look at every picture's head.

    Args:
        images: folder that file names start from; a name that is not there is also tried from the JSON file's folder, and
            then as the one file below `images` that it can mean.
        annotations: JSON file, in UTF-8 or another Unicode, with or without a mark.
        crowds_are_objects: take "iscrowd" as 0 everywhere.
        may_be_absent: where there is no picture at all, read the annotations by the sizes in the file.
        keep: remember annotations as they were written.
    Returns: Content; a picture with a fault is left out with its annotations, an annotation with a fault alone.
    Raises: InputError, the file is no JSON, lacks a list, lists no picture, or its categories are damaged.

    Source: COCO's data format. Lesson: 01.
    """
    content = Content(images, annotations, may_be_absent=may_be_absent)
    return content.read_annotations(crowds_are_objects=crowds_are_objects, keep=keep)


def _load(path: Path) -> dict:
    content = read_json(path, packed)
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(
                f"{str(path)!r} has no list {key!r}; is it a COCO 'instances' file? There is {other_format(content)}"
            )
    if not content["images"]:
        raise InputError(f"{str(path)!r} lists no picture; a data set needs at least one")
    return content


def _probed(path: Path, size: Any) -> tuple[int, int]:
    try:
        return probe_image(path, size)
    except InputError as error:
        raise Bad(getattr(error, "kind", "picture damaged"), str(error)) from None
