"""Files as labelme, VIA, YOLO, PASCAL VOC and mask painters write them become COCO files with the same objects."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.cli import main
from fairseg_lite.data.coco import CocoDataset, check
from fairseg_lite.data.photos import listed_pictures
from fairseg_lite.geometry.masks import polygons_to_mask

H, W = 40, 60
CAT, DOG = [[5, 5], [25, 5], [25, 25], [5, 25]], [[30, 10], [50, 10], [40, 30]]


def picture(path, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (W, H), "white").save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def mask_of(points) -> np.ndarray:
    return polygons_to_mask([np.ravel(points).tolist()], H, W)


def converted(tmp_path, kind, source, out="out") -> CocoDataset:
    assert main(["data", "convert", kind, str(source), str(tmp_path / out)]) == 0
    assert check(tmp_path / out, progress=False).faults == []
    data = CocoDataset(tmp_path / out)
    assert [p.id for p in listed_pictures(tmp_path / out)[0]] == sorted(data.image_ids)
    return data


def objects(data, index=0) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for label, mask in zip(data[index].labels, data[index].masks, strict=True):
        found.setdefault(data.categories[label], []).append(mask)
    return found


def assert_cat_and_dog(data, index=0, *, slack: int = 0):
    found = objects(data, index)
    assert set(found) == {"cat", "dog"} and len(found["cat"]) == len(found["dog"]) == 1
    for name, points in (("cat", CAT), ("dog", DOG)):
        assert (found[name][0] ^ mask_of(points)).sum() <= slack


# --- labelme


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(tmp_path, *shapes, name="a", where="..\\pics\\", **more):
    picture(tmp_path / f"pics/{name}.jpg")
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{where}{name}.jpg", "imageData": None}
    text(tmp_path / f"ann/{name}.json", {**content, "imageHeight": H, "imageWidth": W, **more})
    return tmp_path / "ann"


def test_labelme(tmp_path, capsys):
    (tmp_path / "ann").mkdir()
    labelme(tmp_path, shape("cat", CAT), shape("dog", DOG), shape("x", [[1, 1]], "point"), name="b", where="../pics/")
    source = labelme(tmp_path, name="c", where="../pics/", imageHeight=None)
    text(source / "notes.json", {"a": 1})
    data = converted(tmp_path, "labelme", source)
    assert_cat_and_dog(data)
    assert len(data) == 2 and len(data[1].labels) == 0
    told = capsys.readouterr().out
    assert "1 shapes that are no area: point" in told and "1 JSON files without shapes (first: notes.json)" in told
    assert "instances.json: 2 pictures with 2 objects of 2 categories; fairseg-lite data check" in told


def test_labelme_beside_its_pictures(tmp_path):
    picture(tmp_path / "a b.png")
    content = {"shapes": [shape("cat", CAT), shape("dog", DOG)], "imagePath": "a b.png", "imageHeight": H, "imageWidth": W}
    text(tmp_path / "a b.json", content)
    data = converted(tmp_path, "labelme", tmp_path, out="all.json")
    assert_cat_and_dog(data)
    assert [p.name for p in listed_pictures(tmp_path / "all.json")[0]] == ["a b.png"]


def test_labelme_shapes_of_other_kinds(tmp_path):
    part = np.zeros((6, 9), np.uint8)
    part[1:4, 2:8] = 1
    file = io.BytesIO()
    Image.fromarray(part.astype(bool)).save(file, "PNG")
    source = labelme(
        tmp_path,
        shape("disc", [[20, 20], [20, 30]], "circle"),
        shape("box", [[50, 30], [40, 10]], "rectangle"),
        shape("painted", [[50, 2], [58, 7]], "mask", mask=base64.b64encode(file.getvalue()).decode()),
        shape("two", CAT, group_id=3),
        shape("two", DOG, group_id=3),
        shape("two", DOG, group_id=4),
        where="../pics/",
    )
    data = converted(tmp_path, "labelme", source)
    found = objects(data)
    assert abs(found["disc"][0].sum() - np.pi * 100) < 10
    assert data[0].boxes[1].tolist() == [40, 10, 50, 30] and data[0].masked.tolist() == [True, False, True, True, True]
    y, x = np.nonzero(found["painted"][0])
    assert (x.min(), x.max(), y.min(), y.max(), len(x)) == (52, 57, 3, 5, 18)
    np.testing.assert_array_equal(found["two"][0], mask_of(CAT) | mask_of(DOG))
    np.testing.assert_array_equal(found["two"][1], mask_of(DOG))


# --- VIA


def region(name, points, *, attribute="class"):
    x, y = np.transpose(points).tolist()
    shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
    return {"shape_attributes": shape, "region_attributes": {attribute: name}}


def via(*regions, name="a.jpg"):
    return {f"{name}123": {"filename": name, "size": 123, "regions": list(regions), "file_attributes": {}}}


@pytest.mark.parametrize("form", ["export", "project", "first version", "folder"])
def test_via(tmp_path, form):
    picture(tmp_path / ("pics/a.jpg" if form == "project" else "a.jpg"))
    entries = via(region("cat", CAT), region("dog", DOG))
    if form == "project":
        settings = {"ui": {}, "core": {"default_filepath": "pics/"}}
        entries = {
            "_via_settings": settings,
            "_via_img_metadata": entries,
            "_via_attributes": {},
            "_via_data_format_version": "2.0.10",
        }
    elif form == "first version":
        for entry in entries.values():
            entry["regions"] = {str(i): r for i, r in enumerate(entry["regions"])}
    text(tmp_path / "via.json", entries)
    assert_cat_and_dog(converted(tmp_path, "via", tmp_path if form == "folder" else tmp_path / "via.json"))


@pytest.mark.parametrize("head", ["filename", "#filename"])
def test_via_table(tmp_path, head):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "none.jpg")
    rows = [[f"{head}", "file_size", "file_attributes", "region_count", "region_id"]]
    rows[0] += ["region_shape_attributes", "region_attributes"]
    for i, r in enumerate((region("cat", CAT), region("dog", DOG))):
        rows.append(["a.jpg", 123, "{}", 2, i, *(json.dumps(part) for part in r.values())])
    rows.append(["none.jpg", 9, "{}", 0, 0, "{}", "{}"])
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    text(tmp_path / "via.csv", "\ufeff" * (head == "filename") + file.getvalue())
    data = converted(tmp_path, "via", tmp_path)
    assert len(data) == 2 and len(data[1].labels) == 0
    assert_cat_and_dog(data)


def test_via_3(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    numbers = [[7, *np.ravel(CAT).tolist()], [2, 30, 10, 20, 15], [3, 30, 20, 9], [1, 3, 4], []]
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": ["1"]},
        "config": {"file": {"loc_prefix": {"1": "", "2": ""}}},
        "attribute": {"1": {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": {"0": "cat", "1": "dog"}}},
        "file": {"1": {"fid": "1", "fname": "a.jpg", "type": 2, "loc": 1, "src": "a.jpg"}},
        "metadata": {
            f"1_{i}": {"vid": "1", "flg": 0, "z": [], "xy": xy, "av": {"1": "1" if i == 1 else "0"}}
            for i, xy in enumerate(numbers)
        },
        "view": {"1": {"fid_list": ["1"]}},
    }
    text(tmp_path / "via.json", content)
    data = converted(tmp_path, "via", tmp_path / "via.json")
    assert "1 regions that are no area: point" in capsys.readouterr().out
    assert data.categories == ("cat", "dog") and data[0].labels.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(data[0].masks[0], mask_of(CAT))
    assert data[0].boxes[1].tolist() == [30, 10, 50, 25] and abs(data[0].masks[2].sum() - np.pi * 81) < 8
    del content["file"]["1"]
    text(tmp_path / "via.json", content)
    assert main(["data", "convert", "via", str(tmp_path / "via.json"), str(tmp_path / "other")]) == 2
    assert "is a damaged project of VIA 3" in capsys.readouterr().err


def test_via_regions_of_other_kinds(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    rect = {"name": "rect", "x": 3, "y": 4, "width": 10, "height": 20}
    shapes = [
        rect,
        {"name": "circle", "cx": 30, "cy": 20, "r": 9},
        {"name": "ellipse", "cx": 30, "cy": 20, "rx": 20, "ry": 4, "theta": np.pi / 2},
        {"name": "point", "cx": 3, "cy": 4},
        {"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 9]},
    ]
    ticked = [{"kind": {"cat": True, "dog": False}}, {"kind": ""}, {}, {}, {}]
    regions = [{"shape_attributes": s, "region_attributes": t} for s, t in zip(shapes, ticked, strict=True)]
    text(tmp_path / "via.json", via(*regions) | via(name="lost.jpg"))
    data = converted(tmp_path, "via", tmp_path / "via.json")
    told = capsys.readouterr().out
    assert "1 regions that are no area: polyline" in told and "1 pictures that are not there (first: lost.jpg)" in told
    assert data.categories == ("cat", "object") and data[0].boxes[0].tolist() == [3, 4, 13, 24] and not data[0].masked[0]
    circle, ellipse = data[0].masks[1], data[0].masks[2]
    assert abs(circle.sum() - np.pi * 81) < 8 and abs(ellipse.sum() - np.pi * 80) < 12
    assert np.ptp(np.nonzero(ellipse)[0]) > 30 > np.ptp(np.nonzero(ellipse)[1])


def test_via_with_many_attributes_asks(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    entries = via(region("cat", CAT, attribute="colour"), region("dog", DOG, attribute="age"))
    text(tmp_path / "via.json", entries)
    assert main(["data", "convert", "via", str(tmp_path / "via.json"), str(tmp_path / "out")]) == 2
    assert "regions have the attributes colour, age; rename the one that is the category 'class'" in capsys.readouterr().err
    for attributes in (e["region_attributes"] for v in entries.values() for e in v["regions"]):
        attributes["Class"] = "cat"
    text(tmp_path / "via.json", entries)
    assert converted(tmp_path, "via", tmp_path / "via.json").categories == ("cat",)


# --- YOLO


def line(k, points) -> str:
    return f"{k} " + " ".join(f"{v:.6f}" for v in (np.array(points) / [W, H]).ravel())


NAMES = {
    "data.yaml": [
        "train: ../train/images\nnc: 2\nnames: ['cat', \"dog\"]\n",
        "path: x\nnames:\n  0: cat\n  1: dog  # a dog\nother: 1\n",
        "names:\n- cat\n- dog\nnc: 2\n",
        "names: {0: cat, 1: dog}\n",
    ],
    "classes.txt": ["cat\ndog\n"],
}


@pytest.mark.parametrize("file, content", [(f, c) for f, cs in NAMES.items() for c in cs])
@pytest.mark.parametrize("layout", ["images/a.jpg labels/a.txt", "train/images/a.jpg train/labels/a.txt",
                                    "images/train/a.jpg labels/train/a.txt", "a.jpg a.txt"])  # fmt: skip
def test_yolo(tmp_path, file, content, layout):
    image, label = layout.split()
    picture(tmp_path / "set" / image)
    text(tmp_path / "set" / label, line(1, DOG) + "\n\n" + line(0, CAT) + "\n")
    text(tmp_path / "set" / file, content)
    data = converted(tmp_path, "yolo", tmp_path / "set")
    assert_cat_and_dog(data, slack=4)
    assert data.categories == ("cat", "dog")
    if file.endswith("yaml"):
        assert len(converted(tmp_path, "yolo", tmp_path / "set" / file, out="same.json")) == 1


def test_yolo_of_one_split_finds_its_names_above(tmp_path, capsys):
    for name in "ab":
        picture(tmp_path / f"set/train/images/{name}.jpg")
    text(tmp_path / "set/train/labels/a.txt", f"0 .5 .5 .2 .4\n{line(3, CAT)}\n")
    text(tmp_path / "set/data.yaml", "names: [cat, dog]\n")
    for source in ("set/train", "set/train/images"):
        data = converted(tmp_path, "yolo", tmp_path / source, out=f"{len(source)}.json")
        assert data.categories == ("cat", "dog", "class 3") and data[0].masked.tolist() == [False, True]
        np.testing.assert_allclose(data[0].boxes[0], [24, 12, 36, 28], atol=1e-3)
        assert len(data[1].labels) == 0 and "1 pictures without a label file, taken as empty" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["0 .1 .2 .3", "cat .1 .2 .3 .4", "0 .1 .2 .3 .4 .5 x", "-1 .1 .1 .1 .1"])
def test_a_yolo_line_that_is_none(tmp_path, wrong, capsys):
    picture(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", f"{line(0, CAT)}\n{wrong}\n")
    assert main(["data", "convert", "yolo", str(tmp_path), str(tmp_path / "o.json")]) == 2
    assert f"a.txt': line 2 is no 'class x y x y ...': {wrong!r}" in capsys.readouterr().err
    assert not (tmp_path / "o.json").exists()


# --- masks


def painted(cat: int, dog: int) -> np.ndarray:
    return np.where(mask_of(DOG), dog, np.where(mask_of(CAT), cat, 0)).astype(np.uint8)


def save(path, pixels, mode=None, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P")
        image.putpalette(palette)
    image.save(path)


def rgb_of(cat, dog) -> np.ndarray:
    return np.array([(0, 0, 0), cat, dog], np.uint8)[painted(1, 2)]


@pytest.mark.parametrize("form", ["palette", "colours", "CVAT", "labelme"])
def test_voc(tmp_path, form):
    root = tmp_path / "voc"
    picture(root / "JPEGImages/a.jpg")
    things, classes = painted(1, 2), painted(8, 12)
    things[38:] = classes[38:] = 255  # void
    if form == "labelme":
        text(root / "class_names.txt", "__ignore__\n_background_\ncat\ndog\n")
        classes = painted(1, 2)
        save(root / "SegmentationObjectPNG/a.png", things), save(root / "SegmentationClassPNG/a.png", classes)
    elif form == "palette":
        save(root / "SegmentationObject/a.png", things, palette=list(range(256)) * 3)
        save(root / "SegmentationClass/a.png", classes, palette=list(range(256)) * 3)
    else:
        colours = ((64, 0, 0), (64, 0, 128)) if form == "colours" else ((1, 2, 3), (4, 5, 6))
        save(root / "SegmentationObject/a.png", rgb_of((128, 0, 0), (0, 128, 0)))
        save(root / "SegmentationClass/a.png", rgb_of(*colours))
    if form == "CVAT":
        text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\ndog:4,5,6::\n")
    assert_cat_and_dog(converted(tmp_path, "voc", root))


def test_voc_without_objects_is_refused(tmp_path, capsys):
    save(tmp_path / "SegmentationClass/a.png", painted(8, 12))
    assert main(["data", "convert", "voc", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "SegmentationObject/ and SegmentationClass/: without the first no object has an end" in capsys.readouterr().err


@pytest.mark.parametrize(
    "form", ["values", "16 bits", "colours", "suffix", "a folder each", "a file each", "DSB", "categories"]
)  # fmt: skip
def test_folders_of_masks(tmp_path, form):
    root = tmp_path / "set"
    cat, dog = (mask_of(p).astype(np.uint8) * 255 for p in (CAT, DOG))
    for name in "ab":
        picture(root / (f"{name}/images/{name}.png" if form == "DSB" else f"images/{name}.jpg"))
    if form == "values":
        save(root / "masks/a.png", painted(1, 2))
    elif form == "16 bits":
        save(root / "masks/a.png", painted(1, 2).astype(np.uint16) * 300)
    elif form == "colours":
        save(root / "masks/a.png", rgb_of((9, 8, 7), (1, 2, 3)))
    elif form == "suffix":
        save(root / "masks/a_mask.png", painted(100, 200))
    elif form == "a folder each":
        save(root / "masks/a/0.png", cat), save(root / "masks/a/1.png", dog)
    elif form == "a file each":
        save(root / "masks/a_0.png", cat), save(root / "masks/a_1.png", dog)
    elif form == "DSB":
        save(root / "a/masks/x1.png", cat), save(root / "a/masks/x2.png", dog)
    else:
        save(root / "masks/cat/a.png", cat), save(root / "masks/dog/a.png", dog)
    data = converted(tmp_path, "masks", root)
    found = objects(data)
    if form == "categories":
        assert_cat_and_dog(data)
    else:
        assert list(found) == ["object"]
        assert {m.tobytes() for m in found["object"]} == {mask_of(CAT).tobytes(), mask_of(DOG).tobytes()}
    assert len(data) == 2 and len(data[1].labels) == 0


def test_a_mask_of_another_size_or_of_no_picture(tmp_path, capsys):
    picture(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/c.png", painted(1, 2))
    assert main(["data", "convert", "masks", str(tmp_path), str(tmp_path / "o.json")]) == 2
    assert "no object of format masks, but 1 pictures, 1 masks of no picture (first: c.png);" in capsys.readouterr().err
    save(tmp_path / "masks/a.png", painted(1, 2)[:-1])
    assert main(["data", "convert", "masks", str(tmp_path), str(tmp_path / "p.json")]) == 2
    assert "a.png' is of (39, 60) px, its picture of (40, 60) (height, width)" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["voc", "labelImg"])
def test_voc_boxes(tmp_path, where, capsys):
    pictures, files = (tmp_path / name if where == "voc" else tmp_path for name in ("JPEGImages", "Annotations"))
    picture(pictures / "a.jpg")
    picture(pictures / "b.png")
    thing = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    listed = {
        "a": ("a.jpg", thing.format("cat", 1, 1, 10, 20) + thing.format("dog", 31, 11, 60, 40)),
        "b": ("b.jpg", ""),
        "c": ("", ""),
    }
    for name, (file, objects_) in listed.items():
        text(files / f"{name}.xml", f"<annotation><filename>{file}</filename>{objects_}</annotation>")
    data = converted(tmp_path, "voc", tmp_path, out="out.json")
    assert "1 pictures that are not there (first: c.jpg)" in capsys.readouterr().out
    assert [p.path.name for p in data.pictures] == ["a.jpg", "b.png"] and data.categories == ("cat", "dog")
    assert data[0].boxes.tolist() == [[0, 0, 10, 20], [30, 10, 60, 40]] and not data[0].masked.any() and not len(data[1].labels)
    text(files / "d.xml", "<annotation>")
    assert main(["data", "convert", "voc", str(tmp_path), str(tmp_path / "other")]) == 2
    assert "d.xml' is no XML file of boxes" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["yolo", "masks"])
def test_pictures_without_an_object_are_no_data_set(tmp_path, kind, capsys):
    picture(tmp_path / "set/a.jpg")
    assert main(["data", "convert", kind, str(tmp_path / "set"), str(tmp_path / "o.json")]) == 2
    assert f"holds no object of format {kind}, but 1 pictures" in capsys.readouterr().err
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize("kind", ["labelme", "via", "yolo", "voc", "masks"])
def test_nothing_of_that_kind(tmp_path, kind, capsys):
    (tmp_path / "empty").mkdir()
    for source in ("empty", "nowhere"):
        assert main(["data", "convert", kind, str(tmp_path / source), str(tmp_path / "out")]) == 2
        assert "fairseg-lite: " in capsys.readouterr().err
    (tmp_path / "o.json").write_text("1", "utf-8")
    assert main(["data", "convert", kind, str(tmp_path / "empty"), str(tmp_path / "o.json")]) == 2
    assert "is there already and is not written over" in capsys.readouterr().err
