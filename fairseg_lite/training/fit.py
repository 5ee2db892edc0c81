"""One training loop for every network, on CPU and GPU.

The data is an object with `batch(step)`, a pure function of the step; dropout is seeded by the step, too. A run that was
killed therefore goes on from its last checkpoint exactly as if nothing had happened: same batches, same losses to the last
bit on a CPU with the same number of threads.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.training.recipes import PRECISIONS, FitConfig
from fairseg_lite.training.run import Run


class Data(Protocol):
    def batch(self, step: int) -> Any:
        """Batch number `step`, a pure function of it."""


@dataclass
class History:
    """What a run logged: one dict per logged step (step, loss and its parts, lr, rate in samples/s); finished or not."""

    rows: list[dict]
    finished: bool

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]


@cache
def bf16_is_faster(device: torch.device | str = "cpu") -> bool:
    """Measure a 3x3 convolution in both types, a fifth of a second; true where bfloat16 is at least 1.2 times faster.

    Some processors have units for bfloat16 (AMX, tensor cores), others emulate it many times slower: choose by measurement,
    once for a device.
    """
    x = torch.ones(8, 64, 56, 56, device=device).to(memory_format=torch.channels_last)
    w = torch.ones(64, 64, 3, 3, device=device).to(memory_format=torch.channels_last)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):  # in turns: what else the machine does meanwhile hits both
        for dtype in best:
            a, b = x.to(dtype), w.to(dtype)
            start = time.perf_counter()
            F.conv2d(a, b, padding=1).sum().item()  # waits for a GPU
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] > 1.2 * best[torch.bfloat16]


def wants_bf16(precision: str, device: torch.device | str) -> bool:
    """What "fp32", "bf16" or "auto" (`bf16_is_faster`) comes to on a device; InputError for another word."""
    check_choice("precision", precision, PRECISIONS)
    return precision == "bf16" or (precision == "auto" and bf16_is_faster(device))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed, on the CPU, where weights begin; the caller's own go on afterwards as if nothing had been drawn.

    Example:
        >>> with seeded(1):
        ...     first = torch.rand(1)
        >>> before = torch.random.get_rng_state()
        >>> with seeded(1):
        ...     torch.equal(torch.rand(1), first)
        True
        >>> torch.equal(torch.random.get_rng_state(), before)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def fit(
    model: nn.Module,
    data: Data,
    loss_fn: Callable[[nn.Module, Any, int], dict[str, Tensor]],
    config: FitConfig,
    *,
    out: str | Path | None = None,
    header: dict | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Train a network; stop and go on at will.

    Args:
        model: on its device already; its training/evaluation mode is left to the caller (a frozen part stays in eval).
        data: `data.batch(step)` gives a batch with `.to(device)`, and a length for the rate.
        loss_fn: (model, batch, step) -> {"loss": scalar, and parts to log}.
        config: the run's numbers.
        out: folder for checkpoints and log; None writes nothing.
        header: goes into the checkpoint, e.g. {"model": "deepmask_tiny"}, so that `load_model` can build it.
        resume: go on from `out` if it holds a run; without it a folder that holds a run is refused.
        progress: show a bar with loss and rate.
    Returns:
        History of the logged steps, earlier ones included; `finished` is False after Ctrl-C (the checkpoint is kept).
    Raises:
        InputError: a loss that is not finite, a folder that holds a run already or another network's, an unknown option.
    Source: DeepMask section 3.3 for the numbers of `FitConfig`. Lesson: 03.
    """
    device = next(model.parameters()).device
    bf16 = wants_bf16(config.precision, device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    run = Run(model, config, out, header or {})
    rows, first = run.open(resume)
    batches = iter(DataLoader(_Batches(data), batch_size=None, sampler=range(first, config.steps), num_workers=config.workers))
    bar = tqdm(total=config.steps, initial=first, disable=not progress, unit="step", mininterval=0.5)
    samples, clock = 0, time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _stop_after_step() as stop, bar:
        for step in range(first, config.steps):
            batch = next(batches).to(device)
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout depends on the step alone
            lr = _set_lr(run.optimizer, config, step)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                losses = loss_fn(model, batch, step)
            values = {k: v.item() for k, v in losses.items()}
            if not math.isfinite(values["loss"]):
                parts = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
                advice = f"lower lr (now {lr:.3g}) or set clip; {run.kept()}"
                raise InputError(f"loss is not finite at step {step} ({parts}); {advice}")
            run.learn(losses["loss"], step)
            samples += len(batch)
            bar.update()
            done = step + 1
            last = done == config.steps or stop.is_set()
            if done % config.log_every == 0 or last:
                rate = samples / (time.perf_counter() - clock)
                samples, clock = 0, time.perf_counter()
                rows.append({"step": done, **values, "lr": lr, "rate": rate})
                bar.set_postfix(loss=f"{values['loss']:.3f}", rate=f"{rate:.0f}/s", refresh=False)
                run.log(rows[-1])
            if done % config.save_every == 0 or last:
                run.save(done)
            if stop.is_set():
                return History(rows, finished=False)
    if run.average is not None:
        run.average.apply()
    return History(rows, finished=True)


class _Batches(Dataset):
    """Batch number i, as a loader with workers wants it."""

    def __init__(self, data: Data):
        self.data = data

    def __getitem__(self, step: int) -> Any:
        return self.data.batch(step)


def _set_lr(optimizer: torch.optim.Optimizer, config: FitConfig, step: int) -> float:
    lr = config.lr * min(1.0, (step + 1) / config.warmup) if config.warmup else config.lr
    if config.schedule == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * step / config.steps))
    elif config.schedule == "wsd":
        lr *= min(1.0, (config.steps - step) / max(config.decay * config.steps, 1))
    elif config.schedule == "step":
        lr *= (1.0, *config.factors)[sum(step >= m for m in config.milestones)]
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    return lr


@contextmanager
def _stop_after_step() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask the loop to finish its step and save; a second one stops at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may catch signals
        yield stop
        return
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
