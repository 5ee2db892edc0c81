"""What a COCO file lists: pictures, their annotations, categories; and what is said of those that are odd."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairseg_lite.data.segmentations import REWRITTEN, whole_number
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


@dataclass(slots=True)
class Annotation:
    """One instance as written, with the box and area that a sampler needs."""

    id: int
    label: int
    crowd: bool
    segmentation: list | dict  # an empty list: none
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


def read_categories(path: Path, entries: Any, used: set, mended: Mended) -> tuple[dict[str, int], dict[int, int], dict[int, int]]:
    """The categories of a file.

    Args: path of the file, to name it; entries as listed, or None; used: "category_id" of the annotations; mended is added to.
    Returns: {name: id} by label, {id: label}, and {other ids of a name: its first id}.
    Raises: InputError, an entry without a whole id, or an id with two names.
    """
    whole = {k for u in used if (k := whole_number(u)) is not None}
    if not entries or not isinstance(entries, list):
        entries = [{"id": k, "name": str(k)} for k in sorted(whole)] or [{"id": 1, "name": "object"}] * bool(used)
        if used:
            mended.note("lists of categories that are missing, their ids taken as names", entries[0]["name"])
    groups = {c.get("supercategory") for c in entries if isinstance(c, dict) and isinstance(c.get("supercategory"), str)}
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    same: dict[int, int] = {}
    for c in entries:
        key, name = (whole_number(c.get("id")), c.get("name", c.get("id"))) if isinstance(c, dict) else (None, None)
        if type(name) in (int, float):
            mended.note("names of categories that are no text", name := str(name))
        if key is None or not isinstance(name, str):
            raise InputError(f"{str(path)!r}: category {str(c)[:80]} is not {{'id': a whole number, 'name': text}}")
        if type(c["id"]) is not int:
            mended.note(REWRITTEN, f"category id {c['id']!r}")
        if names.setdefault(key, name) != name:
            raise InputError(f"{str(path)!r}: category id {key} is given twice; give each category its own")
        if name in groups and c.get("supercategory") != name and key not in whole and name not in used:
            mended.note("categories that are mere groups of others, left out", name)
        elif (first := ids.setdefault(name, key)) != key:
            same[key] = first
            mended.note("ids of categories whose name has one already, taken as that", f"{name}: {key} as {first}")
    return ids, {key: list(ids).index(name) for key, name in names.items() if name in ids}, same
