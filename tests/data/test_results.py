"""Proposals in files: what is read, what is written, what is refused."""

import json

import numpy as np
import pytest
import torch

from fairseg_lite.data.results import Boxes, load_boxes, save_boxes
from fairseg_lite.geometry.masks import rle_encode


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "p.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
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
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write .*file/p.json"):
        save_boxes(tmp_path / "file/p.json", found)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot be read as JSON"),
        ({"images": []}, "hold a dict; wanted a COCO result file"),
        ([], "hold no result"),
        ([row(), 5], "result 1 is a int"),
        ([row("a")], "result 0 has image_id 'a'"),
        ([row(True)], "has image_id True"),
        ([row(bbox=(1, 2, 3))], "result 0 has bbox"),
        ([row(bbox=(1, 2, "x", 3))], "has bbox 'x'"),
        ([row(score="high")], "has score 'high'"),
        ([{"image_id": 1, "score": 1}], "neither a bbox nor an RLE"),
        ([{"image_id": 1, "segmentation": [[1, 2, 3, 4, 5, 6]]}], "neither a bbox nor an RLE"),
        ([{"image_id": 1, "segmentation": {"size": [4, 4], "counts": "!!"}}], "result 0 RLE counts"),
        ('[{"image_id": 1, "bbox": [1, NaN, 3, 4], "score": 1}]', r"result 0 \(picture 1\) has a box or score that is not"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": NaN}]', "not finite"),
        ('[{"image_id": 1, "bbox": [1, 2, Infinity, 4], "score": 1}]', "has bbox inf"),
    ],
)
def test_what_is_refused(written, content, message):
    with pytest.raises(ValueError, match=message):
        load_boxes(written(content))


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="nothing.json' cannot be read as JSON: No such file"):
        load_boxes(tmp_path / "nothing.json")
