"""Any COCO-format data set as scenes, its check, and any scenes as a COCO-format folder.

What is accepted: the layouts of `layouts`; polygons, RLE, boxes without a mask, and crowds; categories as the file names them;
pictures of every Pillow format. A missing or wrong box or area is measured from the mask. What is mended or a fault stands in
`coco_json` and `pictures`.
"""

import json
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from fairseg_lite.data.coco_json import read_coco
from fairseg_lite.data.entries import Fault, Picture
from fairseg_lite.data.layouts import locate
from fairseg_lite.data.pictures import exif_turn, load_image, reduced
from fairseg_lite.data.scenes import InstanceTable, Masks, Scene, SceneDataset
from fairseg_lite.data.segmentations import fitted
from fairseg_lite.errors import InputError, check_choice, check_range
from fairseg_lite.geometry.files import short_hash, whole
from fairseg_lite.geometry.masks import rle_encode

SMALL, LARGE = 32**2, 96**2  # COCO's size classes, in pixels of mask


class CocoDataset:
    """Scenes of a COCO-format data set; opening it reads the JSON and the head of each picture, a scene the rest.

    Args:
        source: a folder, a JSON file, or "FILE.json:PICTURES": as for `locate`.
        on_fault: "raise", or "skip": a damaged annotation is left out, a damaged picture with all of its annotations;
            one line for each kind of fault goes to stderr. Damage in the middle of a picture shows only when it is
            decoded: then the scene is grey and its masks are empty, and a line says so. "collect" is "skip" in silence.
        crowds_are_objects: take every crowd for an object: some tools write "iscrowd" 1 for all that is no polygon.
        may_be_absent: where there is no picture at all, read the annotations alone, by the sizes in the file.
        max_side: reduce larger pictures, their masks and boxes to this longest side, in pixels; None: none.
    Raises:
        InputError: as `locate` and `read_coco`; with "raise", the first fault; with "skip", no picture is left.
        Getting a scene with "raise": its picture is damaged.

    Attributes: categories, category_ids (both in the file's order), pictures, faults (a list that decoding may extend),
    measured (number of annotations whose box or area did not fit the mask and was measured from it), mended (a line for each
    kind of thing that was read in another form than written), same_category {other ids of a category: its id in category_ids}.
    Source: COCO's data format. Lesson: 01.
    """

    def __init__(
        self, source: str | Path, *, on_fault: str = "raise", crowds_are_objects: bool = False, may_be_absent: bool = False,
        max_side: int | None = None,
    ):  # fmt: skip
        check_range("max_side", max_side, 32, None)
        self.max_side = max_side
        check_choice("on_fault", on_fault, ("raise", "skip", "collect"))
        folder, self.path = locate(source)
        content = read_coco(folder, self.path, crowds_are_objects=crowds_are_objects, may_be_absent=may_be_absent)
        self.categories, self.category_ids, self.pictures = content.categories, content.category_ids, content.pictures
        self.same_category, self.mended, self.absent = content.same_category, content.mended.lines(), content.absent
        self._grey: set[int] = set()  # ids of pictures that could not be decoded
        self.faults, self.measured, self.on_fault = content.faults, content.measured, on_fault
        if len(self.instances) and self.instances.crowd.all():
            self.mended.append(
                f'all {len(self.instances)} annotations have "iscrowd" 1: nothing can be learnt from crowds; if they are '
                "objects, --crowds-are-objects (crowds_are_objects=True) takes them as such"
            )
        if boxes := int((~self.instances.masked).sum()):
            self.mended.append(
                f"{boxes:,} of {len(self.instances):,} annotations have a box and no mask: that is enough for names (train "
                "multipathnet) and AP of boxes; DeepMask and SharpMask learn, and masks are judged, on the others"
            )
        if self.faults and on_fault == "raise":
            rest = f" ({len(self.faults) - 1} more faults)" if len(self.faults) > 1 else ""
            raise InputError(
                f"{self.faults[0]}{rest}\n`fairseg-lite data check` lists every fault; on_fault='skip' leaves them out"
            )
        if on_fault != "collect":
            for line in [*self.mended, *(f"skipped {line}" for line in summary(self.faults))]:
                print(f"{self.path}: {line}", file=sys.stderr)
            if not self.pictures:
                raise InputError(f"{str(self.path)!r}: no picture is left, all {len(self.faults)} have a fault")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Scene:
        p = self.pictures[index]
        a = p.annotations
        h, w = reduced(p.height, p.width, self.max_side)
        try:
            image = load_image(p.path, (p.height, p.width), max_side=self.max_side)
        except InputError as error:
            self._undecodable(p, error)
            image, given = np.full((h, w, 3), 128, np.uint8), None
            rles = [rle_encode(np.zeros((h, w), bool))] * len(a)
        else:
            scale = np.array([w / p.width, h / p.height] * 2, np.float32)
            given = np.array([[np.nan] * 4 if o.segmentation else o.box * scale for o in a], np.float32).reshape(-1, 4)
            rles = [fitted(o.segmentation, (p.height, p.width), (h, w)) for o in a]
        masks = Masks(rles, h, w)
        labels, ids = (np.array(x, np.int64) for x in ([o.label for o in a], [o.id for o in a]))
        return Scene(image, masks, labels, np.array([o.crowd for o in a], bool), p.id, p.file_name, ids, given)

    def _undecodable(self, picture: Picture, error: ValueError) -> None:
        fault = Fault("picture damaged", picture.file_name, None, str(error))
        if self.on_fault == "raise":
            raise InputError(str(fault)) from error
        if picture.id not in self._grey:
            self._grey.add(picture.id)
            self.faults.append(fault)
            if self.on_fault == "skip":
                print(f"{self.path}: a grey picture without objects stands for {fault}", file=sys.stderr)

    @property
    def image_ids(self) -> list[int]:
        """Of every picture, in order."""
        return [p.id for p in self.pictures]

    def picture_key(self, index: int) -> str:
        """Hash of a picture's file and of the size that it is annotated for."""
        p = self.pictures[index]
        return short_hash(p.path.read_bytes(), p.height, p.width)

    @cached_property
    def instances(self) -> InstanceTable:
        """Boxes and areas as written in the file, or measured; of reduced pictures in their pixels."""
        counts = [len(p.annotations) for p in self.pictures]
        rows = [a for p in self.pictures for a in p.annotations]
        sizes = [(*reduced(p.height, p.width, self.max_side), p.height, p.width) for p in self.pictures]
        scale = np.array([(w / whole_w, h / whole_h) for h, w, whole_h, whole_w in sizes]).reshape(-1, 2).repeat(counts, 0)
        return InstanceTable.of(
            counts,
            box=np.array([a.box for a in rows], np.float32).reshape(-1, 4) * np.tile(scale, 2).astype(np.float32),
            area=np.array([a.area for a in rows], np.float64) * scale.prod(1),
            label=[a.label for a in rows],
            crowd=[a.crowd for a in rows],
            masked=[bool(a.segmentation) for a in rows],
        )


