"""`fairseg-lite import`: a Torch7 file becomes a checkpoint that the other commands take; downloads that go wrong."""

import pytest
import torch

from fairseg_lite.cli.data import OFFICIAL
from fairseg_lite.formats import download
from fairseg_lite.models.checkpoints import load_model
from tests.formats.test_download import server  # noqa: F401  (a fixture)
from tests.official.small import Official, small_deepmask, small_sharpmask
from tests.official.small_vgg import OfficialVGG, small_vgg
from tests.official.writer import dump


@pytest.fixture
def file(tmp_path):
    """A small official SharpMask."""
    path = tmp_path / "model.t7"
    path.write_bytes(dump(Official().sharpmask(small_sharpmask())))
    return path


def test_a_file_becomes_a_checkpoint(cli, file, tmp_path, photo):
    out = tmp_path / "sharp.safetensors"
    code, said, err = cli("import", file, "-o", out)
    assert (code, err) == (0, [])
    assert said[0].startswith(f"reading {file} (")
    assert said[1].startswith("sharpmask_resnet50: ") and said[1].endswith("each in its place")
    assert "iSz 32" in said[2] and "km 16" in said[2]
    model = load_model(out, kind="SharpMask")
    x = torch.zeros(1, 3, 64, 64)
    assert torch.equal(model(x).masks, small_sharpmask()(x).masks)
    about = model.record.about
    assert (about["source"], about["config"]["oSz"]) == ("model.t7", 8)
    code, _, _ = cli("propose", photo, "-o", tmp_path / "found", "--model", out)
    assert code == 0 and (tmp_path / "found").is_dir()


def test_multipathnet_with_vgg(cli, tmp_path):
    path, out = tmp_path / "model.t7", tmp_path / "vgg.safetensors"
    path.write_bytes(dump(OfficialVGG().vgg(small_vgg("multipathnet"))))
    code, said, err = cli("import", path, "-o", out)
    assert (code, err) == (0, []) and said[1].startswith("multipathnet_vgg16: ")
    assert "takes pictures as Caffe's VGG does" in said[2] and said[3] == f"{out} written"
    assert load_model(out, kind="MultiPathNet").box_region is not None


def test_bad_input(refused, file, tmp_path):
    out = tmp_path / "x.safetensors"
    assert "wants a FILE or --download NAME, and not both" in refused("import", "-o", out)
    assert "wants a FILE or --download" in refused("import", file, "--download", "deepmask", "-o", out)
    assert "--download is 'fast'; choose one of 'deepmask', " in refused("import", "--download", "fast", "-o", out)
    assert "ends in .safetensors" in refused("import", file, "-o", tmp_path / "x.pt")
    assert "No such file" in refused("import", tmp_path / "none.t7", "-o", out)
    file.write_bytes(file.read_bytes()[:5000])
    assert "at byte" in refused("import", file, "-o", out) and not out.exists()
    file.write_bytes(b"PK\x03\x04 not a model")
    assert f"'{file}': no binary Torch7 file" in refused("import", file, "-o", out)
    file.write_bytes(dump({"model": 5}))
    assert "wanted an official DeepMask" in refused("import", file, "-o", out)


@pytest.fixture
def official(server, monkeypatch):  # noqa: F811
    """The local server in the place of FAIR's, with a small DeepMask."""
    content = dump(Official().deepmask(small_deepmask()))
    server.files["/file"] = content
    monkeypatch.setitem(OFFICIAL, "deepmask", f"{server.url}/file")
    options = download.download.__kwdefaults__
    monkeypatch.setattr(download.download, "__kwdefaults__", {**options, "wait": 0.01, "timeout": 0.5, "tries": 3})
    return server


def test_download(cli, official, tmp_path):
    """Given up in a first call, gone on with after a break in the second, and not fetched a third time."""
    out = tmp_path / "deepmask.safetensors"
    official.faults["/file"] = ["drops", "hang up", "hang up", "hang up"]
    code, _, err = cli("import", "--download", "deepmask", "-o", out)
    assert code == 2 and "failed 3 times in a row" in err[-1] and not out.exists()
    official.requests.clear()
    official.faults["/file"] = ["drops"]
    code, said, _ = cli("import", "--download", "deepmask", "-o", out)
    assert code == 0 and "deepmask_resnet50: " in said[1]
    (_, first), (_, again) = official.requests
    assert first is None and again.startswith("bytes=")
    assert load_model(out).patch_size == 32
    code, said, _ = cli("import", "--download", "deepmask", "-o", out)
    assert code == 0 and "is there already" in said[0] and len(official.requests) == 2
    code, said, _ = cli("import", "--download", OFFICIAL["deepmask"], "-o", tmp_path / "mine.safetensors")
    assert code == 0 and (tmp_path / "mine.t7").read_bytes() == official.files["/file"]


@pytest.mark.parametrize("fault, message", [
    ("404", "404"), ("no length", "does not say how long"), ("gives nothing", "ended after 0 of"),
    ("html", "no Torch7 file that came"), ("other content", "no Torch7 file that came"),
])  # fmt: skip
def test_a_server_that_lies(cli, official, tmp_path, fault, message):
    official.faults["/file"] = [fault] * 20
    code, _, err = cli("import", "--download", "deepmask", "-o", tmp_path / "deepmask.safetensors")
    assert code == 2 and message in err[-1]
    assert not list(tmp_path.glob("deepmask.safe*")) and not (tmp_path / "deepmask.t7").exists()


def test_the_official_addresses_are_of_the_official_places():
    assert set(OFFICIAL) == {"deepmask", "sharpmask", "multipathnet"}
    assert all(a.startswith("https://s3.amazonaws.com/") and a.endswith(".t7") for a in OFFICIAL.values())
