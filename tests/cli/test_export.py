"""`export`: a network as a program of its own, which gives what the network gives."""

import sys

import pytest
import torch

from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.geometry.masks import paste_masks
from fairseg_lite.inference.export import Windows
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.checkpoints import load_model


def sizes_of(run, windows, *sizes):
    """A program and the network, on pictures of noise."""
    for height, width in sizes:
        picture = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        for a, b in zip(run(picture), windows(picture), strict=True):
            torch.testing.assert_close(torch.as_tensor(a), b, atol=1e-4, rtol=1e-4)


def test_an_exported_file_finds_the_best_windows_of_a_picture_of_any_size(cli, tmp_path):
    name = "shapes-sharp"
    assert cli("export", name, "-o", tmp_path / "x.pt2", "--top-k", 90)[0] == 0
    run, windows = torch.export.load(tmp_path / "x.pt2").module(), Windows(prepare(load_model(name)), 90)
    sizes_of(run, windows, (96, 64), (160, 208))
    few = run(torch.zeros(32, 32, 3, dtype=torch.uint8))[2]
    assert (few > 0).sum() == 9 and not few[9:].any(), "there are only so many windows"
    photo = torch.from_numpy(ShapesDataset(1, seed=1)[0].image)
    photo = photo[: len(photo) // 16 * 16, : photo.shape[1] // 16 * 16]
    found = propose(load_model(name), photo.numpy(), scales=[1.0], top_k=20)
    masks, boxes, scores = run(photo)
    torch.testing.assert_close(scores[: len(found)], found.scores, atol=1e-5, rtol=1e-4)
    pasted = paste_masks(masks[:20].logit(), boxes[:20], *photo.shape[:2], 0.0)
    assert torch.equal(pasted, found.masks())


def test_onnx_runs_without_torch(cli, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="of the extra fairseg-lite[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="of the extra fairseg-lite[onnx]")
    assert cli("export", "shapes-sharp", "-o", tmp_path / "x.onnx", "--top-k", 30)[0] == 0
    session = runtime.InferenceSession(tmp_path / "x.onnx")
    assert [x.name for x in session.get_outputs()] == ["masks", "boxes", "scores"]
    windows = Windows(prepare(load_model("shapes-sharp")), 30)
    sizes_of(lambda picture: session.run(None, {"picture": picture.numpy()}), windows, (96, 64), (160, 208))


def test_what_cannot_be_exported_is_refused(cli, refused, tmp_path, monkeypatch):
    assert "the name ends in .pt2" in refused("export", "shapes", "-o", tmp_path / "x.pth")
    assert "wanted a DeepMask or SharpMask" in refused("export", "shapes-multipath", "-o", tmp_path / "x.pt2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'fairseg-lite[onnx]'" in refused("export", "shapes", "-o", tmp_path / "x.onnx")
    assert not list(tmp_path.glob("*")), "nothing half-written"
