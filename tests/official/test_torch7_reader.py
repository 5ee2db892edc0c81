"""What a `.t7` file holds comes back; every file here is made by tests/official/writer.py, or by Torch7 itself (oracle)."""

import gzip
import math
import tracemalloc

import numpy as np
import pytest

from fairseg_lite.official.reader import Function, Record, Table, Torch7Error, load, loads

from .multipathnet_maps import resnet_file, weights_of
from .writer import Code, Object, Storage, Tensor, dump, tensor

FORMS = pytest.mark.parametrize("form", [{}, {"referenced": False}], ids=["referenced", "unreferenced"])


@FORMS
def test_plain_values(form):
    thing = {
        "a": 1.5, "b": True, "c": False, "d": "Grüße", "e": "", "f": {1: 10, 2: -3, 2.5: "key"}, "g": [],
        "h": math.inf, "i": 2**40, "line\nbreak": " two  words\n", "raw": b"\xff\xfe",
    }  # fmt: skip
    found = loads(dump(thing, **form))
    assert found["raw"].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert {k: v for k, v in found.items() if k != "raw"} == {k: v if v != [] else {} for k, v in thing.items() if k != "raw"}
    assert type(found["f"][1]) is int and type(found["a"]) is float and found["b"] is True


@FORMS
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_every_type_of_number(form, kind):
    values = np.array([[1, 2, 3], [100, 5, 7]], kind) * (1 if kind[0] == "u" else -1)
    found = loads(dump({"t": tensor(values), "s": Storage(values[0])}, **form))
    assert np.array_equal(found["t"], values) and np.array_equal(found["s"], values[0])
    assert found["t"].dtype == values.dtype and not found["t"].flags.writeable


@FORMS
def test_cuda_names(form):
    thing = {"f": tensor(np.float32([[0.1, 2]]), cuda=True), "l": tensor(np.int64([5]), cuda=True)}
    thing |= {"h": tensor(np.float16([0.5]), cuda=True), "b": tensor(np.uint8([255]), cuda=True)}
    found = loads(dump(thing, **form))
    assert found["f"].dtype == np.float32 and np.array_equal(found["f"], np.float32([[0.1, 2]]))
    assert found["l"].tolist() == [5] and found["h"].tolist() == [0.5] and found["b"].tolist() == [255]


@FORMS
def test_strides_offsets_and_a_shared_storage(form):
    storage = Storage(np.arange(24, dtype=np.float32))
    parts = {
        "transposed": Tensor(storage, (4, 6), (1, 4)),
        "narrowed": Tensor(storage, (2, 3), (6, 1), 8),
        "expanded": Tensor(storage, (5, 2), (0, 1), 3),
        "one": Tensor(storage, (1, 1), (2**31 - 1, 2**31 - 1), 24),
        "empty": Tensor(None, (), (), 1, "torch.CudaTensor"),
        "all": storage,
    }
    found = loads(dump(parts, **form))
    x = np.arange(24, dtype=np.float32)
    assert np.array_equal(found["transposed"], x.reshape(6, 4).T)
    assert np.array_equal(found["narrowed"], x[7:].reshape(-1)[:12].reshape(2, 6)[:, :3])
    assert np.array_equal(found["expanded"], np.tile(x[2:4], (5, 1)))
    assert found["one"].tolist() == [[23.0]] and found["empty"].shape == (0,)
    shared = form.get("referenced", True)  # else every part was written with a storage of its own
    assert all(np.shares_memory(found[k], found["all"]) == shared for k in parts if k not in ("empty", "all"))


@FORMS
def test_objects_and_functions(form):
    thing = {
        "linear": Object("nn.Linear", {"weight": tensor(np.eye(2, dtype=np.float32)), "train": False}),
        "old": Object("nn.Old", {"x": 1}, version=None),
        "odd": Object("my.Own", [1, 2]),
        "function": Code(b"\x1bLua\n\0 5\n", {1: {"name": "up", "value": 3}}), "older": Code(kind=7), "oldest": Code(kind=6),
        "after": "still in step",
    }  # fmt: skip
    found = loads(dump(thing, **form))
    assert found["linear"].name == "nn.Linear" and found["linear"].kind == "Linear" and found["linear"].version == 1
    assert np.array_equal(found["linear"].fields["weight"], np.eye(2))
    assert found["old"].version == 0 and found["old"].fields == {"x": 1}
    assert found["odd"].fields == {1: 1, 2: 2}
    assert all(isinstance(found[k], Function) for k in ("function", "older", "oldest"))
    assert found["function"].size == 9 and found["after"] == "still in step"


