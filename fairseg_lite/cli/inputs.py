"""What several commands read and write: data sets by name, pictures, networks, folders for output."""

import argparse
import json
import os
from pathlib import Path

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.files import whole

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
DATA_HELP = "a COCO-format folder (images/ + instances.json, or pictures with FOLDER.json beside), or shapes[:N]"


def command(group: argparse._SubParsersAction, name: str, purpose: str, example: str = "") -> argparse.ArgumentParser:
    """Add a command or job: its purpose stands in the list and at the top of its own help, the example at the end."""
    return group.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=example)


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`, the same everywhere."""
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda, cuda:1 or mps (default: cpu)")


def device_of(arguments: argparse.Namespace):
    """The torch device asked for.

    Raises:
        InputError: this machine has none, or none that computes ("meta").
    """
    import torch

    try:
        device = torch.device(arguments.device)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"device {arguments.device!r} is not to be had here ({why}); try cpu") from error
    return device


def add_precision(parser: argparse.ArgumentParser) -> None:
    """`--precision` of inference."""
    words = "to compute in; auto takes bf16 where it measures faster (default: fp32)"
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32", help=words)


def dtype_of(precision: str, device):
    """torch.float32 or torch.bfloat16."""
    import torch

    from fairseg_lite.training.fit import wants_bf16

    return torch.bfloat16 if wants_bf16(precision, device) else torch.float32


def open_dataset(name: str, *, held_out: bool, on_fault: str = "raise"):
    """`shapes`, `shapes:N`, or a COCO-format folder.

    Args:
        name: as the user wrote it.
        held_out: shapes only: scenes of seed 1 that no training sees (500 of them) instead of seed 0 (10,000).
        on_fault: "raise" or "skip" pictures and annotations that are damaged.
    Raises:
        InputError: no such folder, not COCO format, or no usable number after `shapes:`.
    """
    word, _, count = name.partition(":")
    if word == "shapes" and not Path(name).exists():
        from fairseg_lite.data.shapes import ShapesDataset

        if count and not (count.isdigit() and int(count)):
            raise InputError(f"data {name!r}: write shapes or shapes:N with N scenes, at least 1")
        return ShapesDataset(int(count or (500 if held_out else 10_000)), seed=int(held_out))
    from fairseg_lite.data.coco import CocoDataset

    return CocoDataset(name, on_fault=on_fault)


def list_pictures(path: str | Path) -> list[Path]:
    """The picture itself, or every picture in a folder (and in its `images/`), by name.

    Raises:
        InputError: nothing there, or a folder without a picture.
    """
    path = Path(path)
    if path.is_dir():
        folders = [f for f in (path, path / "images") if f.is_dir()]
        found = sorted(p for f in folders for p in f.iterdir() if _is_picture(p))
        if not found:
            raise InputError(f"folder {str(path)!r} holds no picture ({', '.join(sorted(PICTURES))})")
        return found
    if not path.exists():
        raise InputError(f"picture {str(path)!r}: no such file or folder")
    return [path]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith(".") and path.is_file()


def output_folder(path: str | Path) -> Path:
    """Make a folder for output and make sure that it can be written to, before any work is done.

    Raises:
        InputError: it cannot.
    """
    path, probe = Path(path), Path(path) / f".probe{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to folder {str(path)!r}: {error.strerror}; choose another with -o") from error
    return path


def write_json(path: str | Path, content: object, *, indent: int | None = None) -> None:
    """Write JSON; the file is whole or not there.

    Raises:
        InputError: it cannot be written.
    """
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n")


def write_picture(path: str | Path, picture) -> None:
    """Write an (H, W, 3) uint8 array or a matplotlib figure as PNG; the file is whole or not there.

    Raises:
        InputError: it cannot be written.
    """
    with whole(path) as part:
        if hasattr(picture, "savefig"):
            picture.savefig(part, format="png", dpi=100)
        else:
            from PIL import Image

            Image.fromarray(picture).save(part, "PNG")
