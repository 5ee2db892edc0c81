"""DeepMask's shapes, sizes and the equality of its two readings: patch by patch, and a whole picture at once."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from fairseg_lite.geometry.pixels import symmetric_pad
from fairseg_lite.models.deepmask import DeepMask, deepmask_resnet50, deepmask_tiny, deepmask_vgg_a
from fairseg_lite.models.mobile import LiteTrunk
from fairseg_lite.models.network import load_trunk_weights
from fairseg_lite.models.trunks import ResNetTrunk, SymmetricConv2d, VGGTrunk


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small(head: str, mask_head: str = "low_rank", patch: int = 64) -> DeepMask:
    torch.manual_seed(0)
    trunk = ResNetTrunk(depths=(1, 1, 1), inner=(4, 4, 4), out=(8, 8, 16), stem=(3, 8))
    model = DeepMask(
        trunk=trunk,
        patch_size=patch,
        context=0,
        mask_size=8,
        head=head,
        mask_head=mask_head,
        features=8,
        embedding=16,
        score_hidden=8,
    )
    return model.double().eval()


def test_sizes_of_the_named_networks():
    assert parameters(deepmask_tiny()) <= 3_000_000
    assert parameters(deepmask_vgg_a()) == 75_844_545  # papers: about 75 M
    assert parameters(deepmask_resnet50()) == 17_333_121  # papers: about 17 M


def test_full_mask_head_has_337_million_parameters():
    with torch.device("meta"):  # 1.3 GB of weights that nobody needs
        assert parameters(deepmask_vgg_a(mask_head="full")) == 337_562_049


@pytest.mark.parametrize("build, side", [(deepmask_tiny, 128), (deepmask_vgg_a, 224), (deepmask_resnet50, 192)])
def test_output_shapes(build, side):
    model = build().eval()
    with torch.inference_mode():
        masks, scores = model(torch.zeros(1, 3, side, side))
    assert masks.shape == (1, model.mask_size, model.mask_size) and scores.shape == (1,)
    assert model.object_size == {96: 55, 160: 92, 224: 128}[model.patch_size]


@pytest.mark.parametrize(
    "head, mask_head",
    [("shared", "low_rank"), ("branches", "low_rank"), ("branches", "full"), ("A", "low_rank"), ("B", "low_rank")],
)
def test_dense_equals_every_window_of_the_same_features(head, mask_head):
    """Heads on all windows at once = heads on each window cut out of the feature map."""
    model = small(head, mask_head)
    features = torch.randn(2, 16, 7, 6, dtype=torch.float64)
    dense = model.heads(features)
    assert dense.scores.shape == (2, 4, 3)
    for b in range(2):
        for r in range(4):
            for c in range(3):
                alone = model.heads(features[b : b + 1, :, r : r + 4, c : c + 4])
                at = [torch.tensor([i]) for i in (b, r, c)]
                zero = torch.zeros(1, dtype=torch.int64)
                torch.testing.assert_close(dense.scores[b, r, c], alone.scores[0, 0, 0])
                torch.testing.assert_close(model.masks_at(dense, *at), model.masks_at(alone, zero, zero, zero))


def test_interleaved_score_is_the_papers_two_by_two_pooling():
    """At one window the dilated form must equal: pool 2x2 at stride 2, then a linear layer."""
    model = small("branches")
    x = torch.randn(3, 16, 4, 4, dtype=torch.float64)
    pooled = F.max_pool2d(x, 2)  # (3, 16, 2, 2)
    slow = model.score(F.linear(pooled.flatten(1), model.score_embed.weight.flatten(1), model.score_embed.bias))
    torch.testing.assert_close(model.heads(x).scores[:, 0, 0], slow[:, 0])


def test_context_is_cut_off_after_the_trunk():
    model = small("shared")
    model.context = 32
    x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    inner = model.heads(model.trunk(x)[:, :, 1:-1, 1:-1])
    torch.testing.assert_close(model(x).scores, inner.scores[:, 0, 0])


@pytest.mark.parametrize("trunk", [ResNetTrunk(depths=(1, 1, 1), norm="batch"), VGGTrunk(), LiteTrunk()])
def test_a_frozen_stage_keeps_its_weights_and_its_statistics(trunk):
    """Of every parameter and buffer: after a step of training only what lies behind the frozen stages has moved."""
    before = {k: v.clone() for k, v in trunk.freeze(2).train().state_dict().items()}
    optimizer = torch.optim.SGD([p for p in trunk.parameters() if p.requires_grad], lr=0.1)
    trunk(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    names = {id(t): k for k, t in trunk.state_dict(keep_vars=True).items()}
    fixed = {names[id(t)] for part in trunk.parts[:2] for t in part.state_dict(keep_vars=True).values()}
    moved = {k for k, v in trunk.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and fixed and not moved & fixed
    assert any("running_mean" in k for k in moved) == any(isinstance(m, nn.BatchNorm2d) for m in trunk.modules())
    with pytest.raises(ValueError, match=f"freeze is {len(trunk.parts) + 1}"):
        trunk.freeze(len(trunk.parts) + 1)


def test_the_lite_trunks_taps_and_bfloat16_training():
    trunk = LiteTrunk().freeze(3).train()
    x = torch.randn(1, 3, 64, 48)
    taps = trunk.taps(x)
    assert [tuple(t.shape[1:]) for t in taps] == [(16, 32, 24), (24, 16, 12), (40, 8, 6), (112, 4, 3)]
    torch.testing.assert_close(trunk(x), taps[-1])
    with torch.autocast("cpu", torch.bfloat16):
        half = trunk(x)
    assert (half.float() - taps[-1]).abs().max() < 0.05 * taps[-1].abs().max()
    half.float().square().mean().backward()
    expand = [block._expand_conv.weight.grad for block in trunk._blocks[4:6]]
    assert expand[0] is None and expand[1].isfinite().all() and expand[1].abs().max() > 0
    assert all(block._depthwise_conv.weight.grad is None for block in trunk._blocks)  # frozen with the first stage


@pytest.mark.parametrize("kind", ["resnet", "vgg"])
def test_stages_and_taps_agree_with_forward(kind):
    trunk = (ResNetTrunk(depths=(1, 1, 1)) if kind == "resnet" else VGGTrunk()).eval()
    x = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        whole, taps, y = trunk(x), trunk.taps(x), x
        for stage in trunk.stages:
            y = stage(y)
    torch.testing.assert_close(whole, y)
    torch.testing.assert_close(whole, taps[-1])
    assert [(64 // t.shape[2], 48 // t.shape[3]) for t in taps] == [(2, 2), (4, 4), (8, 8), (16, 16)]


def test_a_basic_block_has_no_1x1_to_put_the_stride_on():
    with pytest.raises(ValueError, match="a basic block has no 1x1 convolution"):
        ResNetTrunk(depths=(1, 1, 1), block="basic", stride_in_1x1=True)


def test_stride_in_1x1_moves_the_stride_and_nothing_else():
    ours, original = ResNetTrunk(depths=(1, 1, 1)), ResNetTrunk(depths=(1, 1, 1), stride_in_1x1=True)
    assert ours.state_dict().keys() == original.state_dict().keys()
    assert ours.layer2[0].conv2.stride == (2, 2) and ours.layer2[0].conv1.stride == (1, 1)
    assert original.layer2[0].conv2.stride == (1, 1) and original.layer2[0].conv1.stride == (2, 2)


def test_resnet_trunk_is_torchvisions():
    """Same names, same function: torchvision's ResNet-50 up to layer3, random weights."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    theirs = resnet50().double().eval()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 2)
    trunk = ResNetTrunk().double().eval()
    state = theirs.state_dict()
    trunk.load_state_dict({k: state[k] for k in trunk.state_dict()})
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        torch.testing.assert_close(trunk(x), theirs.layer3(theirs.layer2(theirs.layer1(y))))


