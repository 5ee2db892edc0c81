"""COCO by recipe, end to end: downloaded, planned and trained by two processes; on a look-alike of 40 pictures."""

import hashlib
import io
import json
import re
import threading
import zipfile

import pytest
from PIL import Image

from fairseg_lite.cli import main
from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.formats import download
from fairseg_lite.models.checkpoints import load_model
from tests.formats.test_download import Server
from tests.training.test_shards import ran, torchrun


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """A COCO folder of 40 pictures, fetched from a server on this machine by the command."""
    scenes, server, archives = ShapesDataset(40, seed=4, size=112), Server(), {}
    content = to_coco(scenes)
    for i, image in enumerate(content["images"]):
        image["file_name"], buffer = f"{image['id']:012d}.jpg", io.BytesIO()
        Image.fromarray(scenes[i].image).save(buffer, "JPEG", quality=95)
        archives[f"train2017/{image['file_name']}"] = buffer.getvalue()
    names = {"train2017": archives, "annotations": {"annotations/instances_train2017.json": json.dumps(content).encode()}}
    files = {}
    for name, members in names.items():
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        address, data = download.FILES[name][0], buffer.getvalue()
        server.files["/" + address], files[name] = data, (address, len(data), "md5:" + hashlib.md5(data).hexdigest())
    monkeypatch.setattr(download, "FILES", files)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(download, "COCO", server.url)
    assert main(["data", "coco", str(tmp_path / "coco"), "--split", "train2017"]) == 0
    server.shutdown()
    server.server_close()
    return tmp_path / "coco"


def test_the_papers_recipes_are_planned_and_trained_by_two_processes(coco, tmp_path):
    """Small networks in the place of VGG and ResNet-50; everything else is the recipe's."""
    out = {kind: tmp_path / kind for kind in ("deepmask", "sharpmask", "multipathnet")}
    own = {
        "deepmask": ["--set", "model=deepmask_tiny", "--set", "positives=4", "--set", "negatives=4"],
        "sharpmask": ["--from", out["deepmask"] / "model.safetensors", "--set", "positives=4"],
        "multipathnet": ["--proposals", out["sharpmask"] / "model.safetensors", "--set", "model=multipathnet_tiny",
                         "--set", "short_side=96,96", "--set", "rois=8", "--set", "top=30"],
    }  # fmt: skip
    words = []
    for kind, options in own.items():
        both = ["train", kind, coco, "--recipe", "paper", *options]
        words += [[*both, "--out", tmp_path / "planned" / kind, "--dry-run"], [*both, "--out", out[kind], "--steps", 2]]
    words.append(
        ["evaluate", out["sharpmask"] / "model.safetensors", coco, "--limit", 4, "--top-k", 9, "-o", tmp_path / "e.json"]
    )
    (tmp_path / "commands.json").write_text(json.dumps([[str(w) for w in line] for line in words]), "utf-8")
    said, _ = ran(torchrun(2, "tests.training.many", "commands", tmp_path, 2))
    assert not (tmp_path / "planned").exists(), "a dry run writes nothing"
    assert all(load_model(folder / "model.safetensors").record.recipe["fit"]["shards"] == 2 for folder in out.values())
    objects = len(json.loads((coco / "instances.json").read_text("utf-8"))["annotations"])
    assert said.count(f"data       40 pictures, {objects} objects of 9 categories") == 3
    assert said.count("processes: 2") == 3 and said.count("of 40 pictures were made") == 1
    plans = re.findall(r"plan       ([\d,]+) steps of (.*); sgd, lr 0.001", said)
    assert plans == [
        ("500,000", "8 patches"),
        ("500,000", "4 patches"),
        ("320,000", "4 pictures with 8 RoIs each"),
    ]
    samples = re.findall(r"samples    ([\d,]+), ([\d,.]+) for each (object|picture)", said)
    assert samples[0] == ("4,000,000", f"{4_000_000 / objects:,.1f}", "object")
    assert samples[2] == ("1,280,000", "32,000.0", "picture")
    times = re.findall(r"time       (.*), by 20 steps that were measured: (\S+) a second", said)
    assert len(times) == 3 and all(float(rate) > 0 and re.search("h|days", time) for time, rate in times)
    memory = re.findall(r"memory     ([\d,]+) MiB of a process; state.safetensors takes ([\d,]+) MiB", said)
    assert all(int(m.replace(",", "")) > 100 for m, _ in memory) and len(memory) == 3
    assert json.loads((tmp_path / "e.json").read_text("utf-8"))["pictures"] == 4
