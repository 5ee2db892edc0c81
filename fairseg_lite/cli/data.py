"""`fairseg-lite data shapes | check | coco`."""

import argparse

from fairseg_lite.cli.inputs import output_folder
from fairseg_lite.cli.options import CROWDS_HELP, command, positive
from fairseg_lite.errors import InputError

SHAPES = """example:
  fairseg-lite data shapes shapes_train -n 200       200 scenes: shapes_train/images/*.png and instances.json
"""
CHECK = """example:
  fairseg-lite data check photos      counts what is in photos/ and lists every fault (exit code 2 if there is one)
"""
COCO = """example:
  fairseg-lite data coco coco50 --subset 50      50 pictures of val2017 (and .25 GB of annotations)
Call it again after a failure: it goes on where it stopped.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `data` and its three jobs."""
    group = command(commands, "data", "make, check or fetch a data set")
    jobs = group.add_subparsers(dest="job", metavar="JOB", required=True)

    p = command(jobs, "shapes", "write synthetic scenes as a COCO folder", SHAPES)
    p.add_argument("out", metavar="OUT", help="folder to make")
    p.add_argument("-n", type=positive, default=100, metavar="N", help="number of scenes (default: 100)")
    p.add_argument("--seed", type=int, default=0, help="0: training, 1: evaluation, others are free (default: 0)")
    p.set_defaults(run=_shapes)

    p = command(jobs, "check", "look for faults in a COCO folder", CHECK)
    p.add_argument("folder", metavar="DATA", help="a folder as any tool exports it, its JSON file, or FILE.json:IMAGES")
    p.add_argument("--crowds-are-objects", action="store_true", help=CROWDS_HELP)
    p.set_defaults(run=_check)

    p = command(jobs, "coco", "fetch COCO 2017 or a part of it, verified", COCO)
    p.add_argument("out", metavar="OUT", help="folder to make")
    p.add_argument("--split", default="val2017", choices=("val2017", "train2017"), help="default: val2017")
    p.add_argument("--subset", type=positive, metavar="N", help="only N pictures; without it all (.8 or 19 GB)")
    p.add_argument("--mirror", metavar="ADDRESS", help="an address with the same files (default: COCO's own)")
    p.set_defaults(run=_coco)


def _shapes(a: argparse.Namespace) -> None:
    from fairseg_lite.data.coco import write_coco_folder
    from fairseg_lite.data.shapes import ShapesDataset

    out = output_folder(a.out)
    if (out / "instances.json").exists():
        raise InputError(f"folder {a.out!r} holds a data set already; choose another folder")
    dataset = ShapesDataset(a.n, seed=a.seed)
    write_coco_folder(dataset, out)
    instances, categories = len(dataset.instances), len(dataset.categories)
    print(f"{a.n} scenes with {instances} instances of {categories} categories in {out}")


def _check(a: argparse.Namespace) -> int:
    from fairseg_lite.data.coco import check

    report = check(a.folder, crowds_are_objects=a.crowds_are_objects)
    print(report)
    return 2 if report.faults else 0


def _coco(a: argparse.Namespace) -> None:
    from fairseg_lite.data import download

    out = output_folder(a.out)
    mirror = a.mirror or download.COCO
    try:
        report = download.download_coco(out, split=a.split, subset=a.subset, mirror=mirror)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what has come is kept in {out}; the same command goes on from there") from None
    print(f"{report['images']} pictures with {report['instances']} instances in {out}")
    print(f"{out / 'downloads'} holds the archives; delete it if you need the room")
