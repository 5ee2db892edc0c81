"""Detectors that are prepared: the same function, in bounded memory, in half the bits where that is fast."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.data.photos import photographs
from fairseg_lite.data.results import Boxes
from fairseg_lite.inference import detect as module
from fairseg_lite.inference.detect import detect
from fairseg_lite.inference.propose import Joined, prepare
from fairseg_lite.models.checkpoints import MODELS, load_model
from fairseg_lite.models.network import Network
from fairseg_lite.models.roi_pooling import LinearTower, Mix, Region, ResidualTower, readable
from fairseg_lite.models.trunks import Basic, activated, residual_layer

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
ROIS = torch.tensor([[0, 3.0, 5, 60, 70], [0, -9, 2, 30, 31], [0, 20, 20, 120, 90], [0, 100, 1, 110, 9]])


@pytest.mark.parametrize("name", ["multipathnet_tiny", "multipathnet_lite0", "multipathnet_resnet18"])
def test_a_prepared_detector_differs_by_rounding(name):
    torch.manual_seed(0)
    model = MODELS[name](num_classes=3).eval()
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if isinstance(m, FrozenBatchNorm2d):
            m.running_var.copy_(torch.rand(m.running_var.shape, generator=g) + 0.5)
            m.running_mean.copy_(torch.rand(m.running_mean.shape, generator=g) - 0.5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast = prepare(model)
    assert not any(isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d) for m in fast.modules())
    with torch.inference_mode():
        images = model.normalise(IMAGE)[None]
        for a, b in zip(model(images, ROIS), fast(images, ROIS), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the network itself stays as it was"


def test_in_bfloat16_boxes_and_soft_max_stay_float32():
    model, boxes = load_model("shapes-multipath"), Boxes(ROIS[:, 1:], torch.ones(4))
    fast = prepare(model, dtype=torch.bfloat16)
    assert next(fast.parameters()).dtype == torch.bfloat16 and torch.equal(fast.delta_std, model.delta_std)
    photo = photographs()[11].image
    with torch.inference_mode():
        levels = [x.float() for x in fast.features(fast.normalise(photo)[None].bfloat16())]
        out = fast.classify(levels, ROIS)
    assert out.logits.dtype == out.deltas.dtype == torch.float32
    options = {"masks": None, "score_threshold": 0.0, "nms": 1.0, "top": 1000}
    exact, near = (detect(m, photo, boxes, **options) for m in (model, fast))
    assert len(exact) == len(near) == 4 * model.num_classes
    order = [torch.argsort(found.labels * 10_000 + found.boxes.sum(1)) for found in (exact, near)]
    torch.testing.assert_close(near.scores[order[1]].sum(), exact.scores[order[0]].sum(), atol=0.05, rtol=0.0)
    assert not torch.equal(near.scores[order[1]], exact.scores[order[0]]), "it did compute in another type"


def test_how_many_rois_go_together_changes_nothing(monkeypatch):
    model, photo = prepare(load_model("shapes-multipath")), photographs()[11].image
    boxes = Boxes(ROIS[:, 1:].repeat(5, 1) + torch.arange(20)[:, None], torch.ones(20))
    asked, classify = [], type(model).classify
    monkeypatch.setattr(
        type(model), "classify", lambda self, levels, rois: asked.append(len(rois)) or classify(self, levels, rois)
    )
    options = {"masks": None, "score_threshold": 0.01}
    whole = detect(model, photo, boxes, **options)
    assert asked == [20]
    monkeypatch.setattr(module, "ROI_BYTES", 2**19)
    parts = detect(model, photo, boxes, **options)
    assert len(asked) > 3 and sum(asked[1:]) == 20
    torch.testing.assert_close(parts.scores, whole.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts.boxes, whole.boxes, atol=1e-2, rtol=1e-4)


class Held(TorchDispatchMode):
    """The most bytes of tensors that were made inside and alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.alive[x.untyped_storage()._cdata] = StorageWeakRef(x.untyped_storage()), x.untyped_storage().nbytes()
        self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_of_rois_is_bounded_however_many_they_are(dtype, monkeypatch):
    model = prepare(MODELS["multipathnet_resnet50"](num_classes=3), dtype=dtype)
    sides = torch.tensor([1, 1 / 4, 1 / 8, 1 / 16]) * 160
    levels = [torch.rand(1, c, int(s), int(s)).to(dtype) for c, s in zip((256, 512, 1024), sides[1:], strict=True)]
    together, ratio = 2**24, torch.ones(4)
    monkeypatch.setattr(module, "ROI_BYTES", together)
    held = []
    for n in (7, 14):
        with torch.inference_mode(), Held() as count:
            module._mean_look([model], [[readable(x, "v2") for x in levels]], ROIS[:1, 1:].expand(n, 4), ratio, 160, False, 0)
        held.append(count.most)
    given = sum(x.numel() * x.element_size() for x in levels)
    assert together / 4 < held[0] - given < together and held[1] < held[0] + 2**15, "of the batch alone, and its few results"


