"""COCO-format folders as people have them: what is accepted, written, counted. Faults: `test_coco_faults`."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, check, to_coco, write_coco_folder
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.data.windows import usable_rows
from fairseg_lite.geometry.masks import rle_encode

H, W = 20, 30
SQUARE = [[4, 5, 14, 5, 14, 15, 4, 15]]  # pixels 4..13 x 5..14
MASK = np.zeros((H, W), bool)
MASK[5:15, 4:14] = True


def annotation(**change) -> dict:
    base = {"id": 7, "image_id": 1, "category_id": 18, "iscrowd": 0, "bbox": [4, 5, 10, 10], "area": 100}
    entry = base | {"segmentation": SQUARE} | change
    return {k: v for k, v in entry.items() if v is not ...}


def folder(tmp_path, *annotations, images=None, categories=None, draw=True, **content):
    """A data set of picture 1.png (and whatever else is listed); returns its folder."""
    images = [{"id": 1, "file_name": "1.png", "height": H, "width": W}] if images is None else images
    categories = [{"id": 18, "name": "dog"}, {"id": 90, "name": "cat"}] if categories is None else categories
    (tmp_path / "images").mkdir(parents=True, exist_ok=True)
    for image in images if draw else []:
        pixels = np.random.default_rng(image["id"]).integers(0, 256, (H, W, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / image["file_name"])
    content = {"images": images, "annotations": list(annotations), "categories": categories} | content
    (tmp_path / "instances.json").write_text(json.dumps(content), "utf-8")
    return tmp_path


def listed(mask: np.ndarray) -> dict:
    """Uncompressed RLE, by counting."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


# --- what is accepted


@pytest.mark.parametrize("segmentation", [SQUARE, rle_encode(MASK), listed(MASK)], ids=["polygon", "RLE", "counts"])
def test_every_form_of_mask(tmp_path, segmentation):
    data = CocoDataset(folder(tmp_path, annotation(segmentation=segmentation), annotation(id=8, category_id=90)))
    scene = data[0]
    assert scene.image.shape == (H, W, 3)
    assert (scene.image_id, scene.file_name) == (1, "1.png")
    np.testing.assert_array_equal(scene.masks, [MASK, MASK])
    assert scene.annotation_ids.tolist() == [7, 8]
    assert (data.categories, data.category_ids, scene.labels.tolist()) == (("dog", "cat"), (18, 90), [0, 1])
    assert data.instances.box.tolist() == scene.boxes.tolist() == [[4, 5, 14, 15]] * 2
    assert data.instances.area.tolist() == [100, 100]
    assert not data.faults
    assert data.measured == 0


def test_polygons_of_several_parts_and_outside_the_picture(tmp_path):
    outside = [[-50, -50, 10, -50, 10, 10, -50, 10], [25, 15, 1000, 15, 1000, 900, 25, 900]]
    data = CocoDataset(folder(tmp_path, annotation(segmentation=outside, bbox=[-50, -50, 1050, 950], area=1e6)))
    expected = np.zeros((H, W), bool)
    expected[:10, :10] = expected[15:, 25:] = True
    np.testing.assert_array_equal(data[0].masks[0], expected)
    assert data.instances.box.tolist() == [[0, 0, W, H]]
    assert data.instances.area.tolist() == [expected.sum()]
    assert data.measured == 1


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": ..., "area": ...},
        {"bbox": [0, 0, 2, 2]},
        {"bbox": [4, 5, -10, 10]},
        {"bbox": "4 5 10 10"},
        {"bbox": [4, 5, 10, float("nan")]},
        {"bbox": [4, 5, 10, 10**400]},
        {"area": 9},
        {"area": None},
        {"area": float("nan")},
    ],
)
@pytest.mark.parametrize("segmentation", [SQUARE, rle_encode(MASK)], ids=["polygon", "RLE"])
def test_missing_or_wrong_boxes_and_areas_are_measured(tmp_path, change, segmentation):
    data = CocoDataset(folder(tmp_path, annotation(segmentation=segmentation, **change)))
    assert data.measured == 1
    assert data.instances.box.tolist() == [[4, 5, 14, 15]]
    assert data.instances.area.tolist() == [100]


