"""`fairseg-lite train deepmask` and `train sharpmask`, and what all trainings share: options, the run to resume, data and output.

`train multipathnet` is in `naming`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseg_lite.cli.inputs import open_dataset, output_folder, plain, write_json
from fairseg_lite.cli.options import Types, add, add_set, changed, command, device_of, keywords, positive
from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.training.recipes import RECIPES

BEGINNINGS = {"recipe": "shapes", "from_": "shapes", "trunk_weights": None}  # words that count when a run begins, and no more
OUT = """The folder --out gets state.safetensors (to --resume from), log.jsonl and, at the end, model.safetensors. Ctrl-C
finishes the step, saves and stops.
"""
DEEPMASK = """examples:
  fairseg-lite train deepmask shapes --out runs/shapes --valid shapes:100
      the small network on synthetic scenes
  fairseg-lite train deepmask photos/train --recipe photos --trunk-weights ResNet50_Weights.IMAGENET1K_V2 \\
      --out runs/photos --valid photos/valid --set fit.lr=5e-4 --set options.stride_in_1x1=true
      ResNet-50 on your own COCO-format folder, from ImageNet weights: here those of the original ResNet, at half the rate
`propose --model` and `evaluate` take model.safetensors.
"""
SHARPMASK = """examples:
  fairseg-lite train sharpmask shapes --out runs/sharp --valid shapes:100
      refine the masks of the network that comes with the library
  fairseg-lite train sharpmask photos/train --from runs/photos/model.safetensors --recipe photos --out runs/sharp
      refine your own; the DeepMask in it stays as it is, but for --set end_to_end=true --set negatives=8
model.safetensors holds both networks; `propose --coarse` shows the masks before refinement.
"""


def add_commands(commands: argparse._SubParsersAction) -> argparse._SubParsersAction:
    """Register `train` and two of its jobs; gives the group, for the third."""
    group = command(commands, "train", "train a network")
    jobs = group.add_subparsers(dest="job", metavar="JOB", required=True)
    words = "positives=24, model=deepmask_vgg_a, fit.lr=1e-3, fit.seed=1, ..."
    p = add_run(jobs, "deepmask", "masks and scores for patches", DEEPMASK, _deepmask, settings=words)
    p.add_argument("--trunk-weights", metavar="W", help="such as ResNet50_Weights.IMAGENET1K_V2, or a file")
    words = "options.k=32 (channels of the mask encoding), positives=24, fit.lr=1e-3, ..."
    p = add_run(jobs, "sharpmask", "refinement for the masks of a DeepMask", SHARPMASK, _sharpmask, settings=words)
    p.add_argument("--from", dest="from_", metavar="M", help="a DeepMask checkpoint (default: shapes; resumed: the run's)")
    return jobs


def deepmask_recipe(a: argparse.Namespace, stored: dict):
    """The recipe that the command line means; stages of the trunk are frozen only where they have learnt something."""
    from fairseg_lite.models.checkpoints import MODELS

    recipe = recipe_of(a, "deepmask", stored)
    if a.trunk_weights and "trunk_weights" not in keywords(MODELS[recipe.model]):
        raise InputError(f"{recipe.model} has no ImageNet weights; drop --trunk-weights, or --set model=deepmask_resnet50")
    if recipe.freeze and not (a.trunk_weights or stored or "freeze" in dict(a.set)):
        print("no --trunk-weights: the trunk starts from random numbers, and all of it is trained")
        return replace(recipe, freeze=0)
    return recipe


def sampler_of(recipe) -> type:
    """The sampler that follows a recipe's rules."""
    from fairseg_lite.data.patches import PatchSampler
    from fairseg_lite.official.patches import OfficialSampler

    return OfficialSampler if recipe.rules == OfficialSampler.rules else PatchSampler


