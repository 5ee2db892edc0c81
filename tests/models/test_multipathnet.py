"""MultiPathNet against a loop over RoIs and regions; its switches, its four sizes, and input that is none."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from fairseg_lite.geometry.boxes import decode_boxes
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.models.multipathnet import (
    MODELS,
    MultiPathNet,
    MultiPathOutput,
    multipathnet_resnet18,
    multipathnet_resnet50,
    multipathnet_tiny,
    probabilities,
)
from fairseg_lite.models.roi_pooling import LinearTower, Mix, ResidualTower, roi_pool
from fairseg_lite.models.trunks import Bottleneck, ResNetTrunk, VGGTrunk

ROIS = torch.tensor([[0, 10.0, 12, 50, 40], [1, 30, 5, 60, 60], [0, 2, 2, 20, 9], [1, 44, 44, 44, 44], [0, 200, 200, 260, 230]])


def small(**options):
    """A network of all the parts in a few channels; in float64."""
    torch.manual_seed(0)
    trunk = ResNetTrunk(depths=(1, 1, 1), inner=(4, 6, 8), out=(4, 6, 8), block="basic", stem=(3, 4))
    tower = lambda c, p: LinearTower(c, p, width=5)  # noqa: E731
    return MultiPathNet(trunk=trunk, tower=tower, num_classes=3, pooled=3, **options).double().eval()


def slow_classify(model, levels, rois, sees):
    """One RoI at a time, one region at a time; sees: factor -> levels, as the paper's text or its figure says."""
    strides = (4, 8, 16)
    rows = []
    for roi in rois:
        x1, y1, x2, y2 = roi[1:].tolist()
        regions = [*zip(sees, model.regions, strict=True)]
        if model.box_region is not None:
            regions.append((1.5, model.box_region))
        vectors = []
        for factor, region in regions:
            w, h = (x2 - x1) * factor, (y2 - y1) * factor
            wide = torch.tensor([[roi[0], (x1 + x2 - w) / 2, (y1 + y2 - h) / 2, (x1 + x2 + w) / 2, (y1 + y2 + h) / 2]])
            grids = []
            for i in reversed((0, 1, 2) if region is model.box_region and len(sees[1.0]) > 1 else sees[factor]):  # conv5 first
                grid = roi_pool(levels[i], wide, model.pooled, scale=1 / strides[i], how=model.pooling)[0]
                if region.mix is not None:
                    length = math.sqrt((grid**2).sum().item())
                    grid = 1000 * grid / max(length, 1e-12)
                grids.append(grid)
            x = torch.cat(grids)  # (C, P, P)
            if region.mix is not None:
                x = torch.einsum("oc,chw->ohw", region.mix.conv.weight[:, :, 0, 0], x) + region.mix.conv.bias[:, None, None]
            fc6, fc7 = region.tower[1], region.tower[4]
            x = (fc6.weight @ x.flatten() + fc6.bias).clamp(min=0)
            vectors.append((fc7.weight @ x + fc7.bias).clamp(min=0))
        towers = vectors[: len(model.regions)]
        for_boxes = towers if model.box_region is None else vectors[-1:]
        logits = [head.weight @ torch.cat(towers) + head.bias for head in model.classes]
        rows.append((torch.stack(logits), (model.boxes.weight @ torch.cat(for_boxes) + model.boxes.bias).view(-1, 4)))
    return torch.stack([r[0] for r in rows], 1), torch.stack([r[1] for r in rows])


TEXT = {1.0: (0, 1, 2), 1.5: (1, 2), 2.0: (1, 2), 4.0: (2,)}
FIGURE = dict.fromkeys(TEXT, (0, 1, 2))


