"""Proposals in files: what is read, what is written, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseg_lite.data.results import Boxes, load_boxes, read_results, save_boxes
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.precision import evaluate_detections
from fairseg_lite.geometry.masks import polygons_to_mask, rle_counts, rle_decode, rle_encode


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "p.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return write


def row(image=1, bbox=(1, 2, 3, 4), score=0.5, **more):
    return {"image_id": image, "bbox": list(bbox), "score": score, **more}


def test_boxes_by_picture_best_first(written):
    rows = [row(7, score=0.2), row(3), row(7, (0, 0, 5, 5), 0.9), row(7, (9, 9, 1, 1), 0.2), row(-2)]
    found = load_boxes(written(rows))
    assert sorted(found) == [-2, 3, 7]
    assert found[7].boxes.tolist() == [[0, 0, 5, 5], [1, 2, 4, 6], [9, 9, 10, 10]], "equal scores keep the file's order"
    assert found[7].scores.tolist() == pytest.approx([0.9, 0.2, 0.2])
    assert found[3].boxes.dtype == torch.float32


def test_masks_give_boxes_where_there_is_no_bbox(written):
    mask = np.zeros((9, 12), bool)
    mask[2:5, 3:11] = True
    packed, empty = rle_encode(mask), rle_encode(mask & False)
    runs = {"size": [9, 12], "counts": [29] + [3, 6] * 7 + [3, 13]}
    rows = [{"image_id": 1, "segmentation": s, "score": 0.5 - k / 10} for k, s in enumerate((packed, runs, empty))]
    rows.append(row(1, (1, 1, 2, 2), 0.1, segmentation=packed))
    assert load_boxes(written(rows))[1].boxes.tolist() == [[3, 2, 11, 5], [3, 2, 11, 5], [0, 0, 0, 0], [1, 1, 3, 3]]


@pytest.mark.parametrize("name", ["a/x.png", "x.png", "x"])
def test_a_picture_may_be_named_in_short(written, name):
    images = [{"id": 7, "file_name": "a/x.png"}, {"id": 5, "file_name": "a/7.png"}, {"id": 6, "file_name": "b\\7.png"}]
    rows = read_results(written([row(name), row("5"), row("7"), row("a/7.png")]), images)
    assert [r["image_id"] for r in rows] == [7, 5, 7, 5], "what is an id of the data is that"
    with pytest.raises(InputError, match="result 0 has image_id '7.png'; wanted a whole number, or a file name of the data"):
        read_results(written([row("7.png")]), images)
    for odd in (["x"], {}, "y"):
        with pytest.raises(InputError, match="result 0 has image_id .*; wanted a whole number"):
            read_results(written([row(odd)]), images)
    with pytest.raises(InputError, match="result 0 has category_id 'x'; wanted a whole number$"):
        read_results(written([row(7, category_id="x")]), images)


def test_without_scores_the_order_stays(written):
    rows = [{"image_id": 4, "bbox": [k, 0, 1, 1]} for k in (5, 3, 8)]
    assert load_boxes(written(rows))[4].boxes[:, 0].tolist() == [5, 3, 8]


def test_what_is_saved_is_read_again(tmp_path):
    g = torch.Generator().manual_seed(0)
    corner = torch.rand(6, 2, generator=g) * 50
    boxes = torch.cat([corner, corner + 5], 1)
    save_boxes(tmp_path / "new/p.json", {9: Boxes(boxes, torch.arange(6.0).flip(0)), 4: Boxes(boxes[:1], torch.ones(1))})
    found = load_boxes(tmp_path / "new/p.json")
    assert sorted(found) == [4, 9]
    torch.testing.assert_close(found[9].boxes, boxes, atol=0.11, rtol=0)
    assert found[9].scores.tolist() == [5, 4, 3, 2, 1, 0]
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ValueError, match="cannot write .*file/p.json"):
        save_boxes(tmp_path / "file/p.json", found)


PICTURES = [{"id": 7, "file_name": "a/cat.png", "height": 9, "width": 12}]
SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]


def test_what_other_programs_write_is_read_and_told(written, capsys):
    mask = polygons_to_mask(SQUARE, 9, 12)
    rows = [
        {"image_id": "a/cat.png", "category_id": "3", "score": "0.5", "segmentation": SQUARE},
        {"image_id": 7.0, "category_id": 3, "score": 0.25, "segmentation": SQUARE[0], "bbox": None},
        {"image_id": "7", "score": 1, "segmentation": {"counts": rle_encode(mask)["counts"]}, "scale": "large"},
        {"image_id": 7, "score": 1, "segmentation": {"size": [9, 12], "counts": rle_counts(rle_encode(mask)).tolist()}},
    ]
    found = read_results(written({"images": [], "annotations": rows}), PICTURES)
    assert [(r["image_id"], r["score"], r["bbox"]) for r in found] == [(7, s, [2, 1, 4, 4]) for s in (0.5, 0.25, 1, 1)]
    assert all((rle_decode(r["segmentation"]) == mask).all() for r in found)
    assert [r.get("category_id") for r in found] == [3, 3, None, None] and found[2]["scale"] == "large"
    told = capsys.readouterr().err
    assert "2 image_ids written as text" in told and "2 polygons" in told and "1 RLEs without a size" in told
    assert read_results(written(json.dumps(found)), PICTURES) == found and capsys.readouterr().err == "", "its own form"


@pytest.mark.parametrize(
    "name, outcome",
    [
        ("polygons", 1.0), ("textscore", 1.0), ("floatids", 1.0), ("names", 1.0), ("dict", 1.0), ("empty", 0.0),
        ("noscore", "result 0 .picture 1. has score None"), ("from0", "has category_id 0; the data set has 1 disc, 2 box"),
        ("more", "result 6 is of picture 99"), ("boxes-mixed", "result 0 .picture 1. has no 'segmentation'"),
    ],
)  # fmt: skip
def test_results_of_other_programs_are_judged_or_named(name, outcome):
    folder = Path(__file__).parent / "cases/foreign-results"
    truth = json.loads((folder / "instances.json").read_text("utf-8"))
    rows = read_results(folder / f"{name}.json", truth["images"])
    if isinstance(outcome, str):
        with pytest.raises(InputError, match=outcome):
            evaluate_detections(truth, rows)
    else:
        assert evaluate_detections(truth, rows).ap == pytest.approx(outcome)


def test_boxes_of_polygons_need_no_size(written):
    assert load_boxes(written([{"image_id": 1, "segmentation": SQUARE, "score": 1}]))[1].boxes.tolist() == [[2, 1, 6, 5]]


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "p.json").write_bytes(json.dumps([row()]).encode("utf-8-sig"))
    assert list(load_boxes(tmp_path / "p.json")) == [1]


@pytest.mark.parametrize("which", [(), PICTURES])
def test_polygons_of_an_unknown_picture(written, which):
    with pytest.raises(InputError, match="p.json': result 0 has polygons, which need the picture's size"):
        read_results(written([{"image_id": 8, "segmentation": SQUARE, "score": 1}]), which)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not JSON"),
        ({"images": []}, "hold a dict; wanted a COCO result file"),
        ([], "hold no proposal"),
        ([row(), 5], "result 1 is a int"),
        ([row("a")], "result 0 has image_id 'a'; wanted a whole number"),
        ([row(True)], "has image_id True"),
        ([row(bbox=(1, 2, 3))], "result 0 has bbox"),
        ([row(bbox=(1, 2, "x", 3))], "has bbox 'x'; wanted a finite number"),
        ([row(score="high")], "has score 'high'"),
        ([{"image_id": 1, "score": 1}], "neither a bbox nor a segmentation"),
        ([{"image_id": 1, "segmentation": [[1, 2, 3, 4]]}], "result 0 polygon has 4 coordinates"),
        ([{"image_id": 1, "segmentation": "here"}], "result 0 RLE size is None"),
        ([{"image_id": 1, "segmentation": {"size": [4, 4], "counts": "!!"}}], "result 0 RLE counts"),
        ('[{"image_id": 1, "bbox": [1, NaN, 3, 4], "score": 1}]', "result 0 has bbox nan; wanted a finite number"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": NaN}]', "has score nan"),
        ('[{"image_id": 1, "bbox": [1, 2, Infinity, 4], "score": 1}]', "has bbox inf"),
    ],
)
def test_what_is_refused(written, content, message):
    with pytest.raises(ValueError, match=message):
        load_boxes(written(content))


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="nothing.json' cannot be read: No such file"):
        load_boxes(tmp_path / "nothing.json")
