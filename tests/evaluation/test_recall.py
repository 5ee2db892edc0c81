"""Average recall against a loop that matches by hand, on made and on random cases."""

import copy
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fairseg_lite.data.coco import CocoDataset, to_coco
from fairseg_lite.data.scenes import Subset
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.recall import RecallReport, average_recall
from tests.evaluation.by_hand import THRESHOLDS, A, B, Scenes, check_by_hand, rectangle, result


def perfect(dataset, without=()):
    truth = to_coco(dataset)["annotations"]
    return [{**a, "score": 1.0} for i, a in enumerate(truth) if i not in without and not a["iscrowd"]]


def test_perfect_proposals_find_all_and_a_missing_one_costs_its_share():
    data = ShapesDataset(4, seed=1)
    n = len(perfect(data))
    for kind in ("segm", "bbox"):
        assert average_recall(data, perfect(data), iou_type=kind).ar == {10: 1.0, 100: 1.0, 1000: 1.0}
        short = average_recall(data, perfect(data, without=[3]), iou_type=kind)
        assert short.ar[100] == pytest.approx((n - 1) / n) and short.instances == n


def test_iou_decides_at_each_threshold():
    # 14 of 20 columns: IoU .7 exactly, found up to the threshold .70
    report = check_by_hand(Scenes([A]), [result(5, rectangle(2, 2, 14, 10), 0.3)], (10, 100))
    assert report.ar[10] == 0.5 and report.by_threshold[10] == {t: float(t <= 0.7) for t in THRESHOLDS}


def test_the_limit_counts_in_order_of_score():
    results = [result(5, B, 0.1), result(5, A, 0.2), result(5, rectangle(0, 30, 5, 5), 0.9)]
    report = check_by_hand(Scenes([A, B]), results, (1, 2, 3, 500))
    assert report.ar == {1: 0.0, 2: 0.5, 3: 1.0, 500: 1.0}


def test_a_thousand_are_a_thousand():
    results = [result(5, A, 0.0)] + [result(5, rectangle(0, 30, 5, 5), 0.5)] * 150
    report = average_recall(Scenes([A]), results, limits=(1000, 10, 150, 151, 10))
    assert list(report.ar.items()) == [(10, 0.0), (150, 0.0), (151, 1.0), (1000, 1.0)]


@pytest.mark.parametrize("first", [0, 1])
def test_of_equal_scores_the_earlier_comes_first_whatever_its_category(first):
    pair = [result(5, A, 0.5), result(5, rectangle(0, 30, 5, 5), 0.5)]
    pair[first]["category_id"], pair[1 - first]["category_id"] = 7, 12345  # the second is no category of the data
    report = check_by_hand(Scenes([A]), pair if first == 0 else pair[::-1], (1, 2))
    assert report.ar == {1: float(first == 0), 2: 1.0}


def test_two_proposals_on_one_object_find_one():
    report = check_by_hand(Scenes([A, B]), [result(5, A, 0.9), result(5, A, 0.8)], (10,))
    assert report.ar[10] == 0.5


def test_a_proposal_takes_the_best_object_not_the_first():
    wide, narrow = rectangle(0, 0, 20, 10), rectangle(0, 0, 16, 10)
    report = check_by_hand(Scenes([wide, narrow]), [result(5, narrow, 0.9), result(5, wide, 0.8)], (1, 2))
    assert report.ar == {1: 0.5, 2: 1.0}


def test_crowds_are_neither_found_nor_missed():
    crowd = rectangle(0, 0, 60, 18)
    data = Scenes([B, crowd], crowd={0: [1]})
    on_crowd = [result(5, rectangle(x, 0, 8, 8), 0.9) for x in (0, 10, 20)]
    assert check_by_hand(data, on_crowd, (10,)).ar[10] == 0.0
    report = check_by_hand(data, [*on_crowd, result(5, B, 0.1)], (2, 10))
    assert report.ar == {2: 0.0, 10: 1.0} and report.instances == 1  # what lies on a crowd still takes a place


