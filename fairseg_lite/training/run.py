"""A network in training and its folder: how a run is kept, and how it goes on.

`state.safetensors` (+ `.json`) holds weights, optimiser and step, `log.jsonl` one line for each logged step. A run that was
killed goes on from its last checkpoint; what the log says beyond it is done again.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.files import whole
from fairseg_lite.models.checkpoints import load_tensors, load_weights, save_tensors
from fairseg_lite.training.recipes import FitConfig


class Run:
    """A network in training, with all that a checkpoint of it holds."""

    def __init__(self, model: nn.Module, config: FitConfig, out: str | Path | None, header: dict):
        self.model, self.config, self.header = model, config, {**header, "fit": asdict(config)}
        self.optimizer = _optimizer(model, config)
        self.average = Average(model, config.ema) if config.ema else None
        self.out = None if out is None else Path(out)
        self.state = Path(out or "") / "state.safetensors"

    def learn(self, loss: Tensor, step: int) -> None:
        """One step of the optimiser."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)

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
        for i, state in self.optimizer.state_dict()["state"].items():
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

    def open(self, resume: bool) -> tuple[list[dict], int]:
        """The rows logged so far and the step to begin with; loads weights and optimiser of an interrupted run."""
        if self.out is None:
            return [], 0
        log = self.out / "log.jsonl"
        if not self.state.is_file():
            if log.is_file():
                log.unlink()  # of a run that died before its first checkpoint
            return [], 0
        if not resume:
            raise InputError(f"{str(self.out)!r} holds a run already; resume it, or choose another folder")
        tensors, header = load_tensors(self.state)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, key = name.partition(".")
            parts[part][key] = tensor
        load_weights(self.model, parts["model"], self.state)
        if self.average is not None:
            self.average.load(parts["average"], self.state)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            i, _, key = name.partition(".")
            state.setdefault(int(i), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        rows = _rows(log, header["step"])
        with whole(log) as file:  # steps after the checkpoint will be done again
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return rows, header["step"]


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
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def _rows(log: Path, step: int) -> list[dict]:
    """The lines of a log up to a step."""
    rows = []
    for line in log.read_text("utf-8").splitlines() if log.is_file() else []:
        with suppress(ValueError):  # the line that was being written when the run was killed
            rows.append(json.loads(line))
    return [row for row in rows if row["step"] <= step]
