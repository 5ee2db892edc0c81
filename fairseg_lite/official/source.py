"""The numbers, characters and arrays of a `.t7` file in their order, binary or ascii; every length is checked before use.

Torch writes a C `long` with 8 bytes, or with 4 on other systems, and does not say so; all numbers are little-endian.
Source: torch7 `DiskFile`. What objects they make is the reader's business.
"""

import mmap
import re
import struct
from collections.abc import Generator

import numpy as np

from fairseg_lite.errors import InputError

ELEMENTS = {
    "Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Float": "<f4", "Double": "<f8", "Half": "<f2",
}  # fmt: skip


class Torch7Error(InputError):
    """The file is no whole Torch7 file; `offset` is the byte where that shows."""

    def __init__(self, problem: str, offset: int):
        super().__init__(f"{problem} (at byte {offset})")
        self.offset = offset


class Binary:
    """Numbers and arrays of a binary file, in order."""

    smallest = 4  # bytes of the smallest object, a nil

    def __init__(self, data: bytes | mmap.mmap, long_size: int):
        if long_size not in (4, 8):
            raise InputError(f"long_size is {long_size}; a C long has 4 or 8 bytes")
        self.data, self.at, self.long_size, self.longs = data, 0, long_size, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def skip(self, size: int, what: str) -> int:
        """Step over some bytes; their offset."""
        if not 0 <= size <= self.left:
            raise Torch7Error(f"{what} of {size} bytes, {self.left} are left", self.at)
        self.at += size
        return self.at - size

    def number(self, code: str, what: str) -> int | float:
        return struct.unpack_from("<" + code, self.data, self.skip(struct.calcsize(code), what))[0]

    def int(self) -> int:
        return self.number("i", "an int")

    def long(self) -> int:
        self.longs += 1
        return self.number("q" if self.long_size == 8 else "i", "a long")

    def double(self) -> float:
        return self.number("d", "a double")

    def bytes(self, size: int, what: str) -> bytes:
        start = self.skip(size, what)
        return bytes(self.data[start : start + size])

    def array(self, element: str, count: int) -> np.ndarray:
        if element == "Long" and self.long_size == 4:
            element = "Int"
        dtype = np.dtype(ELEMENTS[element])
        start = self.skip(count * dtype.itemsize, f"a storage of {count} {element} elements")
        return np.frombuffer(self.data, dtype, count, start) if count else np.empty(0, dtype)

    def finish(self) -> None:
        if self.left:
            raise Torch7Error(f"{self.left} bytes follow the object", self.at)


class Ascii(Binary):
    """The same of an ascii file: numbers as words between blanks, characters and bytes as they are, a newline after each."""

    smallest = 2
    word = re.compile(rb"\s*([^\s_]{1,64})(?=\s)")  # Python would take 1_0 for a number; one cut short has no blank behind it

    def __init__(self, data: bytes | mmap.mmap):
        super().__init__(data, 8)

    def newline(self) -> None:
        if self.data[self.at : self.at + 1] == b"\n":
            self.at += 1

    def words(self, kind: type, count: int, what: str) -> Generator:
        for _ in range(count):
            found = self.word.match(self.data, self.at)
            try:
                value = kind(found[1])
            except (TypeError, ValueError):
                raise Torch7Error(f"{what} was expected", self.at) from None
            self.at = found.end()
            yield value
        self.newline()

    def number(self, code: str, what: str) -> int | float:
        (value,) = self.words(float if code == "d" else int, 1, what)
        return value

    def bytes(self, size: int, what: str) -> bytes:
        found = super().bytes(size, what)
        if size:
            self.newline()
        return found

    def array(self, element: str, count: int) -> np.ndarray:
        dtype, start = np.dtype(ELEMENTS[element]), self.at
        if count < 0 or (count > self.left if dtype.itemsize == 1 else 2 * count - 1 > self.left):
            raise Torch7Error(f"a storage of {count} {element} elements, {self.left} bytes are left", self.at)
        if not count:
            return np.empty(0, dtype)
        if dtype.itemsize == 1:
            return np.frombuffer(self.bytes(count, "a storage"), dtype)
        values = self.words(float if dtype.kind == "f" else int, count, f"{element} number")
        try:
            with np.errstate(over="ignore"):
                array = np.fromiter(values, dtype, count)
        except OverflowError:
            raise Torch7Error(f"a number is too large for {element}", start) from None
        array.flags.writeable = False
        return array

    def finish(self) -> None:
        self.at = re.compile(rb"\s*").match(self.data, self.at).end()
        super().finish()
