"""`fairseg-lite data shapes | check | coco`, and `import`: FAIR's released Torch7 files as checkpoints of ours."""

import argparse
from dataclasses import replace
from pathlib import Path

from fairseg_lite.cli.inputs import output_folder
from fairseg_lite.cli.options import add, command, positive
from fairseg_lite.errors import InputError, check_choice

SHAPES = """example:
  fairseg-lite data shapes shapes_train -n 200       200 scenes: shapes_train/images/*.png and instances.json
"""
CHECK = """example:
  fairseg-lite data check photos                            counts what is in photos/ and lists every fault
  fairseg-lite data check photos --fix photos/clean.json    writes what could be read as a clean file of its own
The exit code is 2 if there is a fault. Of a JSON file with no picture beside it the annotations alone are checked.
"""
SPLIT = """example:
  fairseg-lite data split photos photos --valid 0.2      photos/train.json and photos/valid.json
No picture is in both, and of every category about the same share of objects. The pictures stay where they are.
"""
CONVERT = """examples:
  fairseg-lite data convert labelme shots shots/instances.json    a JSON file beside each picture
  fairseg-lite data convert via via_project.json vases            vases/instances.json
  fairseg-lite data convert yolo set/train vases                  images/, labels/*.txt; names in data.yaml or classes.txt
  fairseg-lite data convert voc VOC2012 vases                     SegmentationObject/, ...Class/, JPEGImages/; or *.xml
  fairseg-lite data convert masks cells vases                     masks/NAME.png, masks/NAME/*.png, NAME/masks/*.png, ...
The pictures stay where they are. Rectangles are boxes without a mask.
"""
COCO = """example:
  fairseg-lite data coco coco50 --subset 50      50 pictures of val2017 (and .25 GB of annotations)
Call it again after a failure: it goes on where it stopped.
"""
IMPORT = """example:
  fairseg-lite import model.t7 -o deepmask.safetensors                  a file that you have
  fairseg-lite import --download sharpmask -o sharpmask.safetensors     fetch FAIR's first (kept as sharpmask.t7)
  fairseg-lite propose holiday.jpg -o out --model sharpmask.safetensors
Nothing in the file is executed. A download that breaks is tried again, on from where it stopped.
"""
OFFICIAL = {  # addresses in the READMEs of facebookresearch/deepmask and facebookresearch/multipathnet
    "deepmask": "https://s3.amazonaws.com/deepmask/models/deepmask/model.t7",
    "sharpmask": "https://s3.amazonaws.com/deepmask/models/sharpmask/model.t7",
    "multipathnet": "https://s3.amazonaws.com/multipathnet/models/resnet18_integral_coco.t7",
}


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register `data` with its jobs, and `import`."""
    group = command(commands, "data", "make, check or fetch a data set")
    jobs = group.add_subparsers(dest="job", metavar="JOB", required=True)

    p = command(jobs, "shapes", "write synthetic scenes as a COCO folder", SHAPES, _shapes)
    p.add_argument("out", metavar="OUT", help="folder to make")
    p.add_argument("-n", type=positive, default=100, metavar="N", help="number of scenes (default: 100)")
    p.add_argument("--seed", type=int, default=0, help="0: training, 1: evaluation, others are free (default: 0)")

    p = command(jobs, "check", "look for faults in a COCO folder", CHECK, _check)
    p.add_argument("folder", metavar="DATA", help="a folder as any tool exports it, its JSON file, or FILE.json:IMAGES")
    p.add_argument("--fix", metavar="OUT.json", help="write a clean copy: ids, sizes, names and shapes mended, faults left out")
    add(p, "--crowds-are-objects")

    p = command(jobs, "split", "part a data set into train.json and valid.json", SPLIT, _split)
    p.add_argument("folder", metavar="DATA", help="as for check")
    p.add_argument("out", metavar="OUT", help="folder to write to")
    p.add_argument("--valid", type=float, default=0.2, metavar="SHARE", help="of pictures in valid.json (default: 0.2)")
    p.add_argument("--seed", type=int, default=0, help="another draw (default: 0)")

    p = command(jobs, "convert", "make a COCO file of what another tool wrote", CONVERT, _convert)
    p.add_argument("format", metavar="FORMAT", choices=("labelme", "via", "yolo", "voc", "masks"), help="one of %(choices)s")
    p.add_argument("source", metavar="SRC", help="file or folder")
    p.add_argument("out", metavar="OUT", help="NAME.json, or a folder that gets instances.json")

    p = command(jobs, "coco", "fetch COCO 2017 or a part of it, verified", COCO, _coco)
    p.add_argument("out", metavar="OUT", help="folder to make")
    p.add_argument("--split", default="val2017", choices=("val2017", "train2017"), help="default: val2017")
    p.add_argument("--subset", type=positive, metavar="N", help="only N pictures; without it all (.8 or 19 GB)")

    p = command(commands, "import", "make a checkpoint of an official Torch7 file", IMPORT, _import)
    p.add_argument("file", metavar="FILE", nargs="?", help="a .t7 file")
    p.add_argument("--download", metavar="NAME", help=f"fetch FAIR's file: {', '.join(OFFICIAL)}; or an address with one like it")
    p.add_argument("-o", "--out", metavar="OUT", required=True, help="checkpoint to write, NAME.safetensors")


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

    out = Path(a.fix) if a.fix else None
    if out and (out.suffix != ".json" or out.exists()):
        raise InputError(f"--fix is {a.fix!r}; wanted the name of a JSON file that is not there yet")
    report = check(a.folder, crowds_are_objects=a.crowds_are_objects)
    print(report)
    if out:
        from fairseg_lite.formats import clean, read_whole, write_new

        content = read_whole(a.folder, crowds_are_objects=a.crowds_are_objects)
        new = clean(content, out, without={f.file for f in report.faults if f.annotation is None})
        write_new(out, new)
        lost = f"; {len(report.faults):,} faults are left out" * bool(report.faults)
        print(f"{out}: {len(new['images']):,} pictures with {len(new['annotations']):,} annotations{lost}")
    return 2 if report.faults else 0


def _split(a: argparse.Namespace) -> None:
    from fairseg_lite.formats import read_whole, split

    content = read_whole(a.folder)
    if content.faults:
        raise InputError(f"{content.faults[0]}; `fairseg-lite data check DATA --fix OUT.json` writes a clean copy: split that")
    found = split(content, output_folder(a.out), a.valid, a.seed)
    print(f"{'':24}{'train':>9}{'valid':>9}\n{'pictures':24}" + "".join(f"{n:9,}" for n in found["pictures"]))
    for name, *numbers in zip(content.categories, found["train"], found["valid"], strict=True):
        print(f"{name:24}" + "".join(f"{n:9,}" for n in numbers))
    print(f"{Path(a.out) / 'train.json'} and valid.json written; they are data sets by themselves")


def _convert(a: argparse.Namespace) -> None:
    from collections import Counter

    from fairseg_lite.formats import convert, write_new

    out, left_out = Path(a.out), Counter()
    out = out if out.suffix == ".json" else out / "instances.json"
    if out.exists():
        raise InputError(f"{str(out)!r} is there already and is not written over; choose another name")
    made = convert(a.format, a.source, out, left_out)
    write_new(out, made)
    for what, n in (+left_out).items():
        print(f"{n} {what}")
    numbers = (f"{len(made[key])} {what}" for key, what in (("images", "pictures"), ("annotations", "objects")))
    print(f"{out}: {' with '.join(numbers)} of {len(made['categories'])} categories; fairseg-lite data check {out}")


def _coco(a: argparse.Namespace) -> None:
    from fairseg_lite.formats import download

    out = output_folder(a.out)
    try:
        report = download.download_coco(out, split=a.split, subset=a.subset)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what has come is kept in {out}; the same command goes on from there") from None
    print(f"{report['images']} pictures with {report['instances']} instances in {out}")
    print(f"{out / 'downloads'} holds the archives; delete it if you need the room")


def _import(a: argparse.Namespace) -> None:
    if (a.file is None) == (a.download is None):
        raise InputError("import wants a FILE or --download NAME, and not both")
    out = Path(a.out)
    if out.suffix != ".safetensors":
        raise InputError(f"--out is {a.out!r}; a checkpoint's name ends in .safetensors")

    from fairseg_lite.models.checkpoints import save_model
    from fairseg_lite.official.networks import import_official
    from fairseg_lite.official.reader import Torch7Error

    source = Path(a.file) if a.file else _fetched(a.download, out)
    print(f"reading {source} ({source.stat().st_size / 1e6:.1f} MB)")
    try:
        model = import_official(source)
    except InputError as error:
        if a.download and isinstance(error, Torch7Error):
            source.unlink()
            raise InputError(
                f"it was no Torch7 file that came, and it is deleted: {error}; try again, or another address"
            ) from error
        raise InputError(f"{str(source)!r}: {error}") from error
    model.record = replace(model.record, about={"source": source.name, **model.record.about})
    save_model(out, model)
    record, numbers = model.record, sum(p.numel() for p in model.parameters())
    print(f"{record.model}: {record.about['tensors']} tensors, {numbers / 1e6:.2f} M parameters, each in its place")
    if record.pixels.order == "BGR":
        print("it takes pictures as Caffe's VGG does (BGR, 0 to 255, less a mean), and makes them so itself")
    if config := record.about["config"]:
        print("official options: " + ", ".join(f"{k} {v}" for k, v in sorted(config.items())))
    print(f"{out} written" + (f"; fairseg-lite propose PICTURE -o OUT --model {out}" if hasattr(model, "patch_size") else ""))


def _fetched(name: str, out: Path) -> Path:
    """The official file, or one of another address, beside the checkpoint that it becomes."""
    from fairseg_lite.formats.download import download

    if "://" not in name:
        check_choice("--download", name, OFFICIAL)
    path = out.with_suffix(".t7") if "://" in name else out.with_name(f"{name}.t7")
    if path.is_file():
        print(f"{path} is there already; delete it to fetch it again")
        return path
    return download(OFFICIAL.get(name, name), path)