def test_symmetric_convolution_against_a_padded_picture():
    conv = SymmetricConv2d(2, 3, 7, padding=3).double()
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(conv(x), F.conv2d(symmetric_pad(x, 3, 3, 3, 3), conv.weight, conv.bias))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_trunk_weights_from_a_file(tmp_path, suffix):
    source, target = ResNetTrunk(depths=(1, 1, 1)), ResNetTrunk(depths=(1, 1, 1))
    path = tmp_path / f"weights{suffix}"
    state = {**source.state_dict(), "fc.weight": torch.zeros(3)}
    state = {k: v.half() for k, v in state.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    load_trunk_weights(target, path)
    torch.testing.assert_close(target.conv1.weight, source.conv1.weight, atol=1e-3, rtol=1e-3)
    state.pop("layer2.0.conv1.weight")
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"1 of \d+ tensors are missing, first 'layer2.0.conv1.weight'"):
        load_trunk_weights(target, tmp_path / "less.safetensors")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a readable"):
        load_trunk_weights(target, path)


def test_wrong_trunk_is_refused(tmp_path):
    save_file({k: v[..., :1].contiguous() for k, v in VGGTrunk().state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="the trunk wants"):
        load_trunk_weights(VGGTrunk(), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"patch_size": 100}, "patch_size is 100; it must be a positive multiple of the stride 16"),
        ({"context": 16}, "context is 16; it must be a multiple of 32"),
        ({"head": "both"}, "head is 'both'"),
        ({"mask_head": "full"}, "mask_head 'full'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    trunk = ResNetTrunk(depths=(1, 1, 1), inner=(4, 4, 4), out=(8, 8, 8), stem=(3, 8))
    with pytest.raises(ValueError, match=message):
        DeepMask(trunk=trunk, **change)


def test_wrong_pictures_are_refused():
    model = deepmask_tiny().eval()
    with pytest.raises(ValueError, match=r"\(1, 3, 96, 96\); this network takes \(B, 3, 128, 128\)"):
        model(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ValueError, match="pad it to at least the patch of 96 px"):
        model.dense(torch.zeros(1, 3, 95, 200))


@pytest.mark.gpu
@pytest.mark.parametrize("build, side", [(deepmask_tiny, 128), (deepmask_resnet50, 192)])
def test_cuda_equals_cpu(build, side, cuda):
    torch.manual_seed(0)
    model = build().eval()
    x = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        cpu = model(x)
        gpu = model.to(cuda)(x.to(cuda))
    for a, b in zip(cpu, gpu, strict=True):
        torch.testing.assert_close(a, b.cpu(), atol=2e-2, rtol=1e-2)  # TF32 convolutions
