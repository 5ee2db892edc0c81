"""Official files of every form become our networks, tensor by tensor; what does not fit is named."""

import numpy as np
import pytest
import torch

from fairseg_lite.models.checkpoints import load_model, save_model
from fairseg_lite.official.networks import import_official
from fairseg_lite.official.reader import Torch7Error

from .small import Official, small_deepmask, small_multipathnet, small_sharpmask
from .writer import Object, dump, tensor

FORMS = [
    {}, {"affine": "nn.SpatialConstDiagonal"}, {"conv": "nn.SpatialConvolutionMM"}, {"dtype": "f8"},
    {"biased": True}, {"affine": "nn.SpatialConstDiagonal", "biased": True},
]  # fmt: skip


def same(ours, imported, side: int, tolerance: float = 0) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for a, b in zip(ours(x), imported(x), strict=True):
            torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


def imported(tmp_path, thing):
    path = tmp_path / "model.t7"
    path.write_bytes(dump(thing))
    return import_official(path)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_deepmask(tmp_path, form):
    ours = small_deepmask()
    found = imported(tmp_path, Official(**form).deepmask(ours))
    same(ours, found, 64, 1e-5 if form.get("biased") else 0)
    assert found.record.model == "deepmask_resnet50" and found.record.about["config"]["iSz"] == 32 and not found.training
    parameters = sum(1 for _ in ours.parameters()) + sum("bn" in k or "downsample.1" in k for k in dict(ours.named_buffers())) / 2
    assert found.record.about["tensors"] == parameters + (16 if form.get("biased") else 0)  # 16 convolutions before a norm


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_sharpmask(tmp_path, form):
    ours = small_sharpmask()
    found = imported(tmp_path, Official(**form).sharpmask(ours))
    same(ours, found, 64, 1e-5 if form.get("biased") else 0)
    same(ours.deepmask, found.deepmask, 64, 1e-5 if form.get("biased") else 0)
    assert found.record.kwargs["upsample"] == "nearest" and found.record.kwargs["padding"] == "symmetric"


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "zeros"}, {"patch_size": 48, "mask_size": 5, "context": 64}, {"features": 9},
        {"trunk": {"depths": [1, 3, 2]}},
        {"trunk": {"block": "basic", "stem": [5, 3], "stem_pool": False}}, {"embedding": 33, "score_hidden": 3},
    ],
    ids=str,
)  # fmt: skip
def test_sizes_are_read_off_the_modules(tmp_path, options):
    ours = small_deepmask(**options)
    found = imported(tmp_path, Official().deepmask(ours))
    same(ours, found, ours.patch_size + ours.context)
    assert (found.context, found.target_size) == (ours.context, 16)


def test_the_checkpoint_builds_the_same_network(tmp_path):
    ours = small_sharpmask()
    found = imported(tmp_path, Official().sharpmask(ours))
    path = tmp_path / "sharp.safetensors"
    save_model(path, found)
    again = load_model(path)
    same(ours, again, 64)
    assert again.record.about["config"] == {"iSz": 32, "oSz": 8, "gSz": 32, "batch": 2, "km": 16, "dm": "deepmask"}
    image = torch.randn(1, 3, 80, 64)
    zero = torch.tensor([0])
    with torch.no_grad():
        a, b = ours.dense(image), again.dense(image)
        assert torch.equal(a.scores, b.scores) and torch.equal(
            ours.masks_at(a, zero, zero, zero), again.masks_at(b, zero, zero, zero)
        )


