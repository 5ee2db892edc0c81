"""Weights on disk: safetensors, with the network's name in the header, written atomically.

A checkpoint is one file. Its header is the network's `Record`: which network it is (`{"model": "deepmask_tiny", "kwargs": {}}`),
how it wants its pictures, where it comes from. `load_model(path)` needs nothing else; a `.json` beside it repeats the header
for people. A file is first written under
another name and then renamed: whatever happens, what was there before stays whole. Nothing is ever unpickled.
"""

import json
import os
from collections import ChainMap
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.geometry.files import short_hash
from fairseg_lite.models import deepmask, mobile, multipathnet, sharpmask
from fairseg_lite.models.network import Network, Record

Source = str | Path | None
Device = torch.device | str
# what a checkpoint may name: the function that builds it
MODELS: ChainMap[str, Any] = ChainMap(mobile.MODELS, multipathnet.MODELS, sharpmask.MODELS, deepmask.MODELS)
SCALE = ".int8_scale"  # of a tensor stored in 8 bits
FOLDER = Path(__file__).parent.parent / "checkpoints"
SHIPPED = {
    "photos": FOLDER / "deepmask_lite0_photos.safetensors",
    "photos-sharp": FOLDER / "sharpmask_lite0_photos.safetensors",
    "photos-multipath": FOLDER / "multipathnet_lite0_photos.safetensors",
    "shapes": FOLDER / "deepmask_tiny_shapes.safetensors",
    "shapes-sharp": FOLDER / "sharpmask_tiny_shapes.safetensors",
    "shapes-multipath": FOLDER / "multipathnet_tiny_shapes.safetensors",
}

OTHERS = {  # files of other programs, and what to do with them
    ".t7": "`fairseg-lite import` makes a checkpoint of a Torch7 file",
    **dict.fromkeys((".pth", ".pt", ".tar"), "weights of a trunk go to a training, as --trunk-weights"),
}
DEFAULTS: dict[str | None, str] = {"DeepMask": "photos", "MultiPathNet": "photos-multipath"}  # of a kind; else photos-sharp


