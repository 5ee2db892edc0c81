"""`fairseg-lite train deepmask` and `fairseg-lite train sharpmask`; `train multipathnet` has a file of its own."""

import argparse
from dataclasses import replace
from pathlib import Path

from fairseg_lite.cli import naming
from fairseg_lite.cli.inputs import write_json
from fairseg_lite.cli.options import DATA_HELP, command, device_of, positive
from fairseg_lite.cli.runs import add_run, data_of, run_of, sampler_of
from fairseg_lite.errors import InputError

MODEL_NAMES = (
    "deepmask_tiny",
    "deepmask_vgg_a",
    "deepmask_resnet50",
    "deepmask_lite0",
)
SHARPMASK_NAMES = ("sharpmask_tiny", "sharpmask_vgg_a", "sharpmask_resnet50", "sharpmask_lite0")
RECIPE_NAMES = ("shapes", "lesson", "photos", "mixed", "paper", "official")
SHARPMASK_RECIPE_NAMES = ("shapes", "lesson", "photos", "official")
PATCHES = {"batch": "patches in a step (the share of positives stays)", "valid": "measure patch IoU on this data at the end"}
DEEPMASK = """examples:
  fairseg-lite train deepmask shapes --out runs/shapes --valid shapes:100
      the small network on synthetic scenes
  fairseg-lite train deepmask photos/train --recipe photos --trunk-weights ResNet50_Weights.IMAGENET1K_V2 \\
      --out runs/photos --valid photos/valid
      ResNet-50 on your own COCO-format folder, from ImageNet weights
The folder --out gets state.safetensors (to --resume from), log.jsonl and, at the end, model.safetensors, which
`propose --model` and `evaluate` take. Ctrl-C finishes the step, saves and stops.
"""
SHARPMASK = """examples:
  fairseg-lite train sharpmask shapes --out runs/sharp --valid shapes:100
      refine the masks of the network that comes with the library
  fairseg-lite train sharpmask photos/train --from runs/photos/model.safetensors --recipe photos --out runs/sharp
      refine your own; the DeepMask in it stays as it is, unless --end-to-end
The folder --out is as with `train deepmask`; its model.safetensors holds both networks, and `propose --coarse` shows the
masks before refinement.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `train` with its jobs."""
    group = command(commands, "train", "train a network")
    jobs = group.add_subparsers(dest="job", metavar="JOB", required=True)
    p = command(jobs, "deepmask", "masks and scores for patches", DEEPMASK)
    p.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder for checkpoints and log")
    p.add_argument("--recipe", choices=RECIPE_NAMES, help="the run's numbers (default: shapes; resumed: its own)")
    p.add_argument("--model", choices=MODEL_NAMES, help="network (default: the recipe's)")
    p.add_argument("--trunk-weights", metavar="W", help="such as ResNet50_Weights.IMAGENET1K_V2, or a file")
    p.add_argument("--stride-in-1x1", action="store_true", help="the trunk weights are of the original ResNet")
    add_run(p, **PATCHES)
    p.set_defaults(run=_deepmask)

    p = command(jobs, "sharpmask", "refinement for the masks of a DeepMask", SHARPMASK)
    p.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    p.add_argument("--from", dest="deepmask", default="shapes", metavar="M", help="a DeepMask checkpoint (default: shapes)")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder for checkpoints and log")
    p.add_argument("--recipe", choices=SHARPMASK_RECIPE_NAMES, help="the run's numbers (default: shapes; resumed: its own)")
    p.add_argument("--k", type=positive, metavar="N", help="channels of the first mask encoding, a multiple of 16 (default: 32)")
    p.add_argument("--end-to-end", action="store_true", help="train the DeepMask, too (default: it stays as it is)")
    add_run(p, **PATCHES)
    p.set_defaults(run=_sharpmask)
    naming.add_train(jobs)


