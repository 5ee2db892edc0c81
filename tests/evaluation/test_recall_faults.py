"""What average recall must refuse, and what it does without."""

import re

import numpy as np
import pytest

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.scenes import Subset
from fairseg_lite.evaluation.recall import average_recall
from fairseg_lite.geometry.masks import rle_encode
from tests.evaluation.by_hand import A, Scenes, result

GOOD = result(5, A, 0.5)
DAMAGED = {**GOOD["segmentation"], "counts": GOOD["segmentation"]["counts"][:-1]}


@pytest.mark.parametrize(
    "kind, change, says",
    [
        ("segm", {"image_id": 77}, "result 1 is of picture 77, which is not one of the 1 here"),
        ("segm", {"image_id": None}, "result 1 is of picture None"),
        ("segm", {"segmentation": None}, "result 1 (picture 5) has no 'segmentation'"),
        ("bbox", {"bbox": None}, "result 1 (picture 5) has no 'bbox'"),
        ("segm", {"score": float("nan")}, "score nan"),
        ("bbox", {"score": float("inf")}, "score inf"),
        ("segm", {"score": None}, "score None"),
        ("segm", {"score": "0.5"}, "score '0.5'"),
        ("segm", {"segmentation": rle_encode(A.T)}, "a mask of 60 x 40 px in a picture of 40 x 60"),
        ("segm", {"segmentation": DAMAGED}, "result 1 (picture 5): RLE counts"),
        ("segm", {"segmentation": {"counts": "1"}}, "RLE size is None"),
        ("bbox", {"bbox": [1, 2, 3]}, "bbox [1, 2, 3]"),
        ("bbox", {"bbox": [1, 2, -3, 4]}, "no size below 0"),
        ("bbox", {"bbox": [1, 2, float("nan"), 4]}, "bbox [1, 2, nan, 4]"),
    ],
)
def test_a_result_that_cannot_be_judged(kind, change, says):
    data = Scenes([A])
    assert average_recall(data, [GOOD, GOOD], iou_type=kind).ar[10] == 1.0
    with pytest.raises(ValueError, match=re.escape(says)):
        average_recall(data, [GOOD, {**GOOD, **change}], iou_type=kind)


def test_only_what_is_compared_is_asked_for():
    mask = {k: v for k, v in GOOD.items() if k != "bbox"}
    box = {k: v for k, v in GOOD.items() if k != "segmentation"}
    assert average_recall(Scenes([A]), [mask], iou_type="segm").ar[10] == 1.0
    assert average_recall(Scenes([A]), [box], iou_type="bbox").ar[10] == 1.0


@pytest.mark.parametrize(
    "data, says",
    [
        (Scenes(), "no object to find in 0 pictures"),
        (Scenes(np.zeros((0, 9, 9), bool)), "no object to find in 1 pictures with 0 annotations"),
        (Scenes([A], crowd={0: [0]}), "1 crowds"),
        (Scenes([A & False]), "the rest without a pixel"),
        (Subset(Scenes([A]), [0, 0]), "picture 5 is twice in the data set"),
        ({"images": []}, "no 'annotations'"),
        ({"images": [{"id": 3}], "annotations": []}, "picture 3 has no 'height'"),
    ],
)
def test_a_truth_without_meaning(data, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        average_recall(data, [])


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("image_id", 6, "annotation 0 is of picture 6"),
        ("segmentation", rle_encode(A.T), "annotation 0 has a mask of 60 x 40 px"),
        ("area", None, "annotation 0 has no 'area'; make the dict with to_coco"),
    ],
)
def test_a_damaged_annotation(key, value, says):
    truth = to_coco(Scenes([A]))
    assert average_recall(truth, [GOOD]).ar[10] == 1.0
    del truth["annotations"][0][key]
    truth["annotations"][0] |= {key: value} if value else {}
    with pytest.raises(ValueError, match=re.escape(says)):
        average_recall(truth, [GOOD])


def test_an_object_without_a_pixel_is_not_missed():
    report = average_recall(Scenes([A, A & False]), [GOOD])
    assert report.instances == 1 and report.ar[10] == 1.0


@pytest.mark.parametrize("limits", [(), (0,), (10, -1), (2.5,), ("10",), (True,)])
def test_limits_are_numbers_of_proposals(limits):
    with pytest.raises(ValueError, match="limits are"):
        average_recall(Scenes([A]), [], limits=limits)


def test_iou_type_is_one_of_two():
    with pytest.raises(ValueError, match="iou_type is 'mask'"):
        average_recall(Scenes([A]), [], iou_type="mask")