def test_bytecode_lies_where_the_function_says():
    content = dump({"f": Code(b"\x1bLua-code")})
    found = loads(content)["f"]
    assert content[found.offset : found.offset + found.size] == b"\x1bLua-code"


def test_what_is_named_twice_is_one_object():
    shared = {"x": 1}
    module = Object("nn.Node", {})
    module.fields["self"] = module  # a cycle through an object ...
    loop = {"name": "loop", "t": tensor(np.ones(3))}
    loop["again"] = [loop, loop["t"]]  # ... and one through tables
    found = loads(dump({"a": shared, "b": shared, "m": module, "loop": loop, "keyed": {1: 2}}))
    assert found["a"] is found["b"]
    assert found["m"].fields["self"] is found["m"]
    assert found["loop"]["again"][1] is found["loop"] and found["loop"]["again"][2] is found["loop"]["t"]


def test_objects_as_keys():
    node, key, array = Object("graph.Node"), {}, tensor(np.ones(2))
    found = loads(_pairs((node, "node"), (key, "table"), (array, "array"), (True, "true"), (1, "one")))
    assert len(found) == 5 and set(found.values()) == {"node", "table", "array", "true", "one"} and found[1] == "one"
    assert sum(isinstance(k, Table) for k in found) == 1 and sum(isinstance(k, Record) for k in found) == 3


def _pairs(*pairs) -> bytes:
    """A table whose keys Python's dict would not take."""

    class Pairs(dict):
        def __len__(self):
            return len(pairs)

        def items(self):
            return pairs

    return dump(Pairs())


def test_deep_nesting_is_no_recursion():
    depth, found = 0, loads(_deep(3000))
    while found:
        depth, found = depth + 1, found[1]
    assert depth == 3000
    with pytest.raises(Torch7Error, match="nested deeper than 10000"):
        loads(_deep(20_000))


def _deep(levels: int) -> bytes:
    level = [np.int32([3, i, 1, 1]).tobytes() + np.float64([1]).tobytes() for i in range(levels)]
    return b"".join(level) + np.int32([3, levels, 0]).tobytes()


def test_a_file_on_disk(tmp_path):
    path = tmp_path / "small.t7"
    path.write_bytes(dump({"x": tensor(np.arange(6.0).reshape(2, 3))}))
    assert np.array_equal(load(path)["x"], np.arange(6.0).reshape(2, 3))
    path.write_bytes(b"")
    with pytest.raises(Torch7Error, match="is empty"):
        load(path)


def test_half_a_gigabyte_costs_little_memory(tmp_path):
    count = 140_000_000  # float32; a hole in the file, so the disk does not pay either
    head = dump(Tensor(Storage(np.zeros(0, np.float32)), (count,), (1,)))
    head = head[:-8] + np.int64([count]).tobytes()
    path = tmp_path / "large.t7"
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(len(head) + 4 * count)
        f.seek(-4, 2)
        f.write(np.float32(7).tobytes())
    tracemalloc.start()
    try:
        found = load(path)
        assert found.shape == (count,) and found[-1] == 7 and found[0] == 0
        assert path.stat().st_size > 500_000_000 and tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_torch7_wrote():
    found = loads(resnet_file())
    assert found.name == "nn.Sequential" and [m.kind for m in found.fields["modules"].values()][:2] == [
        "ParallelTable",
        "ROIPooling",
    ]
    assert weights_of(found)["m.4.2.weight"].shape == (84, 128)


@pytest.mark.parametrize("name", ["deepmask", "sharpmask"])
def test_large_files_that_torch7_wrote(shared, tmp_path, name):
    path = tmp_path / "model.t7"
    path.write_bytes(gzip.decompress((shared / "oracle" / name / "model.t7.gz").read_bytes()))
    found = load(path)
    assert found["config"]["iSz"] == 64 and found["model"].kind in ("DeepMask", "SharpMask")
    with np.load(shared / "oracle" / "deepmask" / "weights.npz") as z:
        official = z["trunk.12.weight"]
    linear = found["model"].fields["trunk"].fields["modules"][12]
    assert linear.name == "nn.Linear" and np.array_equal(linear.fields["weight"], official)
