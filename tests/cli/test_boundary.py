"""`evaluate --boundary`: one line for a DeepMask, two for a SharpMask, measured with the padding it was trained with."""

import json
from dataclasses import replace

import pytest
import torch

from fairseg_lite.cli.inputs import open_dataset
from fairseg_lite.evaluation.boundary import boundary_report
from fairseg_lite.models.checkpoints import load_model, save_model
from fairseg_lite.models.sharpmask import sharpmask_tiny


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    """A SharpMask that was trained with mean padding, or so its record says."""
    path = tmp_path_factory.mktemp("sharp") / "sharp.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sharpmask_tiny(deepmask=load_model("shapes", kind="DeepMask"), k=16)
    model.record = replace(model.record, padding="mean")
    save_model(path, model)
    return path


def test_sharp_and_coarse_masks_stand_under_each_other(cli, sharp, tmp_path):
    words = ("evaluate", sharp, "shapes:2", "--top-k", 5)
    code, said, _ = cli(*words, "--boundary", "-o", tmp_path / "r.json")
    assert code == 0
    assert [line.split()[0] for line in said] == ["patches", "boundary", "coarse", "masks", "boxes", "proposals"]
    assert said[1].index("instances") == said[2].index("instances")
    written, model = json.loads((tmp_path / "r.json").read_text("utf-8"))["boundary"], load_model(sharp)
    data = open_dataset("shapes:2", held_out=True)
    for name, network, line in (("masks", model, said[1]), ("coarse", model.deepmask, said[2])):
        report = boundary_report(network, data, padding="mean", progress=False)
        assert line.endswith(str(report)) and written[name]["f"] == report.f
    assert written["masks"]["f"] != written["coarse"]["f"]


def test_a_deepmask_has_one_line_and_who_does_not_ask_gets_none(cli, network, tmp_path):
    words = ("evaluate", network, "shapes:1", "--top-k", 5, "-o", tmp_path / "r.json")
    code, said, _ = cli(*words, "--boundary")
    assert code == 0
    assert sum(line.startswith("boundary") for line in said) == 1 and not any(line.startswith("coarse") for line in said)
    assert list(json.loads((tmp_path / "r.json").read_text("utf-8"))["boundary"]) == ["masks"]
    code, plain, _ = cli(*words)
    assert code == 0
    assert [line.split()[0] for line in plain] == ["patches", "masks", "boxes", "proposals"]
    assert "boundary" not in json.loads((tmp_path / "r.json").read_text("utf-8"))
