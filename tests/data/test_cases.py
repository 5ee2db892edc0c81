"""Data sets as annotation tools export them: each kind of trouble that people met gives what is right, or a sentence."""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, check
from fairseg_lite.data.layouts import locate
from fairseg_lite.data.photos import listed_pictures
from fairseg_lite.data.pictures import load_image
from fairseg_lite.data.results import read_results
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import polygons_to_mask

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize(
    "case, pictures, instances, told",
    [
        ("roboflow", 3, 6, "1 categories that are mere groups of others, left out (first: things)"),
        ("coco-layout", 3, 6, None),
        ("backslash", 3, 6, "3 names of pictures that stand for another path"),
        ("subfolders", 4, 8, None),
        ("same-name-twice", 2, 4, None),
        ("bom", 3, 6, None),
        ("one-picture-more", 3, 6, None),
        ("one-bad-part", 3, 6, "6 bad parts of masks, left out (first: annotation 1 of p0.png)"),
        ("float-ids", 3, 6, "24 numbers written as text or fractions"),
        ("annotation-ids-repeat", 3, 6, "4 annotation ids that repeat, made anew (first: annotation 1 of p1.png)"),
        ("same-category-often", 3, 6, "5 ids of categories whose name has one already, taken as that (first: grape: 2 as 1)"),
        ("12-bit-in-16", 2, 4, None),
        ("exif", 3, 6, "3 pictures carry an EXIF rotation: 2 are annotated as stored, 1 upright"),
    ],
)
def test_what_check_finds(case, pictures, instances, told):
    report = check(CASES / case, progress=False)
    assert (report.images, report.instances, report.faults) == (pictures, instances, [])
    assert told in " ".join(report.mended) if told else not report.mended
    data = CocoDataset(CASES / case)
    assert all(data[i].masks.any((1, 2)).all() for i in range(len(data)))
    ids = np.concatenate([data[i].annotation_ids for i in range(len(data))])
    assert len(set(ids.tolist())) == instances


def test_crowds_alone_are_told_and_may_be_taken_as_objects(capsys):
    report = check(CASES / "all-crowd", progress=False)
    assert (report.instances, report.crowds) == (0, 6) and "--crowds-are-objects" in report.mended[0] and "all 6" in str(report)
    assert CocoDataset(CASES / "all-crowd").instances.crowd.all() and "--crowds-are-objects" in capsys.readouterr().err
    assert not CocoDataset(CASES / "all-crowd", crowds_are_objects=True).instances.crowd.any()


def test_a_good_part_of_a_mask_is_kept_as_it_is():
    first = json.loads((CASES / "one-bad-part/instances.json").read_text("utf-8"))["annotations"][0]
    mask = CocoDataset(CASES / "one-bad-part")[0].masks[0]
    np.testing.assert_array_equal(mask, polygons_to_mask(first["segmentation"][:1], *mask.shape))


def test_a_category_of_six_ids_is_one():
    data = CocoDataset(CASES / "same-category-often")
    assert (data.categories, data.category_ids) == (("grape",), (1,)) and not data.instances.label.any()
    rows = read_results(CASES / "same-category-often/perfect.json", same=data.same_category)
    assert {r["category_id"] for r in rows} == {1}


@pytest.mark.parametrize(
    "source, ids",
    [
        ("subfolders", {"job1/frame_0.png": 1, "job1/frame_1.png": 2, "job2/frame_0.png": 3, "job2/frame_1.png": 4}),
        ("same-name-twice", {"frame.png": 11, "old/frame.png": 22}),
        ("bom", {"p0.png": 301, "p1.png": 302, "p2.png": 303}),
        ("bom/images", {"p0.png": 301, "p1.png": 302, "p2.png": 303}),
        ("bom/images/p1.png", {"p1.png": 302}),
        ("bom/instances.json", {"p0.png": 301, "p1.png": 302, "p2.png": 303}),
        ("one-picture-more", {"extra.png": 4, "p0.png": 3, "p1.png": 1, "p2.png": 2}),
        ("coco-layout", {"p0.jpg": 1, "p1.jpg": 2, "p2.jpg": 3}),
        ("coco-layout/val2017", {"p0.jpg": 1, "p1.jpg": 2, "p2.jpg": 3}),
        ("backslash", {"p0.png": 1, "p1.png": 2, "p2.png": 3}),
    ],
)
def test_pictures_get_the_ids_of_their_annotations(source, ids, monkeypatch):
    pictures, told = listed_pictures(CASES / source)
    assert {p.name: p.id for p in pictures} == ids
    assert [p.name for p in pictures if p.new] == (["extra.png"] if source == "one-picture-more" else [])
    assert ("1 of 4 pictures is not in" in told and "extra.png" in told) if "more" in source else not told
    assert all(p.entry()["height"] and p.entry()["file_name"] == p.name for p in pictures)


