"""Parity with the official ImageDetect and Tester: `oracle/multipathnet/detect_*.npz`, float32."""

import math
from unittest.mock import patch

import pytest
import torch

from fairseg_lite.geometry.pixels import normalise
from fairseg_lite.models.multipathnet import MultiPathOutput
from fairseg_lite.official.networks import CAFFE, TORCH
from tests.official.detection import detect_official, official_outputs, official_picture
from tests.official.resample import image_scale

from .multipathnet_maps import ORACLE, arrays, official_network, resnet_case
from .small import small_multipathnet

KINDS = ["multipathnet", "resnet"]
SCALES = {"s240_max1000": (240, 1000), "s600_max260": (600, 260)}


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    """Network, official results, transform; the paper's network is too large to come with the tests."""
    if request.param == "resnet":
        return official_network("resnet", resnet_case()), arrays(ORACLE / "multipathnet_detect_resnet.npz"), "imagenet"
    folder = request.getfixturevalue("shared") / "oracle" / "multipathnet"
    data = arrays(folder / "detect_multipathnet.npz")
    data |= {f"{k}_every7": v[..., ::7, ::7] for k, v in data.items() if k.endswith("net_images")}
    return official_network("multipathnet", arrays(folder / "model_multipathnet.npz")), data, "ross"


def close(ours, official, tolerance=1e-4):
    """Within 1e-4 of the largest number there."""
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= tolerance * official.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCALES)
def test_imported_networks_make_pictures_as_official(kind, name):
    """What an import leaves in the record, and the official pictures: the same but for a picture in bytes, not numbers."""
    pixels, transform = {"multipathnet": (CAFFE, "ross"), "resnet": (TORCH, "imagenet")}[kind]
    image, wanted = (arrays(ORACLE / f"multipathnet_detect_{k}.npz") for k in ("resnet", kind))
    image, wanted = image["image"], wanted[f"{name}_net_images_every7"]
    close(official_picture(image, transform, *SCALES[name])[0][..., ::7, ::7], wanted, 1e-6)
    height, width = official_picture(image, transform, *SCALES[name])[0].shape[2:]
    ours = image_scale(normalise((image * 255).round().byte().movedim(0, -1), pixels), height, width)[..., ::7, ::7]
    rounding = 0.51 * pixels.white / 255 / torch.tensor(pixels.std)[:, None, None]
    assert ((ours - wanted[0]).abs() <= rounding).all() and wanted.std() > 20 * rounding.max()


def per_class(data, name):
    tables = (data[f"tester_{name}_{k:02d}"] for k in range(1, 21))
    return [t.reshape(-1, 5) - torch.tensor([1, 1, 1, 1, 0]) for t in tables]


@pytest.mark.parametrize("name", SCALES)
def test_one_scale(case, name):
    model, data, transform = case
    picture, scale = official_picture(data["image"], transform, *SCALES[name])
    close(picture[..., ::7, ::7], data[f"{name}_net_images_every7"], 1e-6)
    close(scale * (data["boxes"] - 1) + 1, data[f"{name}_net_rois"][:, 1:], 1e-6)
    with torch.inference_mode():
        p, boxes = official_outputs(model, model.features(picture), data["boxes"] - 1, scale)
    close(p, data[f"{name}_class"])
    close(boxes.flatten(1) + 1, data[f"{name}_bbox"])


@pytest.mark.parametrize("options, name", [({}, "boxes"), ({"vote": 0.5}, "vote"), ({"top": 100}, "top100")])
def test_nms_voting_and_the_best_hundred(case, options, name):
    model, data, transform = case
    detections = detect_official(
        model, data["image"], data["boxes"] - 1, transform=transform, short_side=240, **{"top": None, **options}
    )
    wanted = per_class(data, name)
    assert [len(d) for d in detections] == [len(d) for d in wanted]
    for ours, official in zip(detections, wanted, strict=True):
        if len(official):
            close(ours[:, :4], official[:, :4])
            close(ours[:, 4], official[:, 4])
    assert sum(map(len, wanted)) >= 100


def test_boxes_grow_without_a_limit():
    """A hundred times the side, where the library's own `boxes_of` stops at 62."""
    network, roi = small_multipathnet(), torch.tensor([[10.0, 0, 20, 20]])
    deltas = (torch.tensor([[[0.0, 0, math.log(100), 0]] * 4]) - network.delta_mean) / network.delta_std
    with patch.object(network, "classify", lambda *_: MultiPathOutput(torch.zeros(1, 1, 4), deltas)):
        _, boxes = official_outputs(network, [], roi, 1.0)
    torch.testing.assert_close(boxes[0, 1], torch.tensor([-485.0, 0, 515, 20]))
    torch.testing.assert_close(network.boxes_of(roi, deltas)[0, 1], torch.tensor([-297.5, 0, 327.5, 20]))


def test_more_rounds_pool_their_candidates(case):
    model, data, transform = case
    options = {"transform": transform, "short_side": 100, "top": None, "nms": 1.0}
    once, twice = (detect_official(model, data["image"], data["boxes"] - 1, iterations=i, **options) for i in (1, 2))
    assert [len(d) for d in twice] == [2 * len(d) for d in once]
    assert all((d[:, None] == t[None]).all(-1).any(1).all() for d, t in zip(once, twice, strict=True))


def test_no_proposal_and_a_wrong_picture(case):
    model, data, transform = case
    detections = detect_official(model, data["image"], torch.zeros(0, 4), transform=transform, short_side=100)
    assert len(detections) == 20 and all(d.shape == (0, 5) for d in detections)
    with pytest.raises(ValueError, match=r"picture is torch.uint8 \(3, 8, 8\)"):
        official_picture(torch.zeros(3, 8, 8, dtype=torch.uint8), transform, 8, 8)
    with pytest.raises(ValueError, match="transform is 'caffe'"):
        official_picture(data["image"], "caffe", 8, 8)
