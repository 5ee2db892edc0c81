"""The files that the official code itself wrote: file -> our network -> the official outputs, in float64."""

import copy
import gzip
import json
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from fairseg_lite.geometry.pixels import normalise
from fairseg_lite.inference.detect import detect
from fairseg_lite.models.checkpoints import load_model, save_model
from fairseg_lite.models.multipathnet import probabilities
from fairseg_lite.models.network import Network
from fairseg_lite.official.networks import CAFFE, TORCH, import_official
from tests.official.detection import detect_official, official_picture
from tests.official.inference import propose_official
from tests.official.multipathnet_maps import ORACLE, arrays, official_network, resnet_case, resnet_file, rois_of
from tests.official.oracle_weights import official_deepmask, official_threshold
from tests.official.resample import aligned_resize
from tests.official.sharpmask_maps import official_sharpmask
from tests.official.test_deepmask_oracle import close

from .structure import official_modules
from .writer import dump


@pytest.fixture(scope="module", params=["deepmask", "sharpmask"])
def case(request, shared, tmp_path_factory):
    """Name, folder and network: imported, saved and loaded again, so that nothing lives outside the checkpoint."""
    folder = shared / "oracle" / request.param
    path = tmp_path_factory.mktemp("official") / "model.t7"
    path.write_bytes(gzip.decompress((folder / "model.t7.gz").read_bytes()))
    found = import_official(path)
    save_model(path.with_suffix(".safetensors"), found)
    return request.param, folder, load_model(path.with_suffix(".safetensors"), kind=type(found).__name__).double()


def test_the_same_numbers_as_by_module_path(case, shared):
    """`weights.npz` lists the same state by path; the two ways to it must agree to the bit."""
    name, folder, model = case
    other = official_deepmask(folder / "weights.npz") if name == "deepmask" else official_sharpmask(shared / "oracle")
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_patches(case):
    name, folder, model = case
    with np.load(folder / "patch_f64.npz") as z:
        patch = {k: z[k] for k in ("input", "mask_lowres", "mask", "score", "output") if k in z.files}
    with torch.no_grad():
        found = (official_threshold(copy.deepcopy(model)) if name == "deepmask" else model)(torch.from_numpy(patch["input"]))
    if name == "sharpmask":
        return close(found.masks, patch["output"])
    close(found.scores, patch["score"])
    close(found.masks, patch["mask_lowres"])
    return close(aligned_resize(found.masks, 32, 32), patch["mask"])


@pytest.mark.parametrize("picture", ["patch", "pad"])
def test_convolutional_form(case, shared, picture):
    name, _, model = case
    with np.load(shared / "oracle" / "deepmask" / "conv_f64.npz") as z:  # a SharpMask's trunk and score are its DeepMask's
        conv = {k: z[f"{picture}_{k}"] for k in ("input", "trunk", "score")}
    with torch.no_grad():
        dense = model.dense(torch.from_numpy(conv["input"]))
    close(dense.embedding, conv["trunk"])
    close(dense.scores, conv["score"])
    assert len(dense.laterals) == (4 if name == "sharpmask" else 0)


def test_whole_pictures(case):
    _, folder, model = case
    with np.load(folder / "infer_f64.npz") as z:
        full = {k: z[k] for k in ("image", "scales", "topScores", "topMasks")}
    found = propose_official(model, torch.from_numpy(full["image"]), full["scales"].tolist(), top_k=20)
    np.testing.assert_allclose(found.rows.numpy(), full["topScores"], atol=1e-7)
    assert int((found.masks.numpy() != full["topMasks"].astype(bool)).sum()) == 0


@pytest.fixture(scope="module")
def multipathnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("multipathnet") / "model.t7"
    path.write_bytes(resnet_file())
    found = import_official(path)
    save_model(path.with_suffix(".safetensors"), found)
    return load_model(path.with_suffix(".safetensors"), kind="MultiPathNet")


def test_multipathnet(multipathnet):
    """ResNet-18 of a quarter of the width with six classifiers: the numbers by path, classes and boxes."""
    data = resnet_case()
    ours, theirs = multipathnet.state_dict(), official_network("resnet", data).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    with torch.no_grad():
        out = multipathnet(data["images"], rois_of(data["rois"]))
    assert len(multipathnet.classes) == 6 and multipathnet.num_classes == 20 and multipathnet.record.pixels == TORCH
    close(probabilities(out), data["class"].numpy(), 1e-5)
    deltas = out.deltas * multipathnet.delta_std + multipathnet.delta_mean
    close(deltas.flatten(1), data["bbox"].numpy(), 1e-4)


