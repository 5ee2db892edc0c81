"""`train`, `evaluate`, `data` and `bench`, each on the smallest thing that is still real."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from inspect import Parameter, signature

import pytest
import torch
from safetensors.torch import save_file

from fairseg_lite.cli import build_parser
from fairseg_lite.cli.train import deepmask_recipe, options_of, sampler_of, stored_run
from fairseg_lite.data.coco import write_coco_folder
from fairseg_lite.data.patches import PatchSampler
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models import deepmask
from fairseg_lite.models.checkpoints import MODELS, load_model, load_tensors
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.network import Record, recorded
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.official.patches import OfficialSampler
from fairseg_lite.training.recipes import DEEPMASK, SHARPMASK

QUICK = ("--steps", 2, "--set", "positives=3", "--set", "negatives=1")
SHARP = ("--steps", 2, "--set", "positives=4")


def steps(out):
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text("utf-8").splitlines()]


def test_train_on_shapes_writes_a_network_that_propose_and_evaluate_take(cli, tmp_path):
    out = tmp_path / "run"
    code, said, _ = cli("train", "deepmask", "shapes:20", "--out", out, *QUICK, "--valid", "shapes:1", "--set", "fit.seed=3")
    assert code == 0
    assert {"model.safetensors", "state.safetensors", "log.jsonl", "valid.json"} <= {p.name for p in out.iterdir()}
    assert load_model(out / "model.safetensors").record.recipe["fit"]["seed"] == 3
    numbers = json.loads((out / "valid.json").read_text("utf-8"))["patches"]
    assert f"mean IoU {numbers['mean_iou']:.3f}" in said[-1]
    code, said, _ = cli("evaluate", out / "model.safetensors", "shapes:2", "--limit", 1, "--top-k", 20, "-o", tmp_path / "r.json")
    assert code == 0
    result = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (result["pictures"], result["of"]) == (1, 2)
    assert 0 <= result["recall"]["segm"]["ar"]["10"] <= 1
    assert f"mean IoU {result['patches']['mean_iou']:.3f}" in said[0]


def test_data_makes_a_folder_that_check_and_train_take(cli, refused, tmp_path):
    code, said, _ = cli("data", "shapes", tmp_path / "s", "-n", 2, "--seed", 5)
    assert code == 0
    assert "2 scenes" in said[0]
    assert cli("data", "check", tmp_path / "s")[0] == 0
    assert cli("train", "deepmask", tmp_path / "s", "-o", tmp_path / "r", *QUICK)[0] == 0
    assert "holds a data set already" in refused("data", "shapes", tmp_path / "s", "-n", 2)
    next((tmp_path / "s/images").iterdir()).write_bytes(b"gone bad")
    code, said, _ = cli("data", "check", tmp_path / "s")
    assert code == 2
    assert "1 faults:" in "\n".join(said)


def recipe(*words):
    a = build_parser().parse_args(["train", "deepmask", "shapes", "--out", "nowhere", *map(str, words)])
    return deepmask_recipe(a, stored_run(a, "deepmask"))


def test_the_command_line_changes_its_own_numbers_only():
    assert recipe() == DEEPMASK["shapes"]
    changed = asdict(recipe("--set", "positives=6", "--set", "fit.lr=.5", "--steps", 50))
    assert (changed.pop("positives"), changed["fit"]["lr"], changed["fit"]["steps"]) == (6, 0.5, 50)
    assert changed["fit"]["warmup"] == 5, "a short run warms up shortly"
    assert recipe("--steps", 50, "--set", "fit.warmup=20").fit.warmup == 20
    same = asdict(DEEPMASK["shapes"])
    assert all(changed[k] == same[k] for k in changed if k != "fit")


def test_another_network_takes_its_own_options():
    changed = recipe("--recipe", "photos", "--set", "model=deepmask_tiny", "--set", "options.features=16")
    assert (changed.model, changed.options, changed.positives) == (
        "deepmask_tiny",
        {"features": 16},
        DEEPMASK["photos"].positives,
    )
    with pytest.raises(InputError, match="options has no 'k'; choose of patch_size, .*features"):
        recipe("--set", "options.k=3")
    with pytest.raises(InputError, match="model is 'sharpmask_tiny'; choose one of .*'deepmask_tiny'"):
        recipe("--set", "model=sharpmask_tiny")


@pytest.mark.parametrize("name", MODELS)
def test_every_option_that_is_offered_is_one(name):
    """Each network takes the default of each of its options by name."""
    known: dict = {}
    for function in (SharpMask.__init__, MultiPathNet.__init__, MODELS[name]):
        known |= signature(function).parameters
    kwargs = {"num_classes": 2} if name.startswith("multipathnet") else {}
    offered = options_of(name)
    assert offered or name == "deepmask_lite0"
    with torch.device("meta"):
        for option in offered:
            assert known[option].default is not Parameter.empty
            assert MODELS[name](**kwargs, **{option: known[option].default}).record.kwargs[option] == known[option].default


def test_stages_are_frozen_only_where_the_trunk_has_learnt_something():
    assert recipe("--recipe", "photos", "--trunk-weights", "W").freeze == DEEPMASK["photos"].freeze > 0
    assert recipe("--recipe", "photos").freeze == 0
    assert recipe("--recipe", "photos", "--set", "model=deepmask_tiny").freeze == 0


def test_each_recipe_gets_the_sampler_of_its_rules():
    samplers = {name: sampler_of(r) for name, r in (DEEPMASK | {"sharp": SHARPMASK["official"]}).items()}
    official = {name for name, sampler in samplers.items() if sampler is OfficialSampler}
    assert official == {"official", "sharp"} and samplers["paper"] is PatchSampler


def test_photos_recipe_takes_trunk_weights_from_a_file(cli, scenes, tmp_path, monkeypatch):
    built = []

    def deepmask_resnet50(*, trunk_weights: str | None = None, stride_in_1x1: bool = False):
        built.append((stride_in_1x1, trunk_weights))
        return deepmask_tiny()

    monkeypatch.setitem(deepmask.MODELS, "deepmask_resnet50", recorded(deepmask_resnet50))
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "trunk.safetensors")
    options = ("--recipe", "photos", "--trunk-weights", tmp_path / "trunk.safetensors", "--set", "fit.precision=fp32")
    options += ("--set", "options.stride_in_1x1=true")
    code, *_ = cli("train", "deepmask", scenes, "-o", tmp_path / "r", *options, *QUICK)
    assert code == 0
    assert built == [(True, str(tmp_path / "trunk.safetensors"))]
    built.clear()
    record = Record.of(load_tensors(tmp_path / "r/model.safetensors")[1])
    assert (record.model, record.kwargs, record.padding) == ("deepmask_resnet50", {"stride_in_1x1": True}, "mean")
    code, *_ = cli("train", "deepmask", scenes, "-o", tmp_path / "r", "--steps", 3, "--resume")
    assert code == 0
    assert built == [(True, None)], "resumed: the same network, its weights from the run"


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_ctrl_c_keeps_the_step_and_resume_goes_on_with_the_runs_own_numbers(cli, tmp_path):
    out, words = tmp_path / "run", ("train", "deepmask", "shapes:20", "--out", tmp_path / "run")
    numbers = ("--steps", "5000", "--set", "fit.lr=0.004", "--set", "positives=3", "--set", "negatives=1")
    command = [sys.executable, "-m", "fairseg_lite.cli", *map(str, words), *numbers]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    end = time.monotonic() + 120
    while not (out / "log.jsonl").exists():
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    kept = load_tensors(out / "state.safetensors")[1]
    assert f"stopped; step {kept['step']} is kept" in err.splitlines()[-1]
    assert 10 <= kept["step"] == steps(out)[-1] < 5000
    assert not (out / "model.safetensors").exists()
    last = kept["step"] + 3
    assert cli("train", "deepmask", "shapes:20", "--out", out, "--resume", "--steps", last)[0] == 0
    assert steps(out)[-1] == last
    resumed = load_tensors(out / "state.safetensors")[1]
    assert resumed["fit"] == {**kept["fit"], "steps": last}
    assert resumed["recipe"]["positives"] == 3
    assert (out / "model.safetensors").exists()


def test_what_is_settled_when_a_run_begins_is_not_changed_silently(cli, refused, tmp_path):
    out = tmp_path / "r"
    words = ("train", "deepmask", "shapes:20", "--out", out)
    assert cli(*words, *QUICK, "--set", "options.features=16", "--recipe", "lesson")[0] == 0
    resumed = (*words, "--resume", "--steps", 3)
    for change, said in (
        (("--set", "options.features=32"), "began with options {'features': 16}, and now it is {'features': 32}"),
        (("--set", "model=deepmask_vgg_a"), "began with model 'deepmask_tiny', and now it is 'deepmask_vgg_a'"),
        (("--set", "fit.optimizer=sgd"), "began with fit.optimizer 'adamw', and now it is 'sgd'"),
        (("--set", "freeze=1"), "began with freeze 0, and now it is 1"),
        (("--recipe", "shapes"), "--recipe is shapes, and the run in"),
    ):
        assert said in refused(*resumed, *change)
    assert steps(out) == [2], "nothing was done"
    assert cli(*resumed, "--recipe", "lesson", "--set", "fit.lr=1e-4", "--set", "options.features=16")[0] == 0
    last = json.loads((out / "log.jsonl").read_text("utf-8").splitlines()[-1])
    assert last["step"] == 3 and last["lr"] <= 1e-4


def test_several_data_sets_in_one_training(cli, refused, scenes, tmp_path):
    words = ("train", "deepmask", "shapes:20", scenes, "--out", tmp_path / "r")
    assert "weights" in refused(*words, *QUICK, "--weights", 1)
    assert cli(*words, *QUICK, "--weights", 3, 1)[0] == 0
    assert cli("train", "sharpmask", "shapes:20", scenes, "--out", tmp_path / "s", *SHARP)[0] == 0


def test_bench_prints_every_stage_against_the_ceiling(cli, tmp_path):
    code, said, _ = cli("bench", "--quick", "--dtype", "fp32", "--json", tmp_path / "b.json")
    assert code == 0
    table = "\n".join(said)
    for word in ("trunk", "masks", "paste", "total", "of ceiling", "steps/s", "patches/s", "peak memory"):
        assert word in table, word
    result = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert result["settings"]["model"] == "deepmask_tiny"
    assert set(result["dtypes"]) == {"fp32"}


def test_sharpmask_on_top_of_a_run_and_resumed(cli, refused, tmp_path):
    deep, out = tmp_path / "deep", tmp_path / "sharp"
    assert cli("train", "deepmask", "shapes:20", "--out", deep, *QUICK)[0] == 0
    words = ("train", "sharpmask", "shapes:20", "--out", out)
    source = ("--from", deep / "model.safetensors")
    code, said, _ = cli(*words, *source, *SHARP, "--set", "options.k=16", "--valid", "shapes:1")
    assert code == 0 and said[-2].startswith("sharpmask_tiny: 2 steps") and "mean IoU" in said[-1]
    model = load_model(out / "model.safetensors", kind="SharpMask")
    assert model.record.kwargs == {"deepmask": {}, "k": 16}
    assert (model.record.recipe["positives"], model.record.recipe["negatives"]) == (4, 0)
    before = load_model(deep / "model.safetensors").state_dict()
    assert all(torch.equal(v, before[k]) for k, v in model.deepmask.state_dict().items())
    assert cli(*words, "--resume", "--steps", 3)[0] == 0  # neither --from nor k again: both come with the run
    assert steps(out)[-1] == 3
    assert "holds a run of sharpmask_tiny; resume it with train sharpmask" in refused(
        "train", "deepmask", "shapes:20", "--out", out, "--resume"
    )
    code, text, _ = cli(*words[:-1], tmp_path / "on", "--from", out / "model.safetensors", "--steps", 1)
    assert code == 0 and text[-1].startswith("sharpmask_tiny: 1 steps")  # a SharpMask goes on as a whole
    assert "holds a MultiPathNet; wanted" in refused(*words[:-1], tmp_path / "x", "--from", "shapes-multipath")
    assert "k is 24; halved four times" in refused(*words[:-1], tmp_path / "x", *source, "--set", "options.k=24")


def test_a_run_goes_on_with_the_categories_that_it_began_with(cli, refused, tmp_path):
    write_coco_folder(ShapesDataset(2, seed=4), tmp_path / "scenes", progress=False)
    words = ("train", "deepmask", tmp_path / "scenes", "--out", tmp_path / "r")
    assert cli(*words, *QUICK)[0] == 0
    assert load_model(tmp_path / "r/model.safetensors").record.categories == (), "it names nothing"
    path = tmp_path / "scenes/instances.json"
    truth = json.loads(path.read_text("utf-8"))
    names = [c["name"] for c in truth["categories"]]
    for category, name in zip(truth["categories"], reversed(names), strict=True):
        category["name"] = name
    path.write_text(json.dumps(truth), "utf-8")
    said = refused(*words, "--resume", "--steps", 3)
    assert f"began with categories {', '.join(names)}, and now it is {', '.join(reversed(names))}; that is settled" in said


def test_end_to_end_sees_negatives(cli, refused, tmp_path):
    out, both = tmp_path / "r", ("--set", "end_to_end=true")
    assert "set negatives above 0" in refused("train", "sharpmask", "shapes:20", "--out", out, *both)
    assert cli("train", "sharpmask", "shapes:20", "--out", out, "--steps", 1, *both, "--set", "negatives=16")[0] == 0
    recipe = load_tensors(out / "model.safetensors")[1]["recipe"]
    assert recipe["end_to_end"] and recipe["negatives"] == 16


def test_propose_shows_both_masks_of_a_sharpmask(cli, tmp_path):
    assert cli("train", "sharpmask", "shapes:20", "--out", tmp_path / "r", *SHARP)[0] == 0
    assert cli("data", "shapes", tmp_path / "s", "-n", 1)[0] == 0
    found = []
    for i, options in enumerate(([], ["--coarse"], ["--coarse", "--model", "shapes"])):
        model = [] if "--model" in options else ["--model", tmp_path / "r/model.safetensors"]
        code, *_ = cli("propose", tmp_path / "s", "-o", tmp_path / f"o{i}", "--top-k", 3, "--draw", 0, *model, *options)
        assert code == 0
        found.append(json.loads((tmp_path / f"o{i}/proposals.json").read_text("utf-8")))
    assert found[0] != found[1] == found[2]
