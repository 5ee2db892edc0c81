"""Torch7's binary `.t7` files, written: the reader's counterpart, and a DeepMask of ours in the layout of FAIR's files.

    write(path, official_deepmask(model)), then import_official(path) -> the same network

What the reader makes of a file can be written again: None, bool, numbers, str, dict and list (tables), numpy arrays (tensors) and
`Record` (objects). What occurs twice is written once and named twice. Longs have 8 bytes. An object is its type (an int), its
number in the file (an int), and its content; an object of a class begins with "V 1" and the name of the class.

Only the reader of this library has read such files so far; Torch7 itself was not at hand.
Source: torch7 `File.lua` `writeObject`, `generic/Tensor.c`; official `DeepMask.lua` for the layout. Lesson: 04.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.trunks import ResNetTrunk, SymmetricConv2d
from fairseg_lite.official.reader import Record, Table
from fairseg_lite.official.source import ELEMENTS


def write(path: str | Path, thing: Any) -> None:
    """Write an object to a file, as `dumps`.

    Args:
        path: is replaced where it exists.
        thing: what `dumps` takes.
    Raises:
        ValueError: something in it has no form in Lua; nothing is written.
        OSError: the file cannot be written.
    Lesson: 04.
    """
    Path(path).write_bytes(dumps(thing))


def dumps(thing: Any) -> bytes:
    """The bytes of a file that holds an object.

    Example:
        >>> from fairseg_lite.official.reader import loads
        >>> loads(dumps({"scale": 0.25, "sizes": [3, 5]}))["sizes"]
        Table(1, 2)
        >>> dumps({"now": print})
        Traceback (most recent call last):
        ValueError: a builtin_function_or_method has no form in a Torch7 file; write numbers, str, dict, list, arrays or Records

    """
    parts, numbers = [], {}  # id -> number in the file, and the object, so that no other gets its id
    _object(parts, numbers, thing)
    return b"".join(parts)


def _object(parts: list[bytes], numbers: dict, x: Any) -> None:
    if x is None:
        parts.append(_ints(0))
    elif isinstance(x, bool):
        parts.append(_ints(5, x))
    elif isinstance(x, int | float):
        parts.append(_ints(1) + struct.pack("<d", x))
    elif isinstance(x, str):
        parts.append(_ints(2) + _text(x))
    elif isinstance(x, dict | list | Record | np.ndarray):
        parts.append(_ints(3 if isinstance(x, dict | list) else 4))
        new = id(x) not in numbers
        number, _ = numbers.setdefault(id(x), (len(numbers) + 1, x))
        parts.append(_ints(number))
        if new:
            _content(parts, numbers, x)
    else:
        raise ValueError(f"a {type(x).__name__} has no form in a Torch7 file; write numbers, str, dict, list, arrays or Records")


def _content(parts: list[bytes], numbers: dict, x: Any) -> None:
    if isinstance(x, Record):
        parts.append(_text(f"V {x.version}") + _text(x.name))
        _object(parts, numbers, x.fields)
    elif isinstance(x, np.ndarray):
        _tensor(parts, numbers, np.ascontiguousarray(x))
    else:
        entries = x.items() if isinstance(x, dict) else enumerate(x, 1)
        parts.append(_ints(len(x)))
        for key, value in entries:
            _object(parts, numbers, key)
            _object(parts, numbers, value)


def _tensor(parts: list[bytes], numbers: dict, x: np.ndarray) -> None:
    """Sizes, strides, where in the storage it begins (from 1), and the storage, which is an object of its own."""
    kinds = {np.dtype(code): name for name, code in ELEMENTS.items()}
    if x.dtype not in kinds:
        raise ValueError(f"an array of {x.dtype} has no form in a Torch7 file; it has {', '.join(str(k) for k in kinds)}")
    sizes = x.shape if x.size else ()
    strides = [s // x.itemsize for s in x.strides] if sizes else []
    parts.append(_text("V 1") + _text(f"torch.{kinds[x.dtype]}Tensor") + _ints(len(sizes)))
    parts.append(struct.pack(f"<{2 * len(sizes) + 1}q", *sizes, *strides, 1))
    if not sizes:
        return parts.append(_ints(0))
    numbers[id(parts), len(parts)] = (len(numbers) + 1, x)  # the storage
    parts.append(_ints(4, len(numbers)) + _text("V 1") + _text(f"torch.{kinds[x.dtype]}Storage"))
    parts.append(struct.pack("<q", x.size) + x.tobytes())
    return None


def _ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def _text(text: str) -> bytes:
    content = text.encode("utf-8", "surrogateescape")
    return _ints(len(content)) + content


def official_deepmask(model: DeepMask) -> Table:
    """A DeepMask in the layout of FAIR's files, as trained: {model = nn.DeepMask, config = ...}; the norms become a x + b.

    Args:
        model: with a ResNet and the shared layers of the second paper (`deepmask_tiny`, `deepmask_resnet50`).
    Returns:
        What `write` takes and `import_official` reads; the imported network gives the same up to rounding.
    Raises:
        ValueError: another trunk, or another head.
    Source: official `DeepMask.lua`; `inn.ConstAffine` in the place of norms as in the released files. Lesson: 04.
    """
    fits = isinstance(model.trunk, ResNetTrunk) and model.trunk.stride == 16
    if not fits or (model.head, model.mask_head) != ("C", "low_rank"):
        raise ValueError("the network has another trunk or head than FAIR's; take deepmask_tiny or deepmask_resnet50")
    ours, crop = model.trunk, -(model.context // 32)
    pool = Record("nn.SpatialMaxPooling", 1, Table(kW=3, kH=3, dW=2, dH=2, padW=1, padH=1, ceil_mode=False))
    stages = [_sequence(*(_block(b) for b in layer)) for layer in (ours.layer1, ours.layer2, ours.layer3)]
    trunk = _sequence(
        *_normed(ours.conv1, ours.bn1), _relu(), *([pool] if ours.maxpool is not None else []), *stages,
        Record("nn.SpatialZeroPadding", 1, Table({f"pad_{side}": crop for side in "lrtb"})),
        _conv(model.reduce), _relu(), Record("nn.View", 1), _linear(model.embed),
    )  # fmt: skip
    size = Table(owidth=model.target_size, oheight=model.target_size, mode="bilinear")
    mask = _sequence(_linear(model.mask), Record("nn.SpatialReSamplingEx", 1, size))
    drops = (Record("nn.Dropout", 1, Table(p=0.5, v2=True)) for _ in range(2))
    score = _sequence(next(drops), _linear(model.score[1]), _relu(), next(drops), _linear(model.score[4]))
    fields = Table(trunk=trunk, maskBranch=mask, scoreBranch=score, fSz=model.grid)
    config = Table(iSz=model.patch_size, oSz=model.mask_size, gSz=model.target_size)
    return Table(model=Record("nn.DeepMask", 1, fields), config=config)


def _sequence(*modules: Record) -> Record:
    return Record("nn.Sequential", 1, Table(modules=list(modules), train=False))


def _relu() -> Record:
    return Record("nn.ReLU", 1, Table(inplace=True, threshold=0, val=0))


def _weights(ours: nn.Module, weight: Tensor) -> Table:
    arrays = {"weight": weight, "bias": ours.bias}
    return Table({k: v.detach().cpu().float().numpy() for k, v in arrays.items() if v is not None})


def _linear(ours: nn.Module) -> Record:
    return Record("nn.Linear", 1, _weights(ours, ours.weight.flatten(1)))


def _conv(ours: nn.Conv2d) -> Record:
    (kernel, _), (step, _), mirrored = ours.kernel_size, ours.stride, isinstance(ours, SymmetricConv2d)
    border = 0 if mirrored else ours.padding[0]
    sizes = Table(kW=kernel, kH=kernel, dW=step, dH=step, padW=border, padH=border)
    made = Record("nn.SpatialConvolution", 1, Table({**_weights(ours, ours.weight), **sizes}))
    if not mirrored:
        return made
    return _sequence(Record("nn.SpatialSymmetricPadding", 1, Table({f"pad_{side}": kernel // 2 for side in "lrtb"})), made)


def _normed(conv: nn.Conv2d, norm: nn.Module) -> list[Record]:
    a = norm.weight * (norm.running_var + norm.eps).rsqrt()
    arrays = {"a": a, "b": norm.bias - norm.running_mean * a}
    fixed = Table({k: v.detach().cpu().float().numpy() for k, v in arrays.items()})
    return [_conv(conv), Record("inn.ConstAffine", 1, fixed)]


def _block(ours: nn.Module) -> Record:
    """A residual block: two branches, added."""
    body = []
    for i in (1, 2, 3) if hasattr(ours, "conv3") else (1, 2):
        body += [*_normed(getattr(ours, f"conv{i}"), getattr(ours, f"bn{i}")), _relu()]
    shortcut = Record("nn.Identity", 1) if ours.downsample is None else _sequence(*_normed(*ours.downsample))
    fork = Record("nn.ConcatTable", 1, Table(modules=[_sequence(*body[:-1]), shortcut]))
    return _sequence(fork, Record("nn.CAddTable", 1, Table(inplace=True)), _relu())
