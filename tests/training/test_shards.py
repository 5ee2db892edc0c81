"""A step in parts: whichever processes compute them, the network is the same; and no process goes on alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fairseg_lite.cli import main
from fairseg_lite.data.coco import write_coco_folder
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.checkpoints import load_model, load_tensors
from fairseg_lite.training.shards import joined, rank_and_world
from tests.training.many import three

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("deepmask", "sharpmask", "multipathnet")
TRAIN = ("fairseg_lite.cli", "train", "deepmask", "shapes:20", "--set", "positives=4", "--set", "negatives=2")


def torchrun(processes: int, *words: object, options: tuple = ()) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, *options, "-m"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [str(word) for word in (*command, *words)]
    return subprocess.Popen(words, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ran(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs of one process, by the number of parts."""
    folder = tmp_path_factory.mktemp("alone")
    for shards in (2, 4):
        three(folder / str(shards), shards)
    return folder


def states(folder: Path, name: str) -> tuple[dict, list[dict]]:
    log = [json.loads(line) for line in (folder / name / "log.jsonl").read_text("utf-8").splitlines()]
    tensors, header = load_tensors(folder / name / "state.safetensors")
    return tensors, [{**row, "rate": 0, "step of state": header["step"]} for row in log]


@pytest.mark.parametrize("processes, shards", [(2, 2), (4, 4), (2, 4)])
def test_any_number_of_processes_gives_the_same_network(alone, tmp_path, processes, shards):
    """Weights, optimiser, running statistics and losses; to the last bit where each process has one part."""
    ran(torchrun(processes, "tests.training.many", "three", tmp_path, shards))
    for name in NETWORKS:
        (here, log), (there, log_there) = states(tmp_path, name), states(alone / str(shards), name)
        assert here.keys() == there.keys() and len(log) == len(log_there) == 3
        if processes == shards:
            assert all(torch.equal(here[k], v) for k, v in there.items()) and log == log_there
        else:
            assert max((here[k] - v).abs().max() for k, v in there.items()) <= 1e-6
        told = [load_model(f / name / "model.safetensors").record for f in (tmp_path, alone / str(shards))]
        assert told[0] == told[1]
    assert told[0].about["dropped"] == {"no area": 12, "outside": 6}


def test_parts_are_not_the_whole_but_alike(alone, tmp_path):
    three(tmp_path, 1)
    for name in NETWORKS:
        (whole, log), (parts, log_parts) = states(tmp_path, name), states(alone / "2", name)
        assert any(not torch.equal(parts[k], v) for k, v in whole.items()), "drawn by step and part"
        assert log[0]["loss"] == pytest.approx(log_parts[0]["loss"], rel=0.5)


def test_workers_draw_the_same_parts_and_count_what_they_leave_out(alone, tmp_path):
    three(tmp_path, 2, workers=2)
    for name in NETWORKS:
        assert all(torch.equal(states(alone / "2", name)[0][k], v) for k, v in states(tmp_path, name)[0].items())
    assert load_model(tmp_path / "multipathnet/model.safetensors").record.about["dropped"] == {"no area": 12, "outside": 6}


