"""`propose` and `demo`: what they write, what they leave out, what Ctrl-C keeps."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.cli import inputs, propose
from fairseg_lite.data import pictures
from fairseg_lite.inference.found import load_results


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_picture_gets_masks_drawn_in_and_coco_results(cli, network, photo, tmp_path):
    out = tmp_path / "made" / "out"
    code, said, _ = cli("propose", photo, "-o", out, "--model", network, "--top-k", 7, "--draw", 3)
    assert code == 0
    assert sorted(p.name for p in out.iterdir()) == ["photo.png", "proposals.json"]
    rows = json.loads((out / "proposals.json").read_text("utf-8"))
    assert len(rows) == 7
    assert {row["file_name"] for row in rows} == {"photo.jpg"}
    found = load_results(out / "proposals.json")[1]
    assert found.masks().shape == (7, 70, 90)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    drawn = (pixels(out / "photo.png") != pixels(photo)).any(2)
    assert 0 < drawn.sum() <= found.masks().any(0).sum(), "colour lies on masks only"
    assert re.match(r"7 proposals for 1 of 1 pictures, \d+\.\d s each, in ", said[0])


def test_more_proposals_than_windows_gives_those_there_are_and_says_so(cli, network, photo, tmp_path):
    for model in (network, "shapes-sharp"):
        code, said, _ = cli("propose", photo, "-o", tmp_path, "--model", model, "--top-k", 9999, "--draw", 0)
        rows = json.loads((tmp_path / "proposals.json").read_text("utf-8"))
        assert code == 0 and 7 < len(rows) < 9999 and all(row["score"] < 1 for row in rows)
        assert f"fewer than the 9999 asked for in 1 of 1 pictures (first: photo.jpg: {len(rows)})" in " ".join(said)
    said = cli("propose", photo, "-o", tmp_path, "--model", network, "--top-k", 7, "--draw", 0)[1]
    assert "fewer" not in " ".join(said)


def test_options_reach_the_proposals(cli, network, photo, tmp_path):
    def count(*options):
        code, *_ = cli("propose", photo, "-o", tmp_path / "o", "--model", network, "--top-k", 60, "--draw", 0, *options)
        assert code == 0
        return len(json.loads((tmp_path / "o/proposals.json").read_text("utf-8")))

    plain = count()
    assert count("--set", "nms=0.3") < plain
    assert count("--set", "max_side=16", "--set", "nms=0.99") < plain
    assert not (tmp_path / "o/photo.png").exists()


def test_a_folder_takes_the_ids_of_its_annotations(cli, network, scenes, tmp_path):
    names = {i["file_name"]: i["id"] for i in json.loads((scenes / "instances.json").read_text("utf-8"))["images"]}
    cli("propose", scenes, "-o", tmp_path, "--model", network, "--top-k", 2)
    rows = json.loads((tmp_path / "proposals.json").read_text("utf-8"))
    assert {row["file_name"]: row["image_id"] for row in rows} == names
    (tmp_path / "bare").symlink_to(scenes / "images")
    cli("propose", tmp_path / "bare", "-o", tmp_path, "--model", network, "--top-k", 2, "--draw", 0)
    rows = json.loads((tmp_path / "proposals.json").read_text("utf-8"))
    assert [row["image_id"] for row in rows] == [1, 1, 2, 2]


def test_a_damaged_picture_in_a_folder_is_named_left_out_and_counted(cli, network, photo, tmp_path):
    (photo.parent / "cut.jpg").write_bytes(photo.read_bytes()[:700])
    (photo.parent / "notes.txt").write_text("no picture", "utf-8")
    code, said, err = cli("propose", photo.parent, "-o", tmp_path, "--model", network, "--top-k", 2)
    assert code == 2
    told = [line for line in err if line.startswith("fairseg-lite: ")]  # on a slow machine there is a bar, too
    assert len(told) == 1 and "cut.jpg" in told[0]
    assert {row["file_name"] for row in json.loads((tmp_path / "proposals.json").read_text("utf-8"))} == {"photo.jpg"}
    assert "1 of 2 pictures left out" in said


def test_pictures_that_differ_in_their_ending_only_are_kept_apart(cli, network, photo, tmp_path):
    Image.open(photo).convert("L").save(photo.with_suffix(".bmp"))
    assert cli("propose", photo.parent, "-o", tmp_path, "--model", network, "--top-k", 2)[0] == 0
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["photo.bmp.png", "photo.jpg.png"]


def test_ctrl_c_keeps_what_was_done(cli, network, scenes, tmp_path, monkeypatch):
    calls, load = [], pictures.load_image

    def load_one_then_stop(path, size=None):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return load(path, size)

    monkeypatch.setattr(pictures, "load_image", load_one_then_stop)
    code, _, err = cli("propose", scenes, "-o", tmp_path, "--model", network, "--top-k", 3)
    assert code == 130
    assert "1 of 2 pictures are kept" in err[-1]
    assert len(json.loads((tmp_path / "proposals.json").read_text("utf-8"))) == 3


def test_a_full_disk_is_one_line_and_harms_nothing(network, photo, tmp_path, monkeypatch, refused):
    (tmp_path / "photo.png").write_bytes(b"from before")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inputs.os, "replace", full)
    line = refused("propose", photo, "-o", tmp_path, "--model", network, "--top-k", 2)
    assert "No space left on device" in line
    assert (tmp_path / "photo.png").read_bytes() == b"from before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "photo.png"]


def test_the_folder_of_the_pictures_is_not_written_to(network, photo, refused):
    before = photo.read_bytes()
    line = refused("propose", photo, "-o", photo.parent, "--model", network)
    assert "holds the pictures themselves" in line
    assert photo.read_bytes() == before
    assert [p.name for p in photo.parent.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 3)])
def test_a_tiny_picture_gets_proposals_that_fit_it(cli, network, tmp_path, size):
    Image.new("RGB", size[::-1], "teal").save(tmp_path / "tiny.png")
    assert cli("propose", tmp_path / "tiny.png", "-o", tmp_path / "o", "--model", network, "--top-k", 4)[0] == 0
    for row in json.loads((tmp_path / "o/proposals.json").read_text("utf-8")):
        assert row["segmentation"]["size"] == list(size)


@pytest.fixture
def one_photograph(monkeypatch):
    """The demo draws one photograph; all four are drawn where the README's commands are run."""
    monkeypatch.setattr(propose, "PHOTOGRAPHS", propose.PHOTOGRAPHS[:1])


@pytest.mark.usefixtures("one_photograph")
def test_demo_finds_and_names_in_photographs_and_in_a_picture_of_yours(cli, photo, tmp_path):
    code, said, err = cli("demo", photo, "-o", tmp_path / "d")
    assert (code, err) == (0, [])
    written = sorted(p.name for p in (tmp_path / "d").iterdir())
    assert written == ["photo.json", "photo.png", "photographs.png"]
    assert [line.rsplit("/")[-1] for line in said if line.endswith((".png", ".json"))] == [
        "photographs.png", "photo.png", "photo.json",
    ]  # fmt: skip
    assert [line.split(":")[0] for line in said if "named" in line] == ["named in photo.jpg"]
    height, width, _ = pixels(tmp_path / "d/photographs.png").shape
    assert height > 2.5 * width, "one photograph, its objects, what is found and the names"
    assert all(row["segmentation"]["size"] == [70, 90] for row in json.loads((tmp_path / "d/photo.json").read_text("utf-8")))
