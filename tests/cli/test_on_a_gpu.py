"""Every command that takes --device, with a GPU (`pretended_gpu.py` where there is none)."""

import argparse

import pytest

from fairseg_lite import bench
from fairseg_lite.cli import build_parser, propose
from tests.official.small import Official, small_sharpmask
from tests.official.writer import dump

pytestmark = pytest.mark.gpu
QUICK = ("--steps", 2, "--set", "positives=3")
REFINED = ("--masks", "refined", "--set", "mask_boxes=true", "--set", "flip=true", "--top-k", 20)
COMMANDS = {
    "demo": ("demo", "-o", "{out}"),
    "propose": ("propose", "{photo}", "-o", "{out}", "--top-k", 10, "--precision", "auto"),
    "detect": ("detect", "{photo}", "-o", "{out}", *REFINED),
    "evaluate": ("evaluate", "shapes-sharp", "shapes:1", "--boundary", "--top-k", 10),
    "evaluate detections": ("evaluate", "detections", "shapes-multipath", "shapes:1", "--top-k", 10),
    "train deepmask": ("train", "deepmask", "shapes:4", "--out", "{out}", *QUICK, "--set", "negatives=1", "--valid", "shapes:1"),
    "train sharpmask": ("train", "sharpmask", "shapes:4", "--out", "{out}", *QUICK),
    "train multipathnet": ("train", "multipathnet", "shapes:4", "--out", "{out}", "--steps", 2, "--set", "rois=8"),
    "ablate": ("ablate", "{out}", "--data", "shapes:4", "--valid", "shapes:1", "--steps", 1, "--seeds", 1),
    "bench": ("bench", "--quick"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name, cli, photo, tmp_path, cuda, monkeypatch):
    monkeypatch.setattr(bench, "peak_memory", lambda *a: {"before": 0, "peak": 0})  # of another process, which cannot pretend
    monkeypatch.setattr(propose, "PHOTOGRAPHS", propose.PHOTOGRAPHS[:1])
    words = [str(w).format(photo=photo, out=tmp_path / "out") for w in COMMANDS[name]]
    code, _, err = cli(*words, "--device", "cuda")
    assert code == 0, err


def with_device(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from (name for one in action.choices.values() for name in with_device(one))
        elif action.dest == "device":
            yield parser.prog.removeprefix("fairseg-lite ")


def test_these_are_all_commands():
    assert set(with_device(build_parser())) == set(COMMANDS)


def test_an_imported_network_proposes_there(cli, photo, tmp_path, cuda):
    (tmp_path / "net.t7").write_bytes(dump(Official().sharpmask(small_sharpmask())))
    model = tmp_path / "net.safetensors"
    assert cli("import", tmp_path / "net.t7", "-o", model)[0] == 0
    code, _, err = cli("propose", photo, "-o", tmp_path / "out", "--model", model, "--top-k", 10, "--device", "cuda")
    assert code == 0, err