def test_a_process_that_fails_ends_the_others_with_its_error(tmp_path):
    process = torchrun(2, "tests.training.many", "broken", tmp_path, 2)
    _, err = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "process 1: picture 'seven.jpg' cannot be decoded" in err


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_process_is_started_again_and_the_run_is_the_same(tmp_path, capsys):
    words = (*TRAIN, "--steps", 40, "--set", "fit.save_every=5", "--set", "fit.log_every=1", "--set", "fit.precision=fp32")
    many = torchrun(2, *words, "--out", tmp_path / "many", "--resume", options=("--max-restarts", 1))
    log, end = tmp_path / "many/log.jsonl", time.monotonic() + 120
    while not (log.exists() and len(log.read_text("utf-8").splitlines()) >= 12):
        assert many.poll() is None and time.monotonic() < end, many.stderr.read()
        time.sleep(0.02)
    children = Path(f"/proc/{many.pid}/task/{many.pid}/children").read_text("utf-8").split()
    workers = [int(c) for c in children if b"fairseg_lite.cli" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    out, _ = ran(many)
    assert out.count("network in") == 1, "one process tells"
    assert main([str(w) for w in (*words[1:], "--out", tmp_path / "one", "--set", "fit.shards=2")]) == 0
    (here, log_here), (there, log_there) = states(tmp_path, "many"), states(tmp_path, "one")
    assert all(torch.equal(here[k], v) for k, v in there.items()) and log_here == log_there
    assert not list((tmp_path / "many").glob(".*")), "nothing half-written is left"


def test_proposing_and_evaluating_are_shared_out_and_give_the_same(tmp_path, capsys):
    """Files to the last byte, but for seconds; what is said, once."""
    write_coco_folder(ShapesDataset(5, seed=1, size=112), tmp_path / "data", progress=False)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        words = [
            ["propose", tmp_path / "data", "-o", folder / "p", "--model", "shapes", "--top-k", 9, "--draw", 2],
            ["evaluate", "shapes", tmp_path / "data", "-o", folder / "e.json", "--top-k", 20, "--set", "scales=1"],
            ["evaluate", "detections", "shapes-multipath", tmp_path / "data", "-o", folder / "d.json",
             "--save", folder / "s.json"],
            ["train", "multipathnet", tmp_path / "data", "--out", folder / "n", "--steps", 1, "--set", "images=4",
             "--set", "fit.shards=2", "--valid", tmp_path / "data", "--set", "fit.precision=fp32"],
        ]  # fmt: skip
        (folder / "commands.json").write_text(json.dumps([[str(w) for w in line] for line in words]), "utf-8")
    capsys.readouterr()
    assert [main(words) for words in json.loads((folders[0] / "commands.json").read_text("utf-8"))] == [0] * 4
    said = [capsys.readouterr().out, ran(torchrun(2, "tests.training.many", "commands", folders[1], 2))[0]]
    files = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file() and p.name != "commands.json") for f in folders]
    assert files[0] == files[1] and len([f for f in files[0] if f.suffix == ".png"]) == 5
    assert {"proposals.json", "e.json", "d.json", "s.json", "state.safetensors", "valid.json"} <= {f.name for f in files[0]}
    for name in files[0]:
        one, two = (f / name for f in folders)
        if name.name in ("e.json", "d.json", "log.jsonl"):
            numbers = [json.loads(file.read_text("utf-8")) for file in (one, two)]
            for found in numbers:
                for key in ("seconds", "seconds_per_picture", "settings", "rate"):
                    found.pop(key, None)
            assert numbers[0] == numbers[1], name
        else:
            assert one.read_bytes() == two.read_bytes(), name
    plain = [re.sub(r"[\d.]+ s each", "", text.replace(str(f), "")) for text, f in zip(said, folders, strict=True)]
    assert plain[0] == plain[1]


def test_no_process_goes_on_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE is 2, but this process has not joined the others"):
        rank_and_world()
    with pytest.raises(ValueError, match="has not joined"):
        three(tmp_path, 2)
    with pytest.raises(ValueError, match="2 processes and device 'mps'; wanted cpu, or cuda"), joined("mps"):
        pass
    with pytest.raises(ValueError, match="device 'cuda:1'; wanted"), joined("cuda:1"):
        pass
    for words in (["ablate", str(tmp_path)], ["demo", "-o", str(tmp_path)]):
        assert main(words) == 2
        assert f"{words[0]} runs in one process, and torchrun started 2" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parts_that_are_not_equal_are_refused(tmp_path, capsys):
    words = [*TRAIN[1:], "--out", str(tmp_path / "r"), "--steps", "1", "--set", "fit.shards=4"]
    assert main(words) == 2
    assert "negatives is 2 and shards 4, equal parts of a batch" in capsys.readouterr().err
