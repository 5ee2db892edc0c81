"""Everything once with the network on a GPU: no tensor is left behind on the CPU, and nothing asks for what a GPU cannot do.

Where there is no GPU a pretended one takes its place (`pretended_gpu.py`). That results are right, too, is tested in the rooms.
"""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from fairseg_lite import bench
from fairseg_lite.bench import __main__ as gpu_report
from fairseg_lite.course import study
from fairseg_lite.course.ablation import measure
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.boundary import boundary_f, boundary_report, trimap_iou
from fairseg_lite.evaluation.patches import patch_report
from fairseg_lite.geometry.boxes import clip_boxes, decode_boxes, encode_boxes, foveal_boxes, vote_boxes
from fairseg_lite.geometry.masks import mask_iou
from fairseg_lite.inference.detect import detect, masks_in_boxes
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models import deepmask, multipathnet, sharpmask
from fairseg_lite.models.checkpoints import load_model, load_tensors
from fairseg_lite.models.losses import deepmask_loss, multipath_loss
from fairseg_lite.models.mobile import LiteTrunk, deepmask_lite0
from fairseg_lite.models.multipathnet import probabilities
from fairseg_lite.models.refinement import NaiveRefinementModule, refactor
from fairseg_lite.models.trunks import ResNetTrunk, VGGTrunk
from fairseg_lite.official.networks import from_object
from fairseg_lite.official.patches import OfficialSampler
from fairseg_lite.official.reader import loads
from fairseg_lite.training.detector import make_proposals, train_multipathnet
from fairseg_lite.training.recipes import RECIPES
from fairseg_lite.training.stages import train_deepmask, train_sharpmask
from tests.official.small import Official, small_sharpmask
from tests.official.writer import dump
from tests.pretended_gpu import pretended_gpu

pytestmark = pytest.mark.gpu
IMAGE = ShapesDataset(1, seed=1, size=112)[0].image
SMALL = {"depths": (1, 1, 1)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNetTrunk(**SMALL, padding="symmetric"),
        lambda: ResNetTrunk(**SMALL, norm="batch", block="basic", poolings=3),
        VGGTrunk,
        partial(VGGTrunk, padding="symmetric"),
        LiteTrunk,
    ],
)
def test_trunks(build, cuda):
    trunk, x = build().to(cuda), torch.randn(2, 3, 64, 80, device=cuda)
    trunk(x).sum().backward()
    taps, levels = trunk.taps(x), trunk.levels(x)
    assert all(f.is_cuda for f in (*taps, *levels)) and next(trunk.parameters()).grad.is_cuda


def patch_losses(model, device):
    """A step's gradients by every branch of the loss, and the whole-picture way."""
    model, side = model.to(device), model.patch_size + model.context
    x, masks = torch.randn(2, 3, side, side, device=device), torch.rand(2, *[model.target_size] * 2, device=device) > 0.5
    for only in ("mask", "score", None)[:3 if isinstance(model, deepmask.DeepMask) else 1]:  # fmt: skip
        loss = deepmask_loss(model(x), masks, torch.tensor([1.0, -1], device=device), only=only)
        loss.total.backward()
    assert loss.total.is_cuda
    with torch.inference_mode():
        dense = model.eval().dense(torch.randn(1, 3, model.patch_size + 32, model.patch_size + 48, device=device))
        index = torch.zeros(2, dtype=torch.int64, device=device)
        assert model.masks_at(dense, index, index, index).is_cuda


