"""Parity with the official MultiPathNet, VGG and ResNet networks, float32: classes and boxes to 1e-4 of the largest."""

import numpy as np
import pytest
import torch

from fairseg_lite.geometry.boxes import foveal_boxes
from fairseg_lite.models.losses import multipath_loss
from fairseg_lite.models.multipathnet import MultiPathOutput, probabilities
from fairseg_lite.models.roi_pooling import Mix, roi_pool

from .multipathnet_maps import ORACLE, arrays, official_network, resnet_case, rois_of


def large(request):
    """The folder of what is too large to come with the tests."""
    return request.getfixturevalue("shared") / "oracle" / "multipathnet"


def close(ours, official, tolerance=1e-4):
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= tolerance * official.abs().max()


@pytest.mark.parametrize("kind", ["multipathnet", "vgg", "resnet"])
def test_whole_networks(kind, request):
    data = resnet_case() if kind == "resnet" else arrays(large(request) / f"model_{kind}.npz")
    model = official_network(kind, data)
    with torch.inference_mode():
        output = model(data["images"], rois_of(data["rois"]))
    close(probabilities(output), data["class"])
    close((output.deltas * model.delta_std + model.delta_mean).flatten(1), data["bbox"])
    if kind == "multipathnet":
        rois = rois_of(data["rois"])
        close(foveal_boxes(rois[:, 1:]), rois_of(data["foveal"])[..., 1:])


def test_every_region(request):
    """The four towers of the classes and the fifth of the boxes, side by side: 5 x 4096 numbers."""
    data = arrays(large(request) / "model_multipathnet.npz")
    model = official_network("multipathnet", data)
    seen, regions = {}, (*model.regions, model.box_region)
    for region in regions:
        region.register_forward_hook(lambda region, _, out: seen.update({region: out}))
    with torch.inference_mode():
        model(data["images"], rois_of(data["rois"]))
    close(torch.cat([seen[region] for region in regions], 1), data["regions"])


@pytest.mark.parametrize("levels", ["345", "45", "5"])
def test_mixing_of_levels(levels):
    """One RoI, the part of the features that it sees, and 16 of the 512 channels."""
    data = arrays(ORACLE / "multipathnet_mixing.npz")
    features = {"3": (data["feat_3"], 4), "4": (data["feat_2"], 8), "5": (data["feat_1"], 16)}
    pooled = [roi_pool(features[k][0], rois_of(data["rois"]), 7, scale=1 / features[k][1]) for k in levels]
    mix = Mix([p.shape[1] for p in pooled], 16)
    with torch.inference_mode():
        mix.conv.weight.copy_(data[f"{levels}_weight"])
        mix.conv.bias.copy_(data[f"{levels}_bias"])
        close(mix(pooled).flatten(2), data[f"{levels}_out"], 1e-5)


def test_integral_head():
    with np.load(ORACLE / "multipathnet_integral.npz") as z:
        data = {k: torch.from_numpy(z[k]) for k in z.files}
    logits = torch.stack([data[f"train_class_{i}"] for i in range(1, 7)])
    hidden = (data["x"] @ data["m.1.weight"].T + data["m.1.bias"]).relu()
    ours = torch.stack([hidden @ data[f"m.3.1.{i}.weight"].T + data[f"m.3.1.{i}.bias"] for i in range(1, 7)])
    close(ours, logits, 1e-5)
    close(probabilities(MultiPathOutput(ours, None)), data["eval_class"], 1e-5)


def test_loss_and_gradients():
    """One classifier: the official cross entropy and BBoxRegressionCriterion, whose targets are spread over the classes."""
    with np.load(ORACLE / "multipathnet_boxes.npz") as z:
        data = {k: torch.from_numpy(z[k]) for k in z.files}
    labels = data["bbc_labels"].long() - 1
    logits, deltas = data["ce_in"][None].requires_grad_(), data["bbc_in"].view(8, 21, 4).requires_grad_()
    targets = data["bbc_target"].view(8, 21, 4)[torch.arange(8), labels]
    loss = multipath_loss(MultiPathOutput(logits, deltas), labels[None], targets)
    close(loss.boxes, data["bbc_loss"][0], 1e-6)
    close(loss.classes, data["ce_loss"][0], 1e-6)
    loss.total.backward()
    close(deltas.grad.flatten(1), data["bbc_grad"], 1e-6)
    close(logits.grad[0], data["ce_grad"], 1e-6)
