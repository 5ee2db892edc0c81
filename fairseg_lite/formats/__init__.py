"""Floor 3: annotations of other tools as one COCO file, and COCO files written anew; pictures stay where they are.

labelme   a JSON file beside each picture; shapes of one label and group_id are parts of one object
via       a project of VIA 2 or VIA 3, or annotations of VIA 1 or 2 as JSON or CSV
yolo      labels/NAME.txt beside images/NAME.jpg: class x y x y ... as shares of the picture, or class x y width height;
          names in data.yaml or classes.txt
voc       SegmentationObject/NAME.png and SegmentationClass/NAME.png beside JPEGImages/; names in labelmap.txt or class_names.txt;
          without them the boxes of Annotations/*.xml, as labelImg writes them, too
masks     masks/NAME.png: each value or colour but black an object; or a file for each object: masks/NAME/*.png, masks/NAME_*.png,
          NAME/masks/*.png beside NAME/images/; a folder between masks/ and the file is the category

Polygons stay polygons; rectangles are boxes without a mask; circles and ellipses become polygons. Written anew because what
converts these is many small packages, each of one pair of formats, most of which read no masks.
"""

import json
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fairseg_lite.data.coco_json import Content, read_coco
from fairseg_lite.data.layouts import locate, name_from
from fairseg_lite.errors import InputError
from fairseg_lite.formats.outlines import labelme, via, yolo
from fairseg_lite.formats.painted import Annotated, masks, voc
from fairseg_lite.geometry.files import whole

Reader = Callable[[Path, Counter[str], list[str]], Iterator[Annotated]]
FORMATS: dict[str, Reader] = {"labelme": labelme, "via": via, "yolo": yolo, "voc": voc, "masks": masks}
MADE = ("images", "annotations", "categories")


