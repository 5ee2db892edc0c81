"""Average precision against a sum by hand, and against pycocotools used as its authors do."""

import copy
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.scenes import Subset
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.precision import average_precision, evaluate_detections
from tests.evaluation.by_hand import A, B, Scenes, rectangle, result


def found(image_id, mask, score, category=90):
    return {**result(image_id, mask, score), "category_id": category}


def perfect(truth):
    return [{**a, "score": 1.0} for a in truth["annotations"] if not a["iscrowd"]]


def noisy(dataset, seed=0, per_object=3):
    """Detections near the objects, some with another name, some anywhere; scores often equal."""
    g, rows = np.random.default_rng(seed), []
    for i in range(len(dataset)):
        s = dataset[i]
        for mask, label in zip(s.masks, s.labels, strict=True):
            for _ in range(per_object):
                moved = np.roll(mask, tuple(g.integers(-6, 7, 2)), (0, 1))
                if moved.any():
                    name = label if g.random() < 0.7 else g.integers(len(dataset.categories))
                    rows.append(found(s.image_id, moved, round(g.random(), 1), dataset.category_ids[name]))
    return [rows[k] for k in g.permutation(len(rows))]


def cocoeval(truth, rows, kind):
    """The twelve numbers of `COCOeval.summarize`, and the precision array."""
    truth = copy.deepcopy(truth)
    for i, a in enumerate(truth["annotations"]):
        a["id"] = i + 1
    other = "segmentation" if kind == "bbox" else "bbox"  # with both, loadRes takes areas from the boxes
    gt = COCO()
    gt.dataset = truth
    gt.createIndex()
    judge = COCOeval(gt, gt.loadRes([{k: v for k, v in r.items() if k not in (other, "area", "id")} for r in rows]), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats, judge.eval["precision"]


# ten boxes by hand


def test_ten_boxes_by_hand():
    # one category, four objects in two pictures; ten detections of falling score
    C, D = rectangle(0, 20, 10, 10), rectangle(40, 2, 15, 12)
    data, nothing = Scenes([A, C], [B, D]), rectangle(20, 30, 6, 6)
    for s in data.scenes:
        s.labels[:] = 0
    picture = [5, 5, 6, 5, 6, 6, 5, 6, 5, 6]
    boxes = [A, nothing, B, A, nothing, D, nothing, B, C, nothing]
    hits = [1, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    rows = [found(p, m, 1 - k / 10) for k, (p, m) in enumerate(zip(picture, boxes, strict=True))]
    # recall .25 at precision 1, .5 at 2/3, .75 at 1/2, 1 at 4/9: 26, 25, 25, 25 of the 101 recalls
    by_hand = (26 * 1 + 25 * 2 / 3 + 25 * 1 / 2 + 25 * 4 / 9) / 101
    assert average_precision(hits, 4) == pytest.approx(by_hand)
    for kind in ("bbox", "segm"):
        report = evaluate_detections(data, rows, kind)
        assert [report.ap50, report.ap, report.per_category["thing"]] == pytest.approx([by_hand] * 3)  # every hit has an IoU of 1
        assert report.per_category["other"] is None and report.category_instances == {"thing": 4, "other": 0}
        assert (report.instances, report.pictures, report.detections) == (4, 2, 10)


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5))
def test_average_precision_is_pycocotools(hits, missed):
    # one object in each picture, so that each detection is a hit or not by itself
    objects = max(sum(hits) + missed, 1)
    n = max(objects, len(hits))
    truth = {
        "images": [{"id": i + 1, "height": 40, "width": 60} for i in range(n)],
        "categories": [{"id": 3, "name": "thing"}],
        "annotations": [],
    }
    order = [*(i for i, h in enumerate(hits) if h), *(i for i in range(n) if i >= len(hits) or not hits[i])]
    with_object = set(order[:objects])
    annotation = result(1, A, 1)
    for i in with_object:
        truth["annotations"].append({**annotation, "id": i, "image_id": i + 1, "category_id": 3, "area": int(A.sum())})
    rows = [found(i + 1, A if h else B, 1 - i / 100, 3) for i, h in enumerate(hits)]
    report = evaluate_detections(truth, rows, "bbox")
    assert report.ap == pytest.approx(average_precision(hits, objects), abs=1e-9)


def test_average_precision_refuses_what_cannot_be():
    for hits, objects in (([True, True], 1), ([False], 0), ([], 0)):
        with pytest.raises(ValueError, match="at least one object"):
            average_precision(hits, objects)
    assert average_precision([], 3) == 0


# against pycocotools as its authors use it


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(3))
def test_every_number_is_cocoevals(kind, seed, capsys):
    data = ShapesDataset(5, seed=seed)
    truth, rows = to_coco(data), noisy(data, seed)
    before = json.dumps(truth), copy.deepcopy(rows)
    report = evaluate_detections(truth, rows, kind, progress=True)
    assert capsys.readouterr().out == ""
    assert (json.dumps(truth), rows) == before
    stats, precision = cocoeval(truth, rows, kind)
    ours = [report.ap, report.ap50, report.ap75, *report.by_area.values(), *report.ar.values(), *report.ar_by_area.values()]
    assert [-1 if v is None else v for v in ours] == pytest.approx(stats.tolist())
    assert 0.05 < report.ap < 0.9
    for i, name in enumerate(data.categories):
        values = precision[:, :, i, 0, 2]
        expected = values[values > -1].mean() if (values > -1).any() else None
        assert report.per_category[name] == (None if expected is None else pytest.approx(expected))
    assert list(report.by_threshold) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert np.mean(list(report.by_threshold.values())) == pytest.approx(report.ap)
    assert report.by_threshold[0.5] > report.by_threshold[0.95]


