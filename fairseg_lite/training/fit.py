"""One training loop for every network, on CPU and GPU.

The data is an object with `batch(step)`, a pure function of the step; dropout is seeded by the step, too. A run that was
killed therefore goes on from its last checkpoint exactly as if nothing had happened: same batches, same losses to the last
bit on a CPU with the same number of threads. Its folder holds weights, optimiser and step (`state.safetensors`, `.json`), and a
line for each logged step (`log.jsonl`); what the log says beyond the checkpoint is done again.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.files import held, whole
from fairseg_lite.models.checkpoints import load_tensors, load_weights, save_tensors
from fairseg_lite.training.recipes import FitConfig
from fairseg_lite.training.shards import Batches, Parts, any_of, first_of, rank_and_world, stop_after_step, wants_bf16


class Run:
    """A network in training, with all that a checkpoint of it holds."""

    def __init__(self, model: nn.Module, config: FitConfig, out: str | Path | None, header: dict):
        self.model, self.config, self.header = model, config, {**header, "fit": asdict(config)}
        self.optimizer = _optimizer(model, config)
        self.learned = [p for p in model.parameters() if p.requires_grad]  # by their places here a checkpoint knows them
        self.average = Average(model, config.ema) if config.ema else None
        self.out = None if out is None or rank_and_world()[0] else Path(out)  # the first process alone writes
        self.state = Path(out or "") / "state.safetensors"

    def learn(self, step: int) -> None:
        """One step of the optimiser, by the gradients that are there."""
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)

    def in_bf16(self, device: torch.device) -> bool:
        """Whether it computes in bfloat16. What "auto" came to when it began holds to its end: another measurement may differ."""
        if self.config.precision != "auto" or self.header.get("bf16") is None:
            self.header["bf16"] = first_of(lambda: wants_bf16(self.config.precision, device))
        return self.header["bf16"]

    def read(self, losses: dict[str, Tensor], total: Tensor, step: int, lr: float) -> dict[str, float]:
        """The losses of a step as numbers, for which a GPU is waited.

        Raises: InputError, the loss is not finite, or was not at a step since the last reading: `total` is the sum of those.
        """
        *numbers, sum_ = torch.stack([*(v.detach() for v in losses.values()), total]).tolist()
        values = dict(zip(losses, numbers, strict=True))
        if not math.isfinite(sum_):
            parts = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
            when = "before" if math.isfinite(values["loss"]) else "at"
            advice = f"lower lr (now {lr:.3g}) or set clip; {self.kept()}"
            raise InputError(f"loss is not finite {when} step {step} ({parts}); {advice}")
        return values

    def kept(self) -> str:
        """Where the run can go on from."""
        written = self.out is not None and self.state.is_file()
        return f"the last good checkpoint is in {str(self.out)!r}" if written else "no checkpoint was written yet"

    def save(self, step: int) -> None:
        """Write `state.safetensors`, at a step that is done."""
        if self.out is None:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.kept.items()} if self.average is not None else {}
        for i, p in enumerate(self.learned):
            state = self.optimizer.state.get(p, {})
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        save_tensors(self.state, tensors, {**self.header, "step": step})

    def log(self, row: dict) -> None:
        """Add a line to `log.jsonl`."""
        if self.out is None:
            return
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with open(self.out / "log.jsonl", "a", encoding="utf-8") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as error:
            raise InputError(f"cannot write the log in {str(self.out)!r}: {error}; {self.kept()}") from error

    def open(self, resume: bool | str) -> tuple[list[dict], int]:
        """The rows logged so far and the step to begin with; loads weights and optimiser of an interrupted run."""
        rows, header, tensors = first_of(lambda: self._stored(resume))
        if tensors:
            self.header["bf16"] = header.get("bf16")
            load_weights(self.model, _under("model", tensors), self.state)
            if self.average is not None:
                self.average.load(_under("average", tensors), self.state)
            moments = _under("optimizer", tensors)
            places = {p: i for i, p in enumerate(p for group in self.optimizer.param_groups for p in group["params"])}
            state = {places[self.learned[int(i)]]: _under(i, moments) for i in {name.partition(".")[0] for name in moments}}
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        return rows, header.get("step", 0)

    def _stored(self, resume: bool | str) -> tuple[list[dict], dict, dict[str, Tensor]]:
        log = None if self.out is None else self.out / "log.jsonl"
        if log is None or not self.state.is_file():
            if log is not None and log.is_file():
                log.unlink()  # of a run that died before its first checkpoint
            return [], {}, {}
        if not resume:
            raise InputError(f"{str(self.out)!r} holds a run already; resume it, or choose another folder")
        tensors, header = load_tensors(self.state)
        rows: list[dict] = []
        for line in log.read_text("utf-8").splitlines() if log.is_file() else []:
            with suppress(ValueError):  # the line that was being written when the run was killed
                rows.append(json.loads(line))
        rows = [row for row in rows if row["step"] <= header["step"]]
        with whole(log) as file:  # steps after the checkpoint will be done again
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return rows, header, tensors


class Average:
    """Exponential moving average of the weights that learn, kept in float32 beside them (Polyak and Juditsky 1992).

    The first steps count less than `keep` would have it: after n of them an average keeps at most (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, keep: float):
        self.keep = keep
        self.learned = {k: p for k, p in model.named_parameters() if p.requires_grad}
        self.kept = {k: p.detach().clone() for k, p in self.learned.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self.keep, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.kept.values()), list(self.learned.values()), 1 - keep)

    def load(self, kept: dict[str, Tensor], source: Path) -> None:
        """Take the average of an interrupted run."""
        if missing := self.kept.keys() - kept.keys():
            raise InputError(f"{str(source)!r} holds no average of {min(missing)!r}; resume it with the ema it began with")
        self.kept = {k: kept[k].to(v) for k, v in self.kept.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """The average becomes the network's weights."""
        for k, p in self.learned.items():
            p.copy_(self.kept[k])


def _optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}  # one group for each setting: a step takes them together
    for name, p in model.named_parameters():
        if p.requires_grad:
            scale = next((s for prefix, s in config.lr_scale.items() if name.startswith(prefix)), 1.0)
            alike.setdefault((scale, config.weight_decay if p.ndim > 1 else 0.0), []).append(p)
    if not alike:
        raise InputError("no parameter of the network wants a gradient; unfreeze a part of it")
    groups = [{"params": ps, "scale": scale, "weight_decay": decay} for (scale, decay), ps in alike.items()]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def _under(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a part and a dot, by what follows."""
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}


class Data(Protocol):
    def batch(self, step: int) -> Any:
        """Batch number `step`, a pure function of it; for more shards than one, batch(step, shard, shards), a part of it."""


@dataclass
class History:
    """What a run logged: one dict per logged step (step, loss and its parts, lr, rate in samples/s); finished or not."""

    rows: list[dict]
    finished: bool

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]


def fit(
    model: nn.Module, data: Data, loss_fn: Callable[[nn.Module, Any, int], dict[str, Tensor]], config: FitConfig, *,
    out: str | Path | None = None, header: dict | None = None, resume: bool | str = False, progress: bool = True,
) -> History:  # fmt: skip
    """Train a network; stop and go on at will.

    Args:
        model: on its device already; its training/evaluation mode is left to the caller (a frozen part stays in eval).
        data: `data.batch(step)` gives a batch with `.to(device)`, and a length for the rate.
        loss_fn: (model, batch, step) -> {"loss": scalar, and parts to log}. config: the run's numbers.
        out: folder for checkpoints and log; None writes nothing.
        header: goes into the checkpoint, e.g. {"model": "deepmask_tiny"}, so that `load_model` can build it.
        resume: go on from `out` if it holds a run, which is refused without it. progress: show a bar with loss and rate.
    Returns: History of the logged steps, earlier ones included; `finished` is False after Ctrl-C (the checkpoint is kept).
    Raises: InputError, a loss that is not finite; a folder that holds a run already or another network's, or in which another
        process is training; an unknown option.
    Source: DeepMask, Implementation Details, for the numbers of `FitConfig`. Lesson: 03.
    """
    device = next(model.parameters()).device
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    run = Run(model, config, out, header or {})
    with held(run.out), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), stop_after_step() as stop:
        rows, first = run.open(resume)
        parts = Parts(model, loss_fn, config, run.in_bf16(device))
        order, own = range(first * len(parts.own), config.steps * len(parts.own)), torch.Generator()  # the caller's stays
        loader = DataLoader(Batches(data, parts), batch_size=None, sampler=order, num_workers=config.workers, generator=own)
        batches, quiet = iter(loader), not progress or parts.rank > 0
        steps = range(first, config.steps)
        bar = tqdm(steps, initial=first, total=config.steps, disable=quiet, unit="step", mininterval=0.5)
        samples, clock, total = 0, time.perf_counter(), torch.zeros((), device=device)
        for step in bar:
            lr = _set_lr(run.optimizer, config, step)
            run.optimizer.zero_grad(set_to_none=True)
            losses = parts.backward(batches, step)
            done, stopped, total = step + 1, any_of(stop.is_set()), total + losses["loss"]
            last = done == config.steps or stopped
            if device.type == "cpu" or last or 0 in (done % config.log_every, done % config.save_every):
                values, total = run.read(losses, total, step, lr), torch.zeros_like(total)
            run.learn(step)
            if done % config.log_every == 0 or last:
                rate = (parts.seen - samples) / (time.perf_counter() - clock)
                samples, clock = parts.seen, time.perf_counter()
                rows.append({"step": done, **values, "lr": lr, "rate": rate})
                bar.set_postfix(loss=f"{values['loss']:.3f}", rate=f"{rate:.0f}/s", refresh=False)
                run.log(rows[-1])
            if done % config.save_every == 0 or last:
                run.save(done)
            if stopped:
                return History(rows, finished=False)
    if run.average is not None:
        run.average.apply()
    return History(rows, finished=True)


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
