"""`fairseg-lite train deepmask` and `train sharpmask`, and what all trainings share: options, the run to resume, data and output.

`train multipathnet` is in `naming`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseg_lite.cli.inputs import PROBE, open_dataset, output_folder, plain, planned, write_json
from fairseg_lite.cli.options import Types, add, add_set, changed, command, device_of, keywords, positive
from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.training.recipes import RECIPES

BEGINNINGS = ("recipe", "from_", "trunk_weights")  # words that count when a run begins, and no more
LARGE = 2048  # px of a picture's longer side, beyond which training is slow
OUT = """The folder --out gets state.safetensors (to --resume from), log.jsonl and, at the end, model.safetensors. Ctrl-C
finishes the step, saves and stops. Several processes share each step: torchrun --nproc-per-node 2 -m fairseg_lite.cli train ...
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
    add_from(p, "a DeepMask to go on with: photos, shapes or a checkpoint")
    words = "options.k=32 (channels of the mask encoding), positives=24, fit.lr=1e-3, ..."
    p = add_run(jobs, "sharpmask", "refinement for the masks of a DeepMask", SHARPMASK, _sharpmask, settings=words)
    add_from(p, "a DeepMask to refine, or a SharpMask to go on with (default: shapes; resumed: the run's)")
    return jobs


