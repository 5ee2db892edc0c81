"""How often a training step waits for a GPU, and what it computes once only. Counted on a pretended GPU, not measured on one."""

from dataclasses import replace

import pytest
import torch

from fairseg_lite.data.patches import PatchSampler
from fairseg_lite.data.rois import RoiSampler
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.checkpoints import load_model, load_tensors
from fairseg_lite.models.trunks import ResNetTrunk
from fairseg_lite.training.detector import train_multipathnet
from fairseg_lite.training.fit import Run, fit
from fairseg_lite.training.recipes import RECIPES
from fairseg_lite.training.stages import train_deepmask, train_sharpmask
from tests.data.test_rois import around
from tests.pretended_gpu import pretended_gpu
from tests.training.test_fit import CONFIG, Line, Points, loss_fn, network


def quick(kind, **changes):
    recipe = RECIPES[kind]["lesson"]
    fit = replace(recipe.fit, steps=9, log_every=6, save_every=100, ema=0.9, lr_scale={"trunk.": 0.1}, clip=1.0)
    return replace(recipe, **changes, fit=fit)


@pytest.mark.parametrize("kind, waits", [("deepmask", 1), ("sharpmask", 1), ("multipathnet", 2)])
def test_a_step_between_logs_hardly_waits(kind, waits, monkeypatch):
    data, seen = ShapesDataset(3), []
    with pretended_gpu() as gpu:
        for sampler, name, own in ((PatchSampler, "drawn", PatchSampler.drawn), (RoiSampler, "batch", RoiSampler.batch)):

            def batch(self, step, *part, draw=own):
                seen.append(gpu.waits.copy())  # as a step begins
                return draw(self, step, *part)

            monkeypatch.setattr(sampler, name, batch)
        run = {"device": "cuda", "progress": False}
        if kind == "deepmask":
            _, history = train_deepmask(data, recipe=quick(kind, positives=2, negatives=1), **run)
        elif kind == "sharpmask":
            _, history = train_sharpmask(data, recipe=quick(kind, positives=2), deepmask=load_model("shapes"), **run)
        else:
            boxes = around(data, copies=5)
            recipe = quick(kind, images=1, rois=8)
            _, history = train_multipathnet(data, boxes, recipe=recipe, trunk_from=load_model("shapes"), **run)
    steps = [b - a for a, b in zip(seen, seen[1:], strict=False)]  # steps 0, 1, ... 7; 5 is logged
    assert [s.total() for s in steps[1:5]] == [waits] * 4, steps[3]
    assert waits < steps[5].total() <= waits + 2 and history["step"] == [6, 9]


def test_there_is_one_group_for_each_setting():
    model = load_model("shapes")
    model.trunk.freeze(1)
    run = Run(model, replace(CONFIG, lr_scale={"trunk.": 0.1}), None, {})
    groups = run.optimizer.param_groups
    assert sorted((g["scale"], g["weight_decay"]) for g in groups) == [(0.1, 0.0), (0.1, 0.01), (1.0, 0.0), (1.0, 0.01)]
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters()) > 20
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    assert all((id(p) in decayed) == (p.ndim > 1) for p in model.parameters() if p.requires_grad)


def test_moments_are_kept_by_the_place_of_their_parameter(tmp_path):
    """Not by that in the optimiser, whose groups are another order: checkpoints of older versions go on, too."""
    fit(network(), Line(), loss_fn, replace(CONFIG, steps=10), out=tmp_path, progress=False)
    tensors, _ = load_tensors(tmp_path / "state.safetensors")
    for i, p in enumerate(network().parameters()):
        assert tensors[f"optimizer.{i}.exp_avg"].shape == p.shape and tensors[f"optimizer.{i}.step"] == 10


class Moved(Points):
    def to(self, device):
        return Moved([tuple(t.to(device) for t in self[0])])


class Broken(Line):
    """Step 7's batch holds what is no number."""

    def batch(self, step):
        x, y = super().batch(step)[0]
        return Moved([(x, y * float("nan") if step == 7 else y)])


def test_a_loss_that_is_not_finite_is_found_before_anything_is_kept(tmp_path):
    config = replace(CONFIG, steps=30, log_every=20, save_every=5)
    with pretended_gpu(), pytest.raises(ValueError, match=r"loss is not finite (at|before) step 9 .*last good checkpoint"):
        fit(network().to("cuda"), Broken(), loss_fn, config, out=tmp_path, progress=False)
    tensors, header = load_tensors(tmp_path / "state.safetensors")
    assert header["step"] == 5 and all(x.isfinite().all() for x in tensors.values())
    with pytest.raises(ValueError, match="loss is not finite at step 7 "):  # the CPU need not wait to know it
        fit(network(), Broken(), loss_fn, config, progress=False)


def test_fixed_norms_are_folded_once(monkeypatch):
    trunk, x, calls = ResNetTrunk(depths=(1, 1, 1)).eval(), torch.randn(1, 3, 32, 32), []
    real = torch.Tensor.rsqrt
    monkeypatch.setattr(torch.Tensor, "rsqrt", lambda self: calls.append(1) or real(self))
    first = trunk(x)
    count = len(calls)
    assert count > 5 and torch.equal(trunk(x), first) and len(calls) == count
    trunk.layer1[0].bn2.running_var.mul_(4)
    changed = trunk(x)
    assert len(calls) == count + 1 and not torch.allclose(changed, first)
    twin = ResNetTrunk(depths=(1, 1, 1)).eval()
    twin(x)
    twin.load_state_dict(trunk.state_dict())
    assert torch.equal(twin(x), changed)
    with torch.inference_mode():
        half = trunk.to(torch.float64)(x.double())
    torch.testing.assert_close(half.float(), changed, atol=1e-4, rtol=1e-4)
    trunk.float()(x).sum().backward()  # what was computed for inference does not hinder training
    assert all(p.grad is not None for p in trunk.parameters())
