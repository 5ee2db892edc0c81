"""COCO-format folders with something wrong: every fault is named by file and annotation id, or skipped and counted."""

import json

import pytest
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, check, summary
from fairseg_lite.data.patches import PatchSampler, PatchSpec
from fairseg_lite.geometry.masks import rle_encode
from tests.data.test_coco import MASK, H, W, annotation, folder

# --- faults of one annotation


BAD_ANNOTATIONS = {
    "no mask and no box": [
        {"segmentation": no, "bbox": bad}
        for no in (..., [], None, {}, [[]])
        for bad in (..., [], [1, 2, 3], [1, 2, "a", 4], "1 2")
    ],
    "empty box": [{"segmentation": ..., "bbox": b} for b in ([4, 5, 0, 9], [4, 5, -3, 9], [40, 5, 9, 9])],
    "bad segmentation": [{"segmentation": "11 22"}, {"segmentation": 3}],
    "bad polygon": [
        {"segmentation": [[1, 1, 5, 5]]},
        {"segmentation": [[1, 1, 5, 5, 9]]},
        {"segmentation": [[1, 1, 5, 5], [1, 1, 5, 5, float("nan"), 9]]},
        {"segmentation": [[1, 1, 5, 5, 10**400, 9]]},
        {"segmentation": [[1, 1, 5, 5, "x", 9]]},
    ],
    "bad RLE": [
        {"segmentation": {"size": [H, W], "counts": [3, 4]}},
        {"segmentation": {"size": [H, W], "counts": rle_encode(MASK)["counts"][:-1]}},
        {"segmentation": {"counts": [H * W - 1]}},
        {"segmentation": {"size": [H, W], "counts": None}},
        {"segmentation": rle_encode(MASK[:, :-1])},
        {"segmentation": {"size": [2**40, 2**40], "counts": [2**80]}},
    ],
    "empty mask": [
        {"segmentation": rle_encode(MASK & False)},
        {"segmentation": [[100, 100, 120, 100, 120, 120]]},
        {"segmentation": [[3, 3, 3, 3, 3, 3]]},
    ],
    "unknown category": [{"category_id": 19}, {"category_id": "cow"}, {"category_id": [18]}],
    "bad annotation entry": [{"iscrowd": 2}, {"iscrowd": "no"}],
}
WHERE = "1.png: annotation 7: "


@pytest.mark.parametrize("kind, change", [(k, c) for k, cs in BAD_ANNOTATIONS.items() for c in cs])
def test_a_faulty_annotation_is_named_or_skipped(tmp_path, capsys, kind, change):
    root = folder(tmp_path, annotation(**change), annotation(id=8))
    with pytest.raises(ValueError, match=f"^{WHERE}.*\n`fairseg-lite data check` lists every fault"):
        CocoDataset(root)
    data = CocoDataset(root, on_fault="skip")
    assert data[0].annotation_ids.tolist() == [8]
    assert f"skipped 1 of '{kind}' (first: {WHERE}" in capsys.readouterr().err
    assert [(f.kind, f.file, f.annotation) for f in check(root, progress=False).faults] == [(kind, "1.png", 7)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "kind, entry, message",
    [
        ("unknown picture", annotation(image_id=5), "instances.json: annotation 7: its picture 5 is not in 'images'"),
        ("unknown picture", annotation(image_id=...), "annotation 7: its picture None"),
        ("unknown picture", annotation(image_id=[1]), "annotation 7: its picture \\[1\\]"),
        ("unknown picture", [1, 2], "instances.json: annotation number 1: its picture None"),
    ],
)
def test_an_annotation_that_cannot_be_placed(tmp_path, kind, entry, message):
    root = folder(tmp_path, annotation(id=8), entry)
    with pytest.raises(ValueError, match=message):
        CocoDataset(root)
    data = CocoDataset(root, on_fault="collect")
    assert [f.kind for f in data.faults] == [kind]
    assert len(data.instances) == 1


def test_all_faults_are_counted(tmp_path, capsys):
    bad = [annotation(id=i, segmentation=..., bbox=...) for i in range(5)] + [annotation(id=9, category_id=1)]
    root = folder(tmp_path, *bad, annotation(id=10))
    with pytest.raises(ValueError, match="annotation 0: it has no segmentation, and 'bbox' is None.* \\(5 more faults\\)"):
        CocoDataset(root)
    data = CocoDataset(root, on_fault="skip")
    assert summary(data.faults)[0].startswith("5 of 'no mask and no box' (first: 1.png: annotation 0: ")
    assert len(capsys.readouterr().err.splitlines()) == 2


# --- faults of a picture


