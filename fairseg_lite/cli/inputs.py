"""What several commands read, write and say: data sets by name, networks, pictures, folders for output; what a training takes."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.files import whole, write_json

PROBE = 20  # steps of a training that --dry-run does


def open_dataset(name: str, *, held_out: bool, **rules: Any):
    """`shapes`, `shapes:N`, or a COCO-format folder.

    Args:
        name: as the user wrote it.
        held_out: shapes only: scenes of seed 1 that no training sees (500 of them) instead of seed 0 (10,000).
        rules: on_fault, crowds_are_objects and max_side of `CocoDataset`.
    Raises: InputError, no such folder, not COCO format, or no usable number after `shapes:`.
    """
    word, _, count = given(name, "data").partition(":")
    if word == "shapes" and not Path(name).exists():
        from fairseg_lite.data.shapes import ShapesDataset

        if count and not (count.isdigit() and int(count)):
            raise InputError(f"data {name!r}: write shapes or shapes:N with N scenes, at least 1")
        return ShapesDataset(int(count or (500 if held_out else 10_000)), seed=int(held_out))
    from fairseg_lite.data.coco import CocoDataset

    return CocoDataset(name, **rules)


def given(text: str, what: str) -> str:
    """The text; InputError where it is empty: that would mean the current folder, and comes of a variable that was never set."""
    if not text.strip():
        raise InputError(f"{what} is empty; name it, . for the current folder")
    return text


def output_folder(path: str | Path) -> Path:
    """Make a folder for output and make sure that it can be written to, before any work is done.

    Raises: InputError, it cannot.
    """
    path = Path(given(str(path), "the folder to write to") if isinstance(path, str) else path)
    probe = path / f".probe{os.getpid()}"
    if int(os.environ.get("RANK", 0)):  # torchrun's: the first process alone writes
        return path
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to folder {str(path)!r}: {error.strerror}; choose another with -o") from error
    return path


def folders_of(*files: str | None) -> None:
    """As `output_folder`, for the folders of files that will be written, as far as they are named."""
    for path in files:
        if path:
            output_folder(Path(path).parent)


def proposer(source: str, device):
    """A network that proposes masks.

    Raises: InputError, another network, or as `load_model`.
    """
    from fairseg_lite.models.checkpoints import load_model

    model = load_model(source, device=device)
    if not hasattr(model, "patch_size"):
        kind = type(model).__name__
        raise InputError(f"{source!r} holds no network that proposes but a {kind}; wanted a DeepMask or SharpMask")
    return model


def pictures_and_output(a: argparse.Namespace) -> tuple[list, Path]:
    """The pictures of `a.input` (`listed_pictures`), and the folder `a.out`, which must not hold them."""
    from fairseg_lite.data.photos import listed_pictures

    pictures, unknown = listed_pictures(given(a.input, "the picture"), besides=a.out)
    if unknown:
        print(unknown, file=sys.stderr)
    out = output_folder(a.out)
    if out.resolve() in {p.path.parent.resolve() for p in pictures}:
        raise InputError(f"{a.out!r} holds the pictures themselves; choose another folder with -o")
    return pictures, out


def over_pictures(pictures: list, work: Callable, out: Path, what: str, *, drawn: str = "") -> int:
    """Do one job with each picture and keep the results in OUT/WHAT.json, also those of a job that was stopped.

    Args:
        pictures: as from `listed_pictures`; a damaged one among several is named and left out.
        work: called with one of them and its pixels, gives COCO results.
        out: folder.
        what: "proposals" or "detections".
        drawn: what `work` drew, to say where it is.
    Returns: The exit code: 2 when a picture was left out.
    """
    from tqdm.auto import tqdm

    from fairseg_lite.data.pictures import load_image
    from fairseg_lite.training.shards import collected, dealt, rank_and_world

    rank, stopped, own, start = rank_and_world()[0], False, [], time.perf_counter()
    try:
        for one in tqdm(dealt(pictures), unit="picture", delay=2, disable=rank > 0):
            try:
                if one.fault:
                    raise InputError(one.fault)
                image = load_image(one.path, one.size)
            except InputError as error:
                if len(pictures) == 1:
                    raise
                own.append(error)
                continue
            own.append([{**row, "file_name": one.name} for row in work(one, image)])
    except KeyboardInterrupt:
        stopped = True
    finally:
        every = collected(own)
        damaged, rows = [e for e in every if isinstance(e, InputError)], [r for r in every if isinstance(r, list)]
        done, results = len(rows), [row for found in rows for row in found]
        if done:
            write_json(out / f"{what}.json", results)
        for error in damaged:
            print(f"fairseg-lite: left out: {error}", file=sys.stderr)
    if stopped:
        raise KeyboardInterrupt(f"{what} for {done} of {len(pictures)} pictures are kept in {out}")
    if done:
        each = (time.perf_counter() - start) / done
        print(f"{len(results)} {what} for {done} of {len(pictures)} pictures, {each:.1f} s each, in {out / what}.json")
    if done and drawn:
        print(f"{drawn} drawn in {out}/*.png")
    if damaged:
        print(f"{len(damaged)} of {len(pictures)} pictures left out")
    if new := sum(one.new for one in pictures):
        print(f"new ids for {new} of {len(pictures)} pictures, which the annotations do not list")
    return 2 if damaged else 0


def picture_name(one, pictures: list) -> str:
    """NAME.png, or NAME.jpg.png where NAME.jpg and NAME.tif are both there; in a folder as the picture is."""
    name = Path(one.name)
    alone = sum(Path(p.name).with_suffix("") == name.with_suffix("") for p in pictures) == 1
    return f"{name.with_suffix('') if alone else name}.png"


def plain(reports: dict) -> dict:
    """What JSON can hold of reports; not the IoU of every patch."""
    return {name: {k: v for k, v in asdict(report).items() if k != "ious"} for name, report in reports.items()}


def write_picture(path: str | Path, picture) -> None:
    """Write an (H, W, 3) uint8 array or a matplotlib figure as PNG; the file is whole or not there.

    Raises: InputError, it cannot be written.
    """
    with whole(path) as part:
        if hasattr(picture, "savefig"):
            picture.savefig(part, format="png", dpi=100)
        else:
            from PIL import Image

            Image.fromarray(picture).save(part, "PNG")


def planned(recipe, data, train: Callable) -> None:
    """Say what a training would do and take: `train` does some steps of a recipe, which are measured and forgotten."""
    import torch

    from fairseg_lite.bench import high_water
    from fairseg_lite.training.shards import rank_and_world

    fit, patches, objects = recipe.fit, hasattr(recipe, "positives"), int((~data.instances.crowd).sum())
    each = recipe.positives + recipe.negatives if patches else recipe.images
    model, history = train(replace(recipe, fit=replace(fit, steps=min(PROBE, fit.steps), log_every=1)))
    rate = median(history["rate"][len(history.rows) // 4 :]) / each  # the first steps are slow
    whole, learnt = (sum(p.numel() for p in model.parameters() if p.requires_grad >= only) for only in (False, True))
    disk = sum(t.nbytes for t in model.state_dict().values()) + 4 * learnt * (2 if fit.optimizer == "adamw" else 1)
    memory, device = f"{high_water() / 2**20:,.0f} MiB of a process", next(model.parameters()).device
    if device.type == "cuda":
        memory += f" and {torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB of its GPU"
    what = f"{each} patches" if patches else f"{each} pictures with {recipe.rois} RoIs each"
    share, one = (objects, "object") if patches else (len(data), "picture")
    rows = {
        "network": f"{recipe.model}: {whole:,} weights, {learnt:,} learn; on {device.type}, processes: {rank_and_world()[1]}",
        "data": f"{len(data):,} pictures, {objects:,} objects of {len(data.categories)} categories",
        "plan": f"{fit.steps:,} steps of {what}; {fit.optimizer}, lr {fit.lr:g}",
        "samples": f"{fit.steps * each:,}, {fit.steps * each / max(share, 1):,.1f} for each {one}",
        "memory": f"{memory}; state.safetensors takes {disk / 2**20:,.0f} MiB of disk",
        "time": f"{duration(fit.steps / rate)}, by {len(history.rows)} steps that were measured: {rate:.3g} a second",
    }
    print("\n".join(f"{name:11}{text}" for name, text in rows.items()))


def duration(seconds: float) -> str:
    """Seconds in the two largest units.

    Example:
        >>> duration(50), duration(4000), duration(400_000.0)
        ('50 s', '1 h 7 min', '4 days 15 h')
    """
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24:,} days {hours % 24} h"
