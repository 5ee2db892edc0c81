"""One training loop for every network, on CPU and GPU.

The data is an object with `batch(step)`, a pure function of the step; dropout is seeded by the step, too. A run that was
killed therefore goes on from its last checkpoint exactly as if nothing had happened: same batches, same losses to the last
bit on a CPU with the same number of threads.

Files of a run in `out/`: `state.safetensors` (+ `.json`): weights, optimiser, step; `log.jsonl`: one line per logged step.
"""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from fairseg_lite.errors import InputError
from fairseg_lite.models.checkpoints import load_tensors, load_weights, save_tensors


@dataclass(frozen=True)
class FitConfig:
    """One run. The paper's DeepMask: sgd, lr 1e-3, momentum 0.9, weight decay 5e-5, batch 32, no clipping."""

    steps: int = 1000  # optimiser steps
    lr: float = 1e-3  # highest learning rate
    optimizer: str = "adamw"  # or "sgd"
    momentum: float = 0.9  # sgd only
    weight_decay: float = 1e-2  # on weights, never on biases and norms
    schedule: str = "cosine"  # "cosine" to zero, "constant", "step", or "wsd": constant, then down to zero
    decay: float = 0.2  # share of the steps in which "wsd" goes down; until then a run can be lengthened (Hu et al. 2024)
    milestones: tuple[int, ...] = ()  # steps at which "step" changes the rate
    factors: tuple[float, ...] = ()  # of lr from each milestone on
    warmup: int = 0  # steps of linear increase from lr / warmup
    clip: float | None = None  # largest gradient norm
    ema: float = 0.0  # weights averaged over time: what is left of the average after a step; 0 for none; papers: none
    precision: str = "fp32"  # "fp32", "bf16" autocast, or "auto": bf16 where it measures faster
    channels_last: bool = True  # memory layout of weights and images
    lr_scale: dict[str, float] = field(default_factory=dict)  # factor by parameter-name prefix, e.g. {"trunk.": 0.1}
    log_every: int = 10  # steps
    save_every: int = 200  # steps
    workers: int = 0  # processes that prepare batches
    seed: int = 0


class Data(Protocol):
    """Anything that makes batch number `step`: a pure function of the step."""

    def batch(self, step: int) -> Any: ...


@dataclass
class History:
    """What a run logged: one dict per logged step (step, loss and its parts, lr, rate in samples/s); finished or not."""

    rows: list[dict]
    finished: bool

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]


def bf16_is_faster(device: torch.device | str = "cpu") -> bool:
    """Measure a 3x3 convolution in both types; true where bfloat16 is at least 1.2 times faster.

    Some processors have units for bfloat16 (AMX, tensor cores), others emulate it many times slower: choose by measurement.
    Takes a fifth of a second. Example: `FitConfig(precision="auto")` uses it.
    """
    x = torch.randn(8, 64, 56, 56, device=device).to(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 3, 3, device=device).to(memory_format=torch.channels_last)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):  # in turns: what else the machine does meanwhile hits both
        for dtype in best:
            a, b = x.to(dtype), w.to(dtype)
            start = time.perf_counter()
            F.conv2d(a, b, padding=1).sum().item()  # waits for a GPU
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] > 1.2 * best[torch.bfloat16]


def wants_bf16(precision: str, device: torch.device | str) -> bool:
    """What "fp32", "bf16" or "auto" (`bf16_is_faster`) comes to on a device; ValueError for another word."""
    if precision not in ("fp32", "bf16", "auto"):
        raise InputError(f"precision is {precision!r}; choose 'fp32', 'bf16' or 'auto'")
    return precision == "bf16" or (precision == "auto" and bf16_is_faster(device))


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
    if len(config.milestones) != len(config.factors):
        raise InputError(f"{len(config.milestones)} milestones and {len(config.factors)} factors; wanted one for each")
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, config)
    header = {**(header or {}), "fit": asdict(config)}
    out = Path(out) if out is not None else None
    average = Average(model, config.ema) if config.ema else None
    rows, first = _open_run(out, model, optimizer, average, resume)
    history = History(rows, finished=False)

    batches = iter(_loader(data, first, config))
    bar = tqdm(total=config.steps, initial=first, disable=not progress, unit="step", mininterval=0.5)
    samples, clock = 0, time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _stop_after_step() as stop, bar:
        for step in range(first, config.steps):
            batch = next(batches).to(device)
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout depends on the step alone
            lr = _set_lr(optimizer, config, step)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                losses = loss_fn(model, batch, step)
            values = {k: v.item() for k, v in losses.items()}
            if not math.isfinite(values["loss"]):
                kept = "no checkpoint was asked for" if out is None else f"the last good checkpoint is in {str(out)!r}"
                parts = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
                raise InputError(f"loss is not finite at step {step} ({parts}); lower lr (now {lr:.3g}) or set clip; {kept}")
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            if config.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            if average is not None:
                average.update(step)
            samples += len(batch)
            bar.update()
            done = step + 1
            last = done == config.steps or stop.is_set()
            if done % config.log_every == 0 or last:
                rate = samples / (time.perf_counter() - clock)
                samples, clock = 0, time.perf_counter()
                rows.append({"step": done, **values, "lr": lr, "rate": rate})
                bar.set_postfix(loss=f"{values['loss']:.3f}", rate=f"{rate:.0f}/s", refresh=False)
                _log(out, rows[-1])
            if out is not None and (done % config.save_every == 0 or last):
                _save(out, model, optimizer, average, done, header)
            if stop.is_set():
                return history
    if average is not None:
        average.apply()
    history.finished = True
    return history


