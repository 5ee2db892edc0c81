"""A small writer of `.t7` files: the counterpart of the reader, for tests alone.

    dump({"a": 1.5, 1: tensor(np.ones((2, 3), "f4"))})            -> bytes, binary, longs of 8 bytes
    dump(thing, long_size=4), dump(thing, ascii=True), dump(thing, referenced=False)

dict, list, str, bytes, bool, None and numbers become what they are in Lua; `Tensor`, `Storage`, `Object`, `Code` and
`Collection` what their names say. An object that occurs twice is written once and named twice.
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


@dataclass(eq=False)
class Collection:
    items: dict | list
    name: str = "tds.Hash"


def tensor(array: np.ndarray, cuda: bool = False) -> Tensor:
    """A contiguous tensor with its own storage."""
    array = np.ascontiguousarray(array)
    kind = ("Cuda" + NAMES[array.dtype.str[1:]].replace("Float", "")) if cuda else NAMES[array.dtype.str[1:]]
    strides = tuple(s // array.itemsize for s in array.strides)
    return Tensor(Storage(array.reshape(-1), f"torch.{kind}Storage"), array.shape, strides, name=f"torch.{kind}Tensor")


def dump(thing: Any, **options) -> bytes:
    writer = _Writer(**options)
    writer.object(thing)
    return b"".join(writer.parts)


class _Writer:
    def __init__(self, long_size: int = 8, ascii: bool = False, referenced: bool = True):
        self.parts, self.seen, self.written = [], {}, 0
        self.long_code, self.ascii, self.referenced = "q" if long_size == 8 else "i", ascii, referenced

    def numbers(self, code: str, values) -> None:
        values = list(values)
        if self.ascii:
            shown = [f"{v:.17g}" if code in "fde" else str(int(v)) for v in values]
            self.parts.append((" ".join(shown) + "\n").encode() if values else b"")
        else:
            self.parts.append(struct.pack(f"<{len(values)}{code}", *values))

    def int(self, *values) -> None:
        self.numbers("i", values)

    def long(self, *values) -> None:
        self.numbers(self.long_code, values)

    def raw(self, content: bytes) -> None:
        self.parts.append(content + (b"\n" if self.ascii and content else b""))

    def text(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        self.int(len(content))
        self.raw(content)

    def object(self, x: Any) -> None:
        if x is None:
            self.int(0)
        elif isinstance(x, bool):
            self.int(5), self.int(int(x))
        elif isinstance(x, int | float):
            self.int(1), self.numbers("d", [x])
        elif isinstance(x, str | bytes):
            self.int(2), self.text(x)
        elif isinstance(x, Code) and x.kind == 6:
            self.int(6), self.text(x.content), self.object(x.upvalues)
        else:
            self.int(x.kind if isinstance(x, Code) else 3 if isinstance(x, dict | list) else 4)
            known = self.referenced and id(x) in self.seen
            if not known:
                self.written += 1
                self.seen[id(x)] = self.written, x  # x is kept, so that no other object gets its id
            self.int(self.seen[id(x)][0])
            if not known:
                self.body(x)

    def body(self, x: Any) -> None:
        if isinstance(x, dict | list):
            x = dict(enumerate(x, 1)) if isinstance(x, list) else x
            self.int(len(x))
            for key, value in x.items():
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
            self.long(len(x.values))
            code = {"i8": self.long_code, "f2": "e", "u1": "B", "i1": "b", "i2": "h", "i4": "i", "f4": "f", "f8": "d"}
            if x.values.dtype.itemsize == 1:
                self.raw(x.values.tobytes())
            else:
                self.numbers(code[x.values.dtype.str[1:]], x.values.tolist())
        elif isinstance(x, Tensor):
            self.int(len(x.sizes))
            self.long(*x.sizes) if x.sizes else None
            self.long(*x.strides) if x.strides else None
            self.long(x.offset)
            self.object(x.storage)
        elif isinstance(x, Collection):
            self.long(len(x.items))
            for item in x.items.items() if isinstance(x.items, dict) else ((v,) for v in x.items):
                for part in item:
                    self.object(part)
        else:
            self.object(x.fields)
