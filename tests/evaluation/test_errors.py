"""The kinds of mistakes, one by one; the average precision beneath them is pycocotools'."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.errors import KINDS, analyse_errors, confusion_matrix
from fairseg_lite.evaluation.precision import average_precision, evaluate_detections
from tests.evaluation.by_hand import A, B, Scenes, rectangle
from tests.evaluation.test_precision import found, noisy

NOTHING = rectangle(0, 30, 9, 9)
NEAR_A = rectangle(2, 2, 20, 25)  # IoU .4 with A
WORSE_A = rectangle(2, 2, 16, 10)  # IoU .8
THING, OTHER = 90, 7  # A is a thing, B another


def counted(*rows, data=None):
    return {k: n for k, n in analyse_errors(data or Scenes([A, B]), rows).counts.items() if n}


def test_each_kind_by_itself():
    b = found(5, B, 0.1, OTHER)
    assert counted(found(5, A, 0.9), b) == {}
    assert counted(found(5, NEAR_A, 0.9), b) == {"localisation": 1}
    assert counted(found(5, B, 0.9, THING), b) == {"confusion": 1, "missed": 1}, "B is found besides, nothing was near A"
    assert counted(found(5, NOTHING, 0.9), b) == {"background": 1, "missed": 1}
    assert counted(b) == {"missed": 1}
    two = Scenes([A, rectangle(30, 2, 9, 9)], [B])
    for s in two.scenes:
        s.labels[:] = 0
    assert counted(found(5, A, 0.9), found(5, WORSE_A, 0.8), data=two) == {"duplicate": 1, "missed": 2}


def test_a_better_name_goes_before_a_better_box():
    # of the thing's category and near A at .4, but right on an object of the other category
    data = Scenes([A, NEAR_A])
    assert counted(found(5, NEAR_A, 0.9), data=data) == {"confusion": 1, "missed": 1}


def test_what_lies_on_a_crowd_of_its_category_is_no_mistake():
    data = Scenes([A, B, NOTHING], crowd={0: [2]})
    right = [found(5, A, 0.5), found(5, B, 0.5, OTHER)]
    assert counted(found(5, NOTHING, 0.9), *right, data=data) == {}
    assert counted(found(5, NOTHING, 0.9, OTHER), *right, data=data) == {"background": 1}


def test_as_many_detections_count_as_there_are_objects():
    rows = [found(5, A, 0.9), *(found(5, NOTHING, 0.1) for _ in range(50)), found(5, B, 0.9, OTHER)]
    report = analyse_errors(Scenes([A, B]), rows)
    assert report.right == 2 and sum(report.counts.values()) == 0 and report.gains["background"] == 0


def test_mending_brings_what_it_should():
    data = Scenes([A, B])
    best = found(5, B, 0.1, OTHER)
    for row, kind in (
        (found(5, NEAR_A, 0.9), "localisation"), (found(5, A, 0.9, OTHER), "confusion"),
    ):  # fmt: skip
        report = analyse_errors(data, [row, best])
        assert report.ap + report.gains[kind] == pytest.approx(1)
        assert report.counts[kind] == 1
    report = analyse_errors(data, [found(5, NOTHING, 0.9), found(5, A, 0.5), best])
    assert (report.ap, report.gains["background"]) == pytest.approx((0.75, 0.25))
    report = analyse_errors(data, [found(5, A, 0.5)])
    assert (report.ap, report.gains["missed"]) == pytest.approx((0.5, 0.5))


def test_a_mended_detection_of_an_object_that_is_found_goes():
    rows = [found(5, NEAR_A, 0.9), found(5, A, 0.8), found(5, B, 0.1, OTHER)]
    report = analyse_errors(Scenes([A, B]), rows)
    assert report.ap == pytest.approx((average_precision([False, True], 1) + 1) / 2)
    assert report.gains["localisation"] == pytest.approx(1 - report.ap)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_the_average_precision_is_pycocotools(kind, threshold):
    data = ShapesDataset(12, seed=1)
    truth = to_coco(data)
    for a in truth["annotations"][::7]:
        a["iscrowd"] = 1
    rows = noisy(data, 2)
    report, judge = analyse_errors(truth, rows, kind, threshold=threshold), evaluate_detections(truth, rows, kind)
    assert report.ap == pytest.approx(judge.by_threshold[threshold], abs=1e-9)
    assert report.instances == judge.instances
    assert all(gain >= -1e-9 for gain in report.gains.values()) and set(report.gains) == set(KINDS)
    assert report.gains["confusion"] > 0.01


def test_the_confusion_matrix_counts_each_object_once():
    data = Scenes([A, B], [A])
    rows = [
        found(5, A, 0.9, OTHER), found(5, WORSE_A, 0.8), found(5, B, 0.7, OTHER), found(6, NOTHING, 0.6), found(6, A, 0.1),
    ]  # fmt: skip
    table, names = confusion_matrix(data, rows)
    assert names == ["thing", "other"]
    # A for another; its second detection finds nothing free; B right; nothing taken for a thing; the second A missed
    assert table.tolist() == [[0, 1, 1], [0, 1, 0], [2, 0, 0]]
    table, _ = confusion_matrix(data, rows, score=0)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]
    crowd, _ = confusion_matrix(Scenes([A, B], crowd={0: [0]}), [found(5, A, 0.9, OTHER)])
    assert crowd.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_rows_and_columns_add_up_on_scenes():
    data = ShapesDataset(4, seed=2)
    rows = noisy(data, 3)
    table, _ = confusion_matrix(data, rows, score=0.3)
    assert table[:-1].sum() == len(to_coco(data)["annotations"])
    assert table[:, :-1].sum() == sum(r["score"] >= 0.3 for r in rows)


def test_no_detection_misses_all():
    report = analyse_errors(Scenes([A, B]), [])
    assert report.counts == dict.fromkeys(KINDS, 0) | {"missed": 2} and report.ap == 0
    assert np.array_equal(confusion_matrix(Scenes([A, B]), [])[0], [[0, 0, 1], [0, 0, 1], [0, 0, 0]])


def test_what_cannot_be_analysed():
    for threshold in (0.1, 1.5):
        with pytest.raises(ValueError, match="an IoU above 0.1"):
            analyse_errors(Scenes([A]), [], threshold=threshold)
    with pytest.raises(ValueError, match="category_id 8"):
        confusion_matrix(Scenes([A]), [found(5, A, 1, 8)])


def test_the_report_is_read_by_people_and_by_json():
    report = analyse_errors(Scenes([A, B]), [found(5, NEAR_A, 0.9)])
    assert str(report).startswith("of the best 1 detections 0 right, localisation 1, confusion 0")
    assert "1 of 2 objects missed; AP50 0.000, mending localisation +0.500" in str(report)
    assert json.loads(json.dumps(asdict(report)))["counts"]["missed"] == 1