def test_pictures_without_annotations_are_numbered():
    pictures, told = listed_pictures(CASES / "endings")
    assert [(p.id, p.path.suffix) for p in pictures] == list(enumerate([".avif", ".jfif", ".mpo", ".jpg", ".jp2", ".jpe"], 1))
    assert not told and not any(p.new for p in pictures)


def test_what_was_drawn_before_is_no_picture(tmp_path):
    shutil.copytree(CASES / "bom/images", tmp_path / "p")
    shutil.copytree(CASES / "bom/images", tmp_path / "p/out")
    assert len(listed_pictures(tmp_path / "p")[0]) == 6
    assert len(listed_pictures(tmp_path / "p", besides=tmp_path / "p/out")[0]) == 3


def test_a_picture_of_another_size_is_named(tmp_path):
    shutil.copytree(CASES / "bom", tmp_path / "d")
    Image.new("RGB", (60, 40)).save(tmp_path / "d/images/p1.png")
    faults = {p.name: p.fault for p in listed_pictures(tmp_path / "d")[0]}
    assert "is 60 x 40 px where the annotations say 128 x 96" in faults["p1.png"] and faults["p0.png"] is None


def test_every_command_looks_at_a_turned_picture_as_it_is_annotated():
    data = CocoDataset(CASES / "exif")
    for picture, scene in zip(listed_pictures(CASES / "exif")[0], (data[i] for i in range(3)), strict=True):
        np.testing.assert_array_equal(load_image(picture.path, picture.size), scene.image)
        for mask in scene.masks:  # objects are plain, and the ground is another colour
            inside, outside = scene.image[mask].astype(float), scene.image[~scene.masks.any(0)].astype(float)
            assert np.abs(np.median(inside, 0) - np.median(outside, 0)).max() > 20


def test_twelve_bits_are_not_black():
    image = CocoDataset(CASES / "12-bit-in-16")[0].image
    assert image.max() >= 128


# --- layouts


@pytest.mark.parametrize(
    "json_at, images_at",
    [
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_default.json", "images/default"),
        ("annotations/instances_train.json", "train"),
        ("result.json", "images"),
        ("_annotations.coco.json", "."),
        ("valid/_annotations.coco.json", "valid"),
        ("instances.json", "."),
        ("../data.json", "."),
    ],
)
def test_layouts_are_found(tmp_path, json_at, images_at):
    root = tmp_path / "data"
    shutil.copytree(CASES / "bom/images", root / images_at)
    (root / json_at).parent.mkdir(exist_ok=True)
    shutil.copy(CASES / "bom/instances.json", root / json_at)
    for source in {root, root / images_at, root / json_at}:
        assert CocoDataset(source).image_ids == [301, 302, 303], source
    assert CocoDataset(f"{root / json_at}:{root / images_at}").image_ids == [301, 302, 303]


def test_a_layout_that_is_not_understood(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "dataset.yaml").write_text("", "utf-8")
    with pytest.raises(InputError, match="understood are instances.json.*; there is dataset.yaml, labels/"):
        locate(tmp_path)
    for split in ("train", "valid"):
        shutil.copytree(CASES / "roboflow/train", tmp_path / split)
    with pytest.raises(InputError, match="several annotation files, '.*train/_anno.*' and '.*valid/_anno.*'; give one"):
        locate(tmp_path)
    with pytest.raises(InputError, match="nothing': no such folder"):
        locate(f"{CASES / 'bom/instances.json'}:{tmp_path / 'nothing'}")