def test_pictures_count_by_their_objects_and_empty_ones_not():
    empty = np.zeros((0, 40, 60), bool)
    data = Scenes([A, B], empty, [A], empty)
    found = [result(5, A, 0.1), result(5, B, 0.2), result(6, A, 0.3)]  # the last on a picture without an object
    report = check_by_hand(data, found, (10,))
    assert report.ar[10] == pytest.approx(2 / 3) and (report.pictures, report.instances) == (4, 3)


def test_sizes():
    size = (120, 200)
    small, medium, large = (rectangle(0, 0, w, h, size) for w, h in ((5, 5), (40, 40), (100, 100)))
    report = check_by_hand(Scenes([small, medium], [large]), [result(5, small, 1), result(6, large, 1)], (10, 100))
    assert report.by_area[100] == {"small": 1.0, "medium": 0.0, "large": 1.0}
    assert report.area_instances == {"small": 1, "medium": 1, "large": 1}
    border = check_by_hand(Scenes([rectangle(0, 0, 32, 32, size)]), [], (100,))
    assert border.area_instances == {"small": 1, "medium": 1, "large": 0}
    assert border.by_area[100]["large"] is None


def test_the_largest_object_of_a_picture_must_be_among_the_best():
    large, small = rectangle(2, 2, 30, 30), rectangle(40, 5, 6, 6)
    data = Scenes([small, large], [small, large], np.zeros((0, 40, 60)), [large, small], crowd={3: [0]})
    close, loose = rectangle(2, 2, 30, 25), rectangle(2, 2, 30, 20)  # IoU .83 and .67
    rows = [result(5, close, 0.1), result(6, loose, 0.9), result(8, small, 0.9)]
    assert average_recall(data, rows).largest == pytest.approx(2 / 3)  # of the last picture the largest is a crowd
    before = [result(5, rectangle(45, 20 + i, 3, 3), 0.9) for i in range(10)]
    assert average_recall(data, rows + before).largest == pytest.approx(1 / 3), "the eleventh is too late"
    assert average_recall(data, rows + before[1:]).largest == pytest.approx(2 / 3)


def test_no_result_finds_nothing():
    for kind in ("segm", "bbox"):
        report = average_recall(Scenes([A, B]), [], iou_type=kind)
        assert report.ar == {10: 0.0, 100: 0.0, 1000: 0.0} and report.instances == 2


@st.composite
def cases(draw):
    """Small pictures of rectangles; proposals are near truths or anywhere, scores are often equal."""
    side = st.integers(1, 50)

    def box():
        return rectangle(draw(st.integers(0, 40)), draw(st.integers(0, 40)), draw(side), draw(side), size=(48, 48))

    pictures, crowds, results = [], {}, []
    for i in range(draw(st.integers(1, 3))):
        masks = [box() for _ in range(draw(st.integers(int(i == 0), 4)))]
        pictures.append(np.array(masks, bool).reshape(-1, 48, 48))
        crowds[i] = [k for k in range(int(i == 0), len(masks)) if draw(st.integers(0, 3)) == 0]
        for _ in range(draw(st.integers(0, 7))):
            mask = box()
            if masks and draw(st.booleans()):
                near = masks[draw(st.integers(0, len(masks) - 1))]
                mask = np.roll(near, (draw(st.integers(-3, 3)), draw(st.integers(-3, 3))), (0, 1))
            results.append(result(i + 5, mask, draw(st.integers(0, 3)) / 3))
    return Scenes(*pictures, crowd=crowds), draw(st.permutations(results))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(["segm", "bbox"]))
def test_random_cases_agree_with_the_hand(case, kind):
    check_by_hand(*case, limits=(1, 3, 100), iou_type=kind)


def jittered(scene, g, count):
    """Truth moved by up to a tenth of its size, and some of it in half."""
    results = []
    for _ in range(count):
        mask = scene.masks[g.integers(len(scene.masks))]
        reach = max(2, round(mask.sum() ** 0.5 / 10))
        moved = np.roll(mask, g.integers(-reach, reach + 1, 2), (0, 1))
        if g.random() < 0.2:
            moved = moved & (g.random(moved.shape) < 0.5)
        results.append(result(scene.image_id, moved, float(g.random())))
    return results