class Average:
    """Exponential moving average of the weights that learn, kept in float32 beside them (Polyak and Juditsky 1992).

    The first steps count less than `keep` would have it: after n of them an average keeps at most (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, keep: float):
        if not 0 < keep < 1:
            raise InputError(f"ema is {keep}; it is the share of the average that a step leaves, above 0 and below 1")
        self.keep = keep
        self.learned = {k: p for k, p in model.named_parameters() if p.requires_grad}
        self.kept = {k: p.detach().clone() for k, p in self.learned.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self.keep, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.kept.values()), list(self.learned.values()), 1 - keep)

    @torch.no_grad()
    def apply(self) -> None:
        """The average becomes the network's weights."""
        for k, p in self.learned.items():
            p.copy_(self.kept[k])


def _optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    groups = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            scale = next((s for prefix, s in config.lr_scale.items() if name.startswith(prefix)), 1.0)
            decay = config.weight_decay if p.ndim > 1 else 0.0
            groups.append({"params": [p], "scale": scale, "weight_decay": decay})
    if not groups:
        raise InputError("no parameter of the network wants a gradient; unfreeze a part of it")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    raise InputError(f"optimizer is {config.optimizer!r}; choose 'adamw' or 'sgd'")


def _set_lr(optimizer: torch.optim.Optimizer, config: FitConfig, step: int) -> float:
    lr = config.lr * min(1.0, (step + 1) / config.warmup) if config.warmup else config.lr
    if config.schedule == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * step / config.steps))
    elif config.schedule == "wsd":
        lr *= min(1.0, (config.steps - step) / max(config.decay * config.steps, 1))
    elif config.schedule == "step":
        lr *= (1.0, *config.factors)[sum(step >= m for m in config.milestones)]
    elif config.schedule != "constant":
        raise InputError(f"schedule is {config.schedule!r}; choose 'cosine', 'wsd', 'step' or 'constant'")
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    return lr


class _Steps(Dataset):
    def __init__(self, data: Data, first: int, last: int):
        self.data, self.first, self.last = data, first, last

    def __len__(self) -> int:
        return max(self.last - self.first, 0)

    def __getitem__(self, i: int) -> Any:
        return self.data.batch(self.first + i)


def _loader(data: Data, first: int, config: FitConfig) -> DataLoader:
    return DataLoader(_Steps(data, first, config.steps), batch_size=None, num_workers=config.workers, shuffle=False)


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


def _save(
    out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None, step: int, header: dict
) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.kept.items()} if average is not None else {}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    save_tensors(out / "state.safetensors", tensors, {**header, "step": step})


def _open_run(
    out: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None, resume: bool
) -> tuple[list, int]:
    """The rows logged so far and the step to begin with; loads weights and optimiser of an interrupted run."""
    if out is None or not (out / "state.safetensors").exists():
        if out is not None and (out / "log.jsonl").exists():
            (out / "log.jsonl").unlink()  # a run that died before its first checkpoint
        return [], 0
    if not resume:
        raise InputError(f"{str(out)!r} holds a run already; resume it, or choose another folder")
    tensors, header = load_tensors(out / "state.safetensors")
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    load_weights(model, weights, out / "state.safetensors")
    if average is not None:
        if missing := average.kept.keys() - {k.removeprefix("average.") for k in tensors if k.startswith("average.")}:
            raise InputError(f"{str(out)!r} holds no average of {sorted(missing)[0]!r}; resume it with the ema it began with")
        average.kept = {k: tensors[f"average.{k}"].to(v) for k, v in average.kept.items()}
        average.learned = {k: p for k, p in model.named_parameters() if p.requires_grad}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    rows = []
    if (out / "log.jsonl").exists():
        lines = (out / "log.jsonl").read_text().splitlines()
        rows = [row for line in lines if (row := _parse(line)) and row["step"] <= header["step"]]
        part = out / ".log.part"
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(part, out / "log.jsonl")  # steps after the checkpoint will be done again
    return rows, header["step"]


def _parse(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:  # the line that was being written when the run was killed
        return None


def _log(out: Path | None, row: dict) -> None:
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "log.jsonl", "a") as f:
            f.write(json.dumps(row) + "\n")
    except OSError as error:
        raise InputError(f"cannot write the log in {str(out)!r}: {error}; the last checkpoint there is whole") from error
