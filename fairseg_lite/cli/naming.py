"""`fairseg-lite train multipathnet` and `fairseg-lite ablate`."""

import argparse
from dataclasses import replace
from pathlib import Path

from fairseg_lite.cli.inputs import open_dataset, output_folder, write_json, write_picture
from fairseg_lite.cli.options import DATA_HELP, add_device, command, device_of, positive
from fairseg_lite.cli.runs import add_run, data_of, run_of
from fairseg_lite.errors import InputError

MODEL_NAMES = ("multipathnet_tiny", "multipathnet_vgg16", "multipathnet_resnet18", "multipathnet_resnet50")
RECIPE_NAMES = ("shapes", "lesson", "photos", "paper", "official")  # a test holds both equal to the library's
SCENES = 1000  # of shapes, whose proposals are made where no number is given
TOP_K = 200
PROPOSALS = "a COCO result file (*.json), or a network that makes them: shapes-sharp, shapes or a checkpoint"
TRAIN = """examples:
  fairseg-lite train multipathnet shapes:500 --out runs/named --valid shapes:100
      names for the masks of the network that comes with the library
  fairseg-lite propose photos/train --model runs/sharp/model.safetensors -o runs/proposals --draw 0
  fairseg-lite train multipathnet photos/train --proposals runs/proposals/proposals.json --recipe photos \\
      --trunk-weights ResNet50_Weights.IMAGENET1K_V2 --out runs/named
      ResNet-50 on your own COCO-format folder, from ImageNet weights
Proposals that a network makes are kept in OUT, and made but once: Ctrl-C and the same command again go on.
--no-integral --no-foveal --no-skip together are Fast R-CNN. The folder --out gets state.safetensors (to --resume from),
log.jsonl and, at the end, model.safetensors, which `detect` and `evaluate detections` take.
"""
ABLATE = """examples:
  fairseg-lite ablate runs/table1                        18 trainings on shapes: an hour or more
  fairseg-lite ablate runs/quick --data shapes:100 --valid shapes:30 --steps 100 --seeds 1
The rows of the paper's Table 1: integral loss, foveal regions and skip connections, on and off. OUT gets table.txt,
table.json and table.png; the same command again goes on where it was stopped, and with more --seeds adds runs.
"""


def add_train(jobs: argparse._SubParsersAction) -> None:
    """Register `train multipathnet`."""
    p = command(jobs, "multipathnet", "names and better boxes for proposals", TRAIN)
    p.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder for checkpoints and log")
    p.add_argument("--recipe", choices=RECIPE_NAMES, help="the run's numbers (default: shapes; resumed: its own)")
    p.add_argument("--model", choices=MODEL_NAMES, help="network (default: the recipe's)")
    for idea in ("integral", "foveal", "skip"):
        p.add_argument(f"--no-{idea}", action="store_true", help=f"without the paper's {IDEAS[idea]}")
    p.add_argument("--heads", type=positive, metavar="N", help="classifiers of the integral loss, from IoU .50 on (default: 6)")
    p.add_argument("--untied", action="store_true", help="train the classifiers as the official code does, not as the paper says")
    _add_start(p)
    _add_proposals(p)
    add_run(p, batch="pictures in a step", valid="measure box AP on this data at the end")
    p.set_defaults(run=_train)


