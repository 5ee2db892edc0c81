"""Annotations of other tools that are outlines: labelme's, VIA's and YOLO's; as `convert` says."""

import base64
import csv
import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fairseg_lite.data.layouts import Names, list_pictures, other_format
from fairseg_lite.data.pictures import probe_image
from fairseg_lite.errors import InputError
from fairseg_lite.formats.painted import Annotated, Found, sized
from fairseg_lite.geometry.files import read_json
from fairseg_lite.geometry.masks import rle_encode


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> list[list[float]]:
    t = np.linspace(0, 2 * np.pi, max(32, math.ceil(4 * math.sqrt(max(rx, ry)))), endpoint=False)
    x, y = rx * np.cos(t), ry * np.sin(t)
    c, s = math.cos(theta), math.sin(theta)
    return [np.stack([cx + c * x - s * y, cy + s * x + c * y], 1).round(2).ravel().tolist()]


def _box(x1: float, y1: float, x2: float, y2: float) -> dict:
    return {"bbox": [min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)]}


def labelme(source: Path, left_out: Counter[str], categories: list[str]) -> Iterator[Annotated]:
    """A JSON file, or those of a folder. Args: as `convert`."""
    for path in [source] if source.is_file() else sorted(source.rglob("*.json")):
        content = read_json(path)
        if not (isinstance(content, dict) and isinstance(content.get("shapes"), list)):
            left_out[f"JSON files without shapes (first: {path.name})"] += 1
            continue
        name = str(content.get("imagePath") or path.stem)
        size = content.get("imageHeight"), content.get("imageWidth")
        at = sized(Names([path.parent]).only(name), size, name, left_out)
        groups: dict[object, list[Found]] = defaultdict(list)
        for i, shape in enumerate(content["shapes"] if at else []):
            try:
                found = _labelme_shape(shape, *at[1])  # type: ignore[index]
            except (KeyError, TypeError, ValueError, IndexError, OSError):
                found = None
            if found is None:
                left_out[f"shapes that are no area: {shape.get('shape_type') if isinstance(shape, dict) else shape}"] += 1
                continue
            label, group = str(shape.get("label") or "object"), shape.get("group_id")
            joined = group is not None and isinstance(found.get("segmentation"), list)
            groups[(label, group) if joined else i].append((label, found))
        if at:
            yield Annotated(*at, [(g[0][0], _joined([shape for _, shape in g])) for g in groups.values()])


def _joined(shapes: list[dict]) -> dict:
    return shapes[0] if len(shapes) == 1 else {"segmentation": [part for s in shapes for part in s["segmentation"]]}


def _labelme_shape(shape: dict, height: int, width: int) -> dict | None:
    points, kind = np.array(shape["points"], float).reshape(-1, 2), shape.get("shape_type") or "polygon"
    if kind == "mask":
        part = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))) > 0
        (x, y), mask = points[0].round().astype(int), np.zeros((height, width), bool)
        room = mask[y : y + part.shape[0], x : x + part.shape[1]]
        room[:] = part[: room.shape[0], : room.shape[1]]
        return {"segmentation": rle_encode(mask)}
    if kind == "rectangle":
        return _box(*points[[0, -1]].ravel().tolist()) if len(points) == 2 else {"segmentation": [points.ravel().tolist()]}
    if kind == "circle":
        (x, y), radius = points[0].tolist(), float(np.hypot(*(points[1] - points[0])))
        return {"segmentation": _ellipse(x, y, radius, radius)}
    return {"segmentation": [points.ravel().tolist()]} if kind == "polygon" and len(points) > 2 else None