def test_crowds_and_pictures_without_objects(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in (3, 1, 2)]
    data = CocoDataset(folder(tmp_path, annotation(iscrowd=1), annotation(id=8, image_id=2), images=images))
    assert [data[i].file_name for i in range(3)] == ["3.png", "1.png", "2.png"]
    assert data[0].masks.shape == (0, H, W)
    assert data[0].boxes.shape == (0, 4)
    assert data[1].crowd.tolist() == [True]
    table = data.instances
    assert (table.image.tolist(), table.instance.tolist(), table.crowd.tolist()) == ([1, 2], [0, 0], [True, False])
    assert table.image[usable_rows(data)].tolist() == [2]


def test_sizes_need_not_be_written(tmp_path):
    data = CocoDataset(folder(tmp_path, annotation(), images=[{"id": 1, "file_name": "1.png"}]))
    np.testing.assert_array_equal(data[0].masks[0], MASK)


def test_unused_and_missing_categories(tmp_path):
    assert CocoDataset(folder(tmp_path, categories=[])).categories == ()
    data = CocoDataset(folder(tmp_path, annotation(), categories=[]))
    assert (data.categories, data.category_ids) == (("18",), (18,)) and "their ids taken as names (first: 18)" in data.mended[0]


@pytest.mark.parametrize("where", ["images", "flat", "beside", "elsewhere"])
def test_where_files_may_lie(tmp_path, where):
    root = folder(tmp_path / "d", annotation())
    if where != "images":
        for path in (root / "images").iterdir():
            path.rename(root / path.name)
        (root / "images").rmdir()
    target = {"beside": tmp_path / "d.json", "elsewhere": tmp_path / "other.json"}.get(where, root / "instances.json")
    (root / "instances.json").rename(target)
    data = CocoDataset(f"{target}:{root}") if where == "elsewhere" else CocoDataset(root)
    np.testing.assert_array_equal(data[0].masks[0], MASK)


def test_a_picture_of_twenty_megapixels(tmp_path):
    h, w = 4000, 5000
    images = [{"id": 1, "file_name": "big.png", "height": h, "width": w}]
    root = folder(tmp_path, annotation(segmentation=[[0, 0, w, 0, w, h]]), images=images, draw=False)
    Image.new("L", (w, h), 90).save(root / "images/big.png")
    scene = CocoDataset(root)[0]
    assert scene.image.shape == (h, w, 3)
    assert scene.areas.item() == pytest.approx(h * w / 2, rel=1e-3)


def test_a_picture_of_one_pixel(tmp_path):
    images = [{"id": 1, "file_name": "dot.png", "height": 1, "width": 1}]
    root = folder(tmp_path, annotation(segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]]), images=images, draw=False)
    Image.new("RGB", (1, 1)).save(root / "images/dot.png")
    assert CocoDataset(root)[0].masks.tolist() == [[[True]]]


# --- writing


def assert_same(a, b):
    assert (a.categories, a.category_ids, len(a)) == (b.categories, b.category_ids, len(b))
    for i in range(len(a)):
        for field in ("image", "masks", "labels", "crowd", "annotation_ids"):
            np.testing.assert_array_equal(getattr(a[i], field), getattr(b[i], field))
        assert a[i].image_id == b[i].image_id
    for field in ("image", "instance", "box", "area", "label", "crowd"):
        np.testing.assert_array_equal(getattr(a.instances, field), getattr(b.instances, field))


def test_written_and_read_again(tmp_path):
    shapes = ShapesDataset(4, seed=3, size=(80, 96))
    write_coco_folder(shapes, tmp_path / "a/b", progress=False)
    data = CocoDataset(tmp_path / "a/b")
    assert_same(shapes, data)
    assert data.measured == 0
    write_coco_folder(ShapesDataset(2, seed=4), tmp_path / "a/b", progress=False)  # another one in its place
    assert_same(ShapesDataset(2, seed=4), CocoDataset(tmp_path / "a/b"))
    assert sorted(p.name for p in (tmp_path / "a/b").iterdir()) == ["images", "instances.json"]