@pytest.mark.parametrize("form", [{}, {"affine": "nn.SpatialConstDiagonal"}, {"biased": True}, {"dtype": "f8"}], ids=str)
@pytest.mark.parametrize("options", [{}, {"integral": 1}, {"integral": 2, "pooling": "v1", "pooled": 6}], ids=str)
def test_multipathnet(tmp_path, form, options):
    ours = small_multipathnet(**options)
    found = imported(tmp_path, Official(**form).multipathnet(ours))
    assert found.record.model == "multipathnet_resnet18" and len(found.classes) == options.get("integral", 6)
    assert found.pooling == options.get("pooling", "v2") and found.thresholds == ours.thresholds
    path = tmp_path / "network.safetensors"
    save_model(path, found)
    images, rois = torch.randn(2, 3, 64, 80), torch.tensor([[0, 3.0, 5, 60, 50], [1, 20, 0, 79, 63], [1, 8, 8, 40, 30]])
    tolerance = 1e-5 if form.get("biased") else 0
    with torch.no_grad():
        for a, b in zip(ours(images, rois), load_model(path, kind="MultiPathNet")(images, rois), strict=True):
            torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)
    assert torch.equal(found.delta_mean, ours.delta_mean) and torch.equal(found.delta_std, ours.delta_std)


ONE = tensor(np.ones((1, 1), "f4"))
MULTIPATH_FAULTS = {
    "another mean": (lambda m: m[2].fields["modules"][1].fields.update(kW=3), "m.2 pools 4 cells a side and m.3.2"),
    "cells that are no square": (lambda m: m[1].fields.update(H=5), "m.2 .inn.ROIPooling.: H is 5, ours has 4"),
    "no norm of boxes": (lambda m: m[5].fields["modules"].pop(), "one BBoxNorm at the end"),
    "linear layers as a tower": (lambda m: m[2].fields.update(modules=[Object("nn.Linear")]), r"m.3 is made of \[linear\]"),
    "a tanh for a head": (lambda m: setattr(m[3].fields["modules"][0].fields["modules"][2], "name", "nn.Tanh"), "m.4.1.3 is a"),
    "no deviations": (lambda m: m[5].fields["modules"][1].fields.pop("std"), "m.6.2.std is missing"),
    "a tensor too many": (lambda m: m[4].fields.update(weight=ONE), "1 tensors have no place in a MultiPathNet: 5.weight"),
    "five parts": (lambda m: m.pop(3), "official are a pooled tower, or some"),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPATH_FAULTS)
def test_what_does_not_fit_a_multipathnet_is_named(tmp_path, name):
    fault, message = MULTIPATH_FAULTS[name]
    thing = Official().multipathnet(small_multipathnet())
    fault(thing.fields["modules"])
    with pytest.raises(ValueError, match=message):
        imported(tmp_path, thing)


def module(thing: dict, path: str) -> Object:
    """The module at a path such as trunk.5.1."""
    first, *rest = path.split(".")
    found = thing["model"].fields[first]
    for number in rest:
        found = found[int(number)] if isinstance(found, dict) else found.fields["modules"][int(number) - 1]
    return found


def change(path: str, **fields):
    return lambda thing: module(thing, path).fields.update(fields)


def rename(path: str, name: str):
    return lambda thing: setattr(module(thing, path), "name", name)


def without(path: str, field: str):
    return lambda thing: module(thing, path).fields.pop(field)


def twice(thing: dict) -> None:
    stage = module(thing, "trunk.5").fields["modules"]
    stage[1] = stage[0]


def cycle(thing: dict) -> None:
    module(thing, "trunk").fields["modules"][4] = module(thing, "trunk")


