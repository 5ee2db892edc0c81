"""Words that several commands take: how a command is added, where it computes, in which precision."""

import argparse

from fairseg_lite.errors import InputError

DATA_HELP = "a COCO-format folder as any tool exports it, its JSON file, FILE.json:IMAGES for both, or shapes[:N]"
CROWDS_HELP = 'take "iscrowd" for 0: some tools write 1 for every mask'


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
