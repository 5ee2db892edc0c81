"""`fairseg_lite.load_model`, `propose` and `detect`: the library in three lines, imported only when it is asked for."""

import subprocess
import sys
from pathlib import Path
from typing import assert_type

import numpy as np
import pytest
import torch

import fairseg_lite
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.inference.found import Detections, Proposals
from fairseg_lite.models.checkpoints import SHIPPED
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.sharpmask import SharpMask


def alone(code: str) -> str:
    """What code prints in a Python of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_import_alone_imports_nothing_heavy():
    code = "import sys, time; t = time.perf_counter(); import fairseg_lite; t = time.perf_counter() - t; "
    code += "print(min(t, 9), [m for m in ('torch', 'numpy', 'PIL', 'pycocotools') if m in sys.modules])"
    seconds, _, heavy = alone(code).partition(" ")
    assert heavy == "[]"
    assert float(seconds) < 0.5, "50 ms on a quiet machine"


def test_names_are_there_before_they_are_imported():
    assert alone("import fairseg_lite as f; print({*f.__all__} <= {*dir(f)}, len(f.__all__))") == "True 3"
    with pytest.raises(AttributeError, match="has no attribute 'segment'"):
        _ = fairseg_lite.segment


def test_three_lines_find_and_name_objects():
    image = ShapesDataset(1, seed=1)[0].image
    found = fairseg_lite.propose(fairseg_lite.load_model("shapes-sharp"), image)
    model = fairseg_lite.load_model("shapes-multipath")
    named = fairseg_lite.detect(model, image)
    assert isinstance(found, Proposals) and isinstance(named, Detections)
    assert torch.equal(named.boxes, fairseg_lite.detect(model, image, found[:200]).boxes), "by the network it was trained with"
    assert {model.record.categories[k] for k in named.labels[named.scores > 0.5]} <= set(ShapesDataset.categories)


def test_the_package_says_that_it_is_typed():
    assert (Path(fairseg_lite.__file__).parent / "py.typed").is_file()


def test_load_model_has_the_type_that_was_asked_for() -> None:
    """mypy reads these lines, too: it is one of the checks."""
    assert isinstance(assert_type(fairseg_lite.load_model("shapes"), DeepMask), DeepMask)
    assert isinstance(assert_type(fairseg_lite.load_model("shapes-sharp"), SharpMask), SharpMask)
    assert isinstance(assert_type(fairseg_lite.load_model("shapes-multipath"), MultiPathNet), MultiPathNet)
    assert isinstance(assert_type(fairseg_lite.load_model(str(SHIPPED["shapes"]), kind="DeepMask"), DeepMask), DeepMask)
    assert_type(fairseg_lite.propose(fairseg_lite.load_model(), np.zeros((40, 40, 3), np.uint8)), Proposals)