def _deepmask(a: argparse.Namespace) -> None:
    from fairseg_lite.training.stages import train_deepmask

    stored = stored_run(a, "deepmask")
    recipe = deepmask_recipe(a, stored)
    _trained(a, stored, recipe, train_deepmask, trunk_weights=a.trunk_weights)


def _sharpmask(a: argparse.Namespace) -> None:
    from fairseg_lite.models.checkpoints import load_model
    from fairseg_lite.training.stages import train_sharpmask

    stored = stored_run(a, "sharpmask")
    deepmask = None if stored else load_model(a.from_ or "shapes", kind="DeepMask")  # the weights come with the run
    model = deepmask and deepmask.record.model.replace("deepmask", "sharpmask")
    _trained(a, stored, recipe_of(a, "sharpmask", stored, model), train_sharpmask, deepmask=deepmask)


def _trained(a: argparse.Namespace, stored: dict, recipe, train, **start) -> None:
    """Train on patches, and measure what came of it."""
    from fairseg_lite.evaluation.patches import patch_report

    device, (data, valid, out), sampler = device_of(a), data_of(a), sampler_of(recipe)
    about = beginnings(a, stored)
    model, history = train(data, recipe=recipe, out=out, about=about, device=device, resume=a.resume, sampler=sampler, **start)
    told(a, recipe, history)
    if valid is not None:
        measured(a, patches=patch_report(model, valid))


def add_run(jobs: argparse._SubParsersAction, kind: str, *job: Any, settings: str, valid: str = "patch IoU"):
    """A job that trains, with what every one can be told; settings are some that it has, and valid is what is measured."""
    p = command(jobs, kind, *job)
    p.epilog += OUT
    add(p, "data", nargs="+")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder for checkpoints and log")
    p.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    p.add_argument("--valid", metavar="DATA", help=f"measure {valid} on this data at the end")
    add_numbers(p, kind, "shapes; resumed: its own", settings)
    return p


def add_numbers(p: argparse.ArgumentParser, kind: str, recipe: str, settings: str) -> None:
    """The recipe of one or many runs with what changes it, the mix of their data, and where they run."""
    p.add_argument("--recipe", choices=list(RECIPES[kind]), help=f"the run's numbers (default: {recipe})")
    p.add_argument("--steps", type=positive, metavar="N", help="optimiser steps (default: the recipe's)")
    add_set(p, f"any number of the recipe: {settings}; a name that is none lists all")
    p.add_argument("--weights", type=float, nargs="+", metavar="X", help="how often each DATA is drawn (default: by pictures)")
    words = "of each DATA: all, none, or the categories (A,B,...) of which it annotates every object (default: all)"
    p.add_argument("--exhaustive", nargs="+", metavar="E", help=words)
    add(p, "--skip-faults", "--crowds-are-objects", "--device")


