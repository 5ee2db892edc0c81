"""Annotations of boxes without masks: enough for names and for AP of boxes, and said wherever masks are wanted."""

import json
import shutil

import numpy as np
import pytest

from fairseg_lite.data.coco import CocoDataset, check, to_coco
from fairseg_lite.data.scenes import SceneCache, Subset
from fairseg_lite.data.windows import usable_rows
from fairseg_lite.evaluation.precision import evaluate_detections
from tests.cli.test_multipathnet import FAST, FP32


@pytest.fixture
def boxed(scenes, tmp_path):
    """The two scenes with their boxes, to a fraction of a pixel, and masks of as many of the largest objects as asked for."""

    def make(masks: int = 0, name: str = "boxed"):
        where = shutil.copytree(scenes, tmp_path / name)
        content = json.loads((where / "instances.json").read_text("utf-8"))
        for a in sorted(content["annotations"], key=lambda a: -a["area"])[masks:]:
            del a["area"]
            a["bbox"], a["segmentation"] = (
                [v - 0.25 * (i > 1) for i, v in enumerate(a["bbox"])],
                [None, [], [[]], {}][a["id"] % 4],
            )
        (where / "instances.json").write_text(json.dumps(content), "utf-8")
        return where, content["annotations"]

    return make


def test_boxes_are_kept_as_written(boxed):
    where, annotations = boxed(masks=1)
    data = CocoDataset(where)
    table, scenes = data.instances, [SceneCache(data)[i] for i in range(2)]
    assert table.masked.sum() == 1
    np.testing.assert_array_equal(table.box, np.concatenate([s.boxes for s in scenes]))
    assert [a["bbox"] for a in to_coco(data)["annotations"]] == [a["bbox"] for a in annotations]
    assert [bool(a["segmentation"]) for a in to_coco(data)["annotations"]] == table.masked.tolist()
    assert Subset(data, [1]).instances.masked.tolist() == table.masked[table.image == 1].tolist()
    assert usable_rows(data).tolist() == np.flatnonzero(table.masked).tolist()
    report = check(where, progress=False)
    assert f"{len(annotations) - 1} of {len(annotations)} annotations have a box and no mask" in str(report)
    assert not report.faults and report.instances == len(annotations)


def test_boxes_that_reach_beyond_the_picture_are_cut_and_counted(boxed):
    where, annotations = boxed()
    content = json.loads((where / "instances.json").read_text("utf-8"))
    content["annotations"][0]["bbox"] = [-40, -1, 60, 20.5]
    (where / "instances.json").write_text(json.dumps(content), "utf-8")
    data = CocoDataset(where)
    assert data.instances.box[0].tolist() == [0, 0, 20, 19.5]
    assert any(line.startswith("1 boxes that reach beyond the picture, cut") for line in data.mended)


def test_names_are_learnt_and_judged_by_boxes(cli, refused, boxed, tmp_path):
    where, annotations = boxed()
    (tmp_path / "p.json").write_text(json.dumps([{**a, "segmentation": None, "score": 0.5} for a in annotations]), "utf-8")
    words = ("train", "multipathnet", where, "--out", tmp_path / "r", "--proposals", tmp_path / "p.json", "--steps", 1)
    code, said, err = cli(*words, "--valid", where, "--valid-proposals", tmp_path / "p.json", *FAST, *FP32)
    assert code == 0 and "AP50" in said[-1] and f"{len(annotations)} of {len(annotations)} annotations have a box" in err[0]
    code, said, _ = cli("evaluate", "detections", tmp_path / "p.json", where)
    assert code == 0 and said[0].startswith(f"boxes      {len(annotations)} instances: AP 1.000")
    for kind in ("deepmask", "sharpmask"):
        code, _, err = cli("train", kind, where, "--out", tmp_path / kind)
        assert code == 2 and f"{len(annotations)} have a box and no mask" in err[-1]
        assert "DeepMask and SharpMask need masks (boxes are enough for train multipathnet)" in err[-1]
    code, _, err = cli("evaluate", "shapes", where)
    assert code == 2 and "need masks" in err[-1]


def test_masks_are_judged_on_objects_that_have_one(cli, scenes, boxed, tmp_path):
    where, annotations = boxed(masks=2)
    whole = json.loads((scenes / "instances.json").read_text("utf-8"))["annotations"]
    rows = [{**a, "score": 0.9 - 0.01 * i} for i, a in enumerate(whole)]
    data = CocoDataset(where)
    report = evaluate_detections(data, rows, "segm")
    assert report.instances == 2
    assert report.ap == pytest.approx(1), "a mask on an object with a box alone is neither right nor wrong"
    others = [r for r in rows if r["area"] < sorted(a["area"] for a in whole)[-2]]
    assert len(others) == len(rows) - 2 and evaluate_detections(data, others, "segm").ap == 0
    assert evaluate_detections(data, rows, "bbox").instances == len(annotations)
    (tmp_path / "rows.json").write_text(json.dumps(rows), "utf-8")
    code, said, err = cli("evaluate", "detections", tmp_path / "rows.json", where)
    assert code == 0 and said[0].startswith("masks      2 instances: AP 1.000") and "masks are judged, on the others" in err[0]
    code, said, _ = cli("evaluate", "shapes", where, "--figures", tmp_path / "f", "--top-k", 5)
    assert code == 0 and [line[:22] for line in said[1:3]] == [
        "masks      2 instances",
        f"boxes      {len(annotations)} instances"[:22],
    ]
