"""`fairseg-lite demo`: objects found in four photographs, the whole pipeline on one scene, and a picture of yours."""

import argparse
import time
from pathlib import Path

from fairseg_lite.cli import detect, propose
from fairseg_lite.cli.inputs import output_folder, proposer, write_json, write_picture
from fairseg_lite.cli.options import add, command, device_of
from fairseg_lite.errors import InputError

DEMO = """examples:
  fairseg-lite demo                     out/demo/photographs.png, and demo.png: a made-up scene, with names
  fairseg-lite demo cat.jpg -o out      and a picture of yours
"""
DRAWN = 5  # masks of a picture
PHOTOGRAPHS = (5, 11, 17, 23)  # every sixth of the library's


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `demo`."""
    p = command(commands, "demo", "what the networks of the library find, as pictures", DEMO, _demo)
    p.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture of yours, too")
    p.add_argument("--out", "-o", default="out/demo", metavar="OUT", help="folder to write to (default: out/demo)")
    p.add_argument("--scene", type=int, default=6, metavar="N", help="which of 500 held-out scenes (default: 6)")
    p.add_argument("--model", metavar="M", help="a checkpoint (default: photos-sharp; for the scene shapes-sharp)")
    words = "MultiPathNet checkpoint that names the scene's objects (default: shapes-multipath)"
    p.add_argument("--detector", default="shapes-multipath", metavar="M", help=words)
    add(p, "--device")


def _demo(a: argparse.Namespace) -> None:
    if not 0 <= a.scene < 500:
        raise InputError(f"--scene is {a.scene}; there are 500, from 0 to 499")
    device = device_of(a)
    from fairseg_lite.data.layouts import list_pictures

    picture = list_pictures(a.picture)[0] if a.picture else None
    out = output_folder(a.out)

    from fairseg_lite.data.pictures import load_image
    from fairseg_lite.inference.propose import prepare
    from fairseg_lite.models.checkpoints import load_model

    image = load_image(picture) if picture else None
    for_photos, for_scene = (prepare(proposer(a.model or name, device)) for name in ("photos-sharp", "shapes-sharp"))
    detector = load_model(a.detector, device=device, kind="MultiPathNet")
    written = [*_photographs(for_photos, out), *_scene(for_scene, detector, a.scene, out)]
    if image is not None:
        written += _yours(for_photos, image, picture.stem, out)
    print("\n".join(str(out / name) for name in written))


def _photographs(model, out: Path) -> list[str]:
    """Four photographs, what people outlined in them, and the best masks found."""
    from fairseg_lite.data.photos import photographs
    from fairseg_lite.inference.propose import propose as find
    from fairseg_lite.plots import grid, tinted

    scenes, start = [photographs()[i] for i in PHOTOGRAPHS], time.perf_counter()
    found = [propose.drawn(scene.image, find(model, scene.image, top_k=100), DRAWN) for scene in scenes]
    print(f"{len(scenes)} photographs looked at in {time.perf_counter() - start:.1f} s")
    outlined = [tinted(scene.image, scene.masks) for scene in scenes]
    title = "photographs; the objects that people outlined; the objects that are found"
    pictures = [*(scene.image for scene in scenes), *outlined, *found]
    write_picture(out / "photographs.png", grid(pictures, columns=len(scenes), side=3.4, title=title))
    return ["photographs.png"]


def _scene(model, detector, number: int, out: Path) -> list[str]:
    """A made-up scene: its objects, the best proposals, and their names."""
    import torch

    from fairseg_lite.data.shapes import ShapesDataset
    from fairseg_lite.geometry.masks import mask_iou
    from fairseg_lite.inference.detect import detect as look
    from fairseg_lite.inference.propose import propose as find
    from fairseg_lite.plots import grid, tinted

    scene = ShapesDataset(500, seed=1)[number]
    found = find(model, scene.image, top_k=100)
    best = mask_iou(torch.from_numpy(scene.masks), found.masks()).amax(1) if len(found) else torch.zeros(len(scene.masks))
    print(f"{int((best > 0.5).sum())} of {len(best)} objects have an IoU above .5 with one of {len(found)} proposals")
    objects = look(detector, scene.image, found, score_threshold=0.5, masks="refined", proposer=model)
    categories, _ = detect.categories_of(detector)
    print(f"named in demo.png: {', '.join(detect.named_in(objects, categories)) or 'nothing'}")
    shown = [scene.image, tinted(scene.image, scene.masks), propose.drawn(scene.image, found, DRAWN)]
    shown.append(detect.drawn(scene.image, objects, categories, 0.5))
    titles = ["a made-up scene", f"the {len(scene.masks)} objects in it", "the best proposals", "what it names them"]
    write_picture(out / "demo.png", grid(shown, titles, columns=4, side=4.5))
    write_json(out / "proposals.json", found.to_coco(scene.image_id))
    return ["demo.png", "proposals.json"]


def _yours(model, image, stem: str, out: Path) -> list[str]:
    """A picture and the best masks found in it."""
    from fairseg_lite.inference.propose import propose as find
    from fairseg_lite.plots import grid

    name = stem + ("_demo" if stem in ("demo", "photographs") else "")
    found = find(model, image, top_k=100)
    write_picture(out / f"{name}.png", grid([image, propose.drawn(image, found, DRAWN)], columns=2, side=7))
    write_json(out / f"{name}.json", found.to_coco(1))
    return [f"{name}.png", f"{name}.json"]