def save_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write tensors and a JSON header to PATH, and the header alone to PATH with suffix `.json`, atomically.

    Args: path: ends in `.safetensors`; its folder is made. tensors: any shapes and dtypes. header: what JSON can hold.
    Raises: InputError, the folder cannot be written or the disk is full; what stood there before is untouched.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    # a contiguous copy of its own for each tensor: safetensors refuses tensors that share memory
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata={"fairseg_lite": json.dumps(header)})
        with open(part, "rb") as f:
            os.fsync(f.fileno())
        part.chmod(0o644)  # safetensors makes files that only their owner can read
        os.replace(part, path)
        part.write_text(json.dumps(header, indent=1) + "\n", "utf-8")
        os.replace(part, path.with_suffix(".json"))
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write checkpoint {str(path)!r}: {error}; earlier files there are untouched") from error
    finally:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read back what `save_tensors` wrote: (tensors, header).

    Raises: InputError, no such file, truncated, not safetensors, or without our header.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r}: no such file")
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {}).get("fairseg_lite", "null"))
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        what = f"checkpoint {str(path)!r} ({path.stat().st_size} bytes)"
        if advice := OTHERS.get(path.suffix.lower()):
            raise InputError(f"{what} is no safetensors file; {advice}") from error
        raise InputError(f"{what} is truncated or no safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise InputError(f"checkpoint {str(path)!r} has no fairseg_lite header; bare trunk weights go to trunk_weights")
    return tensors, header


def save_model(path: str | Path, model: Network, *, store: str = "float32", over: str | None = None) -> None:
    """Save a network's weights and its record for `load_model`.

    Args:
        path: ends in `.safetensors`.
        model: its parameters and buffers are saved; its record says which function of `MODELS` builds it.
        store: "float32"; "float16" (half the size, about 3 digits); or "int8": weights in 8 bits with a scale for each output
            channel, the rest in float16 (a quarter).
        over: name of a checkpoint of the library that holds this SharpMask's DeepMask, or a DeepMask with this MultiPathNet's
            trunk: only the rest is saved.
    Raises: InputError, a network that no function of `MODELS` has built, or the file cannot be written.
    """
    if (name := model.record.model) not in MODELS:
        raise InputError(f"the record names network {name!r}; wanted one of {', '.join(MODELS)}, whose functions set it")
    check_choice("store", store, ("float32", "float16", "int8"))
    state, header = model.state_dict(), model.record.header()
    if over is not None:
        state = {k: v for k, v in state.items() if not k.startswith(_below(name))}
        header = {**header, "over": over}
    if store == "int8":
        state = {name: part for k, v in state.items() for name, part in _packed(k, v)}
    if store != "float32":
        state = {k: v.half() if v.is_floating_point() and not k.endswith(SCALE) else v for k, v in state.items()}
    save_tensors(path, state, header)


def model_key(model: Network) -> str:
    """A short text that is another where a network's weights or record are, but for what the record says to people.

    Example:
        >>> model_key(load_model("shapes")) == model_key(load_model("shapes-sharp").deepmask)
        False
    """
    record = {k: v for k, v in model.record.header().items() if k != "about"}
    tensors = (v.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for v in model.state_dict().values())
    return short_hash(json.dumps(record, sort_keys=True, default=str), *model.state_dict(), *tensors)


def _below(name: str) -> str:
    """Prefix of what a network has from the checkpoint it lies over."""
    return "trunk." if name.startswith("multipathnet") else "deepmask."


def _packed(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Weights as int8 and a scale for each row; what is no matrix stays."""
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return [(name, tensor)]
    rows = tensor.flatten(1).float()
    scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return [(name, (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)), (name + SCALE, scale)]


def _unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that `_packed` made small, in float32; others as they are."""
    scales = {k.removesuffix(SCALE): v for k, v in tensors.items() if k.endswith(SCALE)}
    return {
        k: v if k not in scales else (v.flatten(1).float() * scales[k][:, None]).view(v.shape)
        for k, v in tensors.items()
        if not k.endswith(SCALE)
    }


@overload
def load_model(source: Literal["photos", "shapes"], *, device: Device = ..., kind: None = ...) -> deepmask.DeepMask: ...
@overload
def load_model(
    source: Literal["photos-sharp", "shapes-sharp"] = ..., *, device: Device = ..., kind: None = ...
) -> sharpmask.SharpMask: ...
@overload
def load_model(
    source: Literal["photos-multipath", "shapes-multipath"], *, device: Device = ..., kind: None = ...
) -> multipathnet.MultiPathNet: ...
@overload
def load_model(source: Source = ..., *, device: Device = ..., kind: Literal["DeepMask"]) -> deepmask.DeepMask: ...
@overload
def load_model(source: Source = ..., *, device: Device = ..., kind: Literal["SharpMask"]) -> sharpmask.SharpMask: ...
@overload
def load_model(source: Source = ..., *, device: Device = ..., kind: Literal["MultiPathNet"]) -> multipathnet.MultiPathNet: ...
@overload
def load_model(source: Source = ..., *, device: Device = ..., kind: str | None = ...) -> Any: ...
def load_model(source: Source = None, *, device: Device = "cpu", kind: str | None = None) -> Network:
    """Build the network that a checkpoint names, with its weights, in evaluation mode and float32.

    Args:
        source: a checkpoint file, or one that comes with the library: "photos" (DeepMask), "photos-sharp" (SharpMask),
            "photos-multipath" (MultiPathNet), and of made-up shapes "shapes", "shapes-sharp", "shapes-multipath". Default: the
            first of the kind.
        device: where it goes.
        kind: "DeepMask", "SharpMask" or "MultiPathNet" where no other will do; None takes any.
    Returns: The network; its `record` is what the checkpoint says of it (categories, recipe, results).
    Raises: InputError, a missing or truncated file, an unknown network, another kind than wanted, or weights that do not fit.
    Example:
        >>> load_model("shapes").patch_size
        96

    Lesson: 00.
    """
    chosen = DEFAULTS.get(kind, "photos-sharp") if source is None else str(source)
    path = SHIPPED.get(chosen, Path(chosen))
    tensors, header = load_tensors(path)
    name = str(header.get("model", ""))
    if name not in MODELS:
        raise InputError(f"checkpoint {str(path)!r} holds network {name!r}; this version knows {', '.join(MODELS)}")
    # a training state keeps weights under "model.", and their average, where one is made; a plain checkpoint has bare names
    tensors = {k.removeprefix("model."): v for k, v in tensors.items() if not k.startswith("optimizer.")}
    tensors |= {k.removeprefix("average."): tensors.pop(k) for k in list(tensors) if k.startswith("average.")}
    if "over" in header:
        if str(header["over"]) not in SHIPPED:
            raise InputError(f"checkpoint {str(path)!r} refines {header['over']!r}; this version has {', '.join(SHIPPED)}")
        below, _ = load_tensors(SHIPPED[header["over"]])
        start = "" if (part := _below(name)) == "trunk." else part
        tensors |= {start + k: v for k, v in below.items() if (start + k).startswith(part)}
    if kind is not None and name not in (known := [n for n in MODELS if n.startswith(kind.lower())]):
        inside = kind == "DeepMask" and name.startswith("sharpmask")
        hint = "its `deepmask` is one" if inside else f"make one with train {kind.lower()}"
        raise InputError(f"checkpoint {str(path)!r} holds a {name}, wanted a {kind} ({', '.join(known)}); {hint}")
    try:
        record = Record.of({k: v for k, v in header.items() if k != "over"})
        model, tensors = MODELS[name](**record.kwargs), _unpacked(tensors)
    except InputError:
        raise
    except Exception as error:  # a damaged header may say anything
        raise InputError(f"checkpoint {str(path)!r} has a header that this version cannot read: {error}") from error
    load_weights(model, tensors, path)
    model.record = record
    if isinstance(model, sharpmask.SharpMask):
        model.deepmask.record = replace(record, model=model.deepmask.record.model, kwargs=model.deepmask.record.kwargs)
    return model.to(device).eval()


def load_weights(model: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Copy a checkpoint's tensors into a network; every name and shape must fit.

    Raises: InputError, says which names are missing, left over or of another shape: the checkpoint is another network's.
    """
    wanted = model.state_dict()
    sharp, for_sharp = (any(k.startswith("deepmask.") for k in names) for names in (tensors, wanted))
    if sharp != for_sharp:
        held, here = ("SharpMask", "DeepMask") if sharp else ("DeepMask", "SharpMask")
        advice = "load_model(...).deepmask is the DeepMask in it" if sharp else "SharpMask(load_model(...)) begins with it"
        raise InputError(f"checkpoint {str(path)!r} holds a {held}, and this network is a {here}; {advice}")
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    odd = [k for k in wanted.keys() & tensors.keys() if wanted[k].shape != tensors[k].shape]
    if missing or extra or odd:
        raise InputError(
            f"checkpoint {str(path)!r} does not fit this {type(model).__name__}: {len(missing)} tensors missing "
            f"({', '.join(missing[:2])}), {len(extra)} left over ({', '.join(extra[:2])}), "
            f"{len(odd)} of another shape ({', '.join(sorted(odd)[:2])}); is it another network's?"
        )
    model.load_state_dict({k: tensors[k].to(wanted[k].dtype) for k in wanted})