def add_from(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument("--from", dest="from_", metavar="M", help=what)


def deepmask_recipe(a: argparse.Namespace, stored: dict, begin=None):
    """The recipe that the command line means; stages of the trunk are frozen only where they have learnt something."""
    from fairseg_lite.models.checkpoints import MODELS

    if begin is not None and a.trunk_weights:
        raise InputError("--from has a trunk of its own; leave --trunk-weights out, or --from")
    recipe = recipe_of(a, "deepmask", stored, begin)
    if a.trunk_weights and "trunk_weights" not in keywords(MODELS[recipe.model]):
        raise InputError(f"{recipe.model} has no ImageNet weights; drop --trunk-weights, or --set model=deepmask_resnet50")
    if recipe.freeze and not (a.trunk_weights or begin or stored or "freeze" in dict(a.set)):
        print("no --trunk-weights: the trunk starts from random numbers, and all of it is trained")
        return replace(recipe, freeze=0)
    return recipe


def sampler_of(recipe) -> type:
    """The sampler that follows a recipe's rules."""
    from fairseg_lite.data.patches import PatchSampler
    from fairseg_lite.official.patches import OfficialSampler

    return OfficialSampler if recipe.rules == OfficialSampler.rules else PatchSampler


def _deepmask(a: argparse.Namespace) -> None:
    from fairseg_lite.models.checkpoints import load_model
    from fairseg_lite.training.stages import train_deepmask

    stored = stored_run(a, "deepmask")
    begin = load_model(a.from_, kind="DeepMask") if a.from_ and not stored else None
    recipe = deepmask_recipe(a, stored, begin)
    _trained(a, stored, recipe, train_deepmask, trunk_weights=a.trunk_weights, model=begin)


def _sharpmask(a: argparse.Namespace) -> None:
    from fairseg_lite.models.checkpoints import MODELS, load_model
    from fairseg_lite.training.stages import train_sharpmask

    stored, start, begin = stored_run(a, "sharpmask"), {}, None
    if a.dry_run and not (stored or a.from_):  # how long it takes and how much it holds, any DeepMask of its kind tells
        recipe = recipe_of(a, "sharpmask", stored)
        start = {"deepmask": MODELS[recipe.model.replace("sharpmask", "deepmask")]()}
        _trained(a, stored, recipe, train_sharpmask, **start)
        return
    if not stored:  # a run brings its own weights
        a.from_ = a.from_ or "shapes"
        begin = load_model(a.from_)
    if begin is not None and not hasattr(begin, "patch_size"):
        raise InputError(f"--from {a.from_!r} holds a {type(begin).__name__}; wanted a DeepMask, or a SharpMask to go on with")
    if begin is not None:
        start = {"model" if hasattr(begin, "deepmask") else "deepmask": begin}
    _trained(a, stored, recipe_of(a, "sharpmask", stored, begin), train_sharpmask, **start)


def _trained(a: argparse.Namespace, stored: dict, recipe, train, **start) -> None:
    """Train on patches, and measure what came of it."""
    from fairseg_lite.evaluation.patches import patch_report
    from fairseg_lite.training.shards import rank_and_world

    device, (data, valid, out), sampler = device_of(a), data_of(a, max_side=recipe.max_side), sampler_of(recipe)
    limits(data, recipe)
    about = beginnings(a, stored)
    if a.dry_run:
        planned(recipe, data, lambda probe: train(data, recipe=probe, device=device, sampler=sampler, **start))
        return
    model, history = train(
        data, recipe=recipe, out=out, about=about, device=device, resume=a.resume and "changed", sampler=sampler, **start
    )
    told(a, recipe, history)
    if valid is not None and rank_and_world()[0] == 0:
        measured(a, patches=patch_report(model, valid, min_area=recipe.min_area, min_side=recipe.min_side))


def limits(data, recipe) -> None:
    """Say what a recipe's limits leave out, and which of them would help."""
    from fairseg_lite.data.windows import too_small

    if left := too_small(data, min_area=recipe.min_area, min_side=recipe.min_side):
        print(left)
    sides = [max(p.height, p.width) for one in getattr(data, "sets", [data]) for p in getattr(one, "pictures", [])]
    if large := sum(side > (recipe.max_side or LARGE) for side in sides):
        reduced = f"are reduced to --set max_side={recipe.max_side}, as `propose` does"
        slow = (
            f"have more than {LARGE} px a side: --set max_side=1024 trains many times faster, and `propose` reduces them so, too"
        )
        print(f"{large:,} of {len(sides):,} pictures {reduced if recipe.max_side else slow}")


def add_run(jobs: argparse._SubParsersAction, kind: str, *job: Any, settings: str, valid: str = "patch IoU"):
    """A job that trains, with what every one can be told; settings are some that it has, and valid is what is measured."""
    p = command(jobs, kind, *job)
    p.epilog += OUT
    add(p, "data", nargs="+")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder for checkpoints and log")
    p.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    p.add_argument("--valid", metavar="DATA", help=f"measure {valid} on this data at the end")
    p.add_argument("--dry-run", action="store_true", help=f"say what it would take, from {PROBE} steps that nothing is kept of")
    add_numbers(p, kind, "shapes; resumed: its own", settings)
    p.add_argument("--weights", type=float, nargs="+", metavar="X", help="how often each DATA is drawn (default: by pictures)")
    words = "of each DATA: all, none, or the categories (A,B,...) of which it annotates every object (default: all)"
    p.add_argument("--exhaustive", nargs="+", metavar="E", help=words)
    add(p, "--skip-faults", "--crowds-are-objects")
    return p


def add_numbers(p: argparse.ArgumentParser, kind: str, recipe: str, settings: str) -> None:
    """The recipe of one or many runs with what changes it, and where they run."""
    p.add_argument("--recipe", choices=list(RECIPES[kind]), help=f"the run's numbers (default: {recipe})")
    p.add_argument("--steps", type=positive, metavar="N", help="optimiser steps (default: the recipe's)")
    add_set(p, f"any number of the recipe: {settings}; a name that is none lists all")
    add(p, "--device")


def recipe_of(a: argparse.Namespace, kind: str, stored: dict, begin=None) -> Any:
    """The recipe that the command line means: the one it names, or that of the run to resume, and its changes.

    Args:
        kind: of `RECIPES`.
        stored: header of the run to resume, or nothing.
        begin: the network of --from, if there is one: the recipe trains its kind, and goes on with one for photographs by "few".
    Raises: InputError, an unknown network, field or option, or a value out of range.
    """
    from fairseg_lite.models.checkpoints import MODELS
    from fairseg_lite.training.shards import rank_and_world

    model, usual = None, "shapes"
    if begin is not None:
        model = kind + begin.record.model[begin.record.model.index("_") :]
        usual = "few" if begin.record.model == model and model.endswith("lite0") else usual
    a.recipe = a.recipe or (None if stored else usual)
    recipe = _read(stored["recipe"], kind) if stored else RECIPES[kind][a.recipe]
    if not stored and (world := rank_and_world()[1]) > 1:
        recipe = replace(recipe, fit=replace(recipe.fit, shards=world))
    if a.steps:
        warmup = recipe.fit.warmup if stored else min(recipe.fit.warmup, a.steps // 10)
        recipe = replace(recipe, fit=replace(recipe.fit, steps=a.steps, warmup=warmup))
    model = dict(a.set).get("model", model or recipe.model)
    check_choice("model", model, [name for name in MODELS if name.startswith(kind)])
    if model != recipe.model:  # options are of one network
        recipe = replace(recipe, model=model, options={} if "model" in dict(a.set) or kind == "multipathnet" else recipe.options)
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

    Raises: InputError, a run of another kind or version, or words that would have had to be said when it began.
    """
    from fairseg_lite.training.shards import first_of

    return first_of(lambda: _stored_run(a, kind))


def _stored_run(a: argparse.Namespace, kind: str) -> dict:
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
    return stored.get("about", {word: getattr(a, word) for word in BEGINNINGS if hasattr(a, word)})


def _read(content: dict, kind: str) -> Any:
    """A recipe as it comes back from JSON."""
    some = next(iter(RECIPES[kind].values()))
    whole, fit = ({k: tuple(v) if isinstance(v, list) else v for k, v in part.items()} for part in (content, content["fit"]))
    return type(some)(**{**whole, "fit": type(some.fit)(**fit)})


def data_of(a: argparse.Namespace, **rules: Any) -> tuple:
    """(training data, validation data or None, output folder), all of them there."""
    rules |= {"on_fault": "skip" if a.skip_faults else "raise", "crowds_are_objects": a.crowds_are_objects}
    sets = [open_dataset(name, held_out=False, **rules) for name in a.data]
    data = sets[0]
    if len(sets) > 1 or a.exhaustive or a.weights:
        from fairseg_lite.data.mix import Mix

        kinds = [{"all": "all", "none": ()}.get(e, e.split(",")) for e in a.exhaustive or []]
        data = Mix(sets, weights=a.weights, exhaustive=kinds or None)
    valid = open_dataset(a.valid, held_out=True, **rules) if a.valid else None
    return data, valid, Path(a.out) if a.dry_run else output_folder(a.out)


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