NETWORKS = {
    **{f"head {head}": partial(deepmask.deepmask_tiny, head=head) for head in deepmask.HEADS},
    "stride 8": partial(deepmask.deepmask_tiny, poolings=3),
    "lite0": deepmask_lite0,
    "resnet50": partial(deepmask.deepmask_resnet50, padding="symmetric", trunk=SMALL),
    "full": lambda: deepmask.DeepMask(trunk=ResNetTrunk(**SMALL), patch_size=96, head="branches", mask_head="full", mask_size=24),
    "sharp": sharpmask.sharpmask_tiny,
    "sharp official": partial(sharpmask.sharpmask_tiny, upsample="nearest", padding="official"),
    "sharp skip": partial(sharpmask.sharpmask_tiny, k=8, schedule="constant", paths="skip", padding="zeros"),
    "sharp deconvolution": partial(sharpmask.sharpmask_tiny, paths="deconvolution"),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_networks_of_patches(build, cuda):
    patch_losses(build(), cuda)


def test_a_refinement_can_be_refactored_there(cuda):
    naive = NaiveRefinementModule(features=8, channels=4, out=2).to(cuda)
    x = torch.randn(1, 8, 6, 6, device=cuda), torch.randn(1, 4, 6, 6, device=cuda)
    torch.testing.assert_close(refactor(naive)(*x), naive(*x), atol=1e-2, rtol=1e-2)


DETECTORS = {
    "tiny": multipathnet.multipathnet_tiny,
    "fast rcnn": partial(multipathnet.multipathnet_tiny, foveal=False, skip=False, integral=False),
    "joined": partial(multipathnet.multipathnet_tiny, sees="figure", box_tower="joined"),
    "resnet18": partial(multipathnet.multipathnet_resnet18, foveal=False, skip=False, pooled=7),
    "vgg16": partial(multipathnet.multipathnet_vgg16, foveal=False, tower={"width": 8}, mixed=8),
}


@pytest.mark.parametrize("build", DETECTORS.values(), ids=DETECTORS)
def test_networks_of_boxes(build, cuda):
    model = build(num_classes=4).to(cuda)
    rois = torch.tensor([[0, 5.0, 5, 60, 70], [1, 20, 10, 100, 90], [0, 0, 0, 30, 30]], device=cuda)
    out = model(torch.randn(2, 3, 112, 128, device=cuda), rois)
    labels = torch.randint(-1, 5, out.logits.shape[:2], device=cuda)
    multipath_loss(out, labels, torch.randn(3, 4, device=cuda)).total.backward()
    assert model.boxes_of(rois[:, 1:], out.deltas).is_cuda and probabilities(out).is_cuda
    assert model(torch.randn(2, 3, 112, 128, device=cuda), rois[:0]).deltas.shape == (0, 5, 4)


def test_boxes_and_edges(cuda):
    boxes = torch.tensor([[1.0, 2, 20, 18], [4, 4, 16, 30]], device=cuda)
    found = [clip_boxes(boxes, 15, 15), foveal_boxes(boxes, clip=(30, 30)), vote_boxes(boxes, boxes + 1, boxes[:, 0])]
    found.append(decode_boxes(boxes, encode_boxes(boxes, boxes + 2)))
    masks = torch.rand(2, 20, 25, device=cuda) > 0.5
    found += [mask_iou(masks, masks), trimap_iou(masks, masks), *boundary_f(masks, masks)]
    assert all(x.is_cuda for x in found if isinstance(x, torch.Tensor))


OPTIONS = [
    {"nms": 0.5, "zoom": 1},
    {"dtype": torch.bfloat16, "max_side": 64},
    {"refine": False, "threshold": 0.2, "scales": [0.5, 1.0]},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["shapes", "shapes-sharp"])
def test_propose(name, options, cuda):
    found = propose(load_model(name, device=cuda), IMAGE, top_k=12, **options)
    assert 0 < len(found) <= 12 and not any(x.is_cuda for x in (found.boxes, found.scores, found.scales, found.positions))
    assert len(found[:3].to_coco(1)) == 3


def test_detect_with_every_option(cuda):
    sharp, named = prepare(load_model("shapes-sharp", device=cuda)), load_model("shapes-multipath", device=cuda)
    proposals = propose(sharp, IMAGE, top_k=20)
    refined = {"masks": "refined", "proposer": sharp, "mask_boxes": True}
    for options in ({"flip": True, "crops": 1, "iterations": 2}, {"vote": 0.5, "short_side": 128}, refined, {"masks": None}):
        found = detect(named, IMAGE, proposals, **options)
        assert not found.boxes.is_cuda and len(found.to_coco(1, range(1, 10))) == len(found)
    assert len(detect([named, named], IMAGE, proposals))
    boxes = torch.tensor([[10.0, 10, 60, 60], [30, 40, 100, 90]], device=cuda)
    assert masks_in_boxes(sharp, IMAGE, boxes) == masks_in_boxes(sharp, IMAGE, boxes.cpu())


def quick(kind, **changes):
    recipe = RECIPES[kind]["lesson"]
    return replace(recipe, **changes, fit=replace(recipe.fit, steps=2, warmup=1, save_every=1, log_every=1))


def longer(recipe):
    return replace(recipe, fit=replace(recipe.fit, steps=3))


@pytest.mark.parametrize("changes", [{}, {"alternate": True, "colour": 0.4, "turn": 20.0, "rules": "official"}])
def test_a_deepmask_is_trained_and_goes_on(changes, cuda, tmp_path):
    data, recipe = ShapesDataset(4), quick("deepmask", positives=3, negatives=1, **changes)
    sampler = {"sampler": OfficialSampler} if "rules" in changes else {}
    train_deepmask(data, recipe=recipe, device=cuda, out=tmp_path, progress=False, **sampler)
    model, history = train_deepmask(
        data, recipe=longer(recipe), device=cuda, out=tmp_path, resume=True, progress=False, **sampler
    )  # fmt: skip
    assert history["step"] == [1, 2, 3] and model.device.type == "cuda"
    assert all(not x.is_cuda for x in load_tensors(tmp_path / "state.safetensors")[0].values())
    assert patch_report(model, data, limit=4, progress=False).instances == 4
    assert boundary_report(model, data, limit=4, progress=False).instances == 4


def test_a_sharpmask_is_trained(cuda):
    recipe = quick("sharpmask", positives=3)
    recipe = replace(recipe, fit=replace(recipe.fit, optimizer="sgd", ema=0.9, precision="bf16"))
    data = ShapesDataset(4)
    for base in (load_model("shapes"), load_model("shapes", device=cuda)):
        model, history = train_sharpmask(data, recipe=recipe, deepmask=base, device=cuda, progress=False)
    assert history.finished and np.isfinite(history["loss"]).all() and model.device.type == "cuda"


def test_a_multipathnet_is_trained_and_goes_on(cuda, tmp_path):
    data = ShapesDataset(4)
    boxes = make_proposals(load_model("shapes", device=cuda), data, tmp_path / "p.json", top_k=10, progress=False)
    truth = {data[i].image_id: torch.from_numpy(data[i].boxes) for i in range(4)}
    boxes = {k: Boxes(torch.cat([truth[k] + 1, b.boxes]), torch.ones(len(truth[k]) + len(b.boxes))) for k, b in boxes.items()}
    recipe, start = quick("multipathnet", images=2, rois=8, colour=0.2), load_model("shapes", device=cuda)
    run = {"trunk_from": start, "device": cuda, "out": tmp_path / "run", "progress": False}
    train_multipathnet(data, boxes, recipe=recipe, **run)
    model, history = train_multipathnet(data, boxes, recipe=longer(recipe), resume=True, **run)
    assert history["step"] == [1, 2, 3]
    assert 0 <= measure(model, data, boxes).ap50 <= 1


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_the_report_for_a_day_with_a_gpu(where, capsys, tmp_path, cuda):
    assert gpu_report.main(["--gpu-report", "--tiny", "--device", where, "--json", str(tmp_path / "r.json")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    rows = json.loads((tmp_path / "r.json").read_text("utf-8"))["rows"]
    assert len(lines) == len(rows) >= 4 and all(row["value"] > 0 for row in rows)
    assert ("TF32" in first) == (where == "cuda") and all("<= 25 ms" in x for x in lines if x[:4] in ("shar", "mult"))
    assert ">= 8,000/s" in lines[-1] and "trunk" in lines[0] and "rois" in next(x for x in lines if x[:4] == "mult")
    with pytest.raises(SystemExit):
        gpu_report.main([])


def test_apples_gpu_is_asked_for_no_float64(tmp_path):
    data, recipe = ShapesDataset(2), quick("sharpmask", positives=2)
    base, fixed = load_model("shapes"), replace(recipe.fit, precision="fp32", clip=1.0, ema=0.9)
    with pretended_gpu("mps") as gpu:
        model, _ = train_sharpmask(
            data, recipe=replace(recipe, fit=fixed), deepmask=base, device="mps", out=tmp_path, progress=False
        )
        found = propose(model, IMAGE, top_k=5)
        named = detect(load_model("shapes-multipath", device="mps"), IMAGE, found, masks="refined", proposer=model, flip=True)
        assert boundary_report(model, data, limit=4, progress=False).instances == 4
        assert mask_iou(found.masks().to("mps"), named.masks().to("mps")).is_mps and gpu.calls


def test_an_imported_network_moves_there(cuda):
    model, there = from_object(loads(dump(Official().sharpmask(small_sharpmask())))), small_sharpmask().to(cuda)
    x = torch.randn(2, 3, model.patch_size + model.context, model.patch_size + model.context)
    torch.testing.assert_close(model.to(cuda)(x.to(cuda)).masks, there(x.to(cuda)).masks)


def test_what_is_measured_is_measured_there(cuda):
    for name in ("sharpmask_tiny", "multipathnet_tiny"):
        scene = bench.time_scene(replace(bench.QUICK, model=name), torch.float32, cuda)
        assert scene["total"] > 0
    assert bench.time_training(bench.QUICK, "bf16", cuda)["step_seconds"] > 0
    assert bench.ceiling(torch.float32, cuda, 64) > 0
    assert study.costs({"a": {"features": 16}}, size=(32, 32), repeat=1, device=cuda)["a"].windows > 0
