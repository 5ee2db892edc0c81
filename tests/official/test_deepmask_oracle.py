"""Parity with the official code: stages, heads, losses and gradients of `oracle/deepmask`, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fairseg_lite.geometry.pixels import symmetric_pad
from fairseg_lite.models import trunks
from fairseg_lite.models.losses import deepmask_loss
from tests.official.resample import aligned_resize

from .oracle_weights import official_deepmask, official_threshold, our_name

TOLERANCE = 1e-9


def close(ours: torch.Tensor, official: np.ndarray, tolerance: float = TOLERANCE) -> None:
    official = torch.from_numpy(official).reshape(ours.shape)
    scale = max(official.abs().max().item(), 1e-12)
    assert (ours - official).abs().max().item() <= tolerance * scale


@pytest.fixture(scope="module")
def oracle(shared):
    folder = shared / "oracle" / "deepmask"
    return folder, dict(np.load(folder / "patch_f64.npz")), dict(np.load(folder / "conv_f64.npz"))


@pytest.fixture
def model(oracle):
    return official_deepmask(oracle[0] / "weights.npz")


def test_every_stage_of_the_patch_network(oracle, model):
    patch = oracle[1]
    x = torch.from_numpy(patch["input"])
    stem = model.trunk.stem(x)
    close(stem, patch["trunk_m03"])
    x = model.trunk.pooled_stem(torch.from_numpy(patch["input"]))
    for layer, name in (("layer1", "m05"), ("layer2", "m06"), ("layer3", "m07")):
        x = getattr(model.trunk, layer)(x)
        close(x, patch[f"trunk_{name}"])
    inner = x[:, :, 1:-1, 1:-1]
    close(inner, patch["trunk_m08"])
    reduced = F.relu(model.reduce(inner))
    close(reduced, patch["trunk_m09"].clip(0))
    vector = model.embed(reduced).flatten(1)
    close(vector, patch["trunk_m12"])
    close(vector, patch["trunk"])


def test_masks_and_scores_of_patches(oracle, model):
    patch = oracle[1]
    out = official_threshold(model)(torch.from_numpy(patch["input"]))
    close(out.masks, patch["mask_lowres"])
    close(out.scores, patch["score"])
    close(aligned_resize(out.masks, 32, 32), patch["mask"])


@pytest.mark.parametrize("picture", ["patch", "pad"])
def test_convolutional_form(oracle, model, picture):
    conv = oracle[2]
    dense = model.dense(torch.from_numpy(conv[f"{picture}_input"]))
    close(dense.embedding, conv[f"{picture}_trunk"])
    close(dense.scores, conv[f"{picture}_score"])
    b, h, w = dense.scores.shape
    index = torch.cartesian_prod(torch.arange(b), torch.arange(h), torch.arange(w))
    masks = model.masks_at(dense, *index.T).reshape(b, h, w, 256).movedim(-1, 1)
    close(masks, conv[f"{picture}_mask"])


def test_losses_and_gradients(oracle, model, monkeypatch):
    """Ours is a mean over the batch; the official mask gradient is multiplied by the batch size (2).

    The official symmetric padding discards the gradient of what it added; autograd keeps it, so here it is discarded, too.
    """

    def official_pad(x, left, right, top, bottom):
        inside = F.pad(x, (left, right, top, bottom))
        return inside + (symmetric_pad(x, left, right, top, bottom) - inside).detach()

    monkeypatch.setattr(trunks, "symmetric_pad", official_pad)
    patch = oracle[1]
    model = official_threshold(model)
    model.requires_grad_(True)
    x = torch.from_numpy(patch["input"]).requires_grad_()
    labels = torch.from_numpy(patch["mask_labels"]) > 0
    out = model(x)
    up = aligned_resize(out.masks, 32, 32)
    positive = torch.ones(2, dtype=torch.float64)
    loss = deepmask_loss(out._replace(masks=up), labels, positive)
    close(loss.mask, patch["mask_loss"])
    loss.mask.backward()
    batch = 2
    close(x.grad * batch, patch["mask_gradInput"])
    named = dict(model.named_parameters())
    compared = 0
    for key, official in patch.items():
        if key.startswith("grad.maskNet"):
            first, rest = key.removeprefix("grad.maskNet.").split(".", 1)
            rest = rest.replace("gradWeight", "weight").replace("gradBias", "bias")
            ours = our_name(f"trunk.{rest}" if first == "1" else f"maskBranch.{rest}")
            close(named[ours].grad * batch, official)
            compared += 1
    assert compared == 17


def test_score_loss_and_gradient(oracle, model):
    patch = oracle[1]
    model = official_threshold(model)
    out = model(torch.from_numpy(patch["input"]))
    labels = torch.from_numpy(patch.get("score_labels", np.zeros(0))).flatten()
    if labels.numel() == 0:  # the file stores the gradient, whose sign is the label's
        labels = -torch.sign(torch.from_numpy(patch["score_gradOutput"]).flatten())
    scores = out.scores.detach().requires_grad_()
    loss = deepmask_loss(out._replace(scores=scores), torch.zeros(2, 16, 16, dtype=torch.bool), labels)
    close(loss.score, patch["score_loss"])
    loss.score.backward()
    close(scores.grad, patch["score_gradOutput"])