FAULTS = {
    "a tensor too many": (change("scoreBranch.2", extra=ONE), "1 tensors have no place in a SharpMask: scoreBranch.2.extra"),
    "a weight of a pool": (change("trunk.4", weight=ONE), "have no place in a SharpMask: trunk.4.weight"),
    "a bias too few": (without("trunk.9", "bias"), "trunk.9.bias is missing"),
    "no weight": (without("refs.0.1", "weight"), "netvs.0.1: a nn.Linear without a weight|netvs.0.1.weight is missing"),
    "another shape": (change("scoreBranch.2", weight=tensor(np.ones((7, 11), "f4"))), "scoreBranch.2.weight has shape"),
    "a huge layer": (change("scoreBranch.2", weight=tensor(np.ones((2**17, 1), "f4"))), "at most 65536 outputs"),
    "not a number": (change("trunk.2", a=tensor(np.full(4, np.nan, "f4"))), "trunk.2.a holds numbers that are not finite"),
    "a sigmoid": (rename("trunk.3", "cudnn.Sigmoid"), "trunk.3 is a cudnn.Sigmoid; the official networks have none"),
    "a product": (rename("trunk.5.1.2", "nn.CMulTable"), "trunk.5.1.2 is a nn.CMulTable"),
    "a relu for a convolution": (rename("netvs.2.1", "nn.ReLU"), r"netvs.2 is made of \[relu relu conv\]; the official one of"),
    "another step": (change("trunk.6.1.1.1.4.2", dW=1, dH=1), r"steps by \(1, 1\)"),
    "another pool": (change("trunk.4", kW=4), "kW is 4, ours has 3"),
    "a pool that rounds up": (change("trunk.4", ceil_mode=True), "ceil_mode is True, ours has False"),
    "another border": (change("trunk.1.1", pad_l=1), "pad in the ways odd, symmetric"),
    "another patch": (lambda thing: thing["config"].update(iSz=48), "config.iSz is 48"),
    "an old dropout": (change("scoreBranch.1", v2=False), "also scales in evaluation"),
    "a block twice": (twice, r"trunk.5.2 \(nn.Sequential\) occurs twice"),
    "a cycle": (cycle, r"trunk.5 \(nn.Sequential\) occurs twice"),
    "a branch of words": (change("trunk.5.1.1", modules=["a", "b"]), "trunk.5.1.1 .nn.ConcatTable. has modules that are none"),
    "no trunk": (lambda thing: thing["model"].fields.pop("trunk"), "trunk is NoneType"),
    "no refinement": (lambda thing: thing["model"].fields.pop("netvs"), "a SharpMask without netvs"),
    "one too few": (lambda thing: thing["model"].fields["netvs"].pop(3), "netvs.3 is NoneType"),
    "two stages": (lambda thing: module(thing, "trunk").fields["modules"].pop(5), "2 stages of residual blocks"),
    "half a step": (change("trunk.1.2", kW=7.5), "kW is 7.5; a whole number"),
    "another crop": (change("trunk.8", pad_l=3), "a border of .3. cells is cut off"),
    "another kind": (lambda thing: setattr(thing["model"], "name", "nn.VGG"), "the file holds a VGG; wanted"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_named(tmp_path, name):
    fault, message = FAULTS[name]
    thing = Official().sharpmask(small_sharpmask())
    fault(thing)
    with pytest.raises(ValueError, match=message):
        imported(tmp_path, thing)


def test_no_network_at_all(tmp_path):
    for thing in (None, 5, "x", [1], {"model": 3}, Object("nn.Linear")):
        with pytest.raises(ValueError, match="wanted an official DeepMask, SharpMask or"):
            imported(tmp_path, thing)
    path = tmp_path / "model.t7"
    path.write_bytes(dump(Official().deepmask(small_deepmask()))[:-20])
    with pytest.raises(Torch7Error, match="at byte"):
        import_official(path)


def test_modules_shared_without_end_are_refused_at_once(tmp_path):
    """Each of 20 Sequentials holds the one before twice: a million layers for one that walks them all."""
    thing = Official().deepmask(small_deepmask())
    bomb = Object("nn.ReLU")
    for _ in range(20):
        bomb = Object("nn.Sequential", {"modules": [bomb, bomb]})
    thing["model"].fields["scoreBranch"] = bomb
    with pytest.raises(ValueError, match="occurs twice"):
        imported(tmp_path, thing)


def test_mutated_networks_are_refused_or_work(tmp_path):
    """Up to three bytes exchanged: a ValueError, or a network."""
    rng, content, outcomes = np.random.default_rng(0), dump(Official().sharpmask(small_sharpmask())), []
    path = tmp_path / "model.t7"
    for _ in range(40):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(broken) - 8))
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            outcomes.append(type(import_official(path)).__name__)
        except ValueError:
            outcomes.append("refused")
    assert set(outcomes) == {"SharpMask", "refused"}
