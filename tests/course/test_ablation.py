"""The ablation runner: what it repeats, what it does not, and whether its table says what was measured."""

import json
from dataclasses import replace

import pytest
import torch

from fairseg_lite.course import ablation
from fairseg_lite.course.ablation import TABLE_1, Result, Row, ablate, measure, results_in, summary, table
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.multipathnet import multipathnet_tiny
from tests.data.test_rois import around
from tests.training.test_multipathnet import quick

ROWS = (TABLE_1[0], TABLE_1[5])


@pytest.fixture(scope="module")
def scenes():
    return ShapesDataset(3, seed=0)


@pytest.fixture(scope="module")
def boxes(scenes):
    return around(scenes, copies=3)


@pytest.fixture
def run(scenes, boxes, tmp_path, monkeypatch):
    """Ablate on three scenes; gives results and counts trainings and their options."""
    trained, real = [], ablation.train_multipathnet

    def spy(*args, recipe, **kwargs):
        trained.append((recipe.options, recipe.fit.seed))
        return real(*args, recipe=recipe, **kwargs)

    monkeypatch.setattr(ablation, "train_multipathnet", spy)

    def ablate_(seeds=1, rows=ROWS, steps=2, **changes):
        recipe = quick(steps=steps, options={"width": 16}, **changes)
        before = len(trained)
        found = ablate(scenes, boxes, scenes, boxes, recipe=recipe, out=tmp_path, seeds=seeds, rows=rows, progress=False)
        return found, trained[before:]

    return ablate_


def test_every_row_and_seed_once(run, tmp_path):
    found, trained = run()
    assert [(r.row, r.seed) for r in found] == [("fast-rcnn", 0), ("multipathnet", 0)]
    off, on = ({"width": 16, "integral": x, "foveal": x, "skip": x} for x in (False, True))
    assert trained == [(off, 0), (on, 0)]
    again, trained = run()
    assert again == found and trained == []
    more, trained = run(seeds=2)
    assert trained == [(off, 1), (on, 1)]
    assert [(r.row, r.seed) for r in more] == [(n, s) for n in ("fast-rcnn", "multipathnet") for s in (0, 1)]
    assert more[0] == found[0] and more[2] == found[1]
    assert run(seeds=1)[0] == found, "fewer seeds are asked for, fewer come"
    held = json.loads((tmp_path / "table.json").read_text("utf-8"))
    assert [e["seeds"] for e in held] == [[0], [0]]
    runs = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert runs == [f"{n}-seed{s}" for n in ("fast-rcnn", "multipathnet") for s in (0, 1)]
    assert not list(tmp_path.rglob("state.safetensors")) and len(list(tmp_path.rglob("model.safetensors"))) == 4


def test_an_interrupted_run_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    whole, _ = run(steps=3)
    for path in tmp_path.iterdir():
        path.rename(tmp_path.parent / f"old-{path.name}")
    real = ablation.train_multipathnet

    def stopped(*args, recipe, **kwargs):  # as after Ctrl-C: some steps are kept, no network
        if recipe.options["foveal"]:
            _, history = real(*args, recipe=replace(recipe, fit=replace(recipe.fit, steps=2)), **kwargs)
            history.finished = False
            (kwargs["out"] / "model.safetensors").unlink()
            return None, history
        return real(*args, recipe=recipe, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ablation, "train_multipathnet", stopped)
        with pytest.raises(KeyboardInterrupt, match="multipathnet-seed0 is kept"):
            run(steps=3)
    assert (tmp_path / "table.txt").exists(), "what is measured is in the table already"
    assert len(results_in(tmp_path)) == 1
    found, trained = run(steps=3)
    assert len(trained) == 1 and [(r.row, r.seed) for r in found] == [(r.row, r.seed) for r in whole]
    log = [json.loads(line)["step"] for line in (tmp_path / "runs/multipathnet-seed0/log.jsonl").read_text("utf-8").splitlines()]
    assert log == [1, 2, 3], "the third step alone was left to do"


def test_a_trained_network_is_measured_and_not_trained_again(run, tmp_path):
    found, _ = run()
    path = tmp_path / "runs/multipathnet-seed0/result.json"
    path.unlink()
    again, trained = run()
    assert again == found and trained == []


def test_a_folder_takes_runs_of_one_kind(run):
    run(rows=ROWS[:1])
    with pytest.raises(ValueError, match="holds runs with recipe.fit.steps = 2, now it is 5"):
        run(steps=5)
    with pytest.raises(ValueError, match="recipe.images = 1, now it is 2"):
        run(images=2)