def spoil(root, how):
    path = root / "images/1.png"
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "resized":
        Image.new("RGB", (W + 1, H)).save(path)
    else:
        path.write_bytes({"empty": b"", "text": b"not found", "cut": whole[: len(whole) // 2]}[how])


@pytest.mark.parametrize(
    "how, kind, message",
    [
        ("missing", "picture missing", "1.png: there is no file '.*1.png'"),
        ("empty", "picture damaged", "1.png: picture '.*1.png' cannot be decoded"),
        ("text", "picture damaged", "1.png: picture '.*1.png' cannot be decoded"),
        ("cut", "picture damaged", "1.png: picture '.*1.png' cannot be decoded"),
        ("resized", "picture of another size", "1.png: picture '.*1.png' is 31 x 20 px where the .* say 30 x 20"),
    ],
)
def test_a_faulty_picture_is_named_or_skipped(tmp_path, how, kind, message):
    images = [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in (1, 2)]
    root = folder(tmp_path, annotation(), annotation(id=8, image_id=2), images=images)
    spoil(root, how)
    with pytest.raises(ValueError, match=message):
        CocoDataset(root)
    data = CocoDataset(root, on_fault="skip")
    assert [p.file_name for p in data.pictures] == ["2.png"]
    assert data.instances.image.tolist() == [0]
    assert [f.kind for f in data.faults] == [kind]  # once, however many annotations the picture has


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"file_name": "2.png"}, "2.png: picture number 1 needs a whole number 'id' and a text 'file_name'"),
        ({"id": 2}, "instances.json: picture number 1 needs"),
        ({"id": 2.5, "file_name": "2.png"}, "picture number 1 needs"),
        ("2.png", "instances.json: picture number 1 needs"),
        ({"id": 1, "file_name": "2.png"}, "2.png: picture id 1 is given twice"),
        ({"id": 2, "file_name": "2.png", "height": 0, "width": 4}, "height 0 and width 4 are not whole numbers"),
        ({"id": 2, "file_name": "2.png", "height": 20}, "height 20 and width None"),
        ({"id": 2, "file_name": ""}, "there is no file"),
    ],
)
def test_a_faulty_picture_entry(tmp_path, entry, message):
    root = folder(tmp_path, annotation())
    (root / "images/2.png").write_bytes((root / "images/1.png").read_bytes())
    content = json.loads((root / "instances.json").read_text("utf-8"))
    content["images"].append(entry)
    (root / "instances.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=message):
        CocoDataset(root)
    assert len(CocoDataset(root, on_fault="collect")) == 1


def broken_in_the_middle(root):
    """A picture whose head and tail are whole."""
    path = root / "images/1.png"
    whole = bytearray(path.read_bytes())
    at = whole.index(b"IDAT") + 4
    whole[at : at + 40] = bytes(40)
    path.write_bytes(bytes(whole))


def test_damage_that_only_decoding_shows(tmp_path, capsys):
    root = folder(tmp_path, annotation())
    broken_in_the_middle(root)
    with pytest.raises(ValueError, match="1.png: picture '.*1.png' cannot be decoded"):
        CocoDataset(root)[0]
    data = CocoDataset(root, on_fault="skip")
    for _ in range(2):
        scene = data[0]
        assert (scene.image == 128).all()
        assert not scene.masks.any()
    assert capsys.readouterr().err.count("a grey picture without objects stands for 1.png") == 1
    report = check(root, progress=False)
    assert [f.kind for f in report.faults] == ["picture damaged"]
    assert capsys.readouterr().err == ""


# --- faults of the whole


def test_nothing_is_left(tmp_path):
    root = folder(tmp_path, annotation())
    spoil(root, "missing")
    with pytest.raises(ValueError, match="no picture is left, all 1 have a fault"):
        CocoDataset(root, on_fault="skip")
    assert len(CocoDataset(root, on_fault="collect")) == 0


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "instances.json' is not JSON"),
        ('{"images": [', "instances.json' is not JSON"),
        ("\xff\xfe", "instances.json' is not JSON"),
        ("[" * 100_000, "instances.json' is not JSON"),
        ("[]", "instances.json' has no list 'images'; is it a COCO 'instances' file?"),
        ('{"images": [1]}', "has no list 'annotations'"),
        ('{"images": {}, "annotations": [], "categories": []}', "has no list 'images'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no picture; a data set needs at least one"),
        ('{"images": [1], "annotations": [], "categories": [{"id": 1.5, "name": "dog"}]}', "category .* is not"),
        ('{"images": [1], "annotations": [], "categories": [{"id": null}]}', "category {'id': None} is not"),
        (
            '{"images": [1], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "category id 1 is given twice",
        ),
    ],
)
def test_a_faulty_file(tmp_path, text, message):
    (tmp_path / "instances.json").write_text(text, encoding="latin-1")
    for open_it in (CocoDataset, lambda root: CocoDataset(root, on_fault="skip"), check):
        with pytest.raises(ValueError, match=message):
            open_it(tmp_path)


def test_no_folder_no_file_no_such_option(tmp_path):
    with pytest.raises(ValueError, match="nowhere': no such file or folder; wanted a folder with annotations"):
        CocoDataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no annotations are found; understood are instances.json, .*; there is nothing"):
        CocoDataset(tmp_path)
    with pytest.raises(ValueError, match="a.json': no such file or folder"):
        CocoDataset(tmp_path / "a.json")
    with pytest.raises(ValueError, match="on_fault is 'ignore'; choose"):
        CocoDataset(folder(tmp_path, annotation()), on_fault="ignore")


def test_a_set_of_crowds_alone_cannot_be_learned(tmp_path):
    data = CocoDataset(folder(tmp_path, annotation(iscrowd=1), annotation(id=8, iscrowd=1, segmentation=rle_encode(MASK))))
    with pytest.raises(ValueError, match="no object to learn from: 2 instances in 1 pictures, 2 are crowds"):
        PatchSampler(data, PatchSpec(), positives=1, negatives=0)
