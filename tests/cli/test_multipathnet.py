"""`train multipathnet` and `ablate`, each on the smallest thing that is still real."""

import json
import shutil

import pytest

from fairseg_lite.cli import build_parser
from fairseg_lite.cli.naming import _start
from fairseg_lite.cli.train import recipe_of
from fairseg_lite.data.coco import CocoDataset, write_coco_folder
from fairseg_lite.data.results import save_boxes
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.training.recipes import MULTIPATHNET
from tests.data.test_rois import around

FP32 = ("--set", "fit.precision=fp32")
FAST = [word for idea in ("integral", "foveal", "skip") for word in ("--set", f"options.{idea}=false")]
QUICK = ("--steps", 2, "--set", "images=1", *FAST, *FP32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two scenes in COCO format and proposals for them; read only."""
    where = tmp_path_factory.mktemp("multipathnet")
    write_coco_folder(ShapesDataset(2, seed=4), where / "scenes", progress=False)
    save_boxes(where / "boxes.json", around(CocoDataset(where / "scenes"), copies=3))
    return where


def test_train_measure_and_resume(cli, refused, folder, tmp_path):
    words = ("train", "multipathnet", folder / "scenes", "--out", tmp_path / "r", "--proposals", folder / "boxes.json")
    held_out = ("--valid", folder / "scenes", "--valid-proposals", folder / "boxes.json")
    code, said, _ = cli(*words, *QUICK, *held_out)
    assert code == 0
    assert said[-2].startswith("multipathnet_tiny: 2 steps, last loss") and "AP50" in said[-1]
    model = load_model(tmp_path / "r/model.safetensors", kind="MultiPathNet")
    assert model.thresholds == (0.5,) and len(model.regions) == 1
    assert model.record.recipe["images"] == 1 and model.record.categories[0] == "square"
    report = json.loads((tmp_path / "r/valid.json").read_text("utf-8"))
    assert report["boxes"]["pictures"] == 2 and f"AP {report['boxes']['ap']:.3f}" in said[-1]
    assert cli(*words[:-2], "--resume", "--steps", 3)[0] == 0, "switches and proposals come with the run"
    assert load_model(tmp_path / "r/model.safetensors").thresholds == (0.5,)
    assert "--proposals is shapes, and the run in" in refused(*words[:-2], "--resume", "--proposals", "shapes")
    categories = _renamed(folder / "scenes", tmp_path / "other")
    assert "began with categories square, triangle, star" in refused(
        "train", "multipathnet", categories, *words[3:5], "--resume", "--proposals", folder / "boxes.json", "--steps", 4
    )
    steps = [json.loads(line)["step"] for line in (tmp_path / "r/log.jsonl").read_text("utf-8").splitlines()]
    assert steps[-1] == 3
    assert "holds a run of multipathnet_tiny; resume it with train multipathnet" in refused(
        "train", "deepmask", folder / "scenes", "--out", tmp_path / "r", "--resume"
    )


def test_a_dry_run_looks_at_every_set(cli, folder, tmp_path):
    words = ("train", "multipathnet", "shapes:60", folder / "scenes", "--out", tmp_path / "r", "--dry-run")
    code, said, _ = cli(*words, *QUICK)
    assert code == 0 and "proposals  of 12 pictures were made" in "\n".join(said)  # 10 of the first, both of the second


def test_proposals_may_name_their_pictures(cli, folder, tmp_path):
    rows, names = (
        json.loads((folder / "boxes.json").read_text("utf-8")),
        json.loads((folder / "scenes/instances.json").read_text("utf-8")),
    )
    files = {i["id"]: i["file_name"] for i in names["images"]}
    (tmp_path / "p.json").write_text(json.dumps([{**r, "image_id": files[r["image_id"]]} for r in rows]), "utf-8")
    words = ("train", "multipathnet", folder / "scenes", "--out", tmp_path / "r", "--proposals", tmp_path / "p.json")
    assert cli(*words, *QUICK)[0] == 0


def test_proposals_left_out_are_told(cli, folder, tmp_path):
    rows = json.loads((folder / "boxes.json").read_text("utf-8"))
    rows += [{"image_id": rows[0]["image_id"], "bbox": [500, 9, 30, 30], "score": 1}] * 3
    (tmp_path / "p.json").write_text(json.dumps(rows), "utf-8")
    words = ("train", "multipathnet", folder / "scenes", "--out", tmp_path / "r", "--proposals", tmp_path / "p.json")
    code, said, _ = cli(*words, *QUICK)
    assert code == 0 and "3 outside" in said[0]


def test_a_network_makes_the_proposals_once(cli, folder, tmp_path):
    words = ("train", "multipathnet", "shapes:2", "--out", tmp_path, "--proposals", "shapes", "--set", "top=10")
    assert cli(*words, *QUICK)[0] == 0
    path = tmp_path / "proposals-train-shapes-10.json"
    rows = json.loads(path.read_text("utf-8"))["annotations"]
    assert len(rows) == 20 and {r["image_id"] for r in rows} == {1, 2}
    before = path.stat().st_mtime_ns
    assert cli(*words[:-2], "--resume", "--steps", 3)[0] == 0
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "why"), [(("--weights", 1, 2), "1 data sets"), (("--exhaustive", "none", "all"), "1 data sets")]
)
def test_options_of_several_sets_fit_their_number(refused, folder, tmp_path, words, why):
    assert why in refused("train", "multipathnet", folder, "-o", tmp_path / "r", *words)


def test_bad_words(refused, folder, tmp_path):
    words = ("train", "multipathnet", folder / "scenes", "--out", tmp_path / "r")
    mine = (*words, "--proposals", folder / "boxes.json")
    assert "needs another for that data" in refused(*mine, "--valid", "shapes:2")
    assert "proposals for 2 of 2 pictures (the first has id 1)" in refused(
        "train", "multipathnet", _other(tmp_path), "--out", tmp_path / "r", "--proposals", folder / "boxes.json"
    )
    assert "integral is 11; it must be from 1 to 10" in refused(*mine, "--set", "options.integral=11")
    assert "begins with a tiny DeepMask" in refused(*mine, "--trunk-weights", "ResNet50_Weights.DEFAULT")
    assert "no such file, and no torchvision name" in refused(
        *mine, "--set", "model=multipathnet_resnet18", "--trunk-weights", "shapes"
    )
    assert "options has no 'stride_in_1x1'" in refused(*mine, "--set", "options.stride_in_1x1=true")
    assert "holds no network that proposes but a MultiPathNet" in refused(*words, "--proposals", "shapes-multipath")
    assert "nothing.json' cannot be read" in refused(*words, "--proposals", tmp_path / "nothing.json")
    (tmp_path / "empty.json").write_text("[]", "utf-8")
    assert "hold no proposal" in refused(*words, "--proposals", tmp_path / "empty.json")
    assert cli_trained(tmp_path) == []


def _renamed(source, target):
    """The same folder, but that its first category has another name."""
    shutil.copytree(source, target)
    path = target / "instances.json"
    path.write_text(path.read_text("utf-8").replace('"name": "square"', '"name": "box"'), "utf-8")
    return target


def _other(tmp_path):
    """A folder whose pictures have other ids."""
    write_coco_folder(ShapesDataset(1, seed=4), tmp_path / "other", progress=False)
    path = tmp_path / "other/instances.json"
    text = path.read_text("utf-8").replace('"image_id": 1,', '"image_id": 91,')
    path.write_text(text.replace('"images": [{"id": 1,', '"images": [{"id": 91,'), "utf-8")
    return tmp_path / "other"


def cli_trained(folder):
    return list(folder.rglob("state.safetensors"))


def test_the_words_change_what_they_name():
    def changed(*words, recipe="shapes"):
        a = build_parser().parse_args(["train", "multipathnet", "shapes", "--out", "x", "--recipe", recipe, *words])
        return recipe_of(a, "multipathnet", {})

    for name, recipe in MULTIPATHNET.items():
        assert changed(recipe=name) == recipe
    assert changed("--set", "options.integral=4").options == {"integral": 4}
    assert changed("--set", "model=multipathnet_tiny", recipe="official").options == {}
    assert changed("--set", "untied=true", "--set", "images=7").images == 7
    assert changed("--set", "short_side=256,256").short_side == (256, 256)
    assert changed("--set", "options.stride_in_1x1=true", recipe="photos").options == {
        **MULTIPATHNET["photos"].options,
        "stride_in_1x1": True,
    }


def test_a_tiny_network_begins_with_a_deepmask_unless_told():
    def start(*words):
        return _start(build_parser().parse_args(["train", "multipathnet", "shapes", "--out", "x", *words]), "multipathnet_tiny")

    plain, sharp = start()["trunk_from"], start("--trunk-weights", "shapes-sharp")["trunk_from"]
    assert all((v == sharp.trunk.state_dict()[k]).all() for k, v in plain.trunk.state_dict().items())
    assert start("--trunk-weights", "none") == {}


def test_ablate_from_the_command_line(cli, refused, folder, tmp_path):
    words = ("ablate", tmp_path / "t", "--data", folder / "scenes", "--proposals", folder / "boxes.json")
    words += ("--valid", folder / "scenes", "--valid-proposals", folder / "boxes.json", "--seeds", 1, *FP32)
    code, said, _ = cli(*words, "--steps", 1)
    assert code == 0
    assert said[0].split()[:3] == ["integral", "foveal", "skip"] and len(said) == 8
    assert said[-1].startswith("6 runs of multipathnet_tiny, 1 steps each")
    assert {"table.txt", "table.json", "table.png", "settings.json", "runs"} <= {p.name for p in (tmp_path / "t").iterdir()}
    text = (tmp_path / "t/table.txt").read_text("utf-8").splitlines()
    assert text[1:] == said[:-1]
    assert "recipe.fit.steps = 1, now it is 2" in refused(*words, "--steps", 2)
    again = cli(*words, "--steps", 1)[1]
    assert again == said