def convert(kind: str, source: str | Path, out: Path, left_out: Counter[str]) -> dict:
    """A COCO 'instances' dict of what another tool wrote.

    Args:
        kind: of `FORMATS`. source: file or folder. out: the COCO file that it is for; it may have any name.
        left_out: what could not be read is counted here, by kind.
    Raises: InputError, nothing of this kind is there, or a file is damaged: names it.
    """
    source = Path(source)
    categories: list[str] = []
    images: list[dict] = []
    annotations: list[dict] = []
    if not source.exists():
        raise InputError(f"{str(source)!r}: no such file or folder")
    for path, (height, width), objects in FORMATS[kind](source, left_out, categories):
        images.append({"id": len(images) + 1, "file_name": name_from(path, out), "height": height, "width": width})
        for category, shape in objects:
            if category not in categories:
                categories.append(category)
            annotations.append({
                "id": len(annotations) + 1, "image_id": len(images), "category_id": categories.index(category) + 1, "iscrowd": 0,
                "segmentation": [], **shape,
            })  # fmt: skip
    if not annotations:
        there = ", ".join([f"{len(images)} pictures", *(f"{n} {what}" for what, n in (+left_out).items())])
        advice = "`fairseg-lite data convert --help` says what it is"
        raise InputError(f"{str(source)!r} holds no object of format {kind}, but {there}; {advice}")
    listed = [{"id": k, "name": name} for k, name in enumerate(categories, 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": listed}


def read_whole(source: str | Path, *, crowds_are_objects: bool = False) -> Content:
    """A COCO file with all that stands in it. Args and errors: as for `locate` and `read_coco`."""
    return read_coco(*locate(source), crowds_are_objects=crowds_are_objects, may_be_absent=Path(source).is_file(), keep=True)


def clean(content: Content, out: Path, *, without: Container[str] = ()) -> dict:
    """What `content` was read as, in COCO's own form; other fields stay as they were written.

    Args: content from `read_whole`; out, the file that it is for; without, file names of pictures that are left out.
    """
    images, annotations = [], []
    for p in content.pictures:
        if p.file_name in without:
            continue
        name = p.file_name if content.absent else name_from(p.path, out)
        images.append({**content.entries[p.id], "id": p.id, "file_name": name, "height": p.height, "width": p.width})
        for a in p.annotations:
            x1, y1, x2, y2 = (float(v) for v in a.box)
            annotations.append({
                **(content.kept or {})[a.id], "id": a.id, "image_id": p.id, "category_id": content.category_ids[a.label],
                "iscrowd": int(a.crowd), "segmentation": a.segmentation, "area": round(a.area, 2),
                "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            })  # fmt: skip
    written = {c.get("name"): c for c in reversed(content.written.get("categories") or [])}
    names = zip(content.category_ids, content.categories, strict=True)
    categories = [{**written.get(name, {}), "id": key, "name": name} for key, name in names]
    rest = {k: v for k, v in content.written.items() if k not in MADE}
    return {**rest, "images": images, "annotations": annotations, "categories": categories}


def write_new(out: Path, content: dict) -> None:
    """Write a COCO file that is not there yet. Raises: InputError, it is there, or it cannot be written."""
    if out.exists():
        raise InputError(f"{str(out)!r} is there already and is not written over; choose another name")
    with whole(out) as part:
        part.write_text(json.dumps(content, default=lambda numbers: numbers.tolist()) + "\n", "utf-8")


def stratified(counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which pictures to set aside, so that of every category about the same share of objects is set aside.

    They are drawn; then pairs of pictures change sides, as long as that brings all categories together nearer to the share. The
    pairs that are tried are of pictures with rare objects more often.

    Args: counts (P, K), objects of each category in each picture; share of pictures to set aside, at least one; seed.
    Returns: (P,) bool.
    Raises: InputError, a share that leaves one side without a picture.
    Example:
        >>> int(stratified(np.repeat(np.eye(2, dtype=int), [8, 2], 0), 0.5, seed=0)[8:].sum())  # of the two of the rare kind
        1
    """
    pictures = len(counts)
    many = max(round(share * pictures), 1) if 0 < share < 1 else pictures
    if many >= pictures:
        raise InputError(f"{share:g} of {pictures} pictures leaves nothing on one side; choose a share above 0 and below 1")
    g = np.random.default_rng(seed)
    aside, shares = g.permutation(pictures) < many, counts / counts.sum(0).clip(1)  # each picture's, of all objects of a category
    weight = shares.sum(1) + 1 / pictures
    for _ in range(400):
        sides = [np.flatnonzero(side) for side in (aside, ~aside)]
        a, b = (g.choice(side, 200, p=weight[side] / weight[side].sum()) for side in sides)
        change = np.concatenate([np.zeros((1, counts.shape[1])), shares[b] - shares[a]])
        off = shares[aside].sum(0) + change - share * counts.any(0)
        if best := int((off**2).sum(1).argmin()):
            aside[a[best - 1]], aside[b[best - 1]] = False, True
    return aside


def split(content: Content, out: Path, share: float, seed: int) -> dict[str, Any]:
    """Write OUT/train.json and OUT/valid.json, which have no picture in common.

    Args: content from `read_whole`; share of pictures in valid.json; seed.
    Returns: {"train": objects of each category, "valid": ...} and "pictures", two numbers.
    Raises: InputError, one of the files is there already; or as `stratified`.
    """
    files = {name: out / f"{name}.json" for name in ("train", "valid")}
    for path in files.values():
        if path.exists():
            raise InputError(f"{str(path)!r} is there already and is not written over; choose another folder")
    counts = np.zeros((len(content.pictures), len(content.categories)), int)
    for row, p in zip(counts, content.pictures, strict=True):
        np.add.at(row, [a.label for a in p.annotations], 1)
    aside = stratified(counts, share, seed)
    for valid, path in enumerate(files.values()):
        other = {p.file_name for p, is_valid in zip(content.pictures, aside, strict=True) if is_valid != valid}
        write_new(path, clean(content, path, without=other))
    return {"train": counts[~aside].sum(0), "valid": counts[aside].sum(0), "pictures": (int((~aside).sum()), int(aside.sum()))}
