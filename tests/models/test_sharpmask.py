"""SharpMask: sizes, the frozen DeepMask inside, windows of a picture, memory, bad input."""

import pytest
import torch
from torch import nn

from fairseg_lite.models import sharpmask
from fairseg_lite.models.deepmask import DeepMask, deepmask_tiny, deepmask_vgg_a
from fairseg_lite.models.losses import deepmask_loss
from fairseg_lite.models.sharpmask import SharpMask, sharpmask_resnet50, sharpmask_tiny, sharpmask_vgg_a
from fairseg_lite.models.trunks import ResNetTrunk


def small(**options) -> SharpMask:
    """A network of a few thousand weights: patch 32, context 32."""
    torch.manual_seed(0)
    trunk = ResNetTrunk(
        depths=(1, 1, 1), inner=(8, 8, 8), out=(8, 8, 8), block="basic", stem=(3, 4), stem_pool=False, norm="batch"
    )  # fmt: skip
    deepmask = DeepMask(trunk=trunk, patch_size=32, mask_size=8, features=8, embedding=16, score_hidden=8)
    return SharpMask(deepmask, **{"k": 16, **options})


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def test_parameters_of_the_named_networks():
    model = sharpmask_resnet50()
    refinement = [p for k, p in model.named_parameters() if not k.startswith("deepmask.")]
    lateral = count(p for r in model.refinements for p in r.lateral.parameters())
    assert count(refinement) == 2_750_535  # papers: under 3 M; official code: 1.09 M lateral and 1.66 M top-down
    assert round(lateral / 1e6, 2) == 1.09
    assert count(p for p in model.parameters() if p.requires_grad) == count(refinement)
    assert count(model.deepmask.parameters()) == 17_333_121
    assert [r.lateral[0].in_channels for r in model.refinements] == [1024, 512, 256, 64]
    assert [r.lateral[0].out_channels for r in model.refinements] == [64, 64, 64, 32]
    assert [r.top_down[2].out_channels for r in model.refinements] == [16, 8, 4, 2]
    tiny = sharpmask_tiny()
    assert 2 * (count(tiny.parameters()) - count(tiny.deepmask.parameters())) <= 6e6  # bytes as float16


def test_vgg_refines_to_its_224_pixels():
    model = sharpmask_vgg_a(k=16).eval()
    assert [r.lateral[0].in_channels for r in model.refinements] == [512, 256, 128, 64]
    with torch.no_grad():
        masks, scores = model(torch.zeros(1, 3, 224, 224))
    assert masks.shape == (1, 224, 224) and scores.shape == (1,)


@pytest.mark.parametrize(
    "options, widths",
    [
        ({}, [16, 8, 4, 2, 1]),
        ({"schedule": "constant", "k": 5}, [5] * 5),
        ({"schedule": "constant", "k": 1, "paths": "skip"}, [1] * 5),
        ({"paths": "deconvolution"}, [16, 8, 4, 2, 1]),
        ({"upsample": "nearest", "padding": "zeros"}, [16, 8, 4, 2, 1]),
    ],
)
def test_schedules_and_ablations(options, widths):
    model = small(**options)
    masks, scores = model(torch.randn(3, 3, 64, 64))
    assert masks.shape == (3, 32, 32) and scores.shape == (3,)
    assert model.last.in_channels == widths[-1] and model.first.out_features == widths[0] * 4
    masks.sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


def test_training_the_refinement_moves_not_one_byte_of_the_deepmask():
    """Batch-norm buffers included, although `train()` is on; and scores are those of the DeepMask."""
    model = small(k=8, schedule="constant").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    masks, labels = torch.rand(4, 32, 32) > 0.5, torch.tensor([1.0, 1, 1, -1])
    losses = []
    for _ in range(3):
        loss = deepmask_loss(model(torch.ones(4, 3, 64, 64)), masks, labels)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.mask.item())
    assert losses[2] < losses[0]
    after = model.state_dict()
    same = {k for k in before if torch.equal(before[k], after[k])}
    assert {k for k in before if k.startswith("deepmask.")} <= same
    assert not any(k in same for k in before if k.startswith(("first.", "last.")))
    assert model.training and not any(m.training for m in model.deepmask.modules())
    model.eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x).scores, model.deepmask(x).scores)


