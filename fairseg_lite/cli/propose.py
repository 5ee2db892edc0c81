"""`fairseg-lite propose` and `fairseg-lite demo`: masks for pictures."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from fairseg_lite.cli.inputs import (
    add_device,
    add_precision,
    command,
    device_of,
    dtype_of,
    list_pictures,
    output_folder,
    positive,
    write_json,
    write_picture,
)
from fairseg_lite.errors import InputError

PROPOSE = """examples:
  fairseg-lite propose holiday.jpg -o out                          the network that comes with the library
  fairseg-lite propose photos/valid -o out --model runs/photos/model.safetensors --top-k 1000 --draw 20
OUT gets NAME.png for each picture, its best masks drawn in, and proposals.json, all masks as COCO results: image_id is
that of the folder's COCO annotations if there are some, else 1, 2, ... by name; file_name is added. A damaged picture
is named and left out, and the exit code is 2. Ctrl-C keeps what was done.
"""
DEMO = """examples:
  fairseg-lite demo                     out/demo/demo.png: a scene, the objects in it, the best proposals
  fairseg-lite demo cat.jpg -o out      and the same network on a picture of yours
"""
DISTINCT = 0.5  # masks that are drawn overlap less than this (IoU of boxes): ten copies of one object tell nothing


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `demo` and `propose`."""
    p = command(commands, "demo", "the pipeline on one scene, as pictures", DEMO)
    p.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture of yours, besides the scene")
    p.add_argument("--out", "-o", default="out/demo", metavar="OUT", help="folder to write to (default: out/demo)")
    p.add_argument("--scene", type=int, default=6, metavar="N", help="which of 500 held-out scenes (default: 6)")
    p.add_argument("--draw", type=positive, default=8, metavar="N", help="masks drawn (default: 8)")
    p.add_argument("--model", metavar="M", help="checkpoint that proposes (default: one of the library)")
    p.add_argument(
        "--detector", default="shapes-multipath", metavar="M",
        help="MultiPathNet checkpoint that names (default: shapes-multipath; nothing is named where it is not there)",
    )  # fmt: skip
    add_device(p)
    p.set_defaults(run=_demo)

    p = command(commands, "propose", "masks for a picture or a folder of pictures", PROPOSE)
    p.add_argument("input", metavar="PICTURE", help="a picture, or a folder of them")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder to write to")
    p.add_argument("--top-k", type=positive, default=100, metavar="N", help="proposals per picture (default: 100)")
    p.add_argument("--draw", type=int, default=10, metavar="N", help="masks drawn in; 0: no pictures (default: 10)")
    p.add_argument("--coarse", action="store_true", help="of a SharpMask: the masks before refinement")
    p.add_argument("--nms", type=float, metavar="IOU", help="drop proposals that overlap a better one by more")
    p.add_argument("--zoom", type=int, default=0, metavar="N", help="larger scales to add, for small objects")
    p.add_argument("--threshold", type=float, default=0.5, metavar="P", help="mask probability (default: 0.5)")
    p.add_argument("--max-side", type=positive, metavar="PX", help="larger pictures are reduced to this (default: 1024)")
    add_precision(p)
    _add_model(p)
    p.set_defaults(run=_propose)