def recipe_of(a: argparse.Namespace, kind: str, stored: dict, model: str | None = None) -> Any:
    """The recipe that the command line means: the one it names, or that of the run to resume, and its changes.

    Args:
        kind: of `RECIPES`.
        stored: header of the run to resume, or nothing.
        model: a network instead of the recipe's.
    Raises:
        InputError: an unknown network, field or option, or a value out of range.
    """
    from fairseg_lite.models.checkpoints import MODELS

    recipe = _read(stored["recipe"], kind) if stored else RECIPES[kind][a.recipe or "shapes"]
    if a.steps:
        warmup = recipe.fit.warmup if stored else min(recipe.fit.warmup, a.steps // 10)
        recipe = replace(recipe, fit=replace(recipe.fit, steps=a.steps, warmup=warmup))
    model = dict(a.set).get("model", model or recipe.model)
    check_choice("model", model, [name for name in MODELS if name.startswith(kind)])
    if model != recipe.model:  # options are of one network
        recipe = replace(recipe, model=model, options={} if "model" in dict(a.set) else recipe.options)
    return changed(recipe, a.set, options_of(model))


def options_of(model: str) -> Types:
    """What `--set options.NAME=VALUE` may say of a network."""
    from fairseg_lite.models.checkpoints import MODELS
    from fairseg_lite.models.multipathnet import MultiPathNet
    from fairseg_lite.models.sharpmask import SharpMask

    whole = {"sharpmask": SharpMask, "multipathnet": MultiPathNet}.get(model.split("_")[0])
    found = {**(keywords(whole.__init__) if whole else {}), **keywords(MODELS[model])}
    given = ("num_classes", "trunk", "tower", "deepmask", "trunk_from", "trunk_weights")
    return {name: hint for name, hint in found.items() if name not in given}


def stored_run(a: argparse.Namespace, kind: str) -> dict:
    """The header of the run to resume; nothing where there is none.

    Raises:
        InputError: a run of another kind or version, or words that would have had to be said when it began.
    """
    header = Path(a.out) / "state.json"
    if not a.resume or not header.exists():
        return {}
    try:
        stored = json.loads(header.read_text("utf-8"))
        name, before = str(stored["model"]), {"proposals": stored.get("proposals"), **stored.get("about", {})}
        if name.startswith(kind):
            _read(stored["recipe"], kind)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{str(header)!r} is no run of this version ({error}); start another without --resume") from error
    if not name.startswith(kind):
        raise InputError(f"{a.out!r} holds a run of {name}; resume it with train {name.split('_')[0]}")
    for word in (*BEGINNINGS, "proposals"):
        if (now := getattr(a, word, None)) is not None and word in before and now != before[word]:
            option = "--" + word.strip("_").replace("_", "-")
            raise InputError(f"{option} is {now}, and the run in {a.out!r} began with {before[word]}; leave it out when resuming")
    return stored


def beginnings(a: argparse.Namespace, stored: dict) -> dict:
    """What a run's record remembers of the words that it began with."""
    now = {word: getattr(a, word) or default for word, default in BEGINNINGS.items() if hasattr(a, word)}
    return stored.get("about", now)


def _read(content: dict, kind: str) -> Any:
    """A recipe as it comes back from JSON."""
    some = next(iter(RECIPES[kind].values()))
    whole, fit = ({k: tuple(v) if isinstance(v, list) else v for k, v in part.items()} for part in (content, content["fit"]))
    return type(some)(**{**whole, "fit": type(some.fit)(**fit)})


def data_of(a: argparse.Namespace) -> tuple:
    """(training data, validation data or None, output folder), all of them there."""
    rules = {"on_fault": "skip" if a.skip_faults else "raise", "crowds_are_objects": a.crowds_are_objects}
    sets = [open_dataset(name, held_out=False, **rules) for name in a.data]
    data = sets[0]
    if len(sets) > 1 or a.exhaustive or a.weights:
        from fairseg_lite.data.mix import Mix

        kinds = [{"all": "all", "none": ()}.get(e, e.split(",")) for e in a.exhaustive or []]
        data = Mix(sets, weights=a.weights, exhaustive=kinds or None)
    valid = open_dataset(a.valid, held_out=True, **rules) if a.valid else None
    return data, valid, output_folder(a.out)


def told(a: argparse.Namespace, recipe, history) -> None:
    """Say what a run gave; after Ctrl-C, where it is kept."""
    out, step = Path(a.out), history["step"][-1] if history.rows else 0
    if not history.finished:
        raise KeyboardInterrupt(f"step {step} is kept in {out / 'state.safetensors'}; go on with --resume")
    print(f"{recipe.model}: {step} steps, last loss {history['loss'][-1]:.4f}; network in {out / 'model.safetensors'}")


def measured(a: argparse.Namespace, **reports: Any) -> None:
    """Say what --valid gave, and keep it."""
    ((what, report),) = reports.items()
    print(f"{a.valid}: {'' if what == 'patches' else what + ' of '}{report}")
    write_json(Path(a.out) / "valid.json", {"data": a.valid, **plain(reports)}, indent=1)
