"""Words that several commands take: how a command is added, where it computes, and `--set NAME=VALUE`.

--set sets any number of a recipe or of a function by its name, read as the type it has there:
--set fit.lr=1e-3 --set options.k=16 --set short_side=256,416 --set fit.clip=none
"""

import argparse
import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from fairseg_lite.errors import InputError

SHARED = {  # the same everywhere
    "data": {"metavar": "DATA", "help": "a COCO-format folder as any tool exports it, its JSON file, FILE.json:IMAGES for both, "
             "or shapes[:N]"},
    "--device": {"default": "auto", "metavar": "D", "help": "cpu, cuda, cuda:1 or mps; auto takes the first of cuda, mps and cpu "
                 "that is here (default: auto)"},
    "--precision": {"choices": ("fp32", "bf16", "auto"), "default": "fp32",
                    "help": "to compute in; auto takes bf16 where it measures faster (default: fp32)"},
    "--skip-faults": {"action": "store_true", "help": "leave damaged pictures and annotations out, counted"},
    "--crowds-are-objects": {"action": "store_true", "help": 'take "iscrowd" for 0: some tools write 1 for every mask'},
}  # fmt: skip
Words = Sequence[tuple[str, str]]  # (name, value) as they stand on the command line
Types = dict[str, Any]  # name -> type
KNOWN = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", NoneType: "none"}


def command(group: argparse._SubParsersAction, name: str, purpose: str, example: str = "", run: Callable | None = None):
    """Add a command or job that `run` does: its purpose stands in the list and atop its own help, the example at the end."""
    p = group.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=example)
    p.set_defaults(run=run)
    return p


def add(p: argparse.ArgumentParser, *names: str, **changes: object) -> None:
    """Add what is `SHARED`, with some of its words changed."""
    for name in names:
        p.add_argument(name, **{**SHARED[name], **changes})


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def device_of(arguments: argparse.Namespace):
    """The torch device asked for; of "auto" it says what that is, unless it is the processor.

    Raises: InputError, this machine has none, or none that computes ("meta").
    """
    import torch

    from fairseg_lite.training.shards import best_device

    try:
        device = best_device() if arguments.device == "auto" else torch.device(arguments.device)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"device {arguments.device!r} is not to be had here ({why}); try cpu") from error
    if arguments.device == "auto" and device.type != "cpu" and os.environ.get("RANK", "0") == "0":  # torchrun's first one
        print(f"computing on {device.type}; the processor does with --device cpu", file=sys.stderr)
    arguments.device = str(device)  # as results will say
    return device


def dtype_of(precision: str, device):
    """torch.float32 or torch.bfloat16."""
    import torch

    from fairseg_lite.training.shards import first_of, wants_bf16

    return torch.bfloat16 if first_of(lambda: wants_bf16(precision, device)) else torch.float32


def add_set(p: argparse.ArgumentParser, what: str) -> None:
    """`--set`, which may be given many times."""
    p.add_argument("--set", action="append", default=[], type=_split, metavar="NAME=VALUE", help=what)


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as fit.lr=1e-3")
    return name.strip(), value.strip()


def changed(config: Any, words: Words, options: Types | None = None) -> Any:
    """A dataclass with some of its fields changed; `a.b` is the field b of the dataclass, or the key b of the dict, in field a.

    Args:
        config: a frozen dataclass.
        words: (name, value), the later wins.
        options: what the field `options` may hold.
    Raises: InputError, no such field (it names those there are), or a value that is not of the field's type.
    Example:
        >>> from fairseg_lite.bench import Settings
        >>> changed(Settings(), [("top_k", "20"), ("model", "deepmask_tiny")]).top_k
        20
    """
    for name, text in words:
        config = _with(config, name, name, text, options or {})
    return config


def _with(config: Any, path: str, name: str, text: str, options: Types) -> Any:
    field, _, rest = path.partition(".")
    hint = _known(field, {f.name: get_type_hints(type(config))[f.name] for f in fields(config)}, name, type(config).__name__)
    value = getattr(config, field)
    if is_dataclass(value):
        new = _with(value, rest, name, text, options)
    elif rest and isinstance(value, dict):
        inner = get_args(hint)[1] if get_args(hint) else _known(rest, options, name, field)
        new = {**value, rest: _read(name, text, inner, value.get(rest))}
    elif rest:
        raise InputError(f"--set {name}={text}: {field} is {_shown(hint)} and has no field {rest!r}")
    else:
        new = _read(name, text, hint, value)
    return replace(config, **{field: new})


def arguments(words: Words, function: Callable, *, besides: Sequence[str] = ()) -> dict[str, Any]:
    """Keyword arguments of a function.

    Args:
        words: (name, value), the later wins.
        function: with typed keyword-only parameters.
        besides: parameters that are not the user's to set here.
    Raises: InputError, as `changed`.
    """
    known = keywords(function, besides=besides)
    return {name: _read(name, text, _known(name, known, name, function.__name__)) for name, text in words}


def keywords(function: Callable, *, besides: Sequence[str] = ()) -> Types:
    """The types of a function's keyword-only parameters, by name."""
    hints = get_type_hints(function)
    names = (p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY)
    return {name: hints[name] for name in names if name not in besides}


def _known(field: str, hints: Types, name: str, owner: str) -> Any:
    if field not in hints:
        raise InputError(f"--set {name}: {owner} has no {field!r}; choose of {', '.join(hints) or 'none'}")
    return hints[field]


def _read(name: str, text: str, hint: Any, example: object = None) -> Any:
    try:
        return value_of(text, hint)
    except ValueError:
        if isinstance(example, tuple):
            example = ",".join(map(str, example))
        such = "" if example in (None, "") or isinstance(example, bool | dict) else f", such as {example}"
        raise InputError(f"--set {name}={text}: {name} is {_shown(hint)}{such}") from None


def value_of(text: str, hint: Any) -> Any:
    """What a text means as a value of a type.

    Raises: ValueError, nothing.
    Example:
        >>> value_of("256, 416", tuple[int, int] | None), value_of("none", float | None), value_of("2", bool | int)
        ((256, 416), None, 2)
    """
    if isinstance(hint, UnionType):
        for kind in get_args(hint):
            try:
                return value_of(text, kind)
            except ValueError:
                continue
        raise ValueError
    if hint in (int, float) and math.isfinite(float(text)):
        return hint(text)
    if hint is str:
        return text
    if hint in (NoneType, bool):
        words = {"none": None} if hint is NoneType else {"true": True, "false": False}
        if text.lower() in words:
            return words[text.lower()]
    if get_origin(hint) in (tuple, Sequence):
        parts, kinds = [part for part in text.split(",") if part.strip()], get_args(hint)
        if len(kinds) == 1 or kinds[1] is Ellipsis:
            kinds = kinds[:1] * len(parts)
        return tuple(value_of(part, kind) for part, kind in zip(parts, kinds, strict=True))
    raise ValueError


def _shown(hint: Any) -> str:
    """A type for people."""
    if isinstance(hint, UnionType):
        return " or ".join(_shown(kind) for kind in get_args(hint))
    if get_origin(hint) in (tuple, Sequence):
        return f"{KNOWN[get_args(hint)[0]].removeprefix('a ')}s with commas between"
    return KNOWN.get(hint, "a table, whose entries are set one by one, NAME.ENTRY=VALUE")
