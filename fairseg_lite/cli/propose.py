"""`fairseg-lite propose`: masks for pictures; `export`: the network without Python; `demo`: objects found and named."""

import argparse
import time
from pathlib import Path

from fairseg_lite.cli import detect
from fairseg_lite.cli.inputs import (
    folders_of,
    output_folder,
    over_pictures,
    picture_name,
    pictures_and_output,
    proposer,
    write_json,
    write_picture,
)
from fairseg_lite.cli.options import add, add_set, arguments, command, device_of, dtype_of, positive
from fairseg_lite.errors import InputError

PROPOSE = """examples:
  fairseg-lite propose holiday.jpg -o out                          the network that comes with the library
  fairseg-lite propose photos/valid -o out --model runs/photos/model.safetensors --top-k 1000 --draw 20
OUT gets NAME.png for each picture, its best masks drawn in, and proposals.json, all masks as COCO results: image_id is
that of the folder's COCO annotations if there are some, else 1, 2, ... by name; file_name is added. A damaged picture
is named and left out, and the exit code is 2. Ctrl-C keeps what was done.
"""
EXPORT = """examples:
  fairseg-lite export photos-sharp -o sharp.onnx             for ONNX Runtime: needs the extra fairseg-lite[onnx]
  fairseg-lite export photos-sharp -o sharp.pt2 --top-k 50   for torch.export.load
In: picture, uint8 (H, W, 3), RGB, H and W multiples of 16. Out: masks (N, M, M), boxes (N, 4) and scores (N) of the N best
windows at this one scale; for others call it with the picture resized. A mask belongs into its box, px.
"""
DEMO = """examples:
  fairseg-lite demo                     out/demo/photographs.png: four photographs, the objects in them, and their names
  fairseg-lite demo cat.jpg -o out      and a picture of yours
`propose` and `detect` do the same with other networks, and for whole folders.
"""
DRAWN = 5  # masks of a picture
SURE = 0.5  # probability from which a name is drawn
PHOTOGRAPHS = (5, 11, 17, 23)  # every sixth of the library's


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `propose`, `export` and `demo`."""
    p = command(commands, "propose", "masks for a picture or a folder of pictures", PROPOSE, _propose)
    p.add_argument("input", metavar="PICTURE", help="a picture, or a folder of them")
    p.add_argument("--out", "-o", required=True, metavar="OUT", help="folder to write to")
    p.add_argument("--model", default="photos-sharp", metavar="M", help="a checkpoint (default: photos-sharp, of the library)")
    p.add_argument("--top-k", type=positive, default=100, metavar="N", help="proposals per picture (default: 100)")
    p.add_argument("--draw", type=int, default=10, metavar="N", help="masks drawn in; 0: no pictures (default: 10)")
    p.add_argument("--coarse", action="store_true", help="of a SharpMask: the masks before refinement")
    words = "rerank=false (by score alone), nms=IOU, max_side=PX (1024: larger are reduced), zoom=N (finer scales), threshold=P"
    add_set(p, words)
    add(p, "--precision", "--device")

    p = command(commands, "export", "write a network as ONNX or for torch.export", EXPORT, _export)
    p.add_argument("model", metavar="MODEL", help="a DeepMask or SharpMask: photos-sharp, photos or a checkpoint")
    p.add_argument("--out", "-o", required=True, metavar="FILE", help="NAME.onnx or NAME.pt2")
    p.add_argument("--top-k", type=positive, default=100, metavar="N", help="masks of a picture (default: 100)")

    p = command(commands, "demo", "what the networks of the library find, as pictures", DEMO, _demo)
    p.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture of yours, too")
    p.add_argument("--out", "-o", default="out/demo", metavar="OUT", help="folder to write to (default: out/demo)")
    add(p, "--device")


def _export(a: argparse.Namespace) -> None:
    folders_of(a.out)
    from fairseg_lite.inference.export import export

    export(proposer(a.model, "cpu"), a.out, top_k=a.top_k)
    print(f"{a.out} written, {Path(a.out).stat().st_size / 1e6:.1f} MB")


def _propose(a: argparse.Namespace) -> int:
    if a.draw < 0:
        raise InputError(f"--draw is {a.draw}; it must be 0 or more")
    device, pictures, out = device_of(a), *pictures_and_output(a)

    from fairseg_lite.inference.propose import prepare, propose
    from fairseg_lite.training.shards import collected

    options = arguments(a.set, propose, besides=("top_k", "refine", "dtype", "timer"))
    options |= {"top_k": a.top_k, "refine": not a.coarse}
    model = prepare(proposer(a.model, device), dtype=dtype_of(a.precision, device))
    short: list[str] = []

    def work(one, image) -> list[dict]:
        found = propose(model, image, **options)
        if len(found) < a.top_k and "nms" not in options:
            short.append(f"{one.name}: {len(found)}")
        if a.draw:
            write_picture(out / picture_name(one, pictures), drawn(image, found, a.draw))
        return found.to_coco(one.id)

    code = over_pictures(pictures, work, out, "proposals", drawn=f"the best {a.draw}" if a.draw else "")
    if short := collected(short):
        print(f"fewer than the {a.top_k} asked for in {len(short)} of {len(pictures)} pictures (first: {short[0]}): there are "
              "no more windows at these scales with a mask that is not empty")  # fmt: skip
    return code


def drawn(image, found, count: int):
    """The picture with its best masks, none of which lies on another; only those that are half as sure as the surest."""
    from fairseg_lite.data.scenes import Masks
    from fairseg_lite.plots import apart, tinted

    sure = found[found.scores >= found.scores.amax() / 2] if len(found) else found
    masks = Masks(sure.rle, *image.shape[:2])
    return tinted(image, (masks[i] for i in apart(masks, count)))


def _demo(a: argparse.Namespace) -> None:
    from fairseg_lite.data.layouts import list_pictures
    from fairseg_lite.data.photos import photographs
    from fairseg_lite.data.pictures import load_image
    from fairseg_lite.inference.propose import prepare
    from fairseg_lite.models.checkpoints import load_model
    from fairseg_lite.plots import grid, tinted

    device = device_of(a)
    picture = list_pictures(a.picture)[0] if a.picture else None
    yours = load_image(picture) if picture else None
    out, finder = output_folder(a.out), prepare(load_model("photos-sharp", device=device))
    detector = load_model("photos-multipath", device=device)

    scenes, start = [photographs()[i] for i in PHOTOGRAPHS], time.perf_counter()
    looks = [_looked(finder, detector, scene.image) for scene in scenes]
    print(f"{len(scenes)} photographs looked at in {time.perf_counter() - start:.1f} s")
    outlined = [tinted(scene.image, scene.masks) for scene in scenes]
    title = "photographs; the objects that people outlined; the objects that are found; and their names"
    rows = [[scene.image for scene in scenes], outlined, *zip(*(shown for shown, _, _ in looks), strict=True)]
    write_picture(out / "photographs.png", grid([x for row in rows for x in row], columns=len(scenes), side=3.4, title=title))
    written = ["photographs.png"]
    if picture is not None and yours is not None:
        name = picture.stem + ("_demo" if picture.stem == "photographs" else "")
        shown, names, results = _looked(finder, detector, yours)
        print(f"named in {picture.name}: {', '.join(names) or 'nothing'}")
        write_picture(out / f"{name}.png", grid([yours, *shown], columns=3, side=5))
        write_json(out / f"{name}.json", results)
        written += [f"{name}.png", f"{name}.json"]
    print("\n".join(str(out / name) for name in written))


def _looked(finder, detector, image) -> tuple[list, list[str], list[dict]]:
    """A picture with the best masks, and with names; the names; and both as COCO results."""
    from fairseg_lite.inference.detect import detect as look
    from fairseg_lite.inference.propose import propose as find

    found = find(finder, image, top_k=200)
    objects = look(detector, image, found, masks="refined", proposer=finder)
    categories, ids = detect.categories_of(detector)
    sure = objects[objects.scores >= SURE]
    shown = [drawn(image, found, DRAWN), detect.drawn(image, objects, categories, SURE)]
    return shown, detect.named_in(sure, categories), objects.to_coco(1, ids)