def test_a_folder_takes_runs_on_the_same_data_and_proposals(run, scenes, boxes, tmp_path):
    run(rows=ROWS[:1])
    moved = {k: v._replace(boxes=v.boxes + 1) for k, v in boxes.items()}
    other, recipe = ShapesDataset(3, seed=1), quick(options={"width": 16})
    for what, given in (
        ("training data", (other, boxes, scenes, boxes)),
        ("training proposals", (scenes, moved, scenes, boxes)),
        ("data to measure on", (scenes, boxes, other, boxes)),
        ("proposals to measure on", (scenes, boxes, scenes, moved)),
    ):
        with pytest.raises(ValueError, match=f"holds runs with about.hash.{what} = '"):
            ablate(*given, recipe=recipe, out=tmp_path, seeds=1, rows=ROWS[:1], progress=False)


def test_pictures_are_measured_at_the_size_they_were_trained_at(run, monkeypatch):
    sizes, real = [], ablation.detect

    def spy(model, *args, **kwargs):
        sizes.append((model.record.short_side, model.record.max_side, "short_side" in kwargs))
        return real(model, *args, **kwargs)

    monkeypatch.setattr(ablation, "detect", spy)
    run(rows=ROWS[:1], short_side=(90, 111), max_side=150)
    assert sizes == [(100, 150, False)] * 3


def test_what_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="no name twice"):
        run(rows=ROWS + ROWS)
    with pytest.raises(ValueError, match="0 seeds"):
        run(seeds=0)
    run(rows=ROWS[:1])
    (tmp_path / "runs/fast-rcnn-seed0/result.json").write_text('{"row": "fast-rcnn", "seed": 0, "report": {}}', "utf-8")
    with pytest.raises(ValueError, match="is no result of this version"):
        run(rows=ROWS[:1])


# --- the table


def result(row, seed, ap, **sizes):
    report = {"ap": ap / 100, "ap50": ap / 50, "ap75": ap / 200}
    return Result(row, seed, {**report, "by_area": {"small": None, "medium": 0.5, "large": 0.1, **sizes}})


ROW_A, ROW_B = Row("a", False, False, False, 40.0, 20.0), Row("b", True, False, True, 42.0, 23.5)
RESULTS = [result("a", 0, 30.0), result("a", 1, 34.0), result("b", 0, 33.0), result("b", 1, 36.0), result("b", 2, 50.0)]


def test_means_deviations_and_paired_gains():
    a, b = summary((ROW_A, ROW_B), RESULTS)
    assert a["ap"]["mean"] == pytest.approx(32) and a["ap"]["std"] == pytest.approx(8**0.5)
    assert b["ap"]["mean"] == pytest.approx(119 / 3) and b["seeds"] == [0, 1, 2]
    assert b["gain"]["ap"]["values"] == pytest.approx([3, 2]), "pairs of one seed only"
    assert b["gain"]["ap"]["mean"] == pytest.approx(2.5) and b["gain"]["ap"]["std"] == pytest.approx(0.5**0.5)
    assert b["gain"]["ap50"]["mean"] == pytest.approx(5)
    assert a["small"] == {"mean": None, "std": None, "values": [None, None]} and b["gain"]["small"]["mean"] is None


def test_the_table_as_people_read_it():
    lines = table((ROW_A, ROW_B), RESULTS).splitlines()
    head, a, b = (line.split() for line in lines)
    assert head[:6] == ["integral", "foveal", "skip", "AP50", "AP75", "AP"]
    shown = " ".join(a)
    assert shown == "64.0 +-5.7 16.0 +-1.4 32.0 +-2.8 - 50.0 +-0.0 10.0 +-0.0 2 40.0 20.0 +0.0"
    assert b[:2] == ["x", "x"] and "+2.5" in b and b[-4:] == ["3", "42.0", "23.5", "+3.5"]
    assert len({len(line) for line in lines}) == 1
    only = table((ROW_A, ROW_B), RESULTS[:1]).splitlines()
    assert len(only) == 2 and "+-" not in only[1]


def test_the_papers_rows_are_the_papers():
    values = {(r.integral, r.foveal, r.skip): (r.paper_ap50, r.paper_ap) for r in TABLE_1}
    assert len(values) == 6
    assert values[True, True, True] == (44.8, 27.9) and values[False, False, False] == (43.4, 25.2)


def test_measuring_counts_pictures_without_proposals(scenes, boxes):
    torch.manual_seed(0)
    model = multipathnet_tiny(num_classes=9, width=16, norm="batch").eval()
    whole = measure(model, scenes, boxes)
    part = measure(model, scenes, {2: boxes[2]})
    assert part.pictures == whole.pictures == 3 and part.instances == whole.instances
    with pytest.raises(ValueError, match="are of no picture"):
        measure(model, scenes, {77: boxes[2]})
