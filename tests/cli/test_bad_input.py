"""Bad input ends with exit code 2 and one line that names the thing and the fault; nothing is left behind."""

import json
import os
import shutil

import pytest
import torch
from torch import nn

from fairseg_lite.cli import main
from fairseg_lite.formats import download
from fairseg_lite.models import checkpoints
from fairseg_lite.models.checkpoints import save_tensors

QUICK = ("--steps", 2, "--set", "positives=3", "--set", "negatives=1")


@pytest.fixture
def folder(scenes, tmp_path):
    """A copy of the two scenes, to be damaged."""
    return shutil.copytree(scenes, tmp_path / "folder")


def edit(folder, change):
    """Change the annotations of a folder."""
    path = folder / "instances.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


# pictures


@pytest.mark.parametrize("content, said", [
    (b"", "cannot be decoded"),
    (b"\xff\xd8\xff\xe0 no JPEG follows", "cannot be decoded"),
    (b"<svg></svg>", "cannot be decoded"),
], ids=["empty", "corrupt", "another format"])  # fmt: skip
def test_a_file_that_is_no_picture(refused, network, tmp_path, content, said):
    (tmp_path / "bad.jpg").write_bytes(content)
    for words in (("propose", tmp_path / "bad.jpg", "--model", network), ("demo", tmp_path / "bad.jpg")):
        line = refused(*words, "-o", tmp_path / "o")
        assert said in line
        assert "bad.jpg" in line
    assert list((tmp_path / "o").iterdir()) == []


def test_a_jpeg_that_was_cut(refused, network, photo, tmp_path):
    photo.write_bytes(photo.read_bytes()[:-900])
    assert "truncated" in refused("propose", photo, "-o", tmp_path / "o", "--model", network)


def test_a_picture_or_folder_that_is_not_there(refused, network, tmp_path):
    assert "no such file or folder" in refused("propose", tmp_path / "x.jpg", "-o", tmp_path, "--model", network)
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in refused("propose", tmp_path / "empty", "-o", tmp_path / "o", "--model", network)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("option, said", [
    (("--set", "nms=1.5"), "nms is 1.5; it must be from 0 to 1"),
    (("--set", "nms=nan"), "--set nms=nan: nms is a number or none"),
    (("--set", "zoom=-1"), "zoom is -1"),
    (("--set", "zoom=.5"), "--set zoom=.5: zoom is a whole number"),
    (("--set", "threshold=0"), "threshold is 0.0"),
    (("--set", "speed=1"), "propose has no 'speed'; choose of scales, zoom, threshold, nms"),
    (("--set", "max_side=3"), "max_side is 3"),
    (("--draw", -1), "--draw is -1"),
    (("--device", "toaster"), "device 'toaster' is not to be had here"),
    (("--device", "meta"), "device 'meta' is not to be had here"),
    (("--device", "cuda:99"), "device 'cuda:99' is not to be had here"),
])  # fmt: skip
def test_options_outside_their_range(refused, network, photo, tmp_path, option, said):
    assert said in refused("propose", photo, "-o", tmp_path / "o", "--model", network, *option)
    assert not (tmp_path / "o" / "proposals.json").exists()


# output


def places(tmp_path):
    """Folders that cannot be made: below a file, and in a read-only folder (root may write there, so not for root)."""
    (tmp_path / "file").write_text("", "utf-8")
    (tmp_path / "locked").mkdir(mode=0o555)
    locked = [] if os.access(tmp_path / "locked", os.W_OK) else [tmp_path / "locked" / "o"]
    return [tmp_path / "file" / "o", *locked]


def test_output_that_cannot_be_written_is_found_before_any_work(refused, network, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "load_model", lambda *a, **k: pytest.fail("work was done first"))
    for place in places(tmp_path):
        for words in (
            ("propose", photo, "-o", place),
            ("demo", "-o", place),
            ("train", "deepmask", "shapes:9", "-o", place, *QUICK),
            ("evaluate", network, "shapes:1", "-o", place / "r.json"),
            ("bench", "--quick", "--json", place / "b.json"),
            ("data", "shapes", place, "-n", 1),
            ("data", "coco", place, "--subset", 1),
        ):
            line = refused(*words)
            assert "cannot write to folder" in line, words
            assert str(place.parent) in line


# checkpoints


