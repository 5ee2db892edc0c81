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

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from fairseg_lite.data.layouts import name_from
from fairseg_lite.errors import InputError
from fairseg_lite.formats.outlines import labelme, via, yolo
from fairseg_lite.formats.painted import Annotated, masks, voc

FORMATS: dict[str, Callable[[Path, Counter[str], list[str]], Iterator[Annotated]]] = {
    "labelme": labelme,
    "via": via,
    "yolo": yolo,
    "voc": voc,
    "masks": masks,
}


def convert(kind: str, source: str | Path, out: Path, left_out: Counter[str]) -> dict:
    """A COCO 'instances' dict of what another tool wrote.

    Args:
        kind: of `FORMATS`. source: file or folder. out: the COCO file that it is for; it may have any name.
        left_out: what could not be read is counted here, by kind.
    Raises:
        InputError: nothing of this kind is there, or a file is damaged: names it.
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
