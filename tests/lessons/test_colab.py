"""Every lesson runs where Colab would run it: its old packages, the course from a wheel, no repository around the notebook.

It takes an environment of its own, which colab.txt describes; FAIRSEG_COLAB names its Python.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.lessons.test_lessons import ROOT, each

COLAB = os.environ.get("FAIRSEG_COLAB")
pytestmark = pytest.mark.skipif(not COLAB, reason="FAIRSEG_COLAB names no Python with the packages of tests/lessons/colab.txt")
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder for notebooks, and an environment in which the library is what a wheel holds."""
    folder = tmp_path_factory.mktemp("colab")
    install = [COLAB, "-m", "pip", "install", "-q", "--no-deps", "--target", folder / "site", ROOT]  # which makes a wheel
    subprocess.run(install, check=True)
    return folder, {**os.environ, "PYTHONPATH": str(folder / "site"), "FAIRSEG_SCALE": "smoke"}


@each()
def test_a_lesson_runs_with_colabs_packages(path, elsewhere):
    folder, env = elsewhere
    copy = folder / path.name
    copy.write_text(path.read_text("utf-8"), "utf-8")
    done = subprocess.run([COLAB, "-c", RUN, copy], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [c for c in json.loads(copy.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    assert "torch 2.11.0" in "".join(cells[0]["outputs"][0]["text"])
    assert all(c["execution_count"] for c in cells if "".join(c["source"]).strip())
