"""A small network and pictures, and commands run in this process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fairseg_lite.cli import main
from fairseg_lite.cli.options import SHARED
from fairseg_lite.data.coco import write_coco_folder
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.checkpoints import save_model
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.models.multipathnet import multipathnet_tiny


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run `fairseg-lite WORDS`, on the processor unless they say otherwise; gives (exit code, lines on stdout, on stderr)."""
    monkeypatch.setitem(SHARED["--device"], "default", "cpu")

    def run(*words: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        try:
            code = main([str(w) for w in words])
        except SystemExit as stop:  # argparse: --help, or an unknown option
            code = stop.code
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return run


@pytest.fixture
def refused(cli):
    """Run a command that has to end with code 2 and one line; gives the line."""

    def run(*words: object) -> str:
        code, _, err = cli(*words)
        assert code == 2
        assert len(err) == 1, err
        return err[0]

    return run


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """A checkpoint of `deepmask_tiny` with random weights."""
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_model(path, deepmask_tiny())
    return path


@pytest.fixture(scope="session")
def detectors(tmp_path_factory):
    """Checkpoints of `multipathnet_tiny` with random weights that are sure of something; the second's ids have gaps."""
    folder = tmp_path_factory.mktemp("named")
    for name, categories, ids in (
        ("nine", ShapesDataset.categories, ShapesDataset.category_ids),
        ("two", ("cat", "dog"), (90, 7)),
    ):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = multipathnet_tiny(num_classes=len(categories))
            for head in model.classes:
                head.bias.data[1] += 2
        model.record = replace(model.record, categories=categories, category_ids=ids)
        save_model(folder / f"{name}.safetensors", model)
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A COCO-format folder of two small scenes; read only."""
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write_coco_folder(ShapesDataset(2, seed=1, size=112), folder, progress=False)
    return folder


@pytest.fixture
def photo(tmp_path):
    """A JPEG of 90 x 70 px."""
    path = tmp_path / "in" / "photo.jpg"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(path)
    return path