def agrees(found, data):
    """The official best hundred, category by category."""
    wanted = [data[f"tester_top100_{k:02d}"].reshape(-1, 5) - torch.tensor([1, 1, 1, 1, 0]) for k in range(1, 21)]
    assert [len(d) for d in found] == [len(d) for d in wanted] and sum(map(len, wanted)) >= 100
    for ours, official in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, official.to(ours.dtype), rtol=1e-4, atol=1e-2)


def found_by_detect(model, data, transform):
    """The library's own `detect`, with nothing said of pixels, on the picture that official code resized, in bytes.

    Returns, of 20 categories and 12 boxes, by how much their sorted scores differ.
    """
    picture, scale = official_picture(data["image"], transform, 240, 1000)
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.record.pixels.mean, model.record.pixels.std))
    picture = ((picture[0] * std + mean) * (255 / model.record.pixels.white)).round().clamp(0, 255).byte()
    picture = (picture.flip(0) if transform == "ross" else picture).movedim(0, -1).contiguous().numpy()
    proposals = SimpleNamespace(boxes=data["s240_max1000_net_rois"][:, 1:] - 1, size=picture.shape[:2])
    found = detect(model, picture, proposals, short_side=240, score_threshold=0, nms=1, top=1000, masks=None)
    scores = torch.stack([found.scores[found.labels == k].sort().values for k in range(20)], 1)
    return (scores - data["s240_max1000_class"][:, 1:].sort(0).values).abs().max()


def test_multipathnet_on_a_picture(multipathnet):
    data = arrays(ORACLE / "multipathnet_detect_resnet.npz")
    agrees(detect_official(multipathnet, data["image"], data["boxes"] - 1, transform="imagenet", short_side=240, top=100), data)
    assert found_by_detect(multipathnet, data, "imagenet") < 1e-3


@pytest.fixture(scope="module", params=["vgg", "multipathnet"])
def vgg(request, shared, tmp_path_factory):
    """Fast R-CNN and the paper's network: no file of them is left, so one is written from the oracle's modules and tensors."""
    source = shared / "oracle" / "multipathnet" / f"model_{request.param}"
    with np.load(source.with_suffix(".npz")) as z:
        weights = {k: z[k] for k in z.files if k.startswith("m.")}
    path = tmp_path_factory.mktemp(request.param) / "model.t7"
    structure = json.loads(source.with_suffix(".json").read_text("utf-8"))["structure"]
    path.write_bytes(dump(official_modules(structure, weights)))
    found = import_official(path)
    assert found.record.about["tensors"] == len(weights) + 2  # and the norm of boxes
    save_model(path.with_suffix(".safetensors"), found)
    return request.param, source, load_model(path.with_suffix(".safetensors"), kind="MultiPathNet")


def test_the_vgg_kinds(vgg):
    """Tensor by tensor the network that the numbers by path make, and the official classes and boxes."""
    kind, source, model = vgg
    data = arrays(source.with_suffix(".npz"))
    ours, theirs = model.state_dict(), official_network(kind, data).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    with torch.no_grad():
        out = model(data["images"], rois_of(data["rois"]))
    assert len(model.classes) == 6 and len(model.regions) == (4 if kind == "multipathnet" else 1)
    close(probabilities(out), data["class"].numpy(), 1e-4)
    close((out.deltas * model.delta_std + model.delta_mean).flatten(1), data["bbox"].numpy(), 1e-4)


@pytest.mark.parametrize("vgg", ["multipathnet"], indirect=True)
def test_the_papers_network_on_a_picture(vgg, shared):
    data = arrays(shared / "oracle" / "multipathnet" / "detect_multipathnet.npz")
    agrees(detect_official(vgg[2], data["image"], data["boxes"] - 1, transform="ross", short_side=240, top=100), data)


@pytest.mark.parametrize("vgg", ["multipathnet"], indirect=True)
def test_detect_makes_pictures_for_vgg_by_itself(vgg, shared):
    """With bytes for numbers the scores move by .04; as ImageNet's RGB the same picture gives others altogether."""
    _, _, model = vgg
    data = arrays(shared / "oracle" / "multipathnet" / "detect_multipathnet.npz")
    assert model.record.pixels == CAFFE and found_by_detect(model, data, "ross") < 0.05
    with patch.object(Network, "normalise", lambda self, image: normalise(image)):
        assert found_by_detect(model, data, "ross") > 0.5
