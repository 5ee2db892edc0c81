"""What finding proposals asks of a GPU: so many calls, next to no waiting, and what the CPU finds. Counted, not measured."""

import os

import pytest
import torch

from fairseg_lite import bench
from fairseg_lite.geometry.masks import paste_masks, rle_decode, rle_encode
from fairseg_lite.inference.propose import prepare, propose
from tests.pretended_gpu import pretended_gpu

FULL = pytest.mark.skipif(os.environ.get("FAIRSEG_SCALE") != "lesson", reason="ResNet-50 takes a minute: --full")
CASES = [
    pytest.param("deepmask_tiny", {"quick": True, "top_k": 50}, 510, id="tiny"),
    pytest.param("sharpmask_tiny", {"quick": True, "top_k": 50}, 1125, id="sharp tiny"),
    pytest.param("deepmask_resnet50", {}, 1000, id="resnet50", marks=FULL),
    pytest.param("sharpmask_resnet50", {}, 1600, id="sharp resnet50", marks=FULL),
]


@pytest.mark.parametrize("name, settings, calls", CASES)
def test_proposals_of_seven_scales(name, settings, calls, monkeypatch):
    s = bench.settings(model=name, scales=7, **settings)
    model, image, scales = bench.build(s, torch.device("cpu"))
    model = prepare(model)
    here = propose(model, image, scales=scales, top_k=s.top_k)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with pretended_gpu() as gpu:
        model.to("cuda")
        propose(model, image, scales=scales, top_k=1)  # sends what is sent once
        gpu.clear()
        there = propose(model, image, scales=scales, top_k=s.top_k)
        assert gpu.waits.total() <= 6 and gpu.calls.total() <= calls, f"{gpu}\n{gpu.calls.most_common(12)}"
    torch.testing.assert_close(there.scores, here.scores, atol=1e-6, rtol=1e-5)
    masks = {(s, *p): r for s, p, r in zip(here.scales.tolist(), here.positions.tolist(), here.rle, strict=True)}
    found = {(s, *p): r for s, p, r in zip(there.scales.tolist(), there.positions.tolist(), there.rle, strict=True)}
    assert len(found) == len(here) and masks.keys() == found.keys()
    off = [(rle_decode(masks[k]) ^ rle_decode(r)).mean() for k, r in found.items() if r != masks[k]]
    assert len(off) <= 0.05 * len(found) and max(off, default=0) < 1e-3, "equal, but where a pixel is rounded to the other side"


def test_reranking_on_a_gpu_waits_twice_more_and_finds_the_same(monkeypatch):
    s = bench.settings(quick=True, model="deepmask_tiny", scales=7, top_k=50)
    model, image, scales = bench.build(s, torch.device("cpu"))
    model = prepare(model)
    here = propose(model, image, scales=scales, top_k=s.top_k, rerank=True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with pretended_gpu() as gpu:
        model.to("cuda")
        propose(model, image, scales=scales, top_k=s.top_k)
        gpu.clear()
        propose(model, image, scales=scales, top_k=s.top_k)
        plain = gpu.waits.total()
        gpu.clear()
        there = propose(model, image, scales=scales, top_k=s.top_k, rerank=True)
        assert gpu.waits.total() <= plain + 2, f"{gpu}"
    assert len(here) == len(there) == s.top_k
    places = [{(s, *p) for s, p in zip(x.scales.tolist(), x.positions.tolist(), strict=True)} for x in (here, there)]
    assert len(places[0] & places[1]) >= 0.9 * s.top_k, "the same windows, but where a pixel is rounded to the other side"
    torch.testing.assert_close(there.scores, here.scores, atol=0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 21)])
def test_a_gpu_pastes_and_encodes_as_the_cpu_does(shape, cuda):
    g = torch.Generator().manual_seed(shape[0])
    boxes = torch.rand(40, 4, generator=g) * 30 - 6
    boxes[:, 2:] = boxes[:, :2] + torch.rand(40, 2, generator=g) * 50
    boxes[0, 2], boxes[1] = boxes[0, 0], float("nan")  # no area, no number
    logits = torch.randn(40, 6, 6, generator=g)
    logits[2], logits[3] = 9, -9  # everywhere, nowhere
    boxes[2:4] = torch.tensor([-9.0, -9, 99, 99])
    for threshold in (0.0, 0.7):
        here = paste_masks(logits, boxes, *shape, threshold)
        there = paste_masks(logits.to(cuda), boxes, *shape, threshold)
        assert there.is_cuda and (there.cpu() != here).float().mean() < 1e-3
        assert here[2].all() and not here[3].any() and not here[:2].any()
        assert rle_encode(there) == rle_encode(there.cpu()) == rle_encode(there.cpu().numpy())


@pytest.mark.gpu
def test_masks_of_no_pixels_and_no_masks(cuda):
    for shape in ((0, 4, 5), (2, 0, 5), (2, 4, 0)):
        masks = torch.zeros(shape, dtype=torch.bool)
        assert rle_encode(masks.to(cuda)) == rle_encode(masks) == rle_encode(masks.numpy())
        assert paste_masks(torch.ones(shape[0], 3, 3).to(cuda), torch.ones(shape[0], 4), *shape[1:]).shape == shape