@pytest.mark.parametrize(
    "options, sees",
    [
        ({}, TEXT),
        ({"sees": "figure"}, FIGURE),
        ({"box_tower": "joined"}, TEXT),
        ({"skip": False}, dict.fromkeys(TEXT, (2,))),
        ({"foveal": False}, {1.0: (0, 1, 2)}),
        ({"foveal": False, "skip": False, "integral": False}, {1.0: (2,)}),
        ({"foveal": (1.0, 3.0)}, {1.0: (0, 1, 2), 3.0: (2,)}),
    ],
)
@pytest.mark.parametrize("pooling", ["v2", "align"])
def test_against_a_loop(options, sees, pooling):
    model = small(pooling=pooling, **options)
    levels = model.features(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    rois = ROIS[:4]  # a RoI of no area among them
    logits, deltas = model.classify(levels, rois)
    slow_logits, slow_deltas = slow_classify(model, levels, rois, sees)
    torch.testing.assert_close(logits, slow_logits, atol=1e-6, rtol=1e-6)  # regions are float32
    torch.testing.assert_close(deltas, slow_deltas, atol=1e-6, rtol=1e-6)
    assert logits.shape[0] == (1 if options.get("integral") is False else 6)


def test_levels_are_the_trunks_own():
    """VGG's are taken before the poolings; all lie at strides 4, 8, 16, finest first."""
    for trunk in (VGGTrunk(), ResNetTrunk(depths=(1, 1, 1))):
        levels = trunk.eval().levels(x := torch.randn(1, 3, 64, 96))
        assert [tuple(v.shape[1:]) for v in levels] == [
            (c, 64 // s, 96 // s) for c, s in zip(trunk.level_channels, trunk.level_strides, strict=True)
        ]
        torch.testing.assert_close(levels[-1], trunk(x))
    vgg = VGGTrunk()
    torch.testing.assert_close(F.max_pool2d(vgg.levels(x)[0], 2), vgg.stages[2](vgg.stages[1](vgg.stages[0](x))))
    assert [v.shape[2:] for v in VGGTrunk(ceil=True).levels(torch.zeros(1, 3, 65, 65))] == [(17, 17), (9, 9), (5, 5)]
    with pytest.raises(ValueError, match="five groups"):
        VGGTrunk(widths=((64,), (64,)))


def test_vgg16_is_torchvisions():
    from torchvision.models import vgg16

    from fairseg_lite.models.trunks import VGG_16

    with torch.device("meta"):  # names and shapes only
        theirs, ours = vgg16().features.state_dict(), VGGTrunk(widths=VGG_16).features.state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


def test_pooled_features_are_shared_between_regions(monkeypatch):
    """1x sees three levels, 1.5x and 2x two, 4x one; the box tower's 1.5x adds conv3 alone."""
    from fairseg_lite.models import multipathnet

    calls = []
    monkeypatch.setattr(multipathnet, "roi_pool", lambda *a, **k: calls.append(k["scale"]) or roi_pool(*a, **k))
    model = small()
    model(torch.zeros(1, 3, 64, 64).double(), ROIS[:1])
    assert sorted(calls) == sorted([1 / 4] * 2 + [1 / 8] * 3 + [1 / 16] * 4)


def test_mix_starts_as_the_network_without_skips():
    mix = Mix([4, 6, 8], 8, normalise=False)
    pooled = [torch.randn(2, c, 3, 3) for c in (4, 6, 8)]
    torch.testing.assert_close(mix(pooled), pooled[-1])
    nn.init.ones_(mix.conv.weight)
    weighed = pooled[2].sum(1) + pooled[1].sum(1) / 30 + pooled[0].sum(1) / 200
    torch.testing.assert_close(mix(pooled)[:, 0], weighed)
    assert Mix([4, 6, 8], 5, normalise=False).conv.weight[:, 8:].any(), "other sizes start at random"


def test_without_skips_nothing_is_normalised():
    """Fast R-CNN, with or without a 1x1 convolution: features twice as large are twice as large behind it."""
    options = {"num_classes": 2, "foveal": False}
    for skip in (False, True):
        mix = multipathnet_tiny(skip=skip, **options).regions[0].mix
        pooled = [torch.rand(2, c, 6, 6) for c in ((32, 64, 128) if skip else (128,))]
        once, twice = (mix([p * f for p in pooled]) - mix.conv.bias[:, None, None] for f in (1, 2))
        torch.testing.assert_close(twice, once * (1 if skip else 2), atol=1e-4, rtol=1e-4)
    assert small(skip=False).regions[0].mix is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mix_of_empty_regions_is_finite(dtype):
    pooled = torch.zeros(2, 4, 3, 3, requires_grad=True, dtype=dtype)
    mixed = Mix([4], 4).to(dtype)([pooled])
    mixed.sum().backward()
    assert mixed.isfinite().all() and pooled.grad.isfinite().all()


def test_probabilities_are_the_mean_of_softmaxes():
    logits = torch.randn(3, 5, 4)
    slow = []
    for heads in logits.transpose(0, 1).tolist():
        softmaxes = [[math.exp(v) / sum(map(math.exp, h)) for v in h] for h in heads]
        slow.append([sum(column) / 3 for column in zip(*softmaxes, strict=True)])
    torch.testing.assert_close(probabilities(MultiPathOutput(logits, None)), torch.tensor(slow))
    wrong = logits.mean(0).softmax(-1)
    assert (wrong - torch.tensor(slow)).abs().max() > 1e-3


def test_boxes_of_undoes_the_normalisation():
    model = small()
    model.delta_mean.copy_(torch.tensor([0.1, 0, 0, 0.2]))
    model.delta_std.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    rois, deltas = ROIS[:3, 1:].double(), torch.randn(3, 4, 4).double()
    raw = deltas * torch.tensor([0.1, 0.2, 0.3, 0.4]).double() + torch.tensor([0.1, 0, 0, 0.2]).double()
    torch.testing.assert_close(model.boxes_of(rois, deltas), decode_boxes(rois, raw), atol=1e-5, rtol=1e-5)
    assert {"delta_mean", "delta_std"} <= model.state_dict().keys()


@pytest.mark.parametrize(
    "integral, thresholds",
    [
        (True, (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)),
        (False, (0.5,)),
        (2, (0.5, 0.55)),
        (8, (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)),
        ((0.75,), (0.75,)),  # lesson 10 trains one
        ([0.5, 0.75], (0.5, 0.75)),  # as a checkpoint's header has them
    ],
)
def test_thresholds(integral, thresholds):
    model = multipathnet_tiny(num_classes=2, integral=integral, foveal=False, skip=False)
    assert model.thresholds == thresholds and len(model.classes) == len(thresholds)


@pytest.mark.parametrize("integral, foveal, skip", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_the_three_switches_are_independent(integral, foveal, skip):
    model = multipathnet_tiny(num_classes=4, integral=bool(integral), foveal=bool(foveal), skip=bool(skip)).eval()
    assert (len(model.thresholds), len(model.regions)) == (6 if integral else 1, 4 if foveal else 1)
    assert (model.box_region is not None) == bool(foveal)
    assert model.regions[0].levels == ((0, 1, 2) if skip else (2,))
    logits, deltas = model(torch.randn(2, 3, 70, 90), ROIS)
    assert logits.shape == (len(model.thresholds), 5, 5) and deltas.shape == (5, 5, 4)
    assert logits.isfinite().all() and deltas.isfinite().all()


def test_tiny_fits_its_limits_and_begins_with_a_deepmask():
    torch.manual_seed(1)
    deepmask = deepmask_tiny().eval()
    for m in deepmask.trunk.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 2)
    model = multipathnet_tiny(num_classes=9, trunk_from=deepmask)
    assert sum(v.numel() * 2 for v in model.state_dict().values()) < 8e6, "over 8 MB in float16"
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.features(x)[-1], deepmask.trunk(x))
        assert torch.equal(model.train().features(x)[0], model.eval().features(x)[0]), "a frozen norm measures nothing"
    assert model.features(x)[-1].requires_grad, "the trunk learns on"
    with pytest.raises(ValueError, match="trunk_from"):
        multipathnet_tiny(num_classes=9, trunk_from=deepmask_tiny(depths=(1, 1, 1)))


@pytest.mark.parametrize("pooling", ["v1", "v2", "align"])
def test_half_precision_keeps_the_boxes_where_they_are(pooling):
    """Under autocast the features have 8 bits; RoIs at 300 px would be off by one with so few."""
    torch.manual_seed(0)
    model = multipathnet_tiny(num_classes=3, pooling=pooling).eval()
    x, rois = torch.randn(1, 3, 384, 384), torch.tensor([[0, 301.0, 299, 313, 315], [0, 257, 131, 333, 211]])
    with torch.inference_mode():
        levels, whole = model.features(x), model(x, rois)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x, rois)
    for a, b in zip(half, whole, strict=True):
        assert (a.float() - b).abs().max() < 0.05 * b.abs().max()
    pooled = [roi_pool(f, rois, 3, scale=1 / 4, how=pooling).float() for f in (levels[0], levels[0].bfloat16())]
    torch.testing.assert_close(*pooled, atol=0.05, rtol=0.02)


