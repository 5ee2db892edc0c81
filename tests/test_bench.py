"""The benchmark counts what it says: stages, FLOPs, and only what this machine can do."""

import json

import pytest
import torch

from fairseg_lite import bench
from fairseg_lite.bench import compare
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.precision import evaluate_detections
from fairseg_lite.models.deepmask import MODELS
from tests.cli.conftest import cli  # noqa: F401  (a fixture)

CPU = torch.device("cpu")


def test_settings_from_a_command_line():
    assert bench.settings() == bench.Settings()
    s = bench.settings(quick=True, width=64, height=48, top_k=3)
    assert (s.model, s.width, s.height, s.top_k) == (bench.QUICK.model, 64, 48, 3)
    for change in ({"width": 0}, {"repeat": 0}, {"top_k": -1}, {"model": "x"}):
        with pytest.raises(InputError, match=f"{next(iter(change))} is "):
            bench.settings(**change)
    assert {bench.Settings().model, bench.QUICK.model} <= set(MODELS)


def test_scales_are_half_an_octave_apart_up_to_the_papers_largest():
    model, image, scales = bench.build(bench.settings(quick=True, width=70, height=50), CPU)
    assert image.shape == (50, 70, 3)
    assert scales[1] / scales[0] == pytest.approx(2**0.5)
    assert scales[-1] == pytest.approx(2**0.5 * model.patch_size / 160)


def test_flops_are_counted_by_stage_and_add_up():
    s = bench.settings(quick=True)
    scene = bench.time_scene(s, torch.float32, CPU)
    stages = scene["stages"]
    assert {"trunk", "masks", "paste"} <= set(stages)
    assert scene["proposals"] == s.top_k
    assert stages["trunk"]["gflop"] > 10 * stages["masks"]["gflop"] > 0
    assert sum(v["seconds"] for v in stages.values()) <= scene["total"]
    more = bench.time_scene(bench.settings(quick=True, top_k=40), torch.float32, CPU)["stages"]
    assert more["masks"]["gflop"] > 1.5 * stages["masks"]["gflop"], "masks are made for proposals only"
    assert more["trunk"]["gflop"] == stages["trunk"]["gflop"]


def test_a_stopwatch_adds_up_the_parts_of_a_stage():
    watch = bench.Stopwatch(CPU)
    for stage in ("a", "b", "a"):
        with watch(stage):
            sum(range(1000))
    assert list(watch.seconds) == ["a", "b"]
    assert watch.seconds["a"] > 0


def test_bfloat16_is_left_out_where_it_is_emulated(monkeypatch):
    monkeypatch.setattr(bench, "bf16_is_faster", lambda device: False)
    result = bench.run(bench.settings(quick=True), dtypes=["bf16"])
    assert result["dtypes"]["bf16"].keys() == {"skipped"}
    assert "bf16: skipped, no faster than fp32 here" in bench.report(result)
    with pytest.raises(ValueError, match="dtype is 'fp8'; choose one of 'fp32', 'bf16'"):
        bench.run(bench.QUICK, dtypes=["fp8"])


def test_a_detector_is_timed_with_boxes_and_its_roi_stage_apart(monkeypatch):
    assert bench.settings(model="multipathnet_resnet50").top_k == 1000
    assert bench.settings(model="multipathnet_resnet50", top_k=5).top_k == 5
    s = bench.settings(quick=True, model="multipathnet_tiny")
    few = bench.time_scene(s, torch.float32, CPU)["stages"]
    many = bench.time_scene(bench.settings(quick=True, model="multipathnet_tiny", top_k=40), torch.float32, CPU)["stages"]
    assert {"features", "rois", "nms"} <= set(few)
    assert many["features"]["gflop"] == few["features"]["gflop"] > 0
    assert many["rois"]["gflop"] == pytest.approx(2 * few["rois"]["gflop"], rel=0.01), "work for each of the proposals"
    monkeypatch.setattr(bench, "peak_memory", lambda *a: {"before": 0, "peak": 0})  # the command measures it
    result = bench.run(s)
    shown = bench.report(result)
    assert "multipathnet_tiny, 160x120, 20 proposals" in shown and "ms a proposal" in shown and "training" not in shown


