"""The benchmark counts what it says: stages, FLOPs, and only what this machine can do."""

from dataclasses import asdict

import pytest
import torch

from fairseg_lite import bench
from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import MODELS

CPU = torch.device("cpu")


def test_settings_from_a_command_line():
    assert bench.settings() == bench.Settings()
    s = bench.settings(quick=True, width=64, height=48, top_k=3)
    assert (s.model, s.width, s.height, s.top_k) == (bench.QUICK.model, 64, 48, 3)
    for change in ({"width": 0}, {"repeat": 0}, {"top_k": -1}, {"model": "x"}, {"against": "x"}):
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


def test_two_networks_in_turns():
    s = bench.settings(quick=True, model="sharpmask_tiny", against="deepmask_tiny", top_k=5)
    scene = bench.time_scene(s, torch.float32, CPU)
    assert 0 < scene["against"] != scene["total"]
    assert {"lateral", "masks"} <= set(scene["stages"]) and "against" not in bench.time_scene(bench.QUICK, torch.float32, CPU)
    part = {"ceiling": 1e9, "scene": {**scene, "total": 3.0, "against": 2.0}, "memory": {"peak": 0, "before": 0}}
    part["training"] = {"step_seconds": 1.0, "patches_per_second": 1.0, "forward_patches_per_second": 1.0}
    machine = {"processor": "", "threads": 1, "torch": ""}
    text = bench.report({"settings": asdict(s), "machine": machine, "dtypes": {"fp32": part}})
    assert "deepmask_tiny in turns: 2.000 s; sharpmask_tiny takes 1.50 times that" in text


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
