"""The loop: it learns, it resumes to the last bit, and it stops with a clear word."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from fairseg_lite.models.checkpoints import load_tensors
from fairseg_lite.models.network import seeded
from fairseg_lite.training.fit import fit
from fairseg_lite.training.recipes import FitConfig


class Points(list):
    """A batch: numbers with a length and `.to`."""

    def to(self, device):
        return self


class Line:
    """y = 2 x + 1 with noise, a pure function of the step."""

    def batch(self, step):
        g = torch.Generator().manual_seed(step)
        x = torch.randn(16, 1, generator=g)
        return Points([(x, 2 * x + 1 + 0.1 * torch.randn(16, 1, generator=g))])


def loss_fn(model, batch, step):
    x, y = batch[0]
    loss = ((model(x) - y) ** 2).mean()
    return {"loss": loss, "root": loss.sqrt()}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))


CONFIG = FitConfig(steps=60, lr=0.05, log_every=1, save_every=10, schedule="constant")


def run(out=None, **kwargs):
    config = replace(CONFIG, **{k: v for k, v in kwargs.items() if k != "resume"})
    return fit(network(), Line(), loss_fn, config, out=out, resume=kwargs.get("resume", False), progress=False)


@pytest.mark.parametrize("optimizer, lr", [("adamw", 0.05), ("sgd", 0.02)])
def test_it_learns(optimizer, lr):
    history = run(optimizer=optimizer, lr=lr, steps=200)
    assert history.finished and len(history.rows) == 200
    assert sum(history["loss"][-20:]) < 0.25 * sum(history["loss"][:20])


def test_stopped_and_resumed_is_the_same_run(tmp_path):
    whole = run()["loss"]
    first = run(tmp_path / "r", steps=30)
    assert first["loss"] == whole[:30]
    second = run(tmp_path / "r", resume=True)
    assert second["loss"] == whole  # to the last bit, dropout included


class Slow(Line):
    def batch(self, step):
        time.sleep(0.03)
        return super().batch(step)


def slow_run(out):
    fit(network(), Slow(), loss_fn, CONFIG, out=out, resume=True, progress=False)


def start(out, until_step):
    """A run in a process of its own; returns once its log has reached a step."""
    process = multiprocessing.Process(target=slow_run, args=(out,))
    process.start()
    log, end = out / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and len(log.read_text("utf-8").splitlines()) >= until_step):
        assert process.is_alive() and time.monotonic() < end, f"stopped with {process.exitcode}"
        time.sleep(0.01)
    return process


def test_killed_and_resumed_is_the_same_run(tmp_path):
    out = tmp_path / "r"
    process = start(out, 25)
    process.kill()
    process.join()
    assert load_tensors(out / "state.safetensors")[1]["step"] in (20, 30)
    assert run(out, resume=True)["loss"] == run()["loss"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_the_step_just_done(tmp_path, number):
    out = tmp_path / "r"
    process = start(out, 13)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 0
    header = load_tensors(out / "state.safetensors")[1]
    logged = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    assert header["step"] == logged[-1] >= 13 and header["step"] % 10 != 0 or header["step"] > 13
    assert run(out, resume=True)["loss"] == run()["loss"]


def test_a_line_cut_short_in_the_log_is_dropped(tmp_path):
    run(tmp_path, steps=30)
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as f:
        f.write('{"step": 31, "lo')
    assert [r["step"] for r in run(tmp_path, resume=True).rows] == list(range(1, 61))


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run(tmp_path, steps=10)
    with pytest.raises(ValueError, match="holds a run already; resume it"):
        run(tmp_path)


def test_another_networks_run_is_refused(tmp_path):
    run(tmp_path, steps=10)
    with pytest.raises(ValueError, match="does not fit this Linear"):
        fit(nn.Linear(1, 1), Line(), loss_fn, CONFIG, out=tmp_path, resume=True, progress=False)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    def explode(model, batch, step):
        values = loss_fn(model, batch, step)
        return {k: v * float("nan") if step == 25 else v for k, v in values.items()}

    with pytest.raises(ValueError, match=r"not finite at step 25 \(loss nan, root nan\); lower lr \(now 0.05\)"):
        fit(network(), Line(), explode, CONFIG, out=tmp_path, progress=False)
    tensors, header = load_tensors(tmp_path / "state.safetensors")
    assert header["step"] == 20 and all(t.isfinite().all() for t in tensors.values())


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [0.5, 1, 1, 1]),
        ("cosine", [0.5, 0.853553, 0.5, 0.146447]),
        ("step", [0.5, 1, 0.5, 0.1]),
        ("wsd", [0.5, 1, 1, 0.5]),
    ],
)
def test_schedules(schedule, expected):
    history = run(steps=4, lr=1.0, warmup=2, schedule=schedule, milestones=(2, 3), factors=(0.5, 0.1), decay=0.5)
    assert history["lr"] == pytest.approx(expected, abs=1e-6)


def test_the_average_follows_the_weights_and_resumes_exactly(tmp_path):
    """Against the definition, step by step; a run without an average ends elsewhere, from the same losses."""
    model, kept, weights = network(), None, []
    config = replace(CONFIG, steps=30, ema=0.9)

    def spy(net, batch, step):
        weights.append(net[0].weight.detach().clone())
        return loss_fn(net, batch, step)

    fit(model, Line(), spy, config, progress=False)
    last = network()
    fit(last, Line(), loss_fn, replace(config, ema=0.0), progress=False)
    for step, w in enumerate([*weights[1:], last[0].weight.detach()]):
        kept = weights[0] if kept is None else kept
        share = min(0.9, (1 + step) / (10 + step))
        kept = share * kept + (1 - share) * w
    torch.testing.assert_close(model[0].weight.detach(), kept)
    assert (model[0].weight - last[0].weight).abs().max() > 1e-3
    fit(network(), Line(), loss_fn, replace(config, steps=20), out=tmp_path / "r", progress=False)
    again = network()
    fit(again, Line(), loss_fn, config, out=tmp_path / "r", resume=True, progress=False)
    assert torch.equal(again[0].weight, model[0].weight)
    run(tmp_path / "plain", steps=10)
    with pytest.raises(ValueError, match="holds no average"):
        run(tmp_path / "plain", resume=True, ema=0.9)


def test_gradient_clipping_bounds_the_step():
    config = replace(CONFIG, steps=1, optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, clip=1e-3)
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, Line(), loss_fn, config, progress=False)
    moved = sum(((p - b) ** 2).sum() for p, b in zip(model.parameters(), before, strict=True)).sqrt().item()
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_learning_rate_by_prefix_and_frozen_parameters():
    model = network()
    model[0].weight.requires_grad_(False)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    config = replace(CONFIG, steps=1, optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, lr_scale={"3.": 0.0})
    fit(model, Line(), loss_fn, config, progress=False)
    moved = {k: bool((p != before[k]).any()) for k, p in model.named_parameters()}
    assert moved == {"0.weight": False, "0.bias": True, "3.weight": False, "3.bias": False}


def test_workers_give_the_same_batches():
    assert run(steps=8)["loss"] == run(steps=8, workers=2)["loss"]


@pytest.mark.parametrize("change", [{"optimizer": "adam"}, {"schedule": "linear"}, {"precision": "fp8"}])
def test_unknown_options_are_named(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is '{next(iter(change.values()))}'; choose"):
        run(steps=1, **change)


def test_read_only_folder_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ValueError, match="cannot write"):
        run(tmp_path / "file" / "run")


@pytest.mark.gpu
def test_it_learns_on_cuda(cuda):
    class Moved(Points):
        def to(self, device):
            return Points([tuple(t.to(device) for t in self[0])])

    class OnGpu(Line):
        def batch(self, step):
            return Moved(super().batch(step))

    cpu = fit(network(), OnGpu(), loss_fn, replace(CONFIG, steps=1), progress=False)["loss"]
    gpu = fit(network().eval().to(cuda), OnGpu(), loss_fn, replace(CONFIG, steps=100), progress=False)["loss"]
    assert gpu[0] > 0 and cpu[0] > 0 and sum(gpu[-10:]) < sum(gpu[:10])


def test_a_seed_of_ours_leaves_the_callers_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with seeded(0):
        ours = nn.Linear(3, 4).state_dict()
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(0)
    assert all(torch.equal(v, ours[k]) for k, v in nn.Linear(3, 4).state_dict().items()), "as `manual_seed` has always given"


def test_two_runs_in_one_folder_are_refused_and_what_a_killed_one_left_goes(tmp_path):
    process = start(tmp_path / "r", 2)
    with pytest.raises(ValueError, match="another process is training in .*; let it end, or choose another folder"):
        run(tmp_path / "r", resume=True)
    process.kill()
    process.join()
    (tmp_path / "r/.state.safetensors.part123").write_bytes(b"half")
    assert run(tmp_path / "r", resume=True)["loss"] == run()["loss"]
    assert {p.name for p in (tmp_path / "r").iterdir()} == {"state.safetensors", "state.json", "log.jsonl"}
