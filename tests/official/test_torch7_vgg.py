"""MultiPathNet's VGG kinds in every form that the official scripts make; what does not fit is named."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairseg_lite.inference.detect import detect
from fairseg_lite.models.checkpoints import load_model, save_model
from fairseg_lite.official.networks import import_official

from .small_vgg import WIDTHS, OfficialVGG, small_vgg
from .writer import Object, dump, tensor

FORMS = {
    "vgg": [{}, {"integral": 1}, {"pooling": "v1", "pooled": 4, "integral": 3}, {"trunk": {"widths": WIDTHS, "ceil": False}}],
    "multipathnet": [
        {}, {"integral": 1}, {"skip_scale": 20.0, "mixed": 5, "pooling": "v1"},
    ],
}  # fmt: skip


def imported(tmp_path, thing):
    path = tmp_path / "model.t7"
    path.write_bytes(dump(thing))
    return import_official(path)


@pytest.mark.parametrize("kind, options", [(k, o) for k, forms in FORMS.items() for o in forms], ids=str)
def test_every_form(tmp_path, kind, options):
    """The checkpoint alone builds the same network, and every tensor has become one of ours."""
    ours = small_vgg(kind, **options)
    found = imported(tmp_path, OfficialVGG().vgg(ours))
    path = tmp_path / "network.safetensors"
    save_model(path, found)
    again = load_model(path, kind="MultiPathNet")
    assert found.record.about["tensors"] == len(ours.state_dict()) == len(again.state_dict())
    images, rois = torch.randn(2, 3, 70, 81), torch.tensor([[0, 3.0, 5, 60, 50], [1, 20, 0, 79, 63], [1, 8, 8, 40, 30]])
    with torch.no_grad():
        for a, b in zip(ours(images, rois), again(images, rois), strict=True):
            assert torch.equal(a, b)
    assert again.thresholds == ours.thresholds and torch.equal(again.delta_mean, ours.delta_mean)


@pytest.mark.parametrize("kind", FORMS)
def test_detect_makes_pictures_as_caffe_does(tmp_path, kind):
    """Nobody says so: the record of what was imported does, also of what was saved and loaded again."""
    path = tmp_path / "network.safetensors"
    save_model(path, imported(tmp_path, OfficialVGG().vgg(small_vgg(kind))))
    model, seen = load_model(path, kind="MultiPathNet"), []
    features, model.features = model.features, lambda x: seen.append(x) or features(x)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    proposals = SimpleNamespace(boxes=torch.tensor([[3.0, 5, 60, 50]]), size=(64, 80))
    detect(model, image, proposals, short_side=64, score_threshold=0, masks=None)
    bgr = image[..., ::-1].astype(np.float32) - np.float32([102.9801, 115.9465, 122.7717])
    np.testing.assert_allclose(seen[0][0].numpy(), bgr.transpose(2, 0, 1), atol=1e-3)
    assert (model.record.short_side, model.record.max_side) == (800, 1000)


def test_what_was_not_trained_is_not(tmp_path):
    """The whole trunk of the paper's network, until its second phase; of Fast R-CNN the first four convolutions."""

    def fixed(kind, **options):
        model = imported(tmp_path, OfficialVGG().vgg(small_vgg(kind), **options))
        return sum(not p.requires_grad for p in model.parameters()) // 2

    assert (fixed("vgg"), fixed("multipathnet"), fixed("multipathnet", phase2=True)) == (4, 11, 4)


def at(thing: Object, path: str) -> Object:
    """The module at a path such as m.3.1."""
    for number in path.split(".")[1:]:
        thing = thing.fields["modules"][int(number) - 1]
    return thing


def change(path: str, **fields):
    return lambda thing: at(thing, path).fields.update(fields)


def drop(path: str, last: int = 1):
    return lambda thing: [at(thing, path).fields["modules"].pop() for _ in range(last)]


