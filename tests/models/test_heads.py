"""Heads A, B and C, and the variants of the tiny network: one score and one mask per window, whatever is shared."""

import numpy as np
import pytest
import torch

from fairseg_lite.inference.propose import propose
from fairseg_lite.models.checkpoints import load_model, save_model
from fairseg_lite.models.deepmask import HEADS, DeepMask, deepmask_resnet50, deepmask_tiny
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.models.trunks import ResNetTrunk

from .test_deepmask import parameters, small


def filled(target: DeepMask, source: DeepMask) -> DeepMask:
    """`target` with the weights of `source`; a layer of its own for the score gets those of the mask's."""
    state = source.state_dict()
    target.load_state_dict({k: state.get(k, state.get(k.removeprefix("score_"))) for k in target.state_dict()})
    return target


@pytest.mark.parametrize("head", ["A", "B"])
def test_equal_branches_are_head_c(head):
    """A and B differ from C in nothing but that mask and score have weights of their own."""
    shared = small("C")
    apart = filled(small(head), shared)
    assert parameters(apart) > parameters(shared)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for a, b in zip(apart(x), shared(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("head, own", [("A", {"score_reduce", "score_embed"}), ("B", {"score_embed"}), ("C", set())])
def test_which_layers_the_score_has_for_itself(head, own):
    """The gradient of the scores reaches exactly: the trunk, what is shared, and the score's own layers."""
    model = small(head).train()
    model(torch.randn(2, 3, 64, 64, dtype=torch.float64)).scores.sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    shared = {"A": set(), "B": {"reduce"}, "C": {"reduce", "embed"}}[head]
    assert reached == {"trunk", "score"} | own | shared


def test_shared_is_another_name_of_c():
    assert small("shared").head == small("C").head == "C"
    assert small("shared").state_dict().keys() == small("C").state_dict().keys()


def test_more_sharing_means_fewer_weights():
    with torch.device("meta"):
        a, b, c = (parameters(deepmask_resnet50(head=h)) for h in "ABC")
    assert a - b == 1024 * 128 + 128 and b - c == 128 * 10 * 10 * 512 + 512  # the 1x1 convolution, the 512 numbers
    assert c == 17_333_121


@pytest.mark.parametrize("head", ["branches", "A", "B"])
def test_sharpmask_refines_the_vector_of_every_head(head):
    """One window refined out of a whole picture = the same window's features alone."""
    model = SharpMask(small(head), k=16).double().eval()
    with torch.no_grad():
        taps = [torch.randn(1, c, 80 >> i, 80 >> i, dtype=torch.float64) for i, c in enumerate(model.trunk.channels, 1)]
        dense = model.deepmask.heads(taps[-1])
        alone = model.deepmask.heads(taps[-1][:, :, 1:5, 1:5])
        one, zero = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        torch.testing.assert_close(
            model.deepmask.vectors_at(dense, zero, one, one), model.deepmask.vectors_at(alone, zero, zero, zero)
        )
        assert model.masks_at(model.heads(taps), zero, one, one).shape == (1, 64, 64)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_proposes(head):
    torch.manual_seed(0)
    found = propose(deepmask_tiny(head=head).eval(), np.zeros((64, 80, 3), np.uint8), scales=[1.0], top_k=5)
    assert len(found.scores) == 5


def test_pooling_of_branches_needs_an_even_patch():
    with pytest.raises(ValueError, match="a patch has 5 cells a side; take an even number"):
        deepmask_tiny(patch_size=80, head="branches")
    assert deepmask_tiny(patch_size=80, head="A").grid == 5


def test_the_default_tiny_network_is_the_shipped_one():
    """Same names, same random weights: written out, as it was before it had options."""
    torch.manual_seed(0)
    trunk = ResNetTrunk(
        depths=(1, 2, 2), inner=(32, 64, 128), out=(32, 64, 128), block="basic", stem=(3, 16), stem_pool=False, norm="batch"
    )
    scales = [2 ** (e / 2) for e in range(-2, 5)]
    before = DeepMask(trunk=trunk, patch_size=96, mask_size=24, features=64, score_hidden=256, scales=scales)
    torch.manual_seed(0)
    now = deepmask_tiny()
    assert now.scales == before.scales and now.object_size == before.object_size == 55
    assert all(torch.equal(a, b) for a, b in zip(before.state_dict().values(), now.state_dict().values(), strict=True))
    shipped = load_model("shapes")
    assert shipped.state_dict().keys() == before.state_dict().keys()
    x = torch.randn(2, 3, 128, 128)
    before.load_state_dict(shipped.state_dict())
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(before.eval()(x), shipped(x), strict=True))


@pytest.mark.parametrize(
    "options, grid",
    [
        ({"patch_size": 64}, 4),
        ({"patch_size": 64, "poolings": 3}, 8),
        ({"patch_size": 64, "depths": [1, 1, 1], "features": 16}, 4),
        ({"patch_size": 64, "poolings": 3, "head": "branches"}, 8),
    ],
)
def test_tiny_variants_are_dense(options, grid, tmp_path):
    """Scores and masks of windows = those of the windows cut out of the features; and a checkpoint keeps the options."""
    torch.manual_seed(0)
    model = deepmask_tiny(**options).double().eval()
    assert (model.grid, model.stride, model.mask_size) == (grid, 64 // grid, 16)
    with torch.inference_mode():
        masks, scores = model(torch.randn(1, 3, 96, 96, dtype=torch.float64))
        assert masks.shape == (1, 16, 16) and scores.shape == (1,)
        x = model.trunk(torch.randn(1, 3, 96, 128, dtype=torch.float64))
        dense = model.heads(x)
        h, w = dense.scores.shape[1:]
        assert (h, w) == (32 // model.stride + 1, 64 // model.stride + 1)
        zero = torch.zeros(1, dtype=torch.int64)
        for r, c in ((0, 0), (1, 2), (h - 1, w - 1)):
            alone = model.heads(x[:, :, r : r + grid, c : c + grid])
            torch.testing.assert_close(dense.scores[0, r, c], alone.scores[0, 0, 0])
            at = model.masks_at(dense, zero, zero + r, zero + c)
            torch.testing.assert_close(at, model.masks_at(alone, zero, zero, zero))
    save_model(tmp_path / "m.safetensors", model)
    assert load_model(tmp_path / "m.safetensors").scales == model.scales


def test_stride_8_places_windows_every_8_pixels():
    torch.manual_seed(0)
    model = deepmask_tiny(patch_size=64, poolings=3).eval()
    found = propose(model, np.zeros((64, 80, 3), np.uint8), scales=[1.0], top_k=200)
    assert len(found.scores) == (64 // 8 + 1) * (80 // 8 + 1)
    assert (
        len(propose(deepmask_tiny(patch_size=64).eval(), np.zeros((64, 80, 3), np.uint8), scales=[1.0], top_k=200).scores) == 30
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="poolings is 5; choose one of 3, 4"):
        deepmask_tiny(poolings=5)
    with pytest.raises(ValueError, match="patch_size is 100; it must be a positive multiple of the stride 16"):
        deepmask_tiny(patch_size=100)
    with pytest.raises(ValueError, match="the trunk's stride is 8; four refinements lead back from 16"):
        SharpMask(deepmask_tiny(poolings=3))
    with pytest.raises(ValueError, match="head is 'D' with mask_head 'low_rank'; choose a head of branches, A, B, C"):
        deepmask_tiny(head="D")
