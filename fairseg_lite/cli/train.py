"""`fairseg-lite train deepmask` and `fairseg-lite train sharpmask`; `train multipathnet` is in `naming`."""

import argparse
from dataclasses import replace

from fairseg_lite.cli import naming
from fairseg_lite.cli.options import command, device_of
from fairseg_lite.cli.runs import add_run, beginnings, data_of, measured, recipe_of, stored_run, told
from fairseg_lite.cli.settings import keywords
from fairseg_lite.errors import InputError

VALID = "measure patch IoU on this data at the end"
DEEPMASK = """examples:
  fairseg-lite train deepmask shapes --out runs/shapes --valid shapes:100
      the small network on synthetic scenes
  fairseg-lite train deepmask photos/train --recipe photos --trunk-weights ResNet50_Weights.IMAGENET1K_V2 \\
      --out runs/photos --valid photos/valid --set fit.lr=5e-4 --set options.stride_in_1x1=true
      ResNet-50 on your own COCO-format folder, from ImageNet weights: here those of the original ResNet, at half the rate
The folder --out gets state.safetensors (to --resume from), log.jsonl and, at the end, model.safetensors, which
`propose --model` and `evaluate` take. Ctrl-C finishes the step, saves and stops.
"""
SHARPMASK = """examples:
  fairseg-lite train sharpmask shapes --out runs/sharp --valid shapes:100
      refine the masks of the network that comes with the library
  fairseg-lite train sharpmask photos/train --from runs/photos/model.safetensors --recipe photos --out runs/sharp
      refine your own; the DeepMask in it stays as it is, but for --set end_to_end=true --set negatives=8
The folder --out is as with `train deepmask`; its model.safetensors holds both networks, and `propose --coarse` shows the
masks before refinement.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `train` with its jobs."""
    group = command(commands, "train", "train a network")
    jobs = group.add_subparsers(dest="job", metavar="JOB", required=True)
    p = command(jobs, "deepmask", "masks and scores for patches", DEEPMASK)
    add_run(p, "deepmask", valid=VALID, settings="positives=24, model=deepmask_vgg_a, fit.lr=1e-3, fit.seed=1, ...")
    p.add_argument("--trunk-weights", metavar="W", help="such as ResNet50_Weights.IMAGENET1K_V2, or a file")
    p.set_defaults(run=_deepmask)
    p = command(jobs, "sharpmask", "refinement for the masks of a DeepMask", SHARPMASK)
    add_run(p, "sharpmask", valid=VALID, settings="options.k=32 (channels of the mask encoding), positives=24, fit.lr=1e-3, ...")
    p.add_argument("--from", dest="from_", metavar="M", help="a DeepMask checkpoint (default: shapes; resumed: the run's)")
    p.set_defaults(run=_sharpmask)
    naming.add_train(jobs)


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
        report = patch_report(model, valid)
        measured(a, "patches", report, {k: v for k, v in vars(report).items() if k != "ious"})