def test_photographs_agree_with_cocoeval_and_with_the_hand(shared):
    data = CocoDataset(shared / "data" / "coco228", on_fault="skip")
    table, most = data.instances, 250_000  # pixels of picture, so that the loop stays quick
    with_crowd = set(table.image[table.crowd].tolist())
    fits = [i for i, p in enumerate(data.pictures) if p.height * p.width <= most and 2 <= len(p.annotations) <= 9]
    some = Subset(data, [i for i in fits if i in with_crowd][:1] + [i for i in fits if i not in with_crowd][:3])
    g = np.random.default_rng(0)
    results = [r for i in range(len(some)) for r in jittered(some[i], g, 25)]
    for kind in ("segm", "bbox"):
        report = check_by_hand(some, results, (5, 10, 100), kind)
        assert 0 < report.ar[5] < report.ar[100] < 1
        assert report.ar == pytest.approx(cocoeval(to_coco(some), results, kind, [5, 10, 100]))


def cocoeval(truth, results, kind, limits):
    """pycocotools used as its authors do, with accumulate()."""
    truth, results = copy.deepcopy(truth), copy.deepcopy(results)
    for i, a in enumerate(truth["annotations"]):
        a.update(id=i + 1, category_id=1)
    gt = COCO()
    gt.dataset = {**truth, "categories": [{"id": 1}]}
    gt.createIndex()
    judge = COCOeval(gt, gt.loadRes([{**r, "category_id": 1} for r in results]), kind)
    judge.params.useCats, judge.params.maxDets = 0, limits
    judge.evaluate()
    judge.accumulate()
    return {k: judge.eval["recall"][:, 0, 0, m].mean() for m, k in enumerate(limits)}


def test_a_ready_dict_does_as_well_and_nothing_is_changed():
    data, g = ShapesDataset(3), np.random.default_rng(1)
    truth = to_coco(data)
    results = [r for i in range(3) for r in jittered(data[i], g, 12)]
    before = json.dumps(truth), copy.deepcopy(results)
    for kind in ("segm", "bbox"):
        first, again = (average_recall(t, results, iou_type=kind) for t in (data, truth))
        assert first == again == average_recall(truth, results[::1], iou_type=kind, progress=True)
        assert first.ar == pytest.approx(cocoeval(truth, results, kind, [10, 100, 1000]))
    assert (json.dumps(truth), results) == before


def test_polygons_and_uncompressed_rle_in_a_dict():
    truth = to_coco(Scenes([A, B]))
    truth["annotations"][0]["segmentation"] = [[2, 2, 22, 2, 22, 12, 2, 12]]
    truth["annotations"][1]["segmentation"] = uncompressed(B)
    found = [result(5, A, 0.5), {**result(5, B, 0.4), "segmentation": uncompressed(B)}]
    assert average_recall(truth, found).ar[10] == 1.0


def uncompressed(mask):
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [not flat[-1]]])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def test_the_report_is_read_by_people_and_by_json(capsys):
    report = average_recall(Scenes([A, B]), [result(5, A, 0.5)])
    assert capsys.readouterr().out == ""  # pycocotools is silent
    assert str(report).startswith("2 instances: AR@10 0.500, AR@100 0.500, AR@1000 0.500, ")
    assert "0.500 / - / - @100" in str(report) and "0.500 / - / - @1000" in str(report) and "\n" not in str(report)
    back = json.loads(json.dumps(asdict(report)))
    assert back["ar"]["100"] == 0.5 and back["by_area"]["100"] == {"small": 0.5, "medium": None, "large": None}
    assert back["by_threshold"]["10"]["0.75"] == 0.5
    with pytest.raises(AttributeError):
        report.ar = {}
    assert isinstance(report, RecallReport)