ONE = tensor(np.ones((1, 1), "f4"))
FAULTS = {
    "a tensor too many": (change("m.3.2.3.1", extra=ONE), "1 tensors have no place in a MultiPathNet: 3.2.3.1.extra"),
    "a tower without bias": (change("m.3.2.3.1", bias=None), "m.3.2.3.1.bias is missing"),
    "regions of other sizes": (change("m.3.2.3.4", weight=tensor(np.ones((7, 5), "f4"))), "its regions differ in more"),
    "no boxes": (drop("m.1"), "m.1 has 1 branches; wanted pictures and boxes"),
    "no foveal boxes": (drop("m.2"), "m.2 has 1 branches; wanted features and boxes"),
    "other boxes": (lambda t: setattr(at(t, "m.2.2.1"), "name", "nn.ContextRegion"), "m.2.2.1 is a nn.ContextRegion"),
    "one region": (drop("m.3", 4), "m.3 has 1 regions; wanted are 4"),
    "a fifth region": (change("m.3.1.1.2", index=5), "m.3.1.1.2 .nn.Select.: index is 5, ours has 1"),
    "boxes looked at from afar": (change("m.3.5.1.2", index=4), "m.3.5.1.2 .nn.Select.: index is 4, ours has 2"),
    "levels in another order": (change("m.3.1.2.1.2.1.1", index=3), "m.3.1.2.1.2.1.1 .nn.SelectTable.: index is 3, ours has 2"),
    "another stride": (change("m.3.1.2.1.2.2", spatial_scale=1 / 16), "spatial_scale is 0.0625, ours has 0.125"),
    "no square": (change("m.3.1.2.1.2.2", H=2), "H is 2, ours has 3"),
    "other cells": (change("m.3.1.2.1.2.2", W=2, H=2), "m.3.1: its levels must be pooled alike"),
    "another length": (change("m.3.2.2.1.1.4", p=1), "p is 1, ours has 2"),
    "no scale": (change("m.3.2.2.3", constant_scalar="x"), "multiplied by 1000 or so; here by 'x'"),
    "joined elsewhere": (change("m.3.2.2.2", dimension=1), "dimension is 1, ours has 2"),
    "four levels": (lambda t: at(t, "m.3.1.2.1").fields["modules"].append(Object("nn.Identity")), "4 levels; official are 3"),
    "a level less": (drop("m.3.1.2.1"), "m.3.1.2.1 pools 2 levels; official are 3"),
    "a level less for the boxes": (drop("m.3.5.2.1"), "m.3.5.2.1 pools 2 levels; official are 3"),
    "parts that overlap": (change("m.4.2", index=3), "m.4.2 .nn.Narrow.: index is 3, ours has 25"),
    "one part": (drop("m.4"), "m.4 has 1 branches"),
    "no classifier": (change("m.5.1", modules=[]), "m.5.1 has no classifier"),
    "no norm": (drop("m.7"), "wanted classes and boxes in m.5, and one BBoxNorm"),
    "poolings of both kinds": (change("m.1.1.1.1.5", ceil_mode=False), "some poolings round sizes up and some down"),
    "a trunk that forks oddly": (drop("m.1.1.1.1.17"), "m.1.1.1.1.17 has 1 branches; wanted one and one that changes nothing"),
    "a convolution less": (change("m.1.1.1.1.3", dW=2, dH=2), r"m.1.1.1.1.3 steps by \(2, 2\)"),
    "a wide border": (change("m.1.1.1.1.3", padW=2, padH=2), "pad in the ways odd, zeros"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_named(tmp_path, name):
    fault, message = FAULTS[name]
    thing = OfficialVGG().vgg(small_vgg("multipathnet"))
    fault(thing)
    with pytest.raises(ValueError, match=message):
        imported(tmp_path, thing)


def test_mutated_networks_are_refused_or_work(tmp_path):
    """Up to three bytes exchanged: a ValueError, or a network."""
    rng, content, outcomes = np.random.default_rng(0), dump(OfficialVGG().vgg(small_vgg("multipathnet"))), []
    path = tmp_path / "model.t7"
    for _ in range(40):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            broken[int(rng.integers(len(broken) - 8))] = rng.integers(256)
        path.write_bytes(broken)
        try:
            outcomes.append(type(import_official(path)).__name__)
        except ValueError:
            outcomes.append("refused")
    assert set(outcomes) == {"MultiPathNet", "refused"}
