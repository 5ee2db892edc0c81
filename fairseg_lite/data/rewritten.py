"""COCO files written anew: a clean copy of one, and two parts of one to train on and to measure on.

Pictures stay where they are: a file names them by their path from its folder of pictures, or else from its own folder.
"""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from fairseg_lite.data.coco_json import Content
from fairseg_lite.data.layouts import locate, name_from
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.files import whole

MADE = ("images", "annotations", "categories")


def read_whole(source: str | Path, *, crowds_are_objects: bool = False) -> Content:
    """A COCO file with all that stands in it. Args and errors: as for `locate` and `read_coco`."""
    images, path = locate(source)
    content = Content(images, path, may_be_absent=Path(source).is_file())
    return content.read_annotations(crowds_are_objects=crowds_are_objects, keep=True)


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

    The rarest category that is left comes first; each of its pictures goes where most of its objects are still wanted. Then pairs
    of pictures are exchanged as long as that helps.

    Args: counts (P, K), objects of each category in each picture; share of pictures to set aside, at least one; seed.
    Returns: (P,) bool.
    Raises: InputError, a share that leaves one side without a picture.
    Example:
        >>> int(stratified(np.repeat(np.eye(2, dtype=int), [8, 2], 0), 0.5, seed=0)[8:].sum())  # of the two of the rare kind
        1

    Source: Sechidis et al., "On the Stratification of Multi-Label Data" (2011), with numbers of objects for labels.
    """
    pictures = len(counts)
    aside = max(round(share * pictures), 1) if 0 < share < 1 else pictures
    if aside >= pictures:
        raise InputError(f"{share:g} of {pictures} pictures leaves nothing on one side; choose a share above 0 and below 1")
    wanted = np.outer([1 - share, share], counts.sum(0)).astype(float)  # of each side and category
    room, side = np.array([pictures - aside, aside]), np.full(pictures, -1)
    order = np.random.default_rng(seed).permutation(pictures)
    while (open_ := order[side[order] < 0]).size:
        left = counts[open_].sum(0)
        if left.any():
            rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
            of = counts[open_, rarest]
            open_ = open_[np.argsort(-of, kind="stable")][: np.count_nonzero(of)]
        for i in open_:
            want = wanted[:, rarest] if left.any() else room
            s = int(want[1] > want[0] or (want[1] == want[0] and room[1] > room[0]))
            s = s if room[s] else 1 - s
            side[i], room[s] = s, room[s] - 1
            wanted[s] -= counts[i]
    return _exchanged(counts, side == 1, share, seed)


def _exchanged(counts: np.ndarray, aside: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The same, better balanced: pairs of pictures change sides where that brings all categories nearer to the share."""
    g, total = np.random.default_rng((seed, 1)), counts.sum(0)
    for _ in range(200):
        a, b = (g.choice(np.flatnonzero(which), 200) for which in (aside, ~aside))
        change = np.concatenate([np.zeros((1, counts.shape[1])), counts[b] - counts[a]])
        off = (counts[aside].sum(0) + change - share * total) / np.maximum(total, 1)
        best = int((off**2).sum(1).argmin())
        if best:
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
