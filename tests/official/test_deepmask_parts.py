"""Parity that runs anywhere: the official network but for most rows of two matrices (data/oracle/README.md)."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fairseg_lite.models.deepmask import DeepMaskOutput
from fairseg_lite.models.losses import deepmask_loss
from tests.official.inference import official_pyramid
from tests.official.resample import aligned_resize

from .oracle_weights import our_name, tiny_official_deepmask
from .test_deepmask_oracle import close

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
PARTS = {k: v for name in ("parts", "deep") for k, v in np.load(ORACLE / f"deepmask_{name}.npz").items()}


def network():
    """What has no official weights here keeps random ones."""
    model = tiny_official_deepmask()
    state = model.state_dict()
    for name, value in PARTS.items():
        if name.startswith("weight:"):
            ours = our_name(name.removeprefix("weight:"))
            state[ours][: len(value)] = torch.from_numpy(value).reshape(-1, *state[ours].shape[1:])
    model.load_state_dict(state)
    return model.double().eval()


def test_first_stages():
    x = torch.from_numpy(PARTS["input"]).double()
    trunk = network().trunk
    close(trunk.stem(x)[:, ::8, ::4, ::4], PARTS["trunk_m03_every4"])
    x = trunk.layer1(trunk.pooled_stem(x))
    close(x[:, ::8, ::4, ::4], PARTS["trunk_m05_every4"])
    close(trunk.layer2(x)[:, ::4, ::2, ::2], PARTS["trunk_m06_every2"])


def test_last_stages():
    """From the patch to the first 32 of its 512 numbers, with nothing official in between."""
    model = network()
    x = model.trunk.layer2(model.trunk.layer1(model.trunk.pooled_stem(torch.from_numpy(PARTS["input"]).double())))
    x = model.trunk.layer3(x)
    close(x[:, ::8], PARTS["trunk_m07_every8"])
    x = model.reduce(x[:, :, 1:-1, 1:-1]).relu()
    close(x[:, ::4], PARTS["trunk_m09_every4"].clip(0))
    close(model.embed(x).flatten(1)[:, :32], PARTS["trunk"][:, :32])


def test_the_trunk_on_a_whole_picture():
    """Resized, bordered and normalised: the same 32 numbers of every window at three scales."""
    with np.load(ORACLE / "deepmask_infer.npz") as z:
        image, scales = torch.from_numpy(z["image"]), z["scales"].tolist()
    with torch.inference_mode():
        levels = official_pyramid(network(), image, scales)
    for i, level in enumerate(levels, 1):
        close(level.dense.embedding[0, :32], PARTS[f"picture_{i}"])


def test_mask_head_and_its_upsampling():
    masks = network().mask(torch.from_numpy(PARTS["trunk"])).view(2, 16, 16)
    close(masks, PARTS["mask_lowres"])
    close(aligned_resize(masks, 32, 32), PARTS["mask"])


def test_score_head():
    """The official gradient of the last weights is each patch's 1024 hidden numbers, times its score's gradient, added up.

    So it tells whether the first 64 are ours, and, whatever made them all, that the last weights make the scores of them.
    """
    model, slope = network(), torch.from_numpy(PARTS["score_gradOutput"])
    hidden = F.threshold(model.score[1](torch.from_numpy(PARTS["trunk"])), 0, 1e-6)  # official ReLU
    official = torch.from_numpy(PARTS["score_grad_lin2"])[0]
    close((slope * hidden).sum(0)[:64], PARTS["score_grad_lin2"][0, :64])
    ours = (model.score[4].weight.flatten() @ official + model.score[4].bias * slope.sum()).squeeze()
    close(ours, np.array((PARTS["score_gradOutput"] * PARTS["score"]).sum()))


def test_losses_and_their_gradients():
    """Ours is a mean over the batch of 2; the official mask gradient is multiplied by the batch size."""
    masks = torch.from_numpy(PARTS["mask"]).view(2, 32, 32).requires_grad_()
    scores = torch.from_numpy(PARTS["score"]).view(2).requires_grad_()
    target = torch.from_numpy(PARTS["mask_labels"])
    loss = deepmask_loss(DeepMaskOutput(masks, scores), target, torch.ones(2, dtype=torch.float64))
    close(loss.mask, PARTS["mask_loss"])
    loss.mask.backward()
    close(masks.grad * 2, PARTS["mask_gradOutput"])
    labels = -torch.from_numpy(PARTS["score_gradOutput"]).sign().view(2)
    loss = deepmask_loss(DeepMaskOutput(masks.detach(), scores), target, labels)
    close(loss.score, PARTS["score_loss"])
    loss.score.backward()
    close(scores.grad, PARTS["score_gradOutput"])
