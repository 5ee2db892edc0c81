"""The second stage: what it trains, what it keeps, what it refuses; checkpoints of both kinds are told apart."""

from dataclasses import replace

import pytest
import torch

from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.patches import patch_report
from fairseg_lite.models.checkpoints import load_model, load_tensors, load_weights, save_model
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.models.sharpmask import SharpMask, sharpmask_tiny
from fairseg_lite.training.recipes import RECIPES
from fairseg_lite.training.stages import train_sharpmask

LESSON = RECIPES["sharpmask"]["lesson"]
QUICK = replace(LESSON, positives=4, fit=replace(LESSON.fit, steps=2, warmup=0, precision="fp32", log_every=1))


@pytest.fixture(scope="module")
def scenes():
    return ShapesDataset(6, seed=0)


def test_a_run_keeps_the_deepmask_to_the_last_byte_and_can_be_loaded(scenes, tmp_path):
    deepmask = load_model("shapes", kind="DeepMask")
    before = {k: v.clone() for k, v in deepmask.state_dict().items()}
    model, history = train_sharpmask(
        scenes, recipe=replace(QUICK, options={"k": 16}), deepmask=deepmask, out=tmp_path / "run", progress=False
    )  # fmt: skip
    assert history.finished and all(torch.equal(v, before[k]) for k, v in model.deepmask.state_dict().items())
    assert history["loss"] == history["mask"]  # a frozen score has no loss
    back = load_model(tmp_path / "run/model.safetensors", kind="SharpMask")
    assert back.record.kwargs == {"deepmask": {}, "k": 16} and back.first.out_features == 16 * 36
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(back(x).masks, model(x).masks, atol=1e-5, rtol=1e-5)  # another memory layout
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())
    state = load_tensors(tmp_path / "run/state.safetensors")[0]
    assert not any(k.startswith("optimizer.") and v.shape == deepmask.embed.weight.shape for k, v in state.items())
    longer = replace(QUICK, options={"k": 16}, fit=replace(QUICK.fit, steps=3))
    _, more = train_sharpmask(scenes, recipe=longer, out=tmp_path / "run", resume=True, progress=False)
    assert more["step"] == [1, 2, 3]


def test_a_fresh_refinement_begins_with_the_coarse_mask(scenes):
    """Averaged to 6 x 6 cells it is blurry, but it is there; with random weights there is nothing."""
    torch.manual_seed(0)
    sharp = SharpMask(load_model("shapes", kind="DeepMask")).eval()
    first, coarse = patch_report(sharp, scenes, progress=False), patch_report(sharp.deepmask, scenes, progress=False)
    assert 0.3 < first.mean_iou < coarse.mean_iou
    for module in (*sharp.refinements.modules(), sharp.first, sharp.last):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert patch_report(sharp, scenes, progress=False).mean_iou < first.mean_iou - 0.1
    assert first.score_accuracy == coarse.score_accuracy


def test_end_to_end_trains_the_trunk_and_wants_negatives(scenes):
    both = replace(QUICK, end_to_end=True)
    with pytest.raises(ValueError, match="without negatives: the score would learn to say yes"):
        train_sharpmask(scenes, recipe=both, deepmask=deepmask_tiny(), progress=False)
    deepmask = deepmask_tiny()
    before = deepmask.trunk.conv1.weight.clone()
    model, history = train_sharpmask(scenes, recipe=replace(both, negatives=2), deepmask=deepmask, progress=False)
    assert not torch.equal(model.trunk.conv1.weight, before) and history["loss"] != history["mask"]


def test_another_networks_recipe_is_refused(scenes):
    with pytest.raises(
        ValueError, match="trains sharpmask_resnet50, which is built on a deepmask_resnet50; this is a deepmask_tiny"
    ):
        train_sharpmask(scenes, recipe=RECIPES["sharpmask"]["photos"], deepmask=load_model("shapes"), progress=False)
    with pytest.raises(ValueError, match="this is a SharpMask"):
        train_sharpmask(scenes, recipe=LESSON, deepmask=sharpmask_tiny(), progress=False)


def test_checkpoints_of_one_kind_are_not_taken_for_the_other(tmp_path):
    deep, sharp = tmp_path / "d.safetensors", tmp_path / "s.safetensors"
    save_model(deep, deepmask_tiny())
    save_model(sharp, sharpmask_tiny(k=16))
    assert isinstance(load_model(sharp), SharpMask)
    with pytest.raises(ValueError, match="s.safetensors' holds a sharpmask_tiny, wanted a DeepMask .*its `deepmask` is one"):
        load_model(sharp, kind="DeepMask")
    with pytest.raises(ValueError, match="d.safetensors' holds a deepmask_tiny, wanted a SharpMask .*train sharpmask"):
        load_model(deep, kind="SharpMask")
    with pytest.raises(ValueError, match="holds a SharpMask, and this network is a DeepMask; load_model"):
        load_weights(deepmask_tiny(), load_tensors(sharp)[0], sharp)
    with pytest.raises(ValueError, match="holds a DeepMask, and this network is a SharpMask"):
        load_weights(sharpmask_tiny(), load_tensors(deep)[0], deep)
    liar = sharpmask_tiny(k=16)
    liar.record = deepmask_tiny().record
    save_model(sharp, liar)
    with pytest.raises(ValueError, match="holds a SharpMask, and this network is a DeepMask"):
        load_model(sharp)