def summary(faults: list[Fault]) -> list[str]:
    """One line for each kind of fault, the most frequent first.

    Args: faults in any order. Returns: lines such as "3 of 'empty mask' (first: 7.jpg: annotation 12: ...)".
    """
    first = {f.kind: f for f in reversed(faults)}
    return [f"{n} of {kind!r} (first: {first[kind]})" for kind, n in Counter(f.kind for f in faults).most_common()]


@dataclass(frozen=True)
class CheckReport:
    """What `check` found; str() of it is for reading."""

    name: str
    images: int
    absent: bool  # none of them is there
    empty_images: int  # without an annotation
    instances: int  # without crowds
    crowds: int
    per_category: dict[str, int]  # instances without crowds
    sizes: dict[str, int]  # COCO's classes by mask area
    measured: int  # annotations whose box or area was missing or wrong
    mended: list[str]  # what was read in another form than written
    faults: list[Fault]

    def __str__(self) -> str:
        categories = ", ".join(f"{name} {n:,}" for name, n in self.per_category.items())
        lines = [
            self.name,
            f"  pictures    {self.images:8,}   of which {self.empty_images:,} without an annotation"
            + ", and none is there: the annotations alone are checked" * self.absent,
            f"  instances   {self.instances:8,}   and {self.crowds:,} crowds",
            "  sizes      " + ", ".join(f"{n:,} {name}" for name, n in self.sizes.items()),
            textwrap.fill(f"  categories {categories or 'none'}", 100, subsequent_indent=" " * 13),
        ]
        if self.measured:
            lines.append(f"  {self.measured:,} boxes or areas were missing or did not fit the mask: measured from the mask")
        lines += [textwrap.fill(f"  {line}", 120, subsequent_indent="    ") for line in self.mended]
        shown = [f"  {f.kind}: {f}" for f in sorted(self.faults, key=lambda f: f.kind)]
        lines.append(f"  {len(self.faults):,} faults" + (":" if shown else ""))
        return "\n".join(lines + ["  " + line for line in shown])


