"""`fairseg-lite train deepmask`."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from fairseg_lite.cli.inputs import (
    DATA_HELP,
    add_device,
    command,
    device_of,
    open_dataset,
    output_folder,
    positive,
    write_json,
)

MODEL_NAMES = ("deepmask_tiny", "deepmask_vgg_a", "deepmask_resnet50")  # a test holds both equal to the library's
RECIPE_NAMES = ("shapes", "lesson", "photos", "paper", "official")
DEEPMASK = """examples:
  fairseg-lite train deepmask shapes --out runs/shapes --valid shapes:100
      the small network on synthetic scenes
  fairseg-lite train deepmask photos/train --recipe photos --trunk-weights ResNet50_Weights.IMAGENET1K_V2 \\
      --out runs/photos --valid photos/valid
      ResNet-50 on your own COCO-format folder, from ImageNet weights
The folder --out gets state.safetensors (to --resume from), log.jsonl and, at the end, model.safetensors, which
`propose --model` and `evaluate` take. Ctrl-C finishes the step, saves and stops.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `train deepmask`."""
    group = command(commands, "train", "train a network")
    jobs = group.add_subparsers(dest="job", metavar="JOB", required=True)
    p = command(jobs, "deepmask", "masks and scores for patches", DEEPMASK)
    p.add_argument("data", metavar="DATA", help=DATA_HELP)
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder for checkpoints and log")
    p.add_argument("--recipe", choices=RECIPE_NAMES, help="the run's numbers (default: shapes; resumed: its own)")
    p.add_argument("--model", choices=MODEL_NAMES, help="network (default: the recipe's)")
    p.add_argument("--trunk-weights", metavar="W", help="such as ResNet50_Weights.IMAGENET1K_V2, or a file")
    p.add_argument("--stride-in-1x1", action="store_true", help="the trunk weights are of the original ResNet")
    p.add_argument("--steps", type=positive, metavar="N", help="optimiser steps (default: the recipe's)")
    p.add_argument("--batch", type=positive, metavar="N", help="patches in a step (the share of positives stays)")
    p.add_argument("--lr", type=float, metavar="X", help="highest learning rate (default: the recipe's)")
    p.add_argument("--seed", type=int, metavar="N", help="of weights, samples and dropout (default: 0)")
    p.add_argument("--precision", choices=("fp32", "bf16", "auto"), help="auto takes bf16 where it measures faster")
    p.add_argument("--workers", type=int, metavar="N", help="processes that prepare patches (default: 0, none)")
    p.add_argument("--save-every", type=positive, metavar="N", help="steps between checkpoints (default: the recipe's)")
    p.add_argument("--valid", metavar="DATA", help="measure patch IoU on this data at the end")
    p.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    p.add_argument("--skip-faults", action="store_true", help="leave damaged pictures and annotations out, counted")
    add_device(p)
    p.set_defaults(run=_deepmask)


def recipe_of(a: argparse.Namespace) -> tuple:
    """(recipe, network options): the named recipe, or that of the run to resume, with what the command line changes."""
    from fairseg_lite.training.fit import FitConfig
    from fairseg_lite.training.recipes import RECIPES, Recipe

    header, stored = Path(a.out) / "state.json", {}
    if a.resume and header.exists():
        try:
            stored = json.loads(header.read_text())
            fit = FitConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored["fit"].items()})
            recipe = Recipe(**{**stored["recipe"], "fit": fit})
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{str(header)!r} is no run of this version ({error}); start another without --resume") from error
    else:
        recipe = RECIPES[a.recipe or "shapes"]
    if a.lr is not None and not a.lr > 0:
        raise ValueError(f"--lr is {a.lr}; it must be above 0")
    if a.workers is not None and a.workers < 0:
        raise ValueError(f"--workers is {a.workers}; it must be 0 or more")
    given = {k: getattr(a, k) for k in ("steps", "lr", "seed", "precision", "workers", "save_every")}
    fit = replace(recipe.fit, **{k: v for k, v in given.items() if v is not None})
    if not stored:
        fit = replace(fit, warmup=min(fit.warmup, fit.steps // 10))
    changes: dict = {"fit": fit, "model": a.model or recipe.model}
    if changes["model"] != recipe.model:
        changes["freeze"] = 0 if changes["model"] != "deepmask_resnet50" else recipe.freeze
    if recipe.freeze and not a.trunk_weights and not stored:
        changes["freeze"] = 0  # a trunk of random numbers holds nothing worth keeping fixed
        print("no --trunk-weights: the trunk starts from random numbers, and all of it is trained")
    if a.batch:
        share = recipe.positives / (recipe.positives + recipe.negatives)
        positives = min(max(round(a.batch * share), 1), max(a.batch - 1, 1))
        changes |= {"positives": positives, "negatives": a.batch - positives}
    kwargs = dict(stored.get("kwargs", {}))
    if a.stride_in_1x1:
        kwargs["stride_in_1x1"] = True
    return replace(recipe, **changes), kwargs


def _deepmask(a: argparse.Namespace) -> int:
    recipe, kwargs = recipe_of(a)
    device = device_of(a)
    if a.trunk_weights and recipe.model == "deepmask_tiny":
        raise ValueError("deepmask_tiny has no ImageNet weights; drop --trunk-weights, or --model deepmask_resnet50")
    if a.stride_in_1x1 and recipe.model != "deepmask_resnet50":
        raise ValueError(f"--stride-in-1x1 belongs to deepmask_resnet50; the network here is {recipe.model}")
    on_fault = "skip" if a.skip_faults else "raise"
    data = open_dataset(a.data, held_out=False, on_fault=on_fault)
    valid = open_dataset(a.valid, held_out=True, on_fault=on_fault) if a.valid else None
    out = output_folder(a.out)

    from fairseg_lite.training.recipes import patch_report, train_deepmask

    model, history = train_deepmask(
        data,
        recipe=recipe,
        out=out,
        model_kwargs=kwargs,
        trunk_weights=None if a.resume and (out / "state.safetensors").exists() else a.trunk_weights,
        device=device,
        resume=a.resume,
    )
    step = history["step"][-1] if history.rows else 0
    if not history.finished:
        raise KeyboardInterrupt(f"step {step} is kept in {out / 'state.safetensors'}; go on with --resume")
    print(f"{recipe.model}: {step} steps, last loss {history['loss'][-1]:.4f}; network in {out / 'model.safetensors'}")
    if valid is not None:
        report = patch_report(model, valid, padding=recipe.padding)
        print(f"{a.valid}: {report}")
        numbers = {k: v for k, v in vars(report).items() if k != "ious"}
        write_json(out / "valid.json", {"data": a.valid, "patches": numbers}, indent=1)
    return 0
