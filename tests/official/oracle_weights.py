"""The official tiny networks as ours: the names of `oracle/deepmask/weights.npz` -> parameters of `DeepMask`."""

import numpy as np
import torch
from torch import nn

from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.trunks import ResNetTrunk


def tiny_official_deepmask() -> DeepMask:
    """The oracle's sizes: patch 64, mask 16, ResNet stages of 2/1/1 blocks with inner width 16, symmetric padding."""
    trunk = ResNetTrunk(depths=(2, 1, 1), inner=(16, 16, 16), eps=0.0, padding="symmetric")
    return DeepMask(trunk=trunk, patch_size=64, mask_size=16, target_size=32)


def our_name(name: str) -> str:
    """trunk.6.1.1.1.4.2.weight -> trunk.layer2.0.conv2.weight, and so on."""
    parts = name.split(".")
    if parts[0] == "maskBranch":
        return f"mask.{parts[-1]}"
    if parts[0] == "scoreBranch":
        return f"score.{int(parts[1]) - 1}.{parts[-1]}"
    module = ".".join(parts[1:-1])
    kind = {"a": "weight", "b": "bias"}.get(parts[-1], parts[-1])
    top = {"1.2": "trunk.conv1", "2": "trunk.bn1", "9": "reduce", "12": "embed"}
    if module in top:
        return f"{top[module]}.{kind}"
    layer, block, _, path, *rest = parts[1:-1]
    inside = {"1": "conv1", "2": "bn1", "4": "conv2", "5": "bn2", "7": "conv3", "8": "bn3"}
    tail = inside[rest[0]] if path == "1" else f"downsample.{int(rest[0]) - 1}"
    return f"trunk.layer{int(layer) - 4}.{int(block) - 1}.{tail}.{kind}"


def load_official(model: DeepMask, weights: dict[str, np.ndarray]) -> DeepMask:
    """Copy the official tensors in; every one must be used, and every parameter of ours must get one."""
    state = model.state_dict()
    given = {our_name(k): torch.from_numpy(np.asarray(v)) for k, v in weights.items()}
    fixed = {k for k in state if k.endswith(("running_mean", "running_var"))}
    assert given.keys() == state.keys() - fixed
    for k, v in given.items():
        state[k] = v.reshape(state[k].shape)
    for k in fixed:
        state[k] = torch.zeros_like(state[k]) if k.endswith("mean") else torch.ones_like(state[k])
    model.load_state_dict(state)
    return model.double().eval()


def official_deepmask(path) -> DeepMask:
    """The oracle network in float64, evaluation mode; path is `oracle/deepmask/weights.npz`."""
    with np.load(path) as z:
        return load_official(tiny_official_deepmask(), {k: z[k] for k in z.files})


def official_threshold(model: DeepMask) -> DeepMask:
    """While training, the official score head has Threshold(0, 1e-6) where ours has ReLU."""
    model.score[2] = nn.Threshold(0, 1e-6)
    return model
