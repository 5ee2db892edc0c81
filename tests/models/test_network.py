"""What a network carries besides its layers: it takes pictures its own way, everywhere, and says where it comes from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.patches import patch_masks
from fairseg_lite.geometry.pixels import IMAGENET, Pixels, normalise
from fairseg_lite.inference.detect import detect, masks_in_boxes
from fairseg_lite.inference.propose import propose
from fairseg_lite.models.checkpoints import load_model, load_tensors, save_model
from fairseg_lite.models.deepmask import deepmask_tiny
from fairseg_lite.models.network import Record
from fairseg_lite.models.sharpmask import sharpmask_tiny

CAFFE = Pixels(mean=(102.9801, 115.9465, 122.7717), std=(1, 1, 1), order="BGR", white=255)
TURNED = Pixels(  # ImageNet's numbers, told another way
    mean=[255 * m for m in IMAGENET.mean[::-1]], std=[255 * s for s in IMAGENET.std[::-1]], order="BGR", white=255
)
SCENES = ShapesDataset(2, seed=1)


def test_caffes_pixels_by_hand():
    red = normalise(np.array([[[255, 10, 0]]], np.uint8), CAFFE).flatten()
    torch.testing.assert_close(red, torch.tensor([-102.9801, 10 - 115.9465, 255 - 122.7717]))


@pytest.mark.parametrize(
    "wrong", [{"order": "GBR"}, {"mean": (1, 2)}, {"std": (1, 0, 1)}, {"white": 0}], ids=lambda w: next(iter(w))
)
def test_pixels_that_are_none(wrong):
    with pytest.raises(ValueError, match="wanted three means"):
        Pixels(**wrong)


@pytest.fixture(scope="module", params=["shapes", "shapes-sharp", "shapes-multipath"])
def pair(request, tmp_path_factory):
    """A shipped network, and one of the same function that wants its pictures another way; saved and loaded again."""
    path, model = tmp_path_factory.mktemp("pixels") / "turned.safetensors", load_model(request.param)
    conv = model.trunk.conv1.weight.data
    conv.copy_(conv.flip(1))
    model.record = replace(model.record, pixels=TURNED)
    save_model(path, model)
    return load_model(request.param), load_model(path)


def test_pictures_come_as_the_network_wants_them_everywhere(pair):
    scene = SCENES[0]
    found = []
    for model in pair:
        if type(model).__name__ == "MultiPathNet":
            proposals = propose(load_model("shapes"), scene.image, top_k=30)
            named = detect(model, scene.image, proposals, masks=None, score_threshold=0.3)
            found.append((named.boxes, named.scores))
            continue
        proposals = propose(model, scene.image, top_k=10)
        cut = masks_in_boxes(model, scene.image, torch.from_numpy(scene.boxes))
        patches = torch.cat([masks for masks, _ in patch_masks(model, SCENES, progress=False)])
        found.append((proposals.boxes, proposals.scores, torch.tensor([len(r["counts"]) for r in cut]), patches.float().mean()))
    for a, b in zip(*found, strict=True):
        assert len(a.flatten()) and torch.allclose(a.float(), b.float(), atol=0.02), (a, b)


def test_a_wrong_order_is_no_small_matter(pair):
    """What the test above would see if one place forgot: the same weights, ImageNet's pixels."""
    ours, turned = pair
    x = torch.from_numpy(SCENES[0].image)
    assert torch.allclose(ours.normalise(x), turned.normalise(x).flip(0), atol=1e-5)
    a, b, wrong = (m.trunk(p.normalise(x)[None]) for m, p in ((ours, ours), (turned, turned), (turned, ours)))
    assert torch.allclose(a, b, atol=1e-3) and (a - wrong).abs().mean() > 0.05 * a.abs().mean()


def test_builders_record_what_builds_the_network_again():
    deep = deepmask_tiny(features=32)
    assert (deep.record.model, deep.record.kwargs) == ("deepmask_tiny", {"features": 32})
    deep.record = replace(deep.record, pixels=CAFFE, rerank=True)
    sharp = sharpmask_tiny(deepmask=deep, k=16)
    assert (sharp.record.model, sharp.record.kwargs) == ("sharpmask_tiny", {"deepmask": {"features": 32}, "k": 16})
    assert sharp.record.pixels == CAFFE, "a refinement sees what its DeepMask sees"
    assert sharp.record.rerank, "and orders its masks as it does"


def test_the_deepmask_in_a_sharpmask_has_a_record_of_its_own(tmp_path):
    sharp = sharpmask_tiny(k=16)
    sharp.record = replace(sharp.record, padding="mean", pixels=CAFFE)
    save_model(tmp_path / "s.safetensors", sharp)
    inner = load_model(tmp_path / "s.safetensors").deepmask.record
    assert (inner.model, inner.kwargs, inner.padding, inner.pixels) == ("deepmask_tiny", {}, "mean", CAFFE)
    assert load_tensors(tmp_path / "s.safetensors")[1]["pixels"]["order"] == "BGR"


def test_headers_of_version_0_1_are_understood():
    recipe = {"padding": "mean", "short_side": [255, 256], "max_side": 500}
    record = Record.of({"model": "m", "recipe": recipe, "command": "train", "categories": ["a"], "category_ids": [7]})
    assert (record.padding, record.short_side, record.max_side) == ("mean", 255, 500)
    assert (record.about, record.categories, record.category_ids) == ({"command": "train"}, ("a",), (7,))
    assert record.pixels == IMAGENET and Record.of(record.header()) == record


@pytest.mark.parametrize(
    "options, said",
    [
        ({"features": 0}, "deepmask_tiny with features = 0 has a layer without weights, .*: sizes begin at 1"),
        ({"features": -2}, "deepmask_tiny cannot be built with features = -2: "),
        ({"depths": (1,)}, r"deepmask_tiny cannot be built with depths = \(1,\): not enough values"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_sizes_that_no_network_has_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        deepmask_tiny(**options)


@pytest.mark.filterwarnings("error")
def test_a_picture_that_cannot_be_written_to_is_read_without_a_warning():
    picture = np.zeros((4, 5, 3), np.uint8)
    picture.flags.writeable = False  # as numpy.asarray of a Pillow picture is
    torch.set_warn_always(True)  # else but once in a process
    try:
        assert deepmask_tiny().normalise(picture).shape == (3, 4, 5)
        assert deepmask_tiny().normalise(picture[:, ::-1]).shape == (3, 4, 5)
    finally:
        torch.set_warn_always(False)
