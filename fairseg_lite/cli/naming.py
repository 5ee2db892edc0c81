"""`fairseg-lite train multipathnet` and `fairseg-lite ablate`."""

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from fairseg_lite.cli.inputs import PROBE, duration, planned, proposer, write_picture
from fairseg_lite.cli.options import command, device_of, dtype_of, positive
from fairseg_lite.cli.train import add_from, add_numbers, add_run, beginnings, data_of, measured, recipe_of, stored_run, told
from fairseg_lite.errors import InputError

SETTINGS = "options.integral=false, options.foveal=false, images=2, short_side=224,384, fit.lr=1e-3, ..."
TRAIN = """examples:
  fairseg-lite train multipathnet shapes:500 --out runs/named --valid shapes:100
      names for the masks of the network that comes with the library
  fairseg-lite propose photos/train --model runs/sharp/model.safetensors -o runs/proposals --draw 0
  fairseg-lite train multipathnet photos/train --proposals runs/proposals/proposals.json --recipe photos \\
      --trunk-weights ResNet50_Weights.IMAGENET1K_V2 --out runs/named
      ResNet-50 on your own COCO-format folder, from ImageNet weights
Proposals that a network makes are kept in OUT, and made but once: Ctrl-C and the same command again go on.
Fast R-CNN is --set options.integral=false --set options.foveal=false --set options.skip=false.
`detect` and `evaluate detections` take model.safetensors.
"""
ABLATE = """examples:
  fairseg-lite ablate runs/table1                        18 trainings on shapes: an hour or more
  fairseg-lite ablate runs/quick --data shapes:100 --valid shapes:30 --steps 100 --seeds 1
The rows of the paper's Table 1: integral loss, foveal regions and skip connections, on and off. OUT gets table.txt,
table.json and table.png; the same command again goes on where it was stopped, and with more --seeds adds runs.
"""


def add_commands(commands: argparse._SubParsersAction, jobs: argparse._SubParsersAction) -> None:
    """Register `train multipathnet` among the jobs of `train`, and `ablate`."""
    p = add_run(jobs, "multipathnet", "names and better boxes for proposals", TRAIN, _train, settings=SETTINGS, valid="box AP")
    _add_start(p, "; resumed, or with --from: its own")
    add_from(p, "a MultiPathNet to go on with, for the names of this data: a checkpoint, shapes-multipath, ...")

    p = command(commands, "ablate", "what each idea of MultiPathNet gains: the paper's Table 1 on your data", ABLATE, _ablate)
    p.add_argument("out", metavar="OUT", help="folder for all runs and the table")
    p.add_argument("--data", nargs="+", default=["shapes:500"], metavar="DATA", help="to train on (default: shapes:500)")
    p.add_argument("--valid", default="shapes:200", metavar="DATA", help="to measure on (default: shapes:200)")
    p.add_argument("--seeds", type=positive, default=3, metavar="N", help="runs of each row (default: 3)")
    add_numbers(p, "multipathnet", "lesson", SETTINGS)
    _add_start(p)
    p.set_defaults(recipe="lesson", dry_run=False, weights=None, exhaustive=None, skip_faults=False, crowds_are_objects=False)


def _add_start(p: argparse.ArgumentParser, resumed: str = "") -> None:
    words = "such as ResNet50_Weights.IMAGENET1K_V2, or a file; of the tiny network a DeepMask or SharpMask, or none"
    p.add_argument("--trunk-weights", metavar="W", help=f"{words} (default: shapes for the tiny network)")
    made = "a COCO result file (*.json), or a network that makes them: shapes-sharp, shapes or a checkpoint"
    p.add_argument("--proposals", metavar="P", help=f"{made} (default: shapes-sharp{resumed})")
    p.add_argument("--valid-proposals", metavar="P", help="the same for --valid (default: the network of --proposals)")


def _train(a: argparse.Namespace) -> None:
    from fairseg_lite.models.checkpoints import load_model
    from fairseg_lite.training.detector import train_multipathnet
    from fairseg_lite.training.shards import rank_and_world

    stored = stored_run(a, "multipathnet")
    begin = load_model(a.from_, kind="MultiPathNet") if a.from_ and not stored else None
    recipe = recipe_of(a, "multipathnet", stored, begin)
    device, start, data, valid, out, boxes = _begun(a, recipe, stored, begin)
    if a.dry_run:
        planned(recipe, data, lambda probe: train_multipathnet(data, boxes, recipe=probe, device=device, **start))
        return
    start |= {"about": beginnings(a, stored), "proposals": a.proposals, "resume": a.resume and "changed"}
    model, history = train_multipathnet(data, boxes, recipe=recipe, out=out, device=device, **start)
    if dropped := model.record.about.get("dropped"):
        print("proposals left out: " + ", ".join(f"{n:,} {why}" for why, n in dropped.items()))
    told(a, recipe, history)
    boxes = {} if valid is None else _proposals(a, recipe, valid, out, device, held_out=True)
    if valid is not None and rank_and_world()[0] == 0:
        from fairseg_lite.course.ablation import measure

        measured(a, boxes=measure(model, valid, boxes, progress=True))


