"""What the commands that train have in common: options of a run, the run to resume, data and output."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from fairseg_lite.cli.inputs import open_dataset, output_folder
from fairseg_lite.cli.options import add_device, positive
from fairseg_lite.errors import InputError


def add_run(p: argparse.ArgumentParser, *, batch: str, valid: str) -> None:
    """What every training run can be told; batch and valid say what these two mean here."""
    p.add_argument("--weights", type=float, nargs="+", metavar="X", help="how often each DATA is drawn (default: by pictures)")
    words = "of each DATA: all, none, or the categories (A,B,...) of which it annotates every object (default: all)"
    p.add_argument("--exhaustive", nargs="+", metavar="E", help=words)
    p.add_argument("--steps", type=positive, metavar="N", help="optimiser steps (default: the recipe's)")
    p.add_argument("--batch", type=positive, metavar="N", help=batch)
    p.add_argument("--lr", type=float, metavar="X", help="highest learning rate (default: the recipe's)")
    p.add_argument("--seed", type=int, metavar="N", help="of weights, samples and dropout (default: 0)")
    p.add_argument("--precision", choices=("fp32", "bf16", "auto"), help="auto takes bf16 where it measures faster")
    p.add_argument("--workers", type=int, metavar="N", help="processes that prepare batches (default: 0, none)")
    p.add_argument("--save-every", type=positive, metavar="N", help="steps between checkpoints (default: the recipe's)")
    p.add_argument("--valid", metavar="DATA", help=valid)
    p.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    p.add_argument("--skip-faults", action="store_true", help="leave damaged pictures and annotations out, counted")
    add_device(p)


def run_of(a: argparse.Namespace, recipes: dict, kind: str) -> tuple:
    """The recipe with the run's numbers from the command line, and the header of the run to resume, if there is one."""
    from fairseg_lite.training.fit import FitConfig

    cls = type(next(iter(recipes.values())))
    header, stored = Path(a.out) / "state.json", {}
    if a.resume and header.exists():
        try:
            stored = json.loads(header.read_text())
            name = str(stored["model"])
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise InputError(f"{str(header)!r} is no run of this version ({error}); start another without --resume") from error
        if not name.startswith(kind):
            raise InputError(f"{a.out!r} holds a run of {name}; resume it with train {name.split('_')[0]}")
        try:
            fit = FitConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored["fit"].items()})
            lists = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["recipe"].items()}
            recipe = cls(**{**lists, "fit": fit})
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise InputError(f"{str(header)!r} is no run of this version ({error}); start another without --resume") from error
    else:
        recipe = recipes[a.recipe or "shapes"]
    if a.lr is not None and not a.lr > 0:
        raise InputError(f"--lr is {a.lr}; it must be above 0")
    if a.workers is not None and a.workers < 0:
        raise InputError(f"--workers is {a.workers}; it must be 0 or more")
    given = {k: getattr(a, k) for k in ("steps", "lr", "seed", "precision", "workers", "save_every")}
    fit = replace(recipe.fit, **{k: v for k, v in given.items() if v is not None})
    if not stored:
        fit = replace(fit, warmup=min(fit.warmup, fit.steps // 10))
    return replace(recipe, fit=fit), stored


def data_of(a: argparse.Namespace) -> tuple:
    """(training data, validation data or None, output folder), all of them there."""
    on_fault = "skip" if a.skip_faults else "raise"
    sets = [open_dataset(name, held_out=False, on_fault=on_fault) for name in a.data]
    if len(sets) > 1 or a.exhaustive:
        from fairseg_lite.data.mix import Mix

        kinds = [{"all": "all", "none": ()}.get(e, e.split(",")) for e in a.exhaustive or []]
        data = Mix(sets, weights=a.weights, exhaustive=kinds or None)
    else:
        data = sets[0]
    valid = open_dataset(a.valid, held_out=True, on_fault=on_fault) if a.valid else None
    return data, valid, output_folder(a.out)


def sampler_of(recipe) -> type:
    """The sampler that follows a recipe's rules."""
    from fairseg_lite.data.patches import PatchSampler
    from fairseg_lite.official.patches import OfficialSampler

    return OfficialSampler if recipe.rules == OfficialSampler.rules else PatchSampler
