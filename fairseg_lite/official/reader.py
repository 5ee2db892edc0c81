"""Torch7's binary `.t7` files, read into plain Python without executing anything in them.

    Lua                          here
    nil, boolean, string         None, bool, str (bytes that are no UTF-8 are kept as surrogates)
    number                       int where it is whole, else float
    table                        `Table`, a dict: {1: first, 2: second, "name": ...}; an entry that is nil is absent, as in Lua
    tensor, storage              numpy array, a read-only view of the file, with the sizes and strides of the tensor
    object of any other class    `Record`: class name, version and fields
    function                     `Function`: where its bytecode lies; that is never loaded

What the file holds once and names twice is one object here, too, so there may be cycles.

A file is not trusted. Every length is compared with what is left of the file before anything is made of it, nesting is
walked with a list instead of the interpreter's stack, and what does not fit is a `Torch7Error` that says at which byte.
A number costs the file 12 bytes and us some 100, so memory stays in proportion to the file; arrays cost nothing at all.

All numbers are little-endian and a C long has 8 bytes, as in every file that was released; ascii files are refused.
Source: torch7 `File.lua`, `DiskFile`, `generic/Tensor.c`, `generic/Storage.c`; cutorch for Cuda names.
"""

import math
import mmap
import re
import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fairseg_lite.errors import InputError

ELEMENTS = {
    "Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Float": "<f4", "Double": "<f8", "Half": "<f2",
}  # fmt: skip

DEPTH = 10_000  # objects in objects
DIMENSIONS = 32
REPEATED = 2**20  # elements a tensor may have beyond its storage's and the file's bytes, where a stride of 0 repeats them
ARRAY = re.compile(rf"torch\.(Cuda)?({'|'.join(ELEMENTS)})?(Tensor|Storage)")


class Torch7Error(InputError):
    """The file is no whole Torch7 file; `offset` is the byte where that shows."""

    def __init__(self, problem: str, offset: int):
        super().__init__(f"{problem} (at byte {offset})")
        self.offset = offset


class Table(dict):
    """A Lua table. Itself the key of another table (as in nngraph's graphs), it is compared by identity, as in Lua."""

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Table({', '.join(map(repr, list(self)[:8]))}{', ...' if len(self) > 8 else ''})"


@dataclass(eq=False)
class Record:
    """An object of a class that we do not know or need: `nn.Linear` and its like."""

    name: str
    version: int
    fields: dict = field(default_factory=Table, repr=False)

    @property
    def kind(self) -> str:
        """The class without its package: cudnn.ReLU and nn.ReLU are one kind."""
        return self.name.rpartition(".")[2]


@dataclass(eq=False, frozen=True)
class Function:
    """A Lua function of `size` bytes of bytecode at byte `offset` of the file, left alone."""

    offset: int
    size: int


def load(path: str | Path) -> Any:
    """The object in a file. The file is mapped: arrays are views of it, and only what is looked at comes to memory.

    Args: path: a binary `.t7` file; do not change it while arrays of it are in use.
    Returns: The object, as in the table above.
    Raises:
        Torch7Error: the file is truncated or damaged or something else; a ValueError.
        OSError: it cannot be opened.
    Source: torch7 `File.lua` `readObject`. Lesson: 04.
    """
    with open(path, "rb") as f:
        if not f.seek(0, 2):
            raise Torch7Error(f"{str(path)!r} is empty", 0)
        return loads(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))


def loads(data: bytes | mmap.mmap) -> Any:
    """The object in bytes, as `load`.

    Example:
        >>> loads(bytes.fromhex("02000000 05000000") + b"scale")
        'scale'
        >>> loads(bytes.fromhex("02000000 84030000") + b"short")
        Traceback (most recent call last):
        fairseg_lite.official.reader.Torch7Error: a string of 900 bytes, 5 are left (at byte 8)

    """
    if len(data) < 4:
        raise Torch7Error(f"{len(data)} bytes are no Torch7 file", 0)
    if bytes(data[:2]) == b"\x1f\x8b":
        raise Torch7Error("compressed with gzip; unpack it first (gunzip)", 0)
    if bytes(data[1:4]) != b"\0\0\0":
        raise Torch7Error("no binary Torch7 file; of an ascii one make another in Torch7, torch.save(name, object)", 0)
    return _Parser(data).root()