def test_crowds_and_category_ids_survive(tmp_path):
    first = CocoDataset(folder(tmp_path, annotation(iscrowd=1), annotation(id=8, category_id=90)))
    write_coco_folder(first, tmp_path / "again", progress=False)
    assert_same(first, CocoDataset(tmp_path / "again"))
    written = to_coco(first)
    assert [a["category_id"] for a in written["annotations"]] == [18, 90]
    assert written["images"] == [{"id": 1, "file_name": "1.png", "height": H, "width": W}]


@pytest.mark.parametrize("call", [1, 3])  # at the first picture, at the JSON
def test_a_full_disk_leaves_no_half_data_set(tmp_path, monkeypatch, call):
    calls, replace = [], os.replace

    def full(source, target):
        calls.append(target)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    write_coco_folder(ShapesDataset(1), tmp_path, progress=False)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ValueError, match=f"cannot write '{tmp_path}/.*': No space left on device"):
        write_coco_folder(ShapesDataset(2), tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ValueError, match="cannot write '.*file/set/instances.json'"):
        write_coco_folder(ShapesDataset(1), tmp_path / "file/set", progress=False)


# --- the report


def test_the_report_counts_everything(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in (1, 2)]
    bad = annotation(id=9, segmentation=..., bbox=...)
    crowd = annotation(id=10, iscrowd=1, category_id=90)
    report = check(folder(tmp_path, annotation(area=1), bad, crowd, images=images), progress=False)
    assert (report.images, report.empty_images, report.instances, report.crowds, report.measured) == (2, 1, 1, 1, 1)
    assert report.per_category == {"dog": 1}
    assert report.sizes == {"small": 1, "medium": 0, "large": 0}
    text = str(report)
    for part in (
        "1 without an annotation",
        "and 1 crowds",
        "dog 1",
        "1 faults",
        "no mask and no box: 1.png: annotation 9",
    ):
        assert part in text


def test_the_report_of_shapes_agrees_with_its_scenes(tmp_path):
    shapes = ShapesDataset(5, seed=1)
    write_coco_folder(shapes, tmp_path, progress=False)
    report = check(tmp_path, progress=False)
    areas = np.concatenate([shapes[i].areas for i in range(5)])
    sizes = [(areas < 32**2).sum(), ((areas >= 32**2) & (areas < 96**2)).sum(), (areas >= 96**2).sum()]
    assert list(report.sizes.values()) == sizes
    assert sum(report.per_category.values()) == report.instances == len(areas)
    assert not report.faults


# --- photographs that developers have


@pytest.mark.parametrize("name, pictures, rows, categories", [("animals/valid", 210, 298, 7), ("coco228", 228, 1791, 80)])
def test_photographs(shared, name, pictures, rows, categories):
    data = CocoDataset(shared / "data" / name)
    table = data.instances
    assert (len(data), len(table), len(data.categories)) == (pictures, rows, categories)
    assert not data.faults
    assert table.crowd.any() == (name == "coco228")
    boxes, areas = [], []
    for i in range(0, len(data), 5):
        scene = data[i]
        assert scene.masks.shape[1:] == scene.image.shape[:2]
        assert table.crowd[table.image == i].tolist() == scene.crowd.tolist()
        boxes.append(np.abs(table.box[table.image == i] - scene.boxes).max(1))
        areas.append(table.area[table.image == i] / scene.areas)
    boxes, areas = np.concatenate(boxes), np.concatenate(areas)
    assert np.quantile(boxes, 0.95) < 2  # an outline may have a spike thinner than a pixel
    assert boxes.max() < 10
    # what `coco_json` takes as written is within a factor of 2 of the outline (animals: the areas are their boxes')
    assert areas.max() < 2.5
    assert areas.min() > 0.5