def via(source: Path, left_out: Counter[str], categories: list[str]) -> Iterator[Annotated]:
    """A project or export, or those of a folder. Args: as `convert`."""
    files = [source] if source.is_file() else sorted([*source.glob("*.json"), *source.glob("*.csv")])
    if not files:
        raise InputError(f"{str(source)!r} holds no JSON or CSV file; save VIA's project, or export its annotations")
    for path in files:
        content = _via_table(path) if path.suffix.lower() == ".csv" else read_json(path)
        listed = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
        if {"metadata", "view", "file"} <= set(listed):
            listed = _via_3(path, content)
        if not listed or not all(isinstance(e, dict) and "filename" in e for e in listed.values()):
            raise InputError(f"{str(path)!r} is no VIA file: there is {other_format(content)}")
        settings = content.get("_via_settings") or {}
        default = (settings.get("core") or {}).get("default_filepath") or ""
        names = Names([path.parent, path.parent / default])
        regions = [list(r.values() if isinstance(r := e.get("regions") or [], dict) else r) for e in listed.values()]
        key = _via_attribute(path, [r.get("region_attributes") or {} for some in regions for r in some])
        for entry, some in zip(listed.values(), regions, strict=True):
            at = sized(names.only(entry["filename"]), (None, None), entry["filename"], left_out)
            objects = []
            for region in some if at else []:
                attributes, shape = region.get("region_attributes") or {}, _via_shape(region.get("shape_attributes") or {})
                if shape is None:
                    left_out[f"regions that are no area: {(region.get('shape_attributes') or {}).get('name')}"] += 1
                else:
                    objects.append((_via_name(attributes.get(key)), shape))
            if at:
                yield Annotated(*at, objects)


