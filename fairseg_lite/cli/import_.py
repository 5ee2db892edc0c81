"""`fairseg-lite import`: FAIR's released Torch7 files as checkpoints of ours."""

import argparse
from dataclasses import replace
from pathlib import Path

from fairseg_lite.cli.options import command
from fairseg_lite.errors import InputError

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
    """Register `import`."""
    p = command(commands, "import", "make a checkpoint of an official Torch7 file", IMPORT)
    p.add_argument("file", metavar="FILE", nargs="?", help="a .t7 file")
    p.add_argument("--download", choices=OFFICIAL, metavar="NAME", help=f"fetch FAIR's file: {', '.join(OFFICIAL)}")
    p.add_argument("--address", metavar="ADDRESS", help="another address with the same file, for --download")
    p.add_argument("-o", "--out", metavar="OUT", required=True, help="checkpoint to write, NAME.safetensors")
    p.set_defaults(run=_import)


def _import(a: argparse.Namespace) -> None:
    if (a.file is None) == (a.download is None):
        raise InputError("import wants a FILE or --download NAME, and not both")
    if a.address and not a.download:
        raise InputError("--address goes with --download")
    out = Path(a.out)
    if out.suffix != ".safetensors":
        raise InputError(f"--out is {a.out!r}; a checkpoint's name ends in .safetensors")

    from fairseg_lite.models.checkpoints import save_model
    from fairseg_lite.official.networks import import_official
    from fairseg_lite.official.reader import Torch7Error

    source = Path(a.file) if a.file else _fetched(a.download, a.address, out)
    print(f"reading {source} ({source.stat().st_size / 1e6:.1f} MB)")
    try:
        model = import_official(source)
    except InputError as error:
        if a.download and isinstance(error, Torch7Error):
            source.unlink()
            raise InputError(f"it was no Torch7 file that came, and it is deleted: {error}; try again, or --address") from error
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


def _fetched(name: str, address: str | None, out: Path) -> Path:
    """The official file, beside the checkpoint that it becomes."""
    from fairseg_lite.data.download import download

    path = out.with_name(f"{name}.t7")
    if path.is_file():
        print(f"{path} is there already; delete it to fetch it again")
        return path
    return download(address or OFFICIAL[name], path)
