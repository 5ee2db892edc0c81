"""A small writer of `.t7` files: the counterpart of the reader, for tests alone.

    dump({"a": 1.5, 1: tensor(np.ones((2, 3), "f4"))})            -> bytes
    dump(thing, referenced=False)                                 as files that name nothing twice

dict, list, str, bytes, bool, None and numbers become what they are in Lua; `Tensor`, `Storage`, `Object` and `Code` what
their names say. An object that occurs twice is written once and named twice. No Torch7 has read such a file yet.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAMES = {"u1": "Byte", "i1": "Char", "i2": "Short", "i4": "Int", "i8": "Long", "f4": "Float", "f8": "Double", "f2": "Half"}


@dataclass(eq=False)
class Storage:
    values: np.ndarray  # one dimension
    name: str = ""  # such as torch.CudaStorage; the dtype's own without


@dataclass(eq=False)
class Tensor:
    storage: Storage | None
    sizes: tuple
    strides: tuple
    offset: int = 1
    name: str = ""


@dataclass(eq=False)
class Object:
    name: str
    fields: Any = field(default_factory=dict)
    version: int | None = 1


@dataclass(eq=False)
class Code:
    content: bytes = b"\x1bLua"
    upvalues: Any = field(default_factory=dict)
    kind: int = 8


def tensor(array: np.ndarray, cuda: bool = False) -> Tensor:
    """A contiguous tensor with its own storage."""
    array = np.ascontiguousarray(array)
    kind = ("Cuda" + NAMES[array.dtype.str[1:]].replace("Float", "")) if cuda else NAMES[array.dtype.str[1:]]
    strides = tuple(s // array.itemsize for s in array.strides)
    return Tensor(Storage(array.reshape(-1), f"torch.{kind}Storage"), array.shape, strides, name=f"torch.{kind}Tensor")


def dump(thing: Any, *, referenced: bool = True) -> bytes:
    writer = _Writer(referenced)
    writer.object(thing)
    return b"".join(writer.parts)


class _Writer:
    def __init__(self, referenced: bool):
        self.parts, self.seen, self.written, self.referenced = [], {}, 0, referenced

    def numbers(self, code: str, *values) -> None:
        self.parts.append(struct.pack(f"<{len(values)}{code}", *values))

    def text(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        self.numbers("i", len(content))
        self.parts.append(content)

    def object(self, x: Any) -> None:
        if x is None:
            self.numbers("i", 0)
        elif isinstance(x, bool):
            self.numbers("i", 5, x)
        elif isinstance(x, int | float):
            self.numbers("i", 1), self.numbers("d", x)
        elif isinstance(x, str | bytes):
            self.numbers("i", 2), self.text(x)
        elif isinstance(x, Code) and x.kind == 6:
            self.numbers("i", 6), self.text(x.content), self.object(x.upvalues)
        else:
            self.numbers("i", x.kind if isinstance(x, Code) else 3 if isinstance(x, dict | list) else 4)
            known = self.referenced and id(x) in self.seen
            if not known:
                self.written += 1
                self.seen[id(x)] = self.written, x  # x is kept, so that no other object gets its id
            self.numbers("i", self.seen[id(x)][0])
            if not known:
                self.body(x)

    def body(self, x: Any) -> None:
        if isinstance(x, dict | list):
            self.numbers("i", len(x))
            for key, value in x.items() if isinstance(x, dict) else enumerate(x, 1):
                self.object(key), self.object(value)
        elif isinstance(x, Code):
            self.text(x.content), self.object(x.upvalues)
        else:
            self.instance(x)

    def instance(self, x: Any) -> None:
        version = getattr(x, "version", 1)
        name = x.name or f"torch.{NAMES[(x if isinstance(x, Storage) else x.storage).values.dtype.str[1:]]}{type(x).__name__}"
        if version is not None:
            self.text(f"V {version}")
        self.text(name)
        if isinstance(x, Storage):
            self.numbers("q", len(x.values))
            self.parts.append(x.values.tobytes())
        elif isinstance(x, Tensor):
            self.numbers("i", len(x.sizes))
            self.numbers("q", *x.sizes, *x.strides, x.offset)
            self.object(x.storage)
        else:
            self.object(x.fields)