IDEAS = {"integral": "integral loss", "foveal": "foveal regions", "skip": "skip connections"}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `ablate`."""
    p = command(commands, "ablate", "what each idea of MultiPathNet gains: the paper's Table 1 on your data", ABLATE)
    p.add_argument("out", metavar="OUT", help="folder for all runs and the table")
    p.add_argument("--data", default="shapes:500", metavar="DATA", help="to train on (default: shapes:500)")
    p.add_argument("--valid", default="shapes:200", metavar="DATA", help="to measure on (default: shapes:200)")
    p.add_argument("--seeds", type=positive, default=3, metavar="N", help="runs of each row (default: 3)")
    p.add_argument("--recipe", choices=RECIPE_NAMES, default="lesson", help="the runs' numbers (default: lesson)")
    p.add_argument("--model", choices=MODEL_NAMES, help="network (default: the recipe's)")
    p.add_argument("--steps", type=positive, metavar="N", help="optimiser steps of each run (default: the recipe's)")
    _add_start(p)
    _add_proposals(p)
    p.add_argument("--precision", choices=("fp32", "bf16", "auto"), help="auto takes bf16 where it measures faster")
    p.add_argument("--workers", type=int, metavar="N", help="processes that prepare batches (default: 0, none)")
    p.add_argument("--skip-faults", action="store_true", help="leave damaged pictures and annotations out, counted")
    add_device(p)
    p.set_defaults(run=_ablate)


def _add_start(p: argparse.ArgumentParser) -> None:
    p.add_argument("--trunk-from", metavar="M", help="a tiny DeepMask or SharpMask to begin from, or none (default: shapes)")
    p.add_argument("--trunk-weights", metavar="W", help="such as ResNet50_Weights.IMAGENET1K_V2, or a file")
    p.add_argument("--stride-in-1x1", action="store_true", help="the trunk weights are of the original ResNet")
    p.add_argument("--short-side", type=positive, metavar="PX", help="shorter side of the pictures (default: the recipe's range)")


def _add_proposals(p: argparse.ArgumentParser) -> None:
    p.add_argument("--proposals", metavar="P", help=PROPOSALS + " (default: shapes-sharp; resumed: the run's)")
    p.add_argument("--valid-proposals", metavar="P", help="the same for --valid (default: the network of --proposals)")
    p.add_argument("--top-k", type=positive, metavar="N", help="proposals a network makes (default: 200)")


def _train(a: argparse.Namespace) -> int:
    from fairseg_lite.training.multipathnet import MULTIPATHNET_RECIPES, train_multipathnet

    recipe, stored = run_of(a, MULTIPATHNET_RECIPES, "multipathnet")
    if not stored:
        recipe = _changed(a, recipe)
    a.proposals = a.proposals or stored.get("proposals") or "shapes-sharp"
    a.top_k = a.top_k or stored.get("about", {}).get("top_k", TOP_K)
    device = device_of(a)
    start = {} if stored else _start(a, recipe)
    data, valid, out = data_of(a)
    if valid is not None:
        _check_valid(a)
    boxes = _proposals(a, a.proposals, data, " ".join(a.data), out, device)
    about = {"proposals": a.proposals, "about": {"top_k": a.top_k}}
    model, history = train_multipathnet(
        data, boxes, recipe=recipe, out=out, **about, **start, device=device, resume=a.resume
    )  # fmt: skip
    step = history["step"][-1] if history.rows else 0
    if not history.finished:
        raise KeyboardInterrupt(f"step {step} is kept in {out / 'state.safetensors'}; go on with --resume")
    if dropped := model.record.about["dropped"]:
        counts = ", ".join(f"{n:,} {why}" for why, n in dropped.items())
        print(f"proposals left out: {counts}")
    print(f"{recipe.model}: {step} steps, last loss {history['loss'][-1]:.4f}; network in {out / 'model.safetensors'}")
    if valid is not None:
        from dataclasses import asdict

        from fairseg_lite.course.ablation import measure

        held_out = _proposals(a, a.valid_proposals or a.proposals, valid, a.valid, out, device, held_out=True)
        report = measure(model, valid, held_out, progress=True)
        print(f"{a.valid}: boxes of {report}")
        write_json(out / "valid.json", {"data": a.valid, "boxes": asdict(report)}, indent=1)
    return 0


def _changed(a: argparse.Namespace, recipe):
    """The recipe with what the command line says of the network and its batches."""
    options = dict(recipe.options) if a.model in (None, recipe.model) else {}
    options |= {idea: False for idea in IDEAS if getattr(a, f"no_{idea}")}
    if a.heads:
        if a.no_integral and a.heads > 1:
            raise InputError(f"--heads {a.heads} and --no-integral: without the integral loss there is one classifier")
        options["integral"] = a.heads
    changes = {"model": a.model or recipe.model, "options": options, "untied": a.untied or recipe.untied}
    return _with_start(a, replace(recipe, **changes, **({"images": a.batch} if a.batch else {})))


def _with_start(a: argparse.Namespace, recipe):
    """The recipe with what the command line says of its trunk and its pictures."""
    if a.short_side:
        recipe = replace(recipe, short_side=(a.short_side, a.short_side), max_side=max(a.short_side, recipe.max_side))
    if not a.stride_in_1x1:
        return recipe
    if recipe.model != "multipathnet_resnet50":
        raise InputError(f"--stride-in-1x1 belongs to multipathnet_resnet50; the network here is {recipe.model}")
    return replace(recipe, options={**recipe.options, "stride_in_1x1": True})


def _start(a: argparse.Namespace, recipe) -> dict:
    """What a fresh network begins with."""
    tiny = recipe.model == "multipathnet_tiny"
    if tiny and a.trunk_weights:
        raise InputError("multipathnet_tiny has no ImageNet weights; drop --trunk-weights, or --model multipathnet_resnet50")
    if not tiny and a.trunk_from:
        raise InputError(f"--trunk-from belongs to multipathnet_tiny; {recipe.model} takes --trunk-weights")
    if not tiny:
        if not a.trunk_weights:
            print("no --trunk-weights: the trunk starts from random numbers")
        return {"trunk_weights": a.trunk_weights}
    if a.trunk_from == "none":
        return {}
    from fairseg_lite.models.checkpoints import load_model

    model = load_model(a.trunk_from or "shapes")
    model = getattr(model, "deepmask", model)
    if model.record.model != "deepmask_tiny":
        raise InputError(f"--trunk-from {a.trunk_from!r} holds a {model.record.model}; wanted a deepmask_tiny or sharpmask_tiny")
    return {"trunk_from": model}


def _check_valid(a: argparse.Namespace) -> None:
    """Before any work: a file of proposals is of one data set alone."""
    if a.proposals.endswith(".json") and not a.valid_proposals:
        raise InputError("--valid with a file of proposals needs another for that data: --valid-proposals FILE, or a network")


def _proposals(a: argparse.Namespace, source: str, data, name: str, out: Path, device, *, held_out: bool = False) -> dict:
    """Boxes by picture id: read, or made with a network and kept in the output folder."""
    from fairseg_lite.data.results import load_boxes

    if source.endswith(".json"):
        boxes = load_boxes(source)
        if a.skip_faults:  # pictures that were left out are missed by nobody
            from fairseg_lite.data.scenes import image_ids

            known = set(image_ids(data))
            boxes = {key: found for key, found in boxes.items() if key in known} or boxes
        return boxes
    from fairseg_lite.cli.options import dtype_of
    from fairseg_lite.models.checkpoints import load_model
    from fairseg_lite.models.deepmask import DeepMask
    from fairseg_lite.models.sharpmask import SharpMask
    from fairseg_lite.training.proposals import make_proposals

    model = load_model(source, device=device)
    if not isinstance(model, (DeepMask, SharpMask)):
        raise InputError(
            f"{source!r} holds a {type(model).__name__}; proposals come from a DeepMask, a SharpMask or a *.json file"
        )
    pictures = SCENES if name == "shapes" and not held_out else None
    word = "valid" if held_out else "train"
    path = out / f"proposals-{word}-{Path(source).stem if Path(source).suffix else source}-{a.top_k}.json"
    return make_proposals(model, data, path, pictures=pictures, top_k=a.top_k, dtype=dtype_of("auto", device))


def _ablate(a: argparse.Namespace) -> int:
    from fairseg_lite.course.ablation import TABLE_1, ablate, results_in, table
    from fairseg_lite.training.multipathnet import MULTIPATHNET_RECIPES

    recipe = MULTIPATHNET_RECIPES[a.recipe]
    a.proposals, a.top_k = a.proposals or "shapes-sharp", a.top_k or TOP_K
    if a.model and a.model != recipe.model:
        recipe = replace(recipe, model=a.model, options={})
    given = {k: getattr(a, k) for k in ("steps", "precision", "workers")}
    fit = replace(recipe.fit, **{k: v for k, v in given.items() if v is not None})
    recipe = replace(recipe, fit=replace(fit, warmup=min(fit.warmup, fit.steps // 10)))
    recipe = _with_start(a, recipe)
    device, start = device_of(a), _start(a, recipe)
    on_fault = "skip" if a.skip_faults else "raise"
    data = open_dataset(a.data, held_out=False, on_fault=on_fault)
    valid = open_dataset(a.valid, held_out=True, on_fault=on_fault)
    _check_valid(a)
    out = output_folder(a.out)
    boxes = _proposals(a, a.proposals, data, a.data, out, device)
    valid_boxes = _proposals(a, a.valid_proposals or a.proposals, valid, a.valid, out, device, held_out=True)
    about = {k: getattr(a, k) for k in ("data", "valid", "proposals", "valid_proposals", "top_k", "trunk_from", "trunk_weights")}
    try:
        found = ablate(
            data, boxes, valid, valid_boxes, recipe=recipe, out=out, seeds=a.seeds, about=about, **start, device=device
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        done = len(results_in(out, seeds=a.seeds))
        kept = f"{done} of {a.seeds * len(TABLE_1)} runs are measured; the same command goes on"
        raise KeyboardInterrupt(kept) from stop
    from fairseg_lite.plots import ablation

    print(table(TABLE_1, found))
    write_picture(out / "table.png", ablation({r.name: [x.value("ap") for x in found if x.row == r.name] for r in TABLE_1}))
    print(f"{len(found)} runs of {recipe.model}, {recipe.fit.steps} steps each; table.txt, table.json and table.png in {out}")
    return 0
