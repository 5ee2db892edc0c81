"""What "auto" comes to: the device that is there, and the type that pays on it, decided once for a run."""

import json
from dataclasses import replace

import pytest
import torch

from fairseg_lite import bench
from fairseg_lite.cli import options
from fairseg_lite.course.lesson import timed
from fairseg_lite.models.checkpoints import load_tensors, save_tensors
from fairseg_lite.training import shards
from fairseg_lite.training.fit import fit
from fairseg_lite.training.shards import best_device, bf16_is_faster, wants_bf16
from tests.pretended_gpu import pretended_gpu
from tests.training.test_fit import CONFIG, Line, loss_fn, network


@pytest.fixture
def gpu():
    with pretended_gpu() as ledger:
        yield ledger


@pytest.mark.parametrize("cuda, mps, best", [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_best_device_is_the_first_that_is_here(cuda, mps, best, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == torch.device(best)


def test_a_cuda_device_says_whether_it_has_bfloat16(gpu, monkeypatch):
    bf16_is_faster.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not wants_bf16("auto", "cuda"), "emulated is not supported"
    bf16_is_faster.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert wants_bf16("auto", torch.device("cuda")) and not wants_bf16("fp32", "cuda")
    assert not gpu.calls, "it is asked, not measured"
    bf16_is_faster.cache_clear()


def test_measuring_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    before, cpu = torch.random.get_rng_state(), torch.device("cpu")
    bf16_is_faster.cache_clear()
    bf16_is_faster(cpu)
    bench.ceiling(torch.float32, cpu, 32)
    bench.time_scene(bench.QUICK, torch.float32, cpu)
    bench.time_training(bench.QUICK, "fp32", cpu)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("began, now", [(True, False), (False, True)])
def test_a_run_keeps_the_type_it_began_with(began, now, tmp_path, monkeypatch):
    def run(steps, answer, precision="auto"):
        monkeypatch.setattr(shards, "bf16_is_faster", lambda device: answer)
        config = replace(CONFIG, steps=steps, precision=precision)
        return fit(network(), Line(), loss_fn, config, out=tmp_path, resume=True, progress=False)["loss"]

    first = run(20, began)
    assert load_tensors(tmp_path / "state.safetensors")[1]["bf16"] is began
    second = run(40, now)
    whole = fit(network(), Line(), loss_fn, replace(CONFIG, steps=40, precision="bf16" if began else "fp32"), progress=False)
    assert second == whole["loss"] and second[:20] == first
    assert load_tensors(tmp_path / "state.safetensors")[1]["bf16"] is began
    tensors, header = load_tensors(tmp_path / "state.safetensors")
    save_tensors(tmp_path / "state.safetensors", tensors, {k: v for k, v in header.items() if k != "bf16"})
    run(42, now)
    assert load_tensors(tmp_path / "state.safetensors")[1]["bf16"] is now, "a run of an older version is measured"
    run(44, now, "fp32")
    assert json.loads((tmp_path / "state.json").read_text("utf-8"))["bf16"] is False, "unless the user decides"


def test_the_command_line_takes_what_is_here_and_says_so(gpu, capsys, monkeypatch):
    a = options.argparse.Namespace(device="auto")
    assert options.device_of(a) == torch.device("cuda") and a.device == "cuda"
    assert capsys.readouterr().err == "computing on cuda; the processor does with --device cpu\n"
    assert options.device_of(options.argparse.Namespace(device="cuda")).type == "cuda"
    assert capsys.readouterr().err == "", "who names a device knows it"
    monkeypatch.setenv("RANK", "1")
    assert options.device_of(options.argparse.Namespace(device="auto")).type == "cuda"
    assert capsys.readouterr().err == "", "of several processes one tells"


def test_the_processor_needs_no_word(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    a = options.argparse.Namespace(device="auto")
    assert options.device_of(a) == torch.device("cpu") and a.device == "cpu" and capsys.readouterr().err == ""


def test_clocks_wait_for_the_device(gpu, capsys):
    timed(a=lambda: None)
    waits = gpu.waits.total()
    assert waits >= 3 and set(gpu.waits) == {next(iter(gpu.waits))} and "synchronize in training/shards.py" in str(gpu)
    with bench.Stopwatch(torch.device("cuda"))("stage"):
        pass
    assert gpu.waits.total() == waits + 2


def test_the_ceiling_of_a_gpu_is_that_of_its_convolutions(gpu, monkeypatch):
    seen = []
    monkeypatch.setattr(bench, "fastest", lambda *a: seen.append(torch.backends.cuda.matmul.allow_tf32) or 1.0)
    for allowed in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        bench.ceiling(torch.float32, torch.device("cuda"), 4)
    assert seen == [True, False] and not torch.backends.cuda.matmul.allow_tf32
