"""`fairseg-lite demo`: objects found and named in four photographs, and in a picture of yours."""

import argparse
import time

from fairseg_lite.cli import detect, propose
from fairseg_lite.cli.inputs import output_folder, write_json, write_picture
from fairseg_lite.cli.options import add, command, device_of

DEMO = """examples:
  fairseg-lite demo                     out/demo/photographs.png: four photographs, the objects in them, and their names
  fairseg-lite demo cat.jpg -o out      and a picture of yours
`propose` and `detect` do the same with other networks, and for whole folders.
"""
DRAWN = 5  # masks of a picture
SURE = 0.5  # probability from which a name is drawn
PHOTOGRAPHS = (5, 11, 17, 23)  # every sixth of the library's


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `demo`."""
    p = command(commands, "demo", "what the networks of the library find, as pictures", DEMO, _demo)
    p.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture of yours, too")
    p.add_argument("--out", "-o", default="out/demo", metavar="OUT", help="folder to write to (default: out/demo)")
    add(p, "--device")


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
    shown = [propose.drawn(image, found, DRAWN), detect.drawn(image, objects, categories, SURE)]
    return shown, detect.named_in(sure, categories), objects.to_coco(1, ids)
