"""Checkpoints: what is written can be read, what is damaged is refused, what was there survives."""

import json
import os
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fairseg_lite.models.checkpoints import load_model, load_tensors, load_weights, save_model, save_tensors
from fairseg_lite.models.deepmask import DeepMask, deepmask_tiny
from fairseg_lite.models.trunks import ResNetTrunk


def test_round_trip_is_exact_and_half_is_half_the_size(tmp_path):
    model = deepmask_tiny().eval()
    model.record = replace(model.record, about={"note": "seed 0"})
    save_model(tmp_path / "a.safetensors", model)
    save_model(tmp_path / "h.safetensors", model, store="float16")
    back = load_model(tmp_path / "a.safetensors")
    assert back.record == model.record and not back.training
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in "ah"]
    assert sizes[1] < 0.51 * sizes[0]
    half = load_model(tmp_path / "h.safetensors")
    assert half.mask.weight.dtype == torch.float32
    torch.testing.assert_close(half.mask.weight, model.mask.weight, atol=1e-4, rtol=1e-3)
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["model"] == "deepmask_tiny"


def test_eight_bits_are_a_quarter_and_off_by_half_a_step_at_most(tmp_path):
    torch.manual_seed(0)
    model = deepmask_tiny().eval()
    model.mask.weight.data[3] = 0
    save_model(tmp_path / "a.safetensors", model)
    save_model(tmp_path / "q.safetensors", model, store="int8")
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in "aq"]
    assert sizes[1] < 0.27 * sizes[0]
    back = load_model(tmp_path / "q.safetensors")
    for name, wanted in model.state_dict().items():
        found = back.state_dict()[name]
        if wanted.ndim > 1:
            step = wanted.flatten(1).abs().amax(1) / 127
            assert ((found - wanted).flatten(1).abs() <= 0.501 * step[:, None]).all(), name
        else:
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="store is 'int4'; choose"):
        save_model(tmp_path / "x.safetensors", model, store="int4")


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.zeros(5000)}, {"model": "deepmask_tiny"})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"t.safetensors' \({path.stat().st_size} bytes\) is truncated"):
        load_tensors(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_model(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="no fairseg_lite header"):
        load_model(tmp_path / "bare.safetensors")
    save_tensors(tmp_path / "new.safetensors", {}, {"model": "deepmask_huge"})
    with pytest.raises(ValueError, match="holds network 'deepmask_huge'; this version knows deepmask_tiny"):
        load_model(tmp_path / "new.safetensors")
    by_hand = DeepMask(trunk=ResNetTrunk(depths=(1, 1, 1)))
    with pytest.raises(ValueError, match="the record names network ''; wanted one of deepmask_tiny"):
        save_model(tmp_path / "m.safetensors", by_hand)
    save_tensors(tmp_path / "odd.safetensors", {}, {"model": "deepmask_tiny", "kwargs": {"depth": 3}})
    with pytest.raises(ValueError, match="has a header that this version cannot read: .* 'depth'"):
        load_model(tmp_path / "odd.safetensors")


def test_a_checkpoint_of_another_network_names_what_does_not_fit(tmp_path):
    save_tensors(tmp_path / "x.safetensors", nn.Linear(2, 2).state_dict(), {"model": "deepmask_tiny"})
    with pytest.raises(ValueError, match=r"does not fit this DeepMask: \d+ tensors missing .* 2 left over \(bias, weight\)"):
        load_model(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="1 of another shape"):
        load_weights(nn.Linear(2, 2), {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "w")


def test_pickles_are_never_opened(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="truncated or no safetensors file"):
        load_model(tmp_path / "p.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {"n": 1})

    def broken(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(ValueError, match="No space left on device; earlier files there are untouched"):
        save_tensors(path, {"x": torch.zeros(3)}, {"n": 2})
    monkeypatch.undo()
    tensors, header = load_tensors(path)
    assert header == {"n": 1} and tensors["x"].tolist() == [1, 1, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.json", "c.safetensors"]


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here (needs root on Linux)")
    try:
        save_tensors(disk / "c.safetensors", {"x": torch.ones(10_000)}, {"n": 1})
        with pytest.raises(ValueError, match="cannot write checkpoint"):
            save_tensors(disk / "c.safetensors", {"x": torch.zeros(200_000)}, {"n": 2})
        assert load_tensors(disk / "c.safetensors")[1] == {"n": 1}
        assert sorted(p.name for p in disk.iterdir()) == ["c.json", "c.safetensors"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_without_a_source_the_first_of_its_kind_is_loaded():
    kinds = {None: "SharpMask", "DeepMask": "DeepMask", "SharpMask": "SharpMask", "MultiPathNet": "MultiPathNet"}
    assert {kind: type(load_model(kind=kind)).__name__ for kind in kinds} == kinds
