"""Damaged, random and hostile files: a `Torch7Error` that says where, or a result; within bounded memory and steps.

FAIRSEG_MUTATIONS sets how many mutated files are read (300 without it; 10,000 take half a minute).
"""

import os
import struct
import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseg_lite.official.reader import DEPTH, Torch7Error, _Parser, loads

from .writer import Code, Object, Storage, Tensor, dump, tensor

MUTATIONS = int(os.environ.get("FAIRSEG_MUTATIONS", 300))
WITNESS = {
    "config": {"iSz": 160, "name": "word", "on": True, "list": [1, 2.5, None]},
    "model": Object("nn.Linear", {"weight": tensor(np.arange(12, dtype=np.float32).reshape(3, 4)), "f": Code(b"\x1bL")}),
    "view": Tensor(Storage(np.arange(20.0)), (3, 2), (5, 1), 4),
    "ids": tensor(np.int64([3, 4])),
}
FILES = [dump(WITNESS), dump(WITNESS, referenced=False)]
NUMBERS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 127, 255, 2**15, 2**31 - 1, -1, -(2**31), 2**40, 2**63 - 1, -(2**63)]


def read(content: bytes) -> Exception | None:
    """Read it; any other exception than Torch7Error, many steps, or much memory, fails the test."""
    steps, step = 0, _Parser.object

    def counted(parser: _Parser):
        nonlocal steps
        steps += 1
        return step(parser)

    tracemalloc.start()
    try:
        with patch.object(_Parser, "object", counted):
            loads(content)
        return None
    except Torch7Error as error:
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert steps <= 1 + len(content) // 4  # an object takes four bytes or more
        assert peak < 1_000_000 + 200 * len(content), peak


def mutated(rng: np.random.Generator) -> bytes:
    """One of FILES with up to four faults: bytes, numbers or words exchanged, pieces cut out, doubled or moved."""
    content = bytearray(FILES[rng.integers(len(FILES))])
    for _ in range(rng.integers(1, 5)):
        at, length = int(rng.integers(len(content) + 1)), int(rng.integers(1, 40))
        number = NUMBERS[rng.integers(len(NUMBERS))]
        fault = rng.integers(7)
        if fault == 0:
            content[at : at + 1] = bytes([rng.integers(256)])
        elif fault == 1:
            content[at - at % 4 : at - at % 4 + 4] = struct.pack("<q", number)[:4]
        elif fault == 2:
            content[at : at + 8] = struct.pack("<q", number)
        elif fault == 3:
            content[at : at + int(rng.integers(4))] = str(number).encode()
        elif fault == 4:
            del content[at : at + length]
        elif fault == 5:
            content[at:at] = content[at : at + length]
        else:
            del content[at:]
    return bytes(content)


def test_mutated_files():
    rng = np.random.default_rng(0)
    outcomes = [read(mutated(rng)) for _ in range(MUTATIONS)]
    refused = [e for e in outcomes if e is not None]
    assert all(0 <= e.offset <= 2 * max(map(len, FILES)) for e in refused)
    assert len(refused) > 0.7 * MUTATIONS and len({str(e).split(" (at")[0][:12] for e in refused}) > 10


@pytest.mark.parametrize("content", FILES, ids=["referenced", "unreferenced"])
def test_every_truncation(content):
    assert read(content) is None
    for n in range(len(content)):
        assert read(content[:n]) is not None, n


@settings(max_examples=300)
@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda b: struct.pack("<i", len(b) % 9) + b))
def test_random_bytes(content):
    read(content)


@settings(max_examples=200)
@given(
    sizes=st.lists(st.sampled_from(NUMBERS), max_size=4), strides=st.lists(st.sampled_from(NUMBERS), max_size=4),
    offset=st.sampled_from(NUMBERS), count=st.sampled_from(NUMBERS),
)  # fmt: skip
def test_tensors_of_any_geometry(sizes, strides, offset, count):
    rank = min(len(sizes), len(strides))
    good = dump(Tensor(Storage(np.arange(6.0)), tuple(sizes[:rank]), tuple(strides[:rank]), offset))
    error = read(good)
    reach = offset - 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=False))
    inside = not rank or (min(sizes[:rank]) > 0 and min(strides[:rank]) >= 0 and offset > 0 and reach < 6)
    assert inside or error is not None
    read(good.replace(struct.pack("<q", 6), struct.pack("<q", count)))