class _Parser:
    """Objects from bytes. Each kind of object is a generator that yields wherever it needs an object inside."""

    def __init__(self, data: bytes | mmap.mmap):
        self.data, self.at, self.known, self.kinds = data, 0, {}, {}

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def fail(self, problem: str) -> NoReturn:
        raise Torch7Error(problem, self.at)

    def skip(self, size: int, what: str) -> int:
        """Step over some bytes; their offset."""
        if not 0 <= size <= self.left:
            self.fail(f"{what} of {size} bytes, {self.left} are left")
        self.at += size
        return self.at - size

    def number(self, code: str, what: str) -> int | float:
        return struct.unpack_from("<" + code, self.data, self.skip(struct.calcsize(code), what))[0]

    def integer(self) -> int:
        return self.number("i", "an int")

    def long(self) -> int:
        return self.number("q", "a long")

    def text(self, what: str) -> str:
        size = self.integer()
        start = self.skip(size, what)
        return bytes(self.data[start : start + size]).decode("utf-8", "surrogateescape")

    def array(self, element: str) -> np.ndarray:
        count, dtype = self.long(), np.dtype(ELEMENTS[element])
        start = self.skip(count * dtype.itemsize, f"a storage of {count} {element} elements")
        return np.frombuffer(self.data, dtype, count, start) if count else np.empty(0, dtype)

    def root(self) -> Any:
        """The one object of the file: a list of unfinished objects takes the place of recursion."""
        unfinished, value = [self.object()], None
        while unfinished:
            try:
                unfinished[-1].send(value)
            except StopIteration as done:
                unfinished.pop()
                value = done.value
            else:
                if len(unfinished) >= DEPTH:
                    self.fail(f"objects are nested deeper than {DEPTH}")
                unfinished.append(self.object())
                value = None
        if self.left:
            self.fail(f"{self.left} bytes follow the object")
        return value

    def object(self) -> Generator[None, Any, Any]:
        start = self.at
        kind = self.integer()
        if kind == 0:
            return None
        if kind == 1:
            value = self.number("d", "a double")
            return int(value) if value.is_integer() else value
        if kind == 2:
            return self.text("a string")
        if kind == 5:
            if (value := self.integer()) not in (0, 1):
                raise Torch7Error(f"a boolean is {value}", start)
            return value == 1
        if kind == 6:  # a function of old files, without an index
            return (yield from self.function(None))
        if kind not in (3, 4, 7, 8):
            raise Torch7Error(f"{kind} is no type of object", start)
        index = self.integer()
        if self.kinds.setdefault(index, kind) != kind:
            raise Torch7Error(f"object {index} is of type {self.kinds[index]} and called {kind}", start)
        if index in self.known:
            return self.known[index]
        if kind == 3:
            return (yield from self.table(index))
        return (yield from (self.instance(index) if kind == 4 else self.function(index)))

    def function(self, index: int | None) -> Generator[None, Any, Function]:
        size = self.integer()
        self.known[index] = found = Function(self.skip(size, "a function"), size)
        yield  # the variables it closes over
        return found

    def table(self, index: int) -> Generator[None, Any, Table]:
        size = self.integer()
        if not 0 <= 8 * size <= self.left:  # a key and a value take 4 bytes or more
            self.fail(f"a table of {size} entries, {self.left} bytes are left")
        self.known[index] = found = Table()
        for _ in range(size):
            start = self.at
            key = yield
            value = yield
            if key is None or (isinstance(key, float) and math.isnan(key)):
                raise Torch7Error(f"the key of a table is {key}", start)
            if isinstance(key, np.ndarray | bool):  # an array cannot be a key, and True would be taken for 1
                key = Record(type(key).__name__, 0, Table(value=key))
            if value is not None:
                found[key] = value
        return found

    def instance(self, index: int) -> Generator[None, Any, Any]:
        name, version, start = self.text("a class name"), 0, self.at
        if found := re.fullmatch(r"V (\d{1,9})", name):
            name, version = self.text("a class name"), int(found[1])
        if len(name) > 256 or not name.isprintable():
            raise Torch7Error(f"{name[:20]!r}... of {len(name)} characters is no class name", start)
        if found := ARRAY.fullmatch(name):
            element = found[2] or "Float"
            if not found[1] and not found[2]:
                raise Torch7Error(f"{name} is no class of numbers", start)
            if found[3] == "Storage":
                self.known[index] = array = self.array(element)
            else:
                array = yield from self.tensor(index, element)
            return array
        self.known[index] = record = Record(name, version)
        body = yield  # every class of Lua's side writes its fields as one table
        record.fields = body if isinstance(body, dict) else Table({"value": body})
        return record

    def tensor(self, index: int, element: str) -> Generator[None, Any, np.ndarray]:
        start = self.at
        rank = self.integer()
        if not 0 <= rank <= DIMENSIONS:
            self.fail(f"a tensor of {rank} dimensions")
        sizes, strides = ([self.long() for _ in range(rank)] for _ in range(2))
        first = self.long() - 1
        self.known[index] = None  # no storage holds its own tensor
        storage = yield
        itemsize = np.dtype(ELEMENTS[element]).itemsize
        if storage is None:
            storage = np.empty(0, ELEMENTS[element])
        if not isinstance(storage, np.ndarray) or storage.ndim != 1 or storage.itemsize != itemsize:
            raise Torch7Error(f"the storage of a {element} tensor is a {type(storage).__name__}", start)
        self.known[index] = found = self.view(storage, sizes, strides, first, start)
        return found

    def view(self, storage: np.ndarray, sizes: list[int], strides: list[int], first: int, start: int) -> np.ndarray:
        """The tensor in its storage, once it is clear that all of it lies there."""
        if not sizes:
            return storage[:0]
        if min(sizes) < 1 or min(strides) < 0 or first < 0:
            raise Torch7Error(f"a tensor of sizes {sizes}, strides {strides} and offset {first + 1}", start)
        count, last = math.prod(sizes), first + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        if last >= len(storage):
            raise Torch7Error(f"a tensor reaches element {last + 1} of a storage of {len(storage)}", start)
        if count > max(len(storage), len(self.data), REPEATED):
            raise Torch7Error(f"a tensor repeats {len(storage)} elements to {count}", start)
        steps = [s * storage.itemsize if n > 1 else storage.itemsize for n, s in zip(sizes, strides, strict=True)]
        return np.lib.stride_tricks.as_strided(storage[first:], sizes, steps, writeable=False)
