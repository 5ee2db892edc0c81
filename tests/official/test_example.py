"""The small file that comes with the library is what the writer makes; a trained network of ours comes back from a file."""

from pathlib import Path

import numpy as np
import torch

from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.official import networks
from fairseg_lite.official.networks import import_official

from .small import Official, example
from .writer import dump

FILE = Path(networks.__file__).with_name("example.t7")


def test_the_example_is_what_the_writer_makes():
    """To renew it: python -m tests.official.small."""
    assert FILE.read_bytes() == dump(Official().deepmask(example()))
    assert FILE.stat().st_size < 100_000


def test_the_example_becomes_a_network():
    ours, found = example(), import_official(FILE)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(x), found(x), strict=True):
            assert torch.equal(a, b) and np.ptp(a.numpy()) > 0.01
    assert found.record.about["config"] == {"iSz": 32, "oSz": 8, "gSz": 16, "batch": 2} and found.patch_size == 32


def test_the_librarys_own_network_comes_back(tmp_path):
    """Its norms have measured means and variances; in the file each is a x + b."""
    ours, path = load_model("shapes"), tmp_path / "shapes.t7"
    path.write_bytes(dump(Official().deepmask(ours)))
    found = import_official(path)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        for a, b in zip(ours(x), found(x), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-3)