def storage_of(count: int) -> bytes:
    return dump(Storage(np.zeros(0, np.float32)))[:-8] + struct.pack("<q", count)


HOSTILE = {
    "2^62 elements": (storage_of(2**62), "a storage of 4611686018427387904 Float elements of 18446744073709551616 bytes"),
    "fewer than none": (storage_of(-5), "of -20 bytes"),
    "a long string": (struct.pack("<ii", 2, 2**31 - 1) + b"abc", "a string of 2147483647 bytes, 3 are left"),
    "a string of -1": (struct.pack("<ii", 2, -1), "a string of -1 bytes"),
    "a long class name": (struct.pack("<iii", 4, 1, 2**30) + b"nn.X", "a class name of 1073741824 bytes"),
    "a class name of noise": (dump(Object("n" * 300)), "is no class name"),
    "many entries": (struct.pack("<iii", 3, 1, 2**31 - 1), "a table of 2147483647 entries"),
    "entries below none": (struct.pack("<iii", 3, 1, -1), "a table of -1 entries"),
    "1000 dimensions": (dump(Tensor(None, (), (), 1, "torch.FloatTensor")).replace(
        b"Tensor\0\0\0\0", b"Tensor" + struct.pack("<i", 1000)), "a tensor of 1000 dimensions"),
    "a negative stride": (dump(Tensor(Storage(np.arange(6.0)), (3,), (-1,), 6)), r"strides \[-1\]"),
    "offset 0": (dump(Tensor(Storage(np.arange(6.0)), (3,), (1,), 0)), "offset 0"),
    "past the end": (dump(Tensor(Storage(np.arange(6.0)), (3, 2), (2, 1), 2)), "reaches element 7 of a storage of 6"),
    "a storage repeated": (dump(Tensor(Storage(np.arange(1.0)), (2**20, 2**20), (0, 0))), "repeats 1 elements to 1099511627776"),
    "no storage": (dump(Tensor(None, (2,), (1,), 1, "torch.FloatTensor")), "element 2 of a storage of 0"),
    "a table for a storage": (dump(Tensor({}, (2,), (1,), 1, "torch.FloatTensor")), "storage of a Float tensor is a Table"),
    "another storage": (dump(Tensor(Storage(np.arange(6.0)), (2,), (1,), 1, "torch.FloatTensor")), "storage of a Float tensor"),
    "its own storage": (dump(Tensor(None, (1,), (1,), 1, "torch.FloatTensor"))[:-4] + struct.pack("<ii", 4, 1), "of 0"),
    "a nil key": (struct.pack("<iiiii", 3, 1, 1, 0, 0), "key of a table is None"),
    "a key that is nan": (struct.pack("<iiiidi", 3, 1, 1, 1, float("nan"), 0), "key of a table is nan"),
    "a bool of 2": (struct.pack("<ii", 5, 2), "a boolean is 2"),
    "type 9": (struct.pack("<ii", 9, 2), "9 is no type of object"),
    "a table called an object": (struct.pack("<iiiidii", 3, 1, 1, 1, 1, 4, 1), "object 1 is of type 3 and called 4"),
    "gzip": (b"\x1f\x8b\x08\0", "compressed with gzip; unpack it"),
    "something else": (b"PK\x03\x04 a zip file", "no binary Torch7 file"),
    "three bytes": (b"\0\0\0", "3 bytes are no Torch7 file"),
    "two objects": (dump(1) + dump(2), "12 bytes follow the object"),
    "ascii": (b"3\n1\n1\n2\n5\nscale\n1\n0.25\n", "no binary Torch7 file; of an ascii one make another"),
    "deep": (b"".join(struct.pack("<iiiid", 3, i, 1, 1, 1) for i in range(2 * DEPTH)), f"deeper than {DEPTH}"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name):
    content, message = HOSTILE[name]
    with pytest.raises(Torch7Error, match=message):
        loads(content)
    assert isinstance(read(content), ValueError)


def test_the_offset_is_where_the_fault_is():
    content = dump({"first": "a" * 50, "second": True})
    at = content.rindex(struct.pack("<ii", 5, 1))
    error = read(content[:at] + struct.pack("<ii", 5, 7))
    assert error.offset == at and str(error) == f"a boolean is 7 (at byte {at})"