def test_checkpoints_that_do_not_do(refused, network, photo, tmp_path):
    def said(path):
        shown = [refused("propose", photo, "-o", tmp_path / "o", "--model", path)]
        shown.append(refused("evaluate", path, "shapes:1"))
        assert shown[0] == shown[1]
        assert str(path) in shown[0]
        return shown[0]

    assert "no such file" in said(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(network.read_bytes()[:-1000])
    assert "truncated" in said(tmp_path / "cut.safetensors")
    (tmp_path / "text.safetensors").write_text("weights", "utf-8")
    assert "truncated or no safetensors file" in said(tmp_path / "text.safetensors")
    linear = nn.Linear(2, 2).state_dict()
    save_tensors(tmp_path / "linear.safetensors", linear, {"model": "deepmask_tiny"})
    assert "does not fit this DeepMask" in said(tmp_path / "linear.safetensors")
    save_tensors(tmp_path / "other.safetensors", linear, {"model": "sharpmask_of_the_future"})
    assert "'sharpmask_of_the_future'" in said(tmp_path / "other.safetensors")


def test_files_of_other_programs_are_told_what_to_do_with(refused, network, photo, scenes, tmp_path):
    for name in ("a.t7", "a.pth.tar", "a.zip"):
        (tmp_path / name).write_bytes(b"PK not weights")
    words = ("propose", photo, "-o", tmp_path / "o", "--model")
    assert "`fairseg-lite import` makes a checkpoint of a Torch7 file" in refused(*words, tmp_path / "a.t7")
    assert "go to a training, as --trunk-weights" in refused(*words, tmp_path / "a.pth.tar")
    train = ("train", "deepmask", scenes, "-o", tmp_path / "r", *QUICK, "--recipe", "photos", "--trunk-weights")
    assert "`fairseg-lite import` makes a checkpoint of a .t7" in refused(*train, tmp_path / "a.t7")
    assert "extract an archive" in refused(*train, tmp_path / "a.zip")
    assert "not a readable .tar file" in refused(*train, tmp_path / "a.pth.tar")
    torch.save({"epoch": 3, "state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "a.pth.tar")
    assert "tensors are missing, first 'conv1.weight'" in refused(*train, tmp_path / "a.pth.tar"), "it was read"
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    assert "wanted a table of tensors by name" in refused(*train, tmp_path / "a.pth")


@pytest.mark.parametrize("words", [
    ("propose", "PHOTO", "-o", "OUT", "--model", "shapes-multipath"),
    ("evaluate", "shapes-multipath", "shapes:1"),
    ("evaluate", "shapes-multipath", "shapes:1", "--boundary"),
    ("evaluate", "detections", "shapes", "shapes:1"),
    ("detect", "PHOTO", "-o", "OUT", "--model", "shapes-sharp"),
    ("detect", "PHOTO", "-o", "OUT", "--proposer", "shapes-multipath"),
    ("train", "sharpmask", "shapes:9", "-o", "OUT", "--from", "shapes-multipath"),
    ("train", "multipathnet", "shapes:9", "-o", "OUT", "--proposals", "shapes-multipath"),
    ("train", "multipathnet", "shapes:9", "-o", "OUT", "--trunk-weights", "shapes-multipath"),
], ids=" ".join)  # fmt: skip
def test_a_network_of_the_wrong_kind_is_a_sentence(refused, photo, tmp_path, words):
    line = refused(*[{"PHOTO": photo, "OUT": tmp_path / "o"}.get(word, word) for word in words])
    assert "wanted a " in line
    assert "MultiPathNet" in line or "multipathnet" in line


def test_trunk_weights_that_do_not_do(refused, scenes, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    save_tensors(tmp_path / "linear.safetensors", nn.Linear(2, 2).state_dict(), {})
    start = ("train", "deepmask", scenes, "-o", tmp_path / "r", *QUICK, "--recipe", "photos", "--trunk-weights")
    for name in ("none.safetensors", "cut.safetensors", "linear.safetensors"):
        assert name in refused(*start, tmp_path / name)
    assert "NoSuchWeights" in refused(*start, "NoSuchWeights")
    assert "has no ImageNet weights" in refused(*start, tmp_path / "cut.safetensors", "--set", "model=deepmask_tiny")
    assert "options has no 'stride_in_1x1'" in refused(*start[:5], "--set", "options.stride_in_1x1=true")


def test_a_run_is_neither_overwritten_nor_mixed(refused, tmp_path):
    words = ("train", "deepmask", "shapes:9", "-o", tmp_path / "r", *QUICK)
    assert main([str(w) for w in words]) == 0
    assert "holds a run already" in refused(*words)
    (tmp_path / "r/state.json").write_text('{"fit": {"speed": 1}}', "utf-8")
    line = refused(*words, "--resume")
    assert "state.json" in line
    assert "without --resume" in line


# data sets


def test_data_sets_without_anything_to_learn_from(cli, refused, network, folder, tmp_path):
    def said(change):
        edit(folder, change)
        shown = [
            refused("train", "deepmask", folder, "-o", tmp_path / "r", *QUICK),
            refused("evaluate", network, folder),
        ]
        assert not (tmp_path / "r/state.safetensors").exists()
        return shown

    def all_crowds(content):
        for a in content["annotations"]:
            a["iscrowd"] = 1

    edit(folder, all_crowds)
    code, _, (warning, train) = cli("train", "deepmask", folder, "-o", tmp_path / "r", *QUICK)
    assert code == 2 and "all 10 annotations" in warning and "10 are crowds" in train
    code, _, (warning, evaluate) = cli("evaluate", network, folder)
    assert code == 2 and "all 10 annotations" in warning and "no object that could be found (10 crowds)" in evaluate
    train, evaluate = said(lambda content: content.update(annotations=[]))
    assert "no object to learn from" in train
    assert "no object that could be found" in evaluate
    for line in said(lambda content: content.update(images=[], annotations=[])):
        assert "no picture" in line


def test_data_sets_that_are_not_there_or_damaged(refused, cli, network, folder, tmp_path):
    assert "no such file or folder" in refused("data", "check", tmp_path / "none")
    (tmp_path / "nothing").mkdir()
    assert "no annotations are found" in refused("data", "check", tmp_path / "nothing")
    assert "write shapes or shapes:N" in refused("evaluate", network, "shapes:few")
    next((folder / "images").iterdir()).write_bytes(b"\xff\xd8")
    train = ("train", "deepmask", folder, "-o", tmp_path / "r", *QUICK)
    assert "cannot be decoded" in refused(*train)
    assert cli(*train, "--skip-faults")[0] == 0
    (folder / "instances.json").write_text("[", "utf-8")
    assert "instances.json" in refused(*train, "--resume")


NUMBERS = {
    "fit.lr=-1": "lr is -1.0; it must be above 0",
    "fit.lr=nan": "--set fit.lr=nan: fit.lr is a number, such as 0.002",
    "fit.workers=-1": "workers is -1; it must be at least 0",
    "fit.save_every=0": "save_every is 0; it must be at least 1",
    "fit.optimizer=adam": "optimizer is 'adam'; choose",
    "fit.milestones=3": "1 milestones and 0 factors",
    "fit.ema=1": "ema is 1.0",
    "fit.speed=1": "FitConfig has no 'speed'; choose of steps, lr",
    "padding=none": "padding is 'none'; choose",
    "balance=some": "balance is 'some'; choose",
    "rules=mine": "rules are 'mine'",
    "positives=-1": "positives",
    "freeze=9": "freeze is 9",
    "turn=-5": "turn is -5.0; it must be from 0 to 180",
    "options.patch_size=-3": "patch_size is -3",
}


def test_numbers_that_make_no_sense(refused, tmp_path):
    start = ("train", "deepmask", "shapes:9", "-o", tmp_path / "r", *QUICK)
    for word, said in NUMBERS.items():
        assert said in refused(*start, "--set", word), word
    assert "width is 0; it must be at least 1" in refused("bench", "--quick", "--set", "width=0")


def test_a_server_that_cannot_be_reached(refused, tmp_path, monkeypatch):
    assert download.COCO.startswith("http")
    monkeypatch.setattr(download, "COCO", "ftp://nowhere.invalid")
    assert "ftp://nowhere.invalid" in refused("data", "coco", tmp_path / "c", "--subset", 1)


# machines that refuse


def fail(monkeypatch, error):
    def raise_it(*args, **options):
        raise error

    monkeypatch.setattr("fairseg_lite.inference.propose.propose", raise_it)


@pytest.mark.parametrize("error, said", [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB.\nSee documentation"), "take a smaller picture"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "take a smaller picture"),
    (MemoryError(), "take a smaller picture"),
    (OSError(28, "No space left on device", "a.png"), "No space left on device: 'a.png'"),
])  # fmt: skip
def test_what_the_machine_refuses_is_a_line(refused, network, photo, tmp_path, monkeypatch, error, said):
    fail(monkeypatch, error)
    assert said in refused("propose", photo, "-o", tmp_path, "--model", network)


@pytest.mark.parametrize("error", [
    RuntimeError("shape mismatch"), ValueError("not enough values"), KeyError("x"), OSError("cannot write mode RGBA"),
], ids=lambda e: type(e).__name__)  # fmt: skip
def test_a_fault_of_ours_is_not_hidden(cli, network, photo, tmp_path, monkeypatch, error):
    fail(monkeypatch, error)
    with pytest.raises(type(error)) as raised:
        cli("propose", photo, "-o", tmp_path, "--model", network)
    assert raised.value is error


def test_debug_shows_the_traceback_besides(cli, tmp_path):
    code, _, err = cli("propose", tmp_path / "x.jpg", "-o", tmp_path, "--debug")
    assert code == 2
    assert err[0].startswith("Traceback")
    assert err[-1].startswith("fairseg-lite: picture")
