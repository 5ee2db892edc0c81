"""The official tiny SharpMask as ours: the names of `oracle/sharpmask/weights.npz` -> parameters of `SharpMask`."""

import numpy as np
import torch

from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask

from .oracle_weights import official_deepmask

LATERAL = ({"2": 0, "5": 2, "8": 4}, {"3": 0, "6": 2, "9": 4})  # module number -> ours; all but refs.1 begin with a crop


def our_name(name: str) -> str:
    """refs.2.1.1.6.weight -> refinements.1.lateral.2.weight, and so on."""
    _, stage, *rest, kind = name.split(".")
    if stage == "0":
        return f"first.{kind}"
    if rest == ["6"]:
        return f"last.{kind}"
    _, path, number = rest
    ours = f"lateral.{LATERAL[stage != '1'][number]}" if path == "1" else f"top_down.{ {'2': 0, '5': 2}[number] }"
    return f"refinements.{int(stage) - 1}.{ours}.{kind}"


def load_refinement(model: SharpMask, weights: dict[str, np.ndarray], *, whole: bool = True) -> SharpMask:
    """Copy the official refinement in: every tensor is used, and, if it is whole, every parameter of ours gets one."""
    given = {our_name(k): torch.from_numpy(v) for k, v in weights.items()}
    wanted = {k for k in model.state_dict() if not k.startswith("deepmask.")}
    assert given.keys() == wanted if whole else given.keys() < wanted
    model.load_state_dict(given, strict=False)
    return model.double().eval()


def official_refinement(deepmask: DeepMask, **options: str) -> SharpMask:
    """The oracle's sizes: k 16, nearest up-sampling, symmetric padding."""
    return SharpMask(deepmask, k=16, **{"upsample": "nearest", "padding": "symmetric", **options})


def official_sharpmask(oracle, **options: str) -> SharpMask:
    """The oracle network in float64, evaluation mode; `oracle` is the folder of all oracle files."""
    with np.load(oracle / "sharpmask" / "weights.npz") as z:
        weights = {k: z[k] for k in z.files}
    return load_refinement(official_refinement(official_deepmask(oracle / "deepmask" / "weights.npz"), **options), weights)