def test_perfect_detections_and_wrong_names():
    data = ShapesDataset(3, seed=1)
    truth = to_coco(data)
    for kind in ("segm", "bbox"):
        assert evaluate_detections(data, perfect(truth), kind).ap == pytest.approx(1)
    ids = list(data.category_ids)
    renamed = [{**r, "category_id": ids[(ids.index(r["category_id"]) + 1) % len(ids)]} for r in perfect(truth)]
    assert evaluate_detections(truth, renamed).ap < 0.5


def test_category_ids_with_gaps_in_any_order():
    data = Scenes([A, B])  # labels 0 and 1 have the ids 90 and 7
    report = evaluate_detections(data, [found(5, A, 0.9, 90)], "bbox")
    assert report.per_category == {"thing": pytest.approx(1), "other": 0.0} and report.ap == pytest.approx(0.5)
    report = evaluate_detections(data, [found(5, A, 0.9, 7)], "bbox")
    assert report.per_category == {"thing": 0.0, "other": 0.0}


def test_no_detection_is_a_precision_of_zero():
    for nothing in ([], {}):
        report = evaluate_detections(Scenes([A, B]), nothing, "bbox")
        assert (report.ap, report.ap50, report.ap75, report.detections) == (0, 0, 0, 0)
        assert report.by_area == {"small": 0.0, "medium": None, "large": None}
        assert report.ar == {1: 0, 10: 0, 100: 0}


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong():
    data = Scenes([A, B, rectangle(0, 30, 25, 10)], crowd={0: [2]})
    rows = [found(5, rectangle(x, 31, 6, 6), 0.9) for x in (0, 8, 16)] + [found(5, A, 0.5)]
    assert evaluate_detections(data, rows).per_category["thing"] == pytest.approx(1)
    free = [{**r, "category_id": 7} for r in rows[:3]]  # the crowd is of the first category
    assert evaluate_detections(data, [*free, found(5, B, 0.5, 7)]).per_category["other"] == pytest.approx(0.25)


def test_two_categories_of_one_name_are_kept_apart():
    truth = to_coco(Scenes([A, B]))
    for c in truth["categories"]:
        c["name"] = "thing"
    report = evaluate_detections(truth, [found(5, A, 0.5)])
    assert report.per_category == {"thing 90": pytest.approx(1), "thing 7": 0.0}


@pytest.mark.parametrize(
    "kind, change, says",
    [
        ("segm", {"category_id": 8}, "result 1 (picture 5) has category_id 8; the data set has 90 thing, 7 other"),
        ("segm", {"category_id": None}, "category_id None"),
        ("segm", {"image_id": 77}, "result 1 is of picture 77, which is not one of the 1 here"),
        ("segm", {"segmentation": None}, "has no 'segmentation'"),
        ("bbox", {"bbox": None}, "has no 'bbox'"),
        ("bbox", {"bbox": [1, 2, float("nan"), 4]}, "bbox [1, 2, nan, 4]"),
        ("bbox", {"score": float("nan")}, "score nan"),
        ("both", {}, "iou_type is 'both'"),
    ],
)
def test_a_result_that_cannot_be_judged(kind, change, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        evaluate_detections(Scenes([A]), [found(5, A, 0.5), {**found(5, A, 0.5), **change}], kind)


def test_a_box_without_area_or_outside_is_judged_as_wrong():
    rows = [{**found(5, A, 0.9), "bbox": b} for b in ([5, 5, 0, 0], [500, 500, 9, 9])] + [found(5, A, 0.5)]
    assert evaluate_detections(Scenes([A]), rows, "bbox").ap50 == pytest.approx(1 / 3)


def test_a_truth_without_meaning():
    for data, says in (
        (Scenes([A], crowd={0: [0]}), "1 crowds"),
        (Subset(Scenes([A]), [0, 0]), "picture 5 is twice"),
        ({"images": [], "annotations": []}, "no 'categories'"),
    ):
        with pytest.raises(ValueError, match=says):
            evaluate_detections(data, [])
    truth = to_coco(Scenes([A]))
    truth["annotations"][0]["category_id"] = 4
    with pytest.raises(ValueError, match="category_id 4, which is not among"):
        evaluate_detections(truth, [])


def test_the_report_is_read_by_people_and_by_json():
    report = evaluate_detections(Scenes([A, B]), [found(5, A, 0.5)])
    assert str(report) == "2 instances: AP 0.500, AP50 0.500, AP75 0.500, small / medium / large 0.500 / - / -"
    assert [line.split() for line in report.table().splitlines()] == [
        ["category", "AP", "AP50", "objects"], ["thing", "1.000", "1.000", "1"], ["other", "0.000", "0.000", "1"],
    ]  # fmt: skip
    back = json.loads(json.dumps(asdict(report)))
    assert [back["by_threshold"]["0.75"], back["ar"]["100"]] == pytest.approx([0.5, 0.5])
