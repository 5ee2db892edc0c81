"""Parity that runs anywhere: the parts of the official refinement that fit into 2 MB (see data/oracle/README.md)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fairseg_lite.models.deepmask import DenseFeatures
from fairseg_lite.models.losses import mask_loss

from .oracle_weights import tiny_official_deepmask
from .sharpmask_maps import load_refinement, official_refinement, our_name
from .test_deepmask_oracle import close

PARTS = dict(np.load(Path(__file__).parents[1] / "data" / "oracle" / "sharpmask_parts.npz"))


def network():
    model = official_refinement(tiny_official_deepmask(), padding="official")
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
