"""Parity that runs anywhere: the official refinement but for the lateral part of its first module (data/oracle/README.md)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fairseg_lite.models.deepmask import DenseFeatures
from fairseg_lite.models.losses import mask_loss
from tests.official.inference import official_pyramid

from .sharpmask_maps import load_refinement, official_refinement, our_name
from .test_deepmask_oracle import close
from .test_deepmask_parts import network as deepmask

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
PARTS = {k: v for name in ("parts", "laterals") for k, v in np.load(ORACLE / f"sharpmask_{name}.npz").items()}


def network():
    model = official_refinement(deepmask(), padding="official")
    weights = {k.removeprefix("weight:"): v for k, v in PARTS.items() if k.startswith("weight:")}
    return load_refinement(model, weights, whole=False)


def test_the_top_down_path_stage_by_stage():
    model = network()
    m = torch.from_numpy(PARTS["refs0_output"])
    for k, module in enumerate(model.refinements, 1):
        m = module.merge(torch.from_numpy(PARTS[f"lateral{k}"]), m)
        close(model.last(m) if k == 4 else m, PARTS["output" if k == 4 else f"refs{k}_output"])


def test_lateral_features_of_the_last_module():
    close(network().refinements[3].lateral(torch.from_numpy(PARTS["F4"])), PARTS["lateral4"][:1])


def test_lateral_features_of_patches_and_of_a_whole_picture():
    """From pixels, through our trunk with official weights; the first module's lateral part has none here."""
    model = network()
    with np.load(ORACLE / "deepmask_parts.npz") as z:
        taps = model.trunk.taps(torch.from_numpy(z["input"]).double())
    with np.load(ORACLE / "deepmask_infer.npz") as z:
        image, scales = torch.from_numpy(z["image"]), z["scales"].tolist()
    with torch.inference_mode():
        taps = [t[:, :, b : t.shape[2] - b, b : t.shape[3] - b] for t, b in zip(taps, (8, 4, 2, 1), strict=True)]
        for k, ours in enumerate(model.heads(taps).laterals[1:], 2):
            close(ours, PARTS[f"lateral{k}"])
        for i, level in enumerate(official_pyramid(model, image, scales), 1):
            for j, ours in enumerate(level.dense.laterals[1:], 2):
                h, w = PARTS[f"skip_{i}_{j}"].shape[-2:]
                close(ours[..., :h, :w], PARTS[f"skip_{i}_{j}"])
                assert ours[..., h:, :].eq(0).all() and ours[..., w:].eq(0).all()


def test_loss_and_gradients_of_the_top_down_path():
    model = network()
    model.first, model.deepmask.vectors_at = nn.Identity(), lambda dense, batch, *_: dense.features[batch].flatten(1)
    laterals = tuple(torch.from_numpy(PARTS[f"lateral{k}"]) for k in (1, 2, 3, 4))
    dense = DenseFeatures(torch.from_numpy(PARTS["refs0_output"]), None, torch.zeros(2, 1, 1, dtype=torch.float64), laterals)
    masks = model.masks_at(dense, torch.arange(2), *torch.zeros(2, 2, dtype=torch.int64))
    loss = mask_loss(masks, torch.from_numpy(PARTS["labels"]), torch.ones(2))
    close(loss, PARTS["loss"])
    loss.backward()
    named = dict(model.named_parameters())
    gradients = {k.removeprefix("grad."): v for k, v in PARTS.items() if k.startswith("grad.")}
    assert len(gradients) == 18
    for name, official in gradients.items():  # the official ones are multiplied by the batch size
        close(named[our_name(name.replace("gradWeight", "weight").replace("gradBias", "bias"))].grad * 2, official)
