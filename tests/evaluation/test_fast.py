"""faster-coco-eval and pycocotools give the same numbers, all of them."""

from dataclasses import asdict

import numpy as np
import pytest

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation import judge, recall
from fairseg_lite.evaluation.precision import evaluate_detections
from fairseg_lite.evaluation.recall import average_recall


@pytest.fixture(scope="module")
def both():
    """Scenes with a crowd, and results that are near, far, doubled, and of equal scores."""
    truth, g = to_coco(ShapesDataset(8)), np.random.default_rng(0)
    truth["annotations"][1]["iscrowd"] = 1
    rows = []
    for a in truth["annotations"]:
        masks = {b["id"]: b["segmentation"] for b in truth["annotations"] if b["image_id"] == a["image_id"]}
        for k in range(3):
            x, y, w, h = a["bbox"]
            box = [x + g.integers(-k, k + 1), y, max(w + g.integers(-3 * k, 3 * k + 1), 1), h]
            mask = masks[g.choice(list(masks))] if k else a["segmentation"]
            category = int(g.choice([c["id"] for c in truth["categories"]])) if k == 2 else a["category_id"]
            score = round(float(g.random()), 1)
            same = {"image_id": a["image_id"], "category_id": category, "score": score}
            rows.append({**same, "segmentation": mask, "bbox": [float(v) for v in box]})
    return truth, rows


def numbers(report):
    """All that a report holds, in order; None as -1."""
    for key, value in report.items():
        yield from numbers(value) if isinstance(value, dict) else [-1 if value is None else value] * (key != "iou_type")


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_same_numbers(both, kind, monkeypatch):
    pytest.importorskip("faster_coco_eval", reason="the extra fairseg-lite[judge] is not installed")
    truth, rows = both
    found = evaluate_detections(truth, rows, kind), average_recall(truth, rows, iou_type=kind, limits=(1, 4, 20))
    for module in (judge, recall):
        monkeypatch.setattr(module, "fast", lambda: None)
    slow = evaluate_detections(truth, rows, kind), average_recall(truth, rows, iou_type=kind, limits=(1, 4, 20))
    for a, b in zip(found, slow, strict=True):
        assert list(numbers(asdict(a))) == pytest.approx(list(numbers(asdict(b))), abs=1e-12)
    assert 0 < slow[0].ap < 1 and 0 < slow[1].ar[4] < 1, "numbers that say something"
