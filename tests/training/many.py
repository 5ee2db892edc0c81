"""What `torchrun` starts for test_shards: trainings of small networks, and commands.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.training.many JOB OUT SHARDS
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fairseg_lite.cli import main
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.training.detector import train_multipathnet
from fairseg_lite.training.fit import fit
from fairseg_lite.training.recipes import RECIPES, FitConfig
from fairseg_lite.training.shards import joined, rank_and_world
from fairseg_lite.training.stages import train_deepmask, train_sharpmask

SCENES = ShapesDataset(6, seed=3, size=112)


def boxes() -> dict[int, Boxes]:
    """Proposals: the objects moved a little, two without area, one outside."""
    found = {}
    for i in range(len(SCENES)):
        true = torch.from_numpy(SCENES[i].boxes)
        odd = torch.tensor([[9.0, 9, 9, 20], [30, 30, 20, 40], [-50, -50, -20, -20]])
        all_of = torch.cat([true + shift for shift in (-4, 3, 9)] + [odd])
        found[SCENES[i].image_id] = Boxes(all_of, torch.linspace(1, 0.5, len(all_of)))
    return found


def three(out: Path, shards: int, *, steps: int = 3, workers: int = 0) -> None:
    """Each network, a few steps."""
    optimizer = "sgd" if shards == 4 else "adamw"  # which makes whole steps of a gradient that is nothing but rounding
    now = FitConfig(steps=steps, lr=1e-3, optimizer=optimizer, shards=shards, workers=workers, clip=1.0, log_every=1)
    how = {"device": "cpu", "progress": False}
    recipe = replace(RECIPES["deepmask"]["shapes"], positives=8, negatives=4, alternate=True, fit=now)
    train_deepmask(SCENES, recipe=recipe, out=out / "deepmask", **how)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = deepmask_tiny()
    recipe = replace(RECIPES["sharpmask"]["shapes"], positives=4, negatives=4, options={"k": 16}, end_to_end=True, fit=now)
    train_sharpmask(SCENES, recipe=recipe, deepmask=base, out=out / "sharpmask", **how)
    recipe = replace(RECIPES["multipathnet"]["shapes"], images=4, rois=8, short_side=None, untied=True, fit=now)
    train_multipathnet(SCENES, boxes(), recipe=recipe, out=out / "multipathnet", **how)


class Broken:
    """Points of a line; in the last process they come to an end."""

    def batch(self, step: int, shard: int = 0, shards: int = 1):
        if step == 3 and shard == shards - 1:
            raise InputError("picture 'seven.jpg' cannot be decoded")
        return torch.full((4, 1), float(step + shard))


def broken(out: Path, shards: int) -> None:
    """A run whose last process fails in step 3."""
    model = torch.nn.Linear(1, 1)
    fit(model, Broken(), lambda m, x, _: {"loss": m(x).square().mean()}, FitConfig(steps=9, shards=shards), out=out)


def commands(out: Path, _: int) -> None:
    """Commands, one after the other, that stand in a file of the folder."""
    for words in json.loads((out / "commands.json").read_text("utf-8")):
        if code := main(words):
            sys.exit(code)


if __name__ == "__main__":
    job, folder, parts = sys.argv[1:]
    with joined("cpu"):
        try:
            {"three": three, "broken": broken, "commands": commands}[job](Path(folder), int(parts))
        except InputError as error:
            sys.exit(f"process {rank_and_world()[0]}: {error}")
