"""The design study of SharpMask section 4 at a laptop's scale: what a variant of the network costs.

The second paper varies the trunk by W (patch side), P (poolings), D (depth) and F (features after the 1x1 convolution), and
how much mask and score share (heads A, B, C). `TRUNKS` and `HEADS` name variants of `deepmask_tiny`; their values are
`options` of a recipe. `costs` counts and times them, lesson 07 puts accuracy beside it.
The variants are ours: the paper's are of ResNet-50 size. D counts the stem and two convolutions for each block.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fairseg_lite.bench import Stopwatch
from fairseg_lite.errors import InputError
from fairseg_lite.models import deepmask
from fairseg_lite.models.deepmask import DeepMask, deepmask_tiny


class Cost(NamedTuple):
    """parameters of all and of what follows the trunk; windows of the picture; seconds and GFLOP by stage."""

    parameters: int
    head_parameters: int
    windows: int
    seconds: dict[str, float]
    gflop: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())


def _name(*, patch_size: int = 96, poolings: int = 4, depths: tuple[int, ...] = (1, 2, 2), features: int = 64) -> str:
    """The paper's way to name a trunk."""
    return f"W{patch_size}-P{poolings}-D{1 + 2 * sum(depths)}-F{features}"


TRUNKS: dict[str, dict] = {
    _name(**options): options
    for options in (
        {},  # the shipped network
        {"patch_size": 64},
        {"patch_size": 64, "poolings": 3},  # as many cells as W128-P4 would have
        {"depths": (1, 1, 1)},
        {"depths": (2, 3, 3)},
        {"features": 16},
        {"features": 128},
    )
}
HEADS: dict[str, dict] = {f"head {name}": {"head": name} for name in deepmask.HEADS}


def costs(
    variants: Mapping[str, Mapping], *, size: tuple[int, int] = (240, 320), top_k: int = 100, repeat: int = 5,
    device: torch.device | str = "cpu",
) -> dict[str, Cost]:  # fmt: skip
    """Parameters, arithmetic and time of variants, for one picture at one scale. Weights and picture are random.

    Args:
        variants: name -> options of `deepmask_tiny`, such as `TRUNKS` or `HEADS`.
        size: (height, width) in px of the picture as the first variant sees it. A variant with half the patch sees it at
            half the size, so that all of them find the same objects.
        top_k: windows whose masks are made, or all where there are fewer.
        repeat: runs of each, in turns, so that a busy minute hits all alike; the fastest counts.
        device: where it runs.
    Returns: A Cost for each name, in order.
    Raises: InputError, no variants, or a size, top_k or repeat below 1.
    Example:
        >>> found = costs({"wide": {"features": 128}, "narrow": {"features": 16}}, size=(32, 32), repeat=1)
        >>> found["wide"].parameters - found["narrow"].parameters == 112 * (6 * 6 * 512 + 128 + 1)
        True

    Source: SharpMask section 4, tables 1 and 2. Lesson: 07.
    """
    if not variants or min(*size, top_k, repeat) < 1:
        raise InputError(f"{len(variants)} variants, size {size}, top_k {top_k}, repeat {repeat}; all must be at least 1")
    device = torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {name: deepmask_tiny(**options).eval().to(device) for name, options in variants.items()}
        first = next(iter(models.values())).patch_size
        pictures = {name: _picture(model, size, model.patch_size / first).to(device) for name, model in models.items()}
    found: dict[str, Cost] = {}
    for name, model in models.items():
        with FlopCounterMode(display=False) as counter:
            watch, windows = _run(model, pictures[name], top_k, Stopwatch(device, counter))  # also the run that warms up
        whole = sum(p.numel() for p in model.parameters())
        trunk = sum(p.numel() for p in model.trunk.parameters())
        found[name] = Cost(whole, whole - trunk, windows, watch.seconds, {k: v / 1e9 for k, v in watch.flops.items()})
    best: dict[str, dict[str, float]] = {}
    for _ in range(repeat):
        for name, model in models.items():
            seconds = _run(model, pictures[name], top_k, Stopwatch(device))[0].seconds
            best[name] = min(best.get(name, seconds), seconds, key=lambda stages: sum(stages.values()))
    return {name: cost._replace(seconds=best[name]) for name, cost in found.items()}


def _picture(model: DeepMask, size: tuple[int, int], scale: float) -> Tensor:
    """Noise with the border of half a patch that whole-picture inference adds, rounded up to the stride."""
    return torch.randn(1, 3, *(-(-(round(n * scale) + model.patch_size) // model.stride) * model.stride for n in size))


@torch.inference_mode()
def _run(model: DeepMask, picture: Tensor, top_k: int, watch: Stopwatch) -> tuple[Stopwatch, int]:
    """All windows, and the masks of the best: what `propose` computes at one scale."""
    dense = model.dense(picture, timer=watch)
    with watch("masks"):
        scores = dense.scores.flatten()
        order = scores.topk(min(top_k, len(scores))).indices
        columns = dense.scores.shape[-1]
        model.masks_at(dense, torch.zeros_like(order), order // columns, order % columns)
    return watch, len(scores)


def cost_table(found: Mapping[str, Cost]) -> str:
    """What `costs` found, for people: millions of parameters, windows, GFLOP, and milliseconds by stage.

    Example:
        >>> print(cost_table({"W8": Cost(2_300_000, 1_500_000, 9, {"trunk": 0.25}, {"trunk": 1.5})}))
        variant              M  M head  windows   GFLOP  ms trunk      ms
        W8                2.30    1.50        9    1.50     250.0   250.0
    """
    stages = list(dict.fromkeys(stage for cost in found.values() for stage in cost.seconds))
    columns = [f"ms {stage}" for stage in stages]
    head = "".join(f"  {c}" for c in columns)
    lines = [f"{'variant':16}{'M':>6}{'M head':>8}{'windows':>9}{'GFLOP':>8}{head}{'ms':>8}"]
    for name, cost in found.items():
        times = "".join(f"  {1e3 * cost.seconds.get(s, 0):>{len(c)}.1f}" for s, c in zip(stages, columns, strict=True))
        lines.append(
            f"{name:16}{cost.parameters / 1e6:6.2f}{cost.head_parameters / 1e6:8.2f}{cost.windows:9}"
            f"{sum(cost.gflop.values()):8.2f}{times}{1e3 * cost.total:8.1f}"
        )
    return "\n".join(lines)