def recipe_of(a: argparse.Namespace) -> tuple:
    """(recipe, network options): the named recipe, or that of the run to resume, with what the command line changes."""
    from fairseg_lite.training.recipes import RECIPES

    recipe, stored = _run_of(a, RECIPES, "deepmask")
    changes: dict = {"model": a.model or recipe.model}
    if changes["model"] != recipe.model:
        changes["freeze"] = recipe.freeze if a.trunk_weights and changes["model"] != "deepmask_tiny" else 0
    if recipe.freeze and not a.trunk_weights and not stored:
        changes["freeze"] = 0  # a trunk of random numbers holds nothing worth keeping fixed
        print("no --trunk-weights: the trunk starts from random numbers, and all of it is trained")
    kwargs = dict(stored.get("kwargs", {}))
    if a.stride_in_1x1:
        kwargs["stride_in_1x1"] = True
    return replace(recipe, **changes), kwargs


def _run_of(a: argparse.Namespace, recipes: dict, kind: str) -> tuple:
    """As `run_of`, with the patches of a batch from the command line."""
    recipe, stored = run_of(a, recipes, kind)
    if a.batch:
        share = recipe.positives / (recipe.positives + recipe.negatives)
        most = max(a.batch - 1, 1) if recipe.negatives else a.batch
        positives = min(max(round(a.batch * share), 1), most)
        recipe = replace(recipe, positives=positives, negatives=a.batch - positives)
    return recipe, stored


def _deepmask(a: argparse.Namespace) -> int:
    recipe, kwargs = recipe_of(a)
    device = device_of(a)
    if a.trunk_weights and recipe.model == "deepmask_tiny":
        raise InputError("deepmask_tiny has no ImageNet weights; drop --trunk-weights, or --model deepmask_resnet50")
    if a.stride_in_1x1 and recipe.model != "deepmask_resnet50":
        raise InputError(f"--stride-in-1x1 belongs to deepmask_resnet50; the network here is {recipe.model}")
    data, valid, out = data_of(a)

    from fairseg_lite.training.recipes import train_deepmask

    model, history = train_deepmask(
        data,
        recipe=recipe,
        out=out,
        model_kwargs=kwargs,
        trunk_weights=None if a.resume and (out / "state.safetensors").exists() else a.trunk_weights,
        device=device,
        resume=a.resume,
        sampler=sampler_of(recipe),
    )
    return _finished(a, recipe, model, history, valid)


def _sharpmask(a: argparse.Namespace) -> int:
    from fairseg_lite.models.checkpoints import MODELS, load_model
    from fairseg_lite.training.sharpmask import SHARPMASK_RECIPES, train_sharpmask

    recipe, stored = _run_of(a, SHARPMASK_RECIPES, "sharpmask")
    device = device_of(a)
    kwargs = dict(stored.get("kwargs", {}))
    if stored:  # the weights come with the run
        base = recipe.model.replace("sharpmask", "deepmask")
        deepmask = MODELS[base](**kwargs.pop("deepmask"))
    else:
        deepmask = load_model(a.deepmask, kind="DeepMask")
        recipe = replace(recipe, model=deepmask.record.model.replace("deepmask", "sharpmask"))
        kwargs |= {"k": a.k} if a.k else {}
        if a.end_to_end:  # the score learns again, and must see what is no object
            recipe = replace(recipe, end_to_end=True, negatives=recipe.negatives or max(recipe.positives // 3, 1))
    data, valid, out = data_of(a)
    options = {"out": out, "refinement": kwargs, "device": device, "resume": a.resume, "sampler": sampler_of(recipe)}
    model, history = train_sharpmask(data, recipe=recipe, deepmask=deepmask, **options)
    return _finished(a, recipe, model, history, valid)


def _finished(a: argparse.Namespace, recipe, model, history, valid) -> int:
    """Say what a run gave, and measure it."""
    from fairseg_lite.evaluation.patches import patch_report

    out = Path(a.out)
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