def _via_table(path: Path) -> dict[str, dict]:
    """Annotations that VIA exported as CSV, as those that it exports as JSON; its first version begins the first line with #."""
    found: dict[str, dict] = {}
    try:
        for row in csv.DictReader(path.read_text("utf-8-sig").removeprefix("#").splitlines()):
            regions = found.setdefault(row["filename"], {"filename": row["filename"], "regions": []})["regions"]
            if shape := json.loads(row["region_shape_attributes"] or "{}"):  # {}: a picture without a region
                regions.append({"shape_attributes": shape, "region_attributes": json.loads(row["region_attributes"] or "{}")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} is no CSV file of VIA, with columns filename, region_shape_attributes, ...") from error
    return found


VIA_3 = [  # kinds of shapes in the order of their numbers, and what the numbers after these are
    ("",), ("point",), ("rect", "x", "y", "width", "height"), ("circle", "cx", "cy", "r"), ("ellipse", "cx", "cy", "rx", "ry"),
    ("line",), ("polyline",), ("polygon",), ("extreme rectangle",), ("extreme circle",),
]  # fmt: skip


def _via_3(path: Path, content: dict) -> dict[str, dict]:
    """A project of VIA 3 as one of VIA 2: its regions are of views, which show files, and name attributes by number."""
    try:
        fields = content.get("attribute") or {}
        files = {view: content["file"][str(v["fid_list"][0])]["fname"] for view, v in content["view"].items()}
        found = {view: {"filename": name, "regions": []} for view, name in files.items()}
        for region in content["metadata"].values():
            if not region["xy"]:
                continue  # said of the whole picture
            kind, *numbers = region["xy"]
            name, *keys = VIA_3[kind]
            shape = {"name": name, "all_points_x": numbers[0::2], "all_points_y": numbers[1::2]}
            shape |= dict(zip(keys, numbers, strict=False))
            said = {fields[k]["aname"]: fields[k].get("options", {}).get(v, v) for k, v in region["av"].items()}
            found[region["vid"]]["regions"].append({"shape_attributes": shape, "region_attributes": said})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{str(path)!r} is a damaged project of VIA 3: {error!r} is not there") from error
    return found


def _via_attribute(path: Path, attributes: list[dict]) -> str | None:
    """The attribute of a region that is its category."""
    counts = Counter(k for a in attributes for k in a)
    usual = [
        k for k in counts if k.lower() in ("class", "label", "category", "name", "type", "object", "classname", "class_name")
    ]
    keys = usual or list(counts)
    if len(keys) > 1:
        raise InputError(
            f"{str(path)!r}: regions have the attributes {', '.join(keys)}; rename the one that is the category 'class'"
        )
    return keys[0] if keys else None


def _via_name(value: object) -> str:
    if isinstance(value, dict):  # a box to tick for each
        value = "+".join(k for k, ticked in value.items() if ticked)
    return str(value).strip() if value not in (None, "") else "object"


def _via_shape(s: dict) -> dict | None:
    try:
        if s["name"] == "rect":
            return _box(s["x"], s["y"], s["x"] + s["width"], s["y"] + s["height"])
        if s["name"] in ("circle", "ellipse"):
            rx, ry = (s["r"], s["r"]) if s["name"] == "circle" else (s["rx"], s["ry"])
            return {"segmentation": _ellipse(s["cx"], s["cy"], rx, ry, s.get("theta") or 0.0)}
        corners = np.stack([s["all_points_x"], s["all_points_y"]], 1).astype(float)
        return {"segmentation": [corners.ravel().tolist()]} if s["name"] == "polygon" and len(corners) > 2 else None
    except (KeyError, TypeError, ValueError):
        return None


def yolo(source: Path, left_out: Counter[str], categories: list[str]) -> Iterator[Annotated]:
    """The pictures of a folder, or of that of a data.yaml, and their labels. Args: as `convert`."""
    source = source.parent if source.suffix in (".yaml", ".yml") else source
    names = _yolo_names(source)
    categories += names
    for picture in list_pictures(source):
        text = next((p for p in _beside(picture, source, "labels", ".txt") if p.is_file()), None)
        height, width = probe_image(picture)
        objects: list[Found] = []
        for number, line in enumerate(text.read_text("utf-8-sig").splitlines() if text else [], 1):
            if not line.strip():
                continue
            try:
                label, *rest = line.split()
                k, v = int(float(label)), np.array(rest, float)
                if not np.isfinite(v).all() or k < 0 or not (len(v) == 4 or (len(v) >= 6 and len(v) % 2 == 0)):
                    raise ValueError
            except ValueError:
                raise InputError(f"{str(text)!r}: line {number} is no 'class x y x y ...': {line[:60]!r}") from None
            x, y = v[0::2] * width, v[1::2] * height
            shape = {"segmentation": [np.stack([x, y], 1).round(2).ravel().tolist()]}
            if len(v) == 4:
                (cx, w), (cy, h) = x, y
                shape = _box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            objects.append((names[k] if k < len(names) else f"class {k}", shape))
        left_out["pictures without a label file, taken as empty"] += text is None
        yield Annotated(picture, (height, width), objects)


def _beside(picture: Path, top: Path, folder: str, ending: str) -> Iterator[Path]:
    """Where the file of a picture may be: in the folder of that name that stands for images/, or beside the picture."""
    parts = picture.relative_to(top).parts
    for i in [i for i, part in enumerate(parts) if part in ("images", "JPEGImages")][::-1]:
        yield top.joinpath(*parts[:i], folder, *parts[i + 1 :]).with_suffix(ending)
    yield top.parent.joinpath(folder, *parts).with_suffix(ending) if top.name == "images" else picture.with_suffix(ending)
    yield (top / folder / picture.name).with_suffix(ending)
    yield picture.with_suffix(ending)


def _yolo_names(source: Path) -> list[str]:
    """Of data.yaml: `names: [a, b]`, `- a` or `0: a` in lines of their own; of classes.txt: lines."""
    for folder in (source, source.parent, source.parent.parent):
        for path in [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))]:
            text = path.read_text("utf-8-sig")
            at = re.search(r"^names:[ \t]*(\[[^\]]*\]|\{[^}]*\}|(?:#.*)?(?:\n[ \t]*(?:-|\d+[ \t]*:).*)+)", text, re.M)
            if at:
                inline = at[1].strip("[]{} \n").split(",") if at[1][0] in "[{" else at[1].strip().splitlines()
                items = [re.sub(r"^\s*(-|\d+\s*:)\s*", "", i).split(" #")[0].strip().strip("'\"") for i in inline]
                return [i for i in items if i]
        for path in (folder / "classes.txt", folder / "obj.names"):
            if path.is_file():
                return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    return []