def test_no_roi_and_one_category():
    model = small().train()
    images = torch.zeros(1, 3, 32, 32).double()
    logits, deltas = model(images, torch.zeros(0, 5))
    assert logits.shape == (6, 0, 4) and deltas.shape == (0, 4, 4)
    assert model.boxes_of(torch.zeros(0, 4), deltas).shape == (0, 4, 4)
    (logits.sum() + deltas.sum()).backward()
    one = multipathnet_tiny(num_classes=1).eval()
    assert probabilities(one(images.float(), ROIS[:1])).shape == (1, 2)


@pytest.mark.parametrize(
    "rois, message",
    [
        (torch.zeros(2, 4), r"wanted \(N, 5\): index of the picture"),
        (torch.tensor([[0, 1, math.nan, 5, 5]]), "coordinate that is not a finite number"),
        (torch.tensor([[0, 1, 1, math.inf, 5]]), "coordinate that is not a finite number"),
        (torch.tensor([[0.0, 1, 1, 5, 5], [1, 1, 1, 5, 5]]), r"pictures 0 .. 1, and the batch has 1"),
        (torch.tensor([[-1.0, 1, 1, 5, 5]]), r"pictures -1 .. -1"),
    ],
)
def test_rois_that_are_none(rois, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(1, 3, 32, 32).double(), rois.double())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sees": "both"}, "sees is 'both'; choose one of 'text', 'figure'"),
        ({"box_tower": "two"}, "box_tower is 'two'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"integral": 0}, "integral is 0; it must be from 1 to 10"),
        ({"integral": 11}, "integral is 11; it must be from 1 to 10"),
        ({"foveal": (1.0, 0.0)}, "factors are"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)(torch.zeros(1, 3, 32, 32).double(), ROIS[:1])
    with pytest.raises(ValueError, match="num_classes is 0"):
        multipathnet_tiny(num_classes=0)
    with pytest.raises(ValueError, match=r"images have shape \(3, 8, 8\)"):
        small().features(torch.zeros(3, 8, 8))


def test_frozen_stages():
    assert all(p.requires_grad for p in small().parameters())
    model = small(frozen=2)
    learns = {k for k, p in model.trunk.named_parameters() if p.requires_grad}
    assert learns and all(k.startswith(("layer2", "layer3")) for k in learns)
    vgg = MultiPathNet(trunk=VGGTrunk(), tower=lambda c, p: LinearTower(c, p, width=4), num_classes=2, frozen=1, foveal=False)
    assert {k for k, p in vgg.trunk.named_parameters() if not p.requires_grad} == {"features.0.weight", "features.0.bias"}


def test_resnet_kind_is_torchvisions_resnet(tmp_path):
    """Without foveal regions and skips, on a RoI that pools every cell once: layer4 and its mean, with the file's weights."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs = resnet18().eval()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 2)
    save_file(theirs.state_dict(), tmp_path / "r18.safetensors")
    options = {"foveal": False, "skip": False, "trunk_weights": tmp_path / "r18.safetensors"}
    model = multipathnet_resnet18(num_classes=3, **options).eval()
    assert isinstance(model.regions[0].tower, ResidualTower) and model.pooled == 14
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        y = theirs.layer3(theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x)))))))
        vector = theirs.layer4(y).mean((2, 3))
        logits, _ = model(x, torch.tensor([[0, 0.0, 0, 224, 224]]))
        torch.testing.assert_close(logits[0], model.classes[0](vector), atol=1e-5, rtol=1e-4)


def test_resnet_kind_with_all_switches_begins_as_foveal_alone(tmp_path):
    torch.manual_seed(0)
    model = multipathnet_resnet18(num_classes=2, pooled=7).eval()
    plain = multipathnet_resnet18(num_classes=2, pooled=7, skip=False).eval()
    state = model.state_dict()
    plain.load_state_dict({k: state[k] for k in plain.state_dict()})
    x = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        for a, b in zip(model(x, ROIS[:1]), plain(x, ROIS[:1]), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_weights_of_towers(tmp_path):
    """A file without layer4 leaves the towers as they were; one with another layer4 is refused."""
    source = multipathnet_resnet18(num_classes=2, foveal=False, skip=False)
    state = {**source.trunk.state_dict(), **source.regions[0].tower.state_dict()}
    save_file(state, tmp_path / "all.safetensors")
    save_file(source.trunk.state_dict(), tmp_path / "c4.safetensors")
    whole = multipathnet_resnet18(num_classes=2, trunk_weights=tmp_path / "all.safetensors")
    for region in (*whole.regions, whole.box_region):
        assert all(torch.equal(v, state[k]) for k, v in region.tower.state_dict().items())
    bare = multipathnet_resnet18(num_classes=2, trunk_weights=tmp_path / "c4.safetensors", foveal=False)
    assert torch.equal(bare.trunk.conv1.weight, source.trunk.conv1.weight)
    assert not torch.equal(bare.regions[0].tower.layer4[0].conv1.weight, source.regions[0].tower.layer4[0].conv1.weight)
    odd = {k: v[..., :1].contiguous() if "layer4" in k and v.ndim == 4 else v for k, v in state.items()}
    save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="layer4.0.conv1.weight has shape"):
        multipathnet_resnet18(num_classes=2, trunk_weights=tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="no such file"):
        multipathnet_resnet18(num_classes=2, trunk_weights="nowhere.pth")


def test_resnet50_of_the_original_puts_every_stride_first():
    def strides(model):
        blocks = [m for m in model.modules() if isinstance(m, Bottleneck)]
        return {(m.conv1.stride[0], m.conv2.stride[0]) for m in blocks}

    small = {"num_classes": 2, "foveal": False, "skip": False, "pooled": 2}
    assert strides(multipathnet_resnet50(**small)) == {(1, 1), (1, 2)}
    model = multipathnet_resnet50(**small, stride_in_1x1=True)
    assert strides(model) == {(1, 1), (2, 1)}, "of the trunk and of the tower"
    assert any(isinstance(m, Bottleneck) for m in model.regions.modules())


def test_resnet50_and_its_cheaper_head():
    model = multipathnet_resnet50(num_classes=7, foveal=False, head="linear").eval()
    assert isinstance(model.regions[0].tower, LinearTower) and model.regions[0].mix.conv.out_channels == 256
    assert model(torch.zeros(1, 3, 64, 64), ROIS[:1]).logits.shape == (6, 1, 8)
    with pytest.raises(ValueError, match="head is 'fpn'"):
        multipathnet_resnet50(num_classes=7, head="fpn")


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of_the_named_networks(name):
    """Built without memory: the sizes that the layers' shapes say."""
    with torch.device("meta"):
        model = MODELS[name](num_classes=80)
    assert len(model.regions) == 4 and model.box_region is not None and len(model.classes) == 6
    if name == "multipathnet_vgg16":
        tower = 25088 * 4096 + 4096 + 4096 * 4096 + 4096
        mixes = sum(c * 512 + 512 for c in (1280, 1024, 1024, 512, 1280))
        heads = 6 * 81 * (4 * 4096 + 1) + 324 * (4096 + 1)
        assert sum(p.numel() for p in model.parameters()) == 14_714_688 + 5 * tower + mixes + heads
        assert {k for k, p in model.trunk.named_parameters() if not p.requires_grad} == {
            f"features.{i}.{k}" for i in (0, 2, 5, 7) for k in ("weight", "bias")
        }


@pytest.mark.gpu
def test_cuda_is_cpu(cuda):
    torch.manual_seed(0)
    model = multipathnet_tiny(num_classes=3).eval()
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        cpu = model(x, ROIS)
        gpu = model.to(cuda)(x.to(cuda), ROIS.to(cuda))
    for a, b in zip(cpu, gpu, strict=True):
        torch.testing.assert_close(a, b.cpu(), atol=2e-2, rtol=1e-2)  # TF32 convolutions