def check(source: str | Path, *, crowds_are_objects: bool = False, progress: bool = True) -> CheckReport:
    """Decode every picture of a COCO-format data set, and judge every mask by its runs and corners.

    Of a JSON file with no picture beside it, the annotations alone are judged, by the sizes that it gives.

    Args: as `CocoDataset`; progress shows a bar when it takes more than 2 s.
    Returns: CheckReport with every fault.
    Raises: InputError, when there is nothing to check: no folder, no JSON, no list of pictures.
    """
    alone = Path(source).is_file()
    dataset = CocoDataset(source, on_fault="collect", crowds_are_objects=crowds_are_objects, may_be_absent=alone)
    turns: Counter = Counter()
    pictures = [] if dataset.absent else dataset.pictures
    with ThreadPoolExecutor(4) as pool:  # large pictures at once take memory
        for found in tqdm(pool.map(_decoded, pictures), total=len(pictures), unit="picture", disable=not progress, delay=2):
            turns[found] += 1
            if isinstance(found, Fault):
                dataset.faults.append(found)
    if turned := turns["stored"] + turns["upright"]:
        dataset.mended.append(
            f"{turned} pictures carry an EXIF rotation: {turns['stored']} are annotated as stored, {turns['upright']} upright; "
            "every command looks at them as they are annotated"
        )
    table = dataset.instances
    area, label = table.area[~table.crowd], table.label[~table.crowd]
    sizes = np.histogram(area, [0, SMALL, LARGE, np.inf])[0]
    counts = np.bincount(label, minlength=len(dataset.categories))
    return CheckReport(
        name=str(dataset.path),
        absent=dataset.absent,
        images=len(dataset),
        empty_images=len(dataset) - len(np.unique(table.image)),
        instances=len(area),
        crowds=int(table.crowd.sum()),
        per_category={name: int(n) for name, n in zip(dataset.categories, counts, strict=True) if n},
        sizes={name: int(n) for name, n in zip(("small", "medium", "large"), sizes, strict=True)},
        measured=dataset.measured,
        mended=dataset.mended,
        faults=dataset.faults,
    )


def _decoded(p: Picture) -> str | Fault:
    """What EXIF does to it, or why it cannot be decoded."""
    try:
        load_image(p.path, (p.height, p.width))
        return exif_turn(p.path, (p.height, p.width))
    except InputError as error:
        return Fault("picture damaged", p.file_name, None, str(error))


def to_coco(dataset: SceneDataset, progress: bool = False, *, name: Callable[[Scene], str] = attrgetter("file_name")) -> dict:
    """A data set's annotations as a COCO 'instances' dict, masks as compressed RLE.

    Args: dataset; progress shows a bar when it takes more than 2 s; name of each scene's picture.
    Returns: dict with info, images, annotations (ids as in the scenes; "segmentation" is [] where there is a box alone, and
        "area" the box's) and categories, ready for `json.dump`.

    Source: COCO's data format. Lesson: 01.
    """
    images, annotations = [], []
    for i in tqdm(range(len(dataset)), unit="picture", disable=not progress, delay=2):
        scene = dataset[i]
        h, w = scene.image.shape[:2]
        images.append({"id": scene.image_id, "file_name": name(scene), "height": h, "width": w})
        rows = zip(scene.annotation_ids, scene.labels, scene.crowd, scene.boxes, scene.areas, scene.masked, strict=True)
        for (key, label, crowd, (x1, y1, x2, y2), area, masked), rle in zip(rows, scene.rles, strict=True):
            annotations.append({
                "id": int(key), "image_id": scene.image_id, "category_id": dataset.category_ids[label],
                "iscrowd": int(crowd), "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "area": int(area) if masked else float((x2 - x1) * (y2 - y1)), "segmentation": rle if masked else [],
            })  # fmt: skip
    categories = [{"id": k, "name": n} for k, n in zip(dataset.category_ids, dataset.categories, strict=True)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_coco_folder(dataset: SceneDataset, folder: str | Path, progress: bool = True) -> None:
    """Write `images/*.png` and `instances.json`, the JSON last: a folder that has it is complete.

    Args: dataset; folder, made if need be (a data set that stands there is replaced); progress as in `to_coco`.
    Raises: ValueError, when it cannot be written.
    """
    folder = Path(folder)

    def write_image(scene: Scene) -> str:
        name = f"{scene.image_id:012d}.png"
        with whole(folder / "images" / name) as part:
            Image.fromarray(scene.image).save(part, "PNG")
        return name

    with whole(folder / "instances.json") as part:
        (folder / "images").mkdir(exist_ok=True)
        (folder / "instances.json").unlink(missing_ok=True)
        part.write_text(json.dumps(to_coco(dataset, progress, name=write_image)), "utf-8")