def _start(a: argparse.Namespace, model: str) -> dict:
    """What a fresh network begins with."""
    if model == "multipathnet_lite0":
        found = None if a.proposals.endswith(".json") else proposer(a.proposals, "cpu")
        found = getattr(found, "deepmask", found)
        if found is None or found.record.model != "deepmask_lite0":
            raise InputError(f"{model} has the trunk of what proposes: --proposals photos-sharp, not {a.proposals!r}")
        return {"trunk_from": found, "trunk_weights": a.trunk_weights}
    if model != "multipathnet_tiny":
        if not a.trunk_weights:
            print("no --trunk-weights: the trunk starts from random numbers")
        return {"trunk_weights": a.trunk_weights}
    if a.trunk_weights == "none":
        return {}
    from fairseg_lite.models.checkpoints import SHIPPED

    source = a.trunk_weights or "shapes"
    if source not in SHIPPED and Path(source).suffix != ".safetensors":
        raise InputError(
            f"multipathnet_tiny begins with a tiny DeepMask (--trunk-weights shapes, or a checkpoint) and not with {source!r}; "
            "--set model=multipathnet_resnet50 takes ImageNet weights"
        )
    found = proposer(source, "cpu")
    found = getattr(found, "deepmask", found)
    if found.record.model != "deepmask_tiny":
        raise InputError(f"--trunk-weights {source!r} holds a {found.record.model}; wanted a deepmask_tiny or sharpmask_tiny")
    return {"trunk_from": found}


def _begun(a: argparse.Namespace, recipe, stored: dict, begin=None) -> tuple:
    """(device, what a fresh network begins with, training and validation data, folder, boxes to train on)."""
    a.proposals = a.proposals or stored.get("proposals") or (begin.record.proposals if begin is not None else "shapes-sharp")
    if begin is not None and a.trunk_weights:
        raise InputError("--from has a trunk of its own; leave --trunk-weights out, or --from")
    start = {} if stored else _start(a, recipe.model) if begin is None else {"model": begin}
    device = device_of(a)
    data, valid, out = data_of(a)
    if a.valid and a.proposals.endswith(".json") and not a.valid_proposals:
        raise InputError("--valid with a file of proposals needs another for that data: --valid-proposals FILE, or a network")
    return device, start, data, valid, out, _proposals(a, recipe, data, out, device)


def _proposals(a: argparse.Namespace, recipe, data, out: Path, device, *, held_out: bool = False) -> dict:
    """Boxes by picture id: read, or made with a network and kept in the output folder."""
    from fairseg_lite.data.results import load_boxes
    from fairseg_lite.data.scenes import Subset, image_ids
    from fairseg_lite.training.detector import make_proposals

    source, top_k = (a.valid_proposals if held_out else None) or a.proposals, recipe.top or 200
    if source.endswith(".json"):
        pictures = [{"id": p.id, "file_name": p.file_name} for p in getattr(data, "pictures", ())]
        boxes, known = load_boxes(source, pictures), set(image_ids(data))
        # pictures that were left out are missed by nobody
        return {key: found for key, found in boxes.items() if key in known} or boxes if a.skip_faults else boxes
    most = 1000 if a.data == ["shapes"] and not held_out else None  # of 10,000
    name = f"proposals-{'valid' if held_out else 'train'}-{Path(source).stem if Path(source).suffix else source}-{top_k}.json"
    model, dtype = proposer(source, device), dtype_of("auto", device)
    if not a.dry_run:
        return make_proposals(model, data, out / name, pictures=most, top_k=top_k, dtype=dtype)
    starts = getattr(data, "starts", (0, len(data)))  # of every set the same number of pictures
    each = -(-PROBE * recipe.images // (len(starts) - 1))
    few = Subset(data, [i for start, end in pairwise(starts) for i in range(start, min(start + each, end))])
    with tempfile.TemporaryDirectory() as folder:  # for the steps that are measured
        start = time.perf_counter()
        found = make_proposals(model, few, Path(folder) / name, top_k=top_k, dtype=dtype)
    all_of = duration((time.perf_counter() - start) / len(few) * (most or len(data)))
    print(f"proposals  of {len(few)} pictures were made; those of all take {all_of}")
    return found


def _ablate(a: argparse.Namespace) -> None:
    from fairseg_lite.course.ablation import TABLE_1, ablate, results_in, table
    from fairseg_lite.plots import ablation

    recipe = recipe_of(a, "multipathnet", {})
    device, start, data, valid, out, boxes = _begun(a, recipe, {})
    valid_boxes = _proposals(a, recipe, valid, out, device, held_out=True)
    start["about"] = {k: getattr(a, k) for k in ("data", "valid", "proposals", "valid_proposals", "trunk_weights")}
    try:
        found = ablate(data, boxes, valid, valid_boxes, recipe=recipe, out=out, seeds=a.seeds, device=device, **start)
    except KeyboardInterrupt as stop:
        done = f"{len(results_in(out, seeds=a.seeds))} of {a.seeds * len(TABLE_1)}"
        raise KeyboardInterrupt(f"{done} runs are measured; the same command goes on") from stop
    print(table(TABLE_1, found))
    write_picture(out / "table.png", ablation({r.name: [x.value("ap") for x in found if x.row == r.name] for r in TABLE_1}))
    print(f"{len(found)} runs of {recipe.model}, {recipe.fit.steps} steps each; table.txt, table.json and table.png in {out}")