def test_near_identical_proposals_are_looked_at_once(monkeypatch):
    model, photo = prepare(load_model("shapes-multipath")), photographs()[11].image
    boxes = torch.tensor([[10.0, 10, 110, 110], [11, 10, 111, 110], [10, 10, 90, 110], [200, 50, 260, 90]])
    asked, classify = [], type(model).classify
    monkeypatch.setattr(
        type(model), "classify", lambda self, levels, rois: asked.append(len(rois)) or classify(self, levels, rois)
    )
    for prune in (None, 0.9, 0.7):
        detect(model, photo, Boxes(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6])), masks=None, prune=prune)
    assert asked == [4, 3, 2]


@pytest.mark.parametrize("strided", [False, True])
def test_two_convolutions_of_one_cell_become_one(strided):
    torch.manual_seed(0)
    tower = ResidualTower(32, 6, inner=16, width=64, depth=2, block="bottleneck", stride_in_1x1=strided)
    network = Network()
    network.region = Region(1.0, (0, 1, 2), Mix([8, 16, 32], 32, normalise=False), tower)
    nn.init.normal_(network.region.mix.conv.weight)
    nn.init.normal_(network.region.mix.conv.bias)
    pooled = [torch.randn(3, c, 6, 6) for c in (8, 16, 32)]
    with torch.inference_mode():
        wanted, fast = network.eval().region(pooled), prepare(network).region
        torch.testing.assert_close(fast(pooled), wanted, atol=1e-4, rtol=1e-4)
        assert fast.mix(pooled).shape[1] == 8 + 16 + 32, "nothing is mixed before the tower"
        linear = Region(1.0, (2,), Mix([32], 32), LinearTower(32, 6, width=9)).eval()
        linear.join()
        assert linear.mix(pooled[2:]).shape[1] == 32 and linear(pooled[2:]).shape == (3, 9), "others stay as they are"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("act, limit", [("relu", F.relu), ("hardtanh", F.relu6), ("none", lambda x: x)])
def test_one_call_or_several_give_the_same(act, limit, dtype):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(8, 8, 3, padding=1, groups=4).to(dtype), nn.Identity()
    x = 9 * torch.randn(2, 8, 7, 5).to(dtype).to(memory_format=torch.channels_last)
    for plus in (None, x):
        with torch.inference_mode():
            fast, none = activated(conv, norm, x, act, plus), activated(conv, norm, x[:0], act)
        slow = limit(conv.double()(x.double()) + (0 if plus is None else plus.double()))
        torch.testing.assert_close(fast.double(), slow, atol=0.2 if dtype == torch.bfloat16 else 1e-4, rtol=1e-5)
        assert fast.dtype == dtype and none.shape == (0, 8, 7, 5)
        conv.to(dtype)


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_basic_blocks_become_two_calls(dtype, close):
    torch.manual_seed(0)
    network = Network()
    network.layers = residual_layer(8, 16, 16, 2, 2, block="basic")
    x = torch.randn(2, 8, 9, 7).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        fast, wanted = prepare(network.eval(), dtype=dtype), network.layers(x)
        assert [type(block) for block in fast.layers] == [Joined, Joined] and type(network.layers[0]) is Basic
        torch.testing.assert_close(fast.layers(x.to(dtype)).float(), wanted, atol=close, rtol=close)