def _add_model(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", default="shapes", metavar="M", help="a checkpoint (default: shapes, of the library)")
    add_device(p)


def _propose(a: argparse.Namespace) -> int:
    if a.draw < 0:
        raise InputError(f"--draw is {a.draw}; it must be 0 or more")
    device, pictures, out = device_of(a), *pictures_and_output(a)

    from fairseg_lite.inference.propose import prepare, propose
    from fairseg_lite.models.checkpoints import load_model

    model = prepare(load_model(a.model, device=device), dtype=dtype_of(a.precision, device))
    options = {"top_k": a.top_k, "nms": a.nms, "zoom": a.zoom, "threshold": a.threshold, "refine": not a.coarse}
    if a.max_side:
        options["max_side"] = a.max_side
    ids = image_ids(a.input, pictures)

    short: list[str] = []

    def work(path: Path, image) -> list[dict]:
        found = propose(model, image, **options)
        if len(found) < a.top_k and a.nms is None:
            short.append(f"{path.name}: {len(found)}")
        if a.draw:
            write_picture(out / picture_name(path, pictures), _drawn(image, found, a.draw))
        return found.to_coco(ids[path])

    code = over_pictures(pictures, work, out, "proposals", drawn=f"the best {a.draw}" if a.draw else "")
    if short:
        print(f"fewer than the {a.top_k} asked for in {len(short)} of {len(pictures)} pictures (first: {short[0]}): there are "
              "no more windows at these scales with a mask that is not empty")  # fmt: skip
    return code


def pictures_and_output(a: argparse.Namespace) -> tuple[list[Path], Path]:
    """The pictures of `a.input`, and the folder `a.out`, which must not hold them."""
    pictures = list_pictures(a.input)
    out = output_folder(a.out)
    if out.resolve() in {p.parent.resolve() for p in pictures}:
        raise InputError(f"{a.out!r} holds the pictures themselves; choose another folder with -o")
    return pictures, out


def over_pictures(pictures: list[Path], work: Callable, out: Path, what: str, *, drawn: str = "") -> int:
    """Do one job with each picture and keep the results in OUT/WHAT.json, also those of a job that was stopped.

    Args:
        pictures: their files; a damaged one among several is named and left out.
        work: called with a file and its picture, gives COCO results.
        out: folder.
        what: "proposals" or "detections".
        drawn: what `work` drew, to say where it is.
    Returns:
        The exit code: 2 when a picture was left out.
    """
    from tqdm.auto import tqdm

    from fairseg_lite.data.pictures import load_image

    results, done, damaged = [], 0, []
    try:
        for path in tqdm(pictures, unit="picture", delay=2):
            try:
                image = load_image(path)
            except InputError as error:
                if len(pictures) == 1:
                    raise
                damaged.append(error)
                continue
            results += [{**row, "file_name": path.name} for row in work(path, image)]
            done += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{what} for {done} of {len(pictures)} pictures are kept in {out}") from None
    finally:
        if done:
            write_json(out / f"{what}.json", results)
        for error in damaged:
            print(f"fairseg-lite: left out: {error}", file=sys.stderr)
    if done:
        print(f"{len(results)} {what} for {done} of {len(pictures)} pictures in {out / what}.json")
    if done and drawn:
        print(f"{drawn} drawn in {out}/*.png")
    if damaged:
        print(f"{len(damaged)} of {len(pictures)} pictures left out")
    return 2 if damaged else 0


def image_ids(source: str, pictures: list[Path]) -> dict[Path, int]:
    """Ids that the folder's COCO annotations give, if it has some that name all pictures; else 1, 2, ..."""
    from fairseg_lite.data.coco_json import locate

    try:
        entries = json.loads(locate(source)[1].read_text())["images"]
        known = {Path(e["file_name"]).name: int(e["id"]) for e in entries}
        return {p: known[p.name] for p in pictures}
    except (ValueError, OSError, LookupError, TypeError):
        return {p: i for i, p in enumerate(pictures, 1)}


def picture_name(path: Path, pictures: list[Path]) -> str:
    """NAME.png, or NAME.jpg.png where NAME.jpg and NAME.tif are both there."""
    alone = sum(p.stem == path.stem for p in pictures) == 1
    return f"{path.stem if alone else path.name}.png"


def _distinct(found, count: int):
    """The best proposals of which no two are about the same."""
    from torchvision.ops import nms

    return found[nms(found.boxes, found.scores, DISTINCT)[:count]]


def _drawn(image, found, count: int):
    """The picture with its best distinct masks, the very best on top."""
    from fairseg_lite.plots import tinted

    return tinted(image, _distinct(found, count).masks().flip(0).numpy())


def _demo(a: argparse.Namespace) -> None:
    if not 0 <= a.scene < 500:
        raise InputError(f"--scene is {a.scene}; there are 500, from 0 to 499")
    device = device_of(a)
    picture = list_pictures(a.picture)[0] if a.picture else None
    out = output_folder(a.out)

    import torch

    from fairseg_lite.data.pictures import load_image
    from fairseg_lite.data.shapes import ShapesDataset
    from fairseg_lite.geometry.masks import mask_iou
    from fairseg_lite.inference.propose import prepare, propose
    from fairseg_lite.models.checkpoints import SHIPPED, load_model
    from fairseg_lite.plots import grid, tinted

    image = load_image(picture) if picture else None
    names_too = a.detector not in SHIPPED or SHIPPED[a.detector].is_file()
    chosen = a.model or ("shapes-sharp" if names_too else "shapes")
    model = prepare(load_model(chosen, device=device))
    detector = load_model(a.detector, device=device, kind="MultiPathNet") if names_too else None
    scene = ShapesDataset(500, seed=1)[a.scene]
    found = propose(model, scene.image, top_k=100)
    best = mask_iou(torch.from_numpy(scene.masks), found.masks()).amax(1) if len(found) else torch.zeros(len(scene.masks))
    shown = [scene.image, tinted(scene.image, scene.masks), _drawn(scene.image, found, a.draw)]
    titles = ["a made-up scene", f"the {len(scene.masks)} objects in it", f"the best {a.draw} proposals"]
    print(f"{int((best > 0.5).sum())} of {len(best)} objects have an IoU above .5 with one of {len(found)} proposals")
    if detector is not None:
        told, drawn = _named(detector, model, scene.image, found)
        shown, titles = [*shown, drawn], [*titles, "what it names them"]
        print(f"named: {told}")
    write_picture(out / "demo.png", grid(shown, titles, columns=len(shown), side=4.5))
    write_json(out / "proposals.json", found.to_coco(scene.image_id))
    written = ["demo.png", "proposals.json"]
    if image is not None:
        mine = propose(model, image, top_k=100)
        name = picture.stem + ("_demo" if picture.stem == "demo" else "")
        shown = [image, _drawn(image, mine, a.draw)]
        if detector is not None:
            told, drawn = _named(detector, model, image, mine)
            shown.append(drawn)
            print(f"named in yours: {told}")
        write_picture(out / f"{name}.png", grid(shown, columns=len(shown), side=7))
        write_json(out / f"{name}.json", mine.to_coco(1))
        written += [f"{name}.png", f"{name}.json"]
        if chosen in SHIPPED:
            print("this network has seen synthetic shapes only: the README says how to train it on photographs")
    print("\n".join(str(out / name) for name in written))


def _named(detector, model, image, found) -> tuple[str, object]:
    """What a MultiPathNet makes of proposals: names with scores of .5 or more, and the picture with them drawn in."""
    from fairseg_lite.cli.detect import categories_of, drawn  # it builds on this file
    from fairseg_lite.inference.detect import detect

    objects = detect(detector, image, found, score_threshold=0.5, masks="refined", sharpmask=model)
    categories, _ = categories_of(detector)
    told = [f"{categories[k]} {s:.2f}" for k, s in zip(objects.labels.tolist(), objects.scores.tolist(), strict=True)]
    return ", ".join(told) or "nothing", drawn(image, objects, categories, 0.5)