def rewritten(tmp_path, change):
    shutil.copytree(CASES / "bom", tmp_path / "d")
    path = tmp_path / "d/instances.json"
    content = json.loads(path.read_text("utf-8-sig"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    return tmp_path / "d"


@pytest.mark.parametrize("name", ["data/upload/p0.png", "P0.PNG", "p%30.png", "C:\\jobs\\p0.png", "/p0.png", "./p0.png"])
def test_a_name_that_one_file_fits(tmp_path, name):
    data = CocoDataset(rewritten(tmp_path, lambda c: c["images"][0].update(file_name=name)))
    assert data.pictures[0].path.name == "p0.png" and len(data) == 3


@pytest.mark.parametrize("listed, there", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_in_two_ways(tmp_path, listed, there):
    name, file = (unicodedata.normalize(form, "über é.png") for form in (listed, there))
    root = rewritten(tmp_path, lambda c: c["images"][0].update(file_name=name))
    (root / "images/p0.png").rename(root / "images" / file)
    assert CocoDataset(root).pictures[0].path.name == file and listed_pictures(root)[0][-1].id == 301


def test_width_and_height_exchanged_are_said_to_be(tmp_path):
    fault = check(rewritten(tmp_path, lambda c: c["images"][0].update(width=96, height=128)), progress=False).faults[0]
    assert "annotations say 96 x 128; are these height and width, or was it turned after it was annotated?" in str(fault)


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "export.ZIP").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match="export.ZIP' is an archive; unpack it and give the folder"):
        locate(tmp_path / "export.ZIP")


@pytest.mark.parametrize("name", ["p0.png", "data.yaml", "annotations.xml", "via.csv"])
def test_another_file_than_json_is_said_to_be_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"names: [a]")
    with pytest.raises(InputError, match=f"{name}' is no JSON file; understood are instances.json.*data convert`"):
        locate(tmp_path / name)


@pytest.mark.parametrize("form", ["shares", "corners"])
def test_boxes_in_other_numbers_are_told(tmp_path, form):
    def change(content):
        for a in content["annotations"]:
            x, y, w, h = a["bbox"]
            a.update(segmentation=[], bbox=[x / 128, y / 96, w / 128, h / 96] if form == "shares" else [x, y, x + w, y + h])

    report = check(rewritten(tmp_path, change), progress=False)
    if form == "shares":
        assert [f.kind for f in report.faults] == ["empty box"] * 6
        assert "lies between 0 and 1: multiply it by the picture's size" in str(report.faults[0])
    else:
        assert "as x1, y1, x2, y2 they would fit, but COCO's are x, y, width, height" in report.mended[0]


def test_a_name_that_two_files_fit_is_a_fault(tmp_path):
    root = rewritten(tmp_path, lambda c: c["images"][0].update(file_name="old/p0.png"))
    for where in ("a", "b"):
        shutil.copytree(root / "images", root / "more" / where)
    shutil.move(root / "images", root / "more/c")
    shutil.move(root / "more", root / "images")
    report = check(root, progress=False)
    assert [f.kind for f in report.faults] == ["picture missing"] * 3 and "so does another" in str(report.faults[0])


def test_two_names_for_one_file_are_a_fault_and_two_ids_are_one_picture(tmp_path):
    def two(content):
        content["images"][0]["file_name"], content["images"][1]["file_name"] = "a/p0.png", "b/p0.png"
        content["images"].append({**content["images"][2], "id": 999})
        content["annotations"].append({**content["annotations"][-1], "id": 77, "image_id": 999})

    report = check(root := rewritten(tmp_path, two), progress=False)
    assert [f.kind for f in report.faults] == ["picture missing"] * 2 and "so does another name" in report.faults[0].text
    assert "pictures listed under two ids, taken as one (first: p2.png under 303 and 999)" in report.mended[0]
    data = CocoDataset(root, on_fault="collect")
    assert data.image_ids == [303] and len(data.instances) == 3


def test_texts_as_ids_get_numbers_that_no_other_has(tmp_path):
    def text(content):
        for i in content["images"]:
            i["id"] = {301: "301", 302: "left", 303: 303}[i["id"]]
        for a in content["annotations"]:
            a["image_id"] = {301: "301", 302: "left", 303: "303"}[a["image_id"]]
            a["id"], a["category_id"] = str(a["id"]), str(a["category_id"])

    data = CocoDataset(rewritten(tmp_path, text))
    assert data.image_ids == [301, 304, 303] and len(data.instances) == 6
    assert data.instances.label.tolist() == [0, 1] * 3


def test_an_annotation_that_stands_twice_is_one(tmp_path):
    data = CocoDataset(rewritten(tmp_path, lambda c: c["annotations"].append(dict(c["annotations"][0]))))
    assert len(data.instances) == 6 and "1 annotations that are listed twice" in data.mended[0]
