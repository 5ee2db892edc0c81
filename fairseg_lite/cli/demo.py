"""`fairseg-lite demo`: the whole pipeline on one scene, and on a picture of yours."""

import argparse

from fairseg_lite.cli import detect, propose
from fairseg_lite.cli.inputs import list_pictures, output_folder, proposer, write_json, write_picture
from fairseg_lite.cli.options import add_device, command, device_of
from fairseg_lite.errors import InputError

DEMO = """examples:
  fairseg-lite demo                     out/demo/demo.png: a scene, the objects in it, the best proposals
  fairseg-lite demo cat.jpg -o out      and the same network on a picture of yours
"""
DRAWN = 8  # masks of a picture


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `demo`."""
    p = command(commands, "demo", "the pipeline on one scene, as pictures", DEMO)
    p.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture of yours, besides the scene")
    p.add_argument("--out", "-o", default="out/demo", metavar="OUT", help="folder to write to (default: out/demo)")
    p.add_argument("--scene", type=int, default=6, metavar="N", help="which of 500 held-out scenes (default: 6)")
    p.add_argument("--model", default="shapes-sharp", metavar="M", help="checkpoint that proposes (default: shapes-sharp)")
    words = "MultiPathNet checkpoint that names (default: shapes-multipath)"
    p.add_argument("--detector", default="shapes-multipath", metavar="M", help=words)
    add_device(p)
    p.set_defaults(run=_demo)


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
    from fairseg_lite.inference.propose import prepare
    from fairseg_lite.models.checkpoints import SHIPPED, load_model
    from fairseg_lite.plots import tinted

    image = load_image(picture) if picture else None
    model = prepare(proposer(a.model, device))
    detector = load_model(a.detector, device=device, kind="MultiPathNet")
    scene = ShapesDataset(500, seed=1)[a.scene]
    titles = ["a made-up scene", f"the {len(scene.masks)} objects in it", f"the best {DRAWN} proposals", "what it names them"]
    shown = [scene.image, tinted(scene.image, scene.masks)]
    found = _looked(model, detector, scene.image, out / "demo.png", shown, titles)
    write_json(out / "proposals.json", found.to_coco(scene.image_id))
    best = mask_iou(torch.from_numpy(scene.masks), found.masks()).amax(1) if len(found) else torch.zeros(len(scene.masks))
    print(f"{int((best > 0.5).sum())} of {len(best)} objects have an IoU above .5 with one of {len(found)} proposals")
    written = ["demo.png", "proposals.json"]
    if image is not None:
        name = picture.stem + ("_demo" if picture.stem == "demo" else "")
        mine = _looked(model, detector, image, out / f"{name}.png", [image], [], side=7)
        write_json(out / f"{name}.json", mine.to_coco(1))
        written += [f"{name}.png", f"{name}.json"]
        if a.model in SHIPPED:
            print("this network has seen synthetic shapes only: the README says how to train it on photographs")
    print("\n".join(str(out / name) for name in written))


def _looked(model, detector, image, path, shown: list, titles: list[str], side: float = 4.5):
    """Proposals for a picture; it is drawn with them and with their names, beside what is shown."""
    from fairseg_lite.inference.detect import detect as look
    from fairseg_lite.inference.propose import propose as find
    from fairseg_lite.plots import grid

    found = find(model, image, top_k=100)
    objects = look(detector, image, found, score_threshold=0.5, masks="refined", proposer=model)
    categories, _ = detect.categories_of(detector)
    told = [f"{categories[k]} {s:.2f}" for k, s in zip(objects.labels.tolist(), objects.scores.tolist(), strict=True)]
    print(f"named in {path.name}: {', '.join(told) or 'nothing'}")
    shown = [*shown, propose.drawn(image, found, DRAWN), detect.drawn(image, objects, categories, 0.5)]
    write_picture(path, grid(shown, titles, columns=len(shown), side=side))
    return found
