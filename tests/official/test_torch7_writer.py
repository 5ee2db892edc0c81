"""What the library writes is what it reads, byte for byte as the tests' own writer has it; a network comes back whole."""

import numpy as np
import pytest
import torch

from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.models.deepmask import deepmask_tiny, deepmask_vgg_a
from fairseg_lite.official.official import import_official
from fairseg_lite.official.reader import Record, Table, load, loads
from tests.official.torch7_writer import dumps, official_deepmask, write

from .small import small_deepmask
from .tiny_writer import Object, dump, tensor


def test_the_same_bytes_as_the_other_writer():
    shared = np.arange(6, dtype="<f4").reshape(2, 3)
    twice, other = Record("nn.Linear", 1, Table(weight=shared, bias=None)), tensor(shared)
    theirs = Object("nn.Linear", {"weight": other, "bias": None})
    ours = {"a": [1, 2.5, True, "x"], "first": twice, "again": twice, "w": shared, 3: None, "d": np.arange(3, dtype="<i8")}
    same = {"a": [1, 2.5, True, "x"], "first": theirs, "again": theirs, "w": other, 3: None, "d": tensor(np.arange(3))}
    assert dumps(ours) == dump(same)


def test_what_was_read_can_be_written(tmp_path):
    found = loads(dump({"e": Object("nn.X", {"t": tensor(np.ones((2, 4), "f8")), "no": tensor(np.ones(1, "u1"))}, version=3)}))
    found["e"].fields["itself"] = found["e"]
    found["empty"], found["turned"] = np.empty(0, "f4"), np.arange(6.0).reshape(2, 3).T
    write(tmp_path / "again.t7", found)
    again = load(tmp_path / "again.t7")
    record = again["e"]
    assert (record.name, record.version, record.fields["itself"]) == ("nn.X", 3, record)
    assert np.array_equal(record.fields["t"], np.ones((2, 4))) and record.fields["no"].dtype == np.uint8
    assert again["empty"].size == 0 and np.array_equal(again["turned"], found["turned"])


def test_what_lua_does_not_know_is_refused(tmp_path):
    for thing, message in (({"a": {1, 2}}, "a set has no form"), ([np.ones(2, bool)], "an array of bool has no form")):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "model.t7", thing)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "zeros"}, {"stride_in_1x1": True, "context": 64}, {"trunk": {"block": "basic", "stem_pool": True}}],
    ids=str,
)
def test_a_network_comes_back(tmp_path, options):
    ours = small_deepmask(**options)
    write(tmp_path / "model.t7", official_deepmask(ours))
    found = import_official(tmp_path / "model.t7")
    x = torch.randn(2, 3, 64 + ours.context - 32, 64 + ours.context - 32)
    with torch.no_grad():
        for a, b in zip(ours(x), found.model(x), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    assert found.config == {"iSz": 32, "oSz": 8, "gSz": 16} and found.model.context == ours.context


def test_the_librarys_own_network_comes_back(tmp_path):
    """Its norms have measured means and variances; in the file each is a x + b."""
    ours = load_model("shapes")
    write(tmp_path / "shapes.t7", official_deepmask(ours))
    found = import_official(tmp_path / "shapes.t7").model
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        for a, b in zip(ours(x), found(x), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-3)


def test_other_networks_are_refused():
    for model in (deepmask_vgg_a(), deepmask_tiny(head="B"), deepmask_tiny(poolings=3)):
        with pytest.raises(ValueError, match="take deepmask_tiny or deepmask_resnet50"):
            official_deepmask(model)