def test_end_to_end_moves_all_of_it():
    model = small(k=8, schedule="constant").freeze(False).train()
    assert model.trunk.training
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loss = deepmask_loss(model(torch.randn(4, 3, 64, 64)), torch.rand(4, 32, 32) > 0.5, torch.ones(4)).total
    loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.grad is not None], lr=1.0).step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(before[k], v)}
    assert {"deepmask.trunk.conv1.weight", "deepmask.trunk.bn1.running_mean", "first.weight"} <= moved
    assert "deepmask.mask.weight" not in moved  # the coarse branch is not asked


def test_windows_of_a_picture_one_by_one_or_together(monkeypatch):
    model = small().double().eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var.uniform_(0.5, 2), m.running_mean.normal_()
    dense = model.dense(torch.randn(2, 3, 80, 112, dtype=torch.float64))
    assert [tuple(x.shape[1:]) for x in dense.laterals] == [(8, 5, 7), (4, 10, 14), (2, 20, 28), (1, 40, 56)]
    b, h, w = dense.scores.shape
    at = torch.cartesian_prod(*map(torch.arange, (b, h, w))).T
    together = model.masks_at(dense, *at)
    for i in range(at.shape[1]):
        n, r, c = at[:, i].tolist()
        m = model.first(dense.embedding[n, :, r, c]).view(1, 16, 2, 2)
        for k, module in enumerate(model.refinements):
            y, x, side = r << k, c << k, 2 << k
            m = module.merge(dense.laterals[k][n : n + 1, :, y : y + side, x : x + side], m)
        torch.testing.assert_close(together[i], model.last(m)[0, 0], atol=1e-12, rtol=1e-12)
    monkeypatch.setattr(sharpmask, "REFINE_BYTES", 1)  # one window at a time
    torch.testing.assert_close(model.masks_at(dense, *at), together, atol=1e-12, rtol=1e-12)
    assert model.masks_at(dense, *at[:, :0]).shape == (0, 32, 32)


def test_a_lonely_patch_is_the_window_of_its_own_features():
    """`forward` and `dense` agree where both see the same: a patch without context is a picture of one window."""
    torch.manual_seed(0)
    model = SharpMask(DeepMask(trunk=ResNetTrunk(depths=(1, 1, 1)), patch_size=64, context=0), k=16).eval()
    x = torch.randn(2, 3, 64, 64)
    dense = model.dense(x)
    index, zero = torch.arange(2), torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(model.masks_at(dense, index, zero, zero), model(x).masks, atol=1e-5, rtol=1e-5)


def test_windows_at_the_edge_of_an_odd_picture_see_zeros():
    model = small().eval()
    x = torch.randn(1, 3, 49, 63)
    dense = model.dense(x)
    assert [tuple(x.shape[2:]) for x in dense.laterals] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    inside = model.refinements[3].lateral(model.trunk.taps(x)[0])
    assert inside.shape[2:] == (25, 32) and torch.equal(dense.laterals[3][..., :25, :], inside)
    assert dense.laterals[3][..., 25:, :].eq(0).all() and inside.any()


def test_refinement_keeps_its_memory_bound(monkeypatch):
    """Measured by what the allocator reports, not by our own arithmetic."""
    model = sharpmask_tiny().eval()
    monkeypatch.setattr(sharpmask, "REFINE_BYTES", 2**24)
    with torch.inference_mode():
        dense = model.dense(torch.randn(1, 3, 192, 192))
        at = torch.cartesian_prod(torch.arange(1), *map(torch.arange, dense.scores.shape[1:])).T.repeat(1, 3)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as report:
            masks = model.masks_at(dense, *at)
    now = most = 0
    events = [e for e in report.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert len(masks) == 147
    parts = masks.numel() * 4  # those that are done stay; joining them takes as much again, and less than the bound
    assert 2**22 < most - parts <= 2**24, (most, parts)


@pytest.mark.parametrize("k", [0, 8, 24, 40])
def test_k_must_be_halved_four_times(k):
    with pytest.raises(ValueError, match=rf"k is {k}; halved four times it must stay whole: take a multiple of 16"):
        sharpmask_tiny(k=k)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="schedule is 'thirds'; choose one of 'halving', 'constant'"):
        small(schedule="thirds")
    with pytest.raises(ValueError, match="needs schedule='constant'"):
        small(paths="skip")
    with torch.device("meta"), pytest.raises(ValueError, match="mask_head is 'full'"):
        SharpMask(deepmask_vgg_a(mask_head="full"))
    model = sharpmask_tiny(deepmask=deepmask_tiny())
    with pytest.raises(ValueError, match=r"takes \(B, 3, 128, 128\)"):
        model(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ValueError, match="pad it to at least the patch of 96 px"):
        model.dense(torch.zeros(1, 3, 90, 200))