def test_peers_run_in_turns_and_ratios_are_taken_within_a_turn():
    rows = compare.peers(["fp32"], turns=2, quick=True)
    assert [row["what"] for row in rows[:2]] == [compare.MASK, compare.FASTER]
    assert len(rows) == 5 and all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    rows = [
        {"what": compare.MASK, "type": "fp32", "seconds": [2.0, 4.0, 8.0]},
        {"what": "ours", "type": "bf16", "seconds": [1.0, 1.0, 4.0]},
    ]
    peer, ours = (line.split() for line in compare.peers_report(rows).splitlines()[1:])
    assert peer[-5:] == ["4.00", "1.00", "(1.00", "to", "1.00)"]
    assert ours == ["ours", "bf16", "1.00", "0.50", "(0.25", "to", "0.50)"]


PORT = {  # with the words and ways of the real one
    "models/__init__.py": """
import torch, torchvision
class DeepMask(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torchvision.models.resnet50(pretrained=True).conv1
""",
    "tools/InferDeepMask.py": """
import numpy as np, torch
class Infer:
    def __init__(self, model, nps, scales, device, timer):
        self.model, self.nps, self.seen = model, nps, []
    def forward(self, img):
        self.seen.append(tuple(img.shape))
    def getTopProps(self, thr, h, w):
        return np.zeros((h, w, self.nps)).astype(np.float), self.seen
""",
}


def test_the_port_is_a_peer_where_a_folder_holds_it(cli, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="no checkout of deepmask-pytorch that runs here: No module named 'models'"):
        compare.port(str(tmp_path), compare.photograph(40, 30), CPU, quick=True)
    for name, text in PORT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    masks, seen = compare.port(str(tmp_path), compare.photograph(40, 30), CPU, quick=True)()
    assert masks.shape == (30, 40, bench.QUICK.top_k) and seen == [(1, 3, 30, 40)]
    code, out, _ = cli("bench", "--quick", "--dtype", "fp32", "--peers", tmp_path)
    assert code == 0 and len(out) == 7 and out[3].startswith("deepmask-pytorch, ResNet-50")


def test_growth_is_a_power():
    rows = [{"what": "a", "n": 1, "seconds": 1.0, "why": "1"}, {"what": "a", "n": 4, "seconds": 16.0, "why": "1"}]
    rows.append({"what": "b", "n": 9, "seconds": 1.0, "why": "less"})
    assert compare.growth(rows) == [None, pytest.approx(2.0), None]
    shown = compare.scale_report(rows).splitlines()
    assert shown[2].split() == ["a", "4", "16.000", "2.00", "1"] and shown[3].split() == ["b", "9", "1.000", "less"]


def test_everything_that_can_grow_is_measured(monkeypatch, cli, tmp_path):  # noqa: F811
    for name, values in (("MEGAPIXELS", (0.02, 0.04)), ("PROPOSED", (1, 3)), ("ANNOTATED", (1, 2))):
        monkeypatch.setattr(compare, name, values)
    monkeypatch.setattr(compare, "SIZE", (96, 80))
    code, out, _ = cli("bench", "scale", tmp_path)
    assert code == 0 and len(out) == 9
    rows = json.loads((tmp_path / "scale.json").read_text("utf-8"))
    assert [(r["n"]) for r in rows] == [0.02, 0.04, 1, 3, 1, 3, 1, 2] and all(r["seconds"] > 0 for r in rows)
    assert (tmp_path / "scale.png").stat().st_size > 5000


def test_results_of_annotated_pictures_are_neither_all_right_nor_all_wrong():
    truth, results = compare.annotated(20)
    assert len(truth["images"]) == 20 and len(truth["annotations"]) == len(results) == 100
    assert 0.05 < evaluate_detections(truth, results, "bbox").ap < 0.95
