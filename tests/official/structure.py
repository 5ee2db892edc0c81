"""An official MultiPathNet as records, from the list of its modules and its tensors by path: what `torch.save` would write.

The list (`structure` in the oracle's json) gives class names, and kernel, stride, padding and shape of what has a weight. The
numbers of the other modules are those that the official `models/vgg.lua`, `multipathnet.lua` and `model_utils.lua` hand over.
"""

import re

import numpy as np

from .writer import Object, Storage, tensor

LINE = re.compile(r"(\S+) (\S+)(?: k(\d+)x(\d+) s(\d+),(\d+) p(\d+),(\d+))?(?: w([\dx]+))?")
BOXES = {"mean": [0.01, -0.02, 0.03, -0.04], "std": [0.1, 0.12, 0.2, 0.25]}  # what the oracle's BBoxNorm was given


def official_modules(structure: str, weights: dict[str, np.ndarray]) -> Object:
    """The nn.Sequential `m`; every weight is used."""
    made, used = {}, set()
    for line in structure.splitlines():
        path, name, *numbers, shape = LINE.fullmatch(line).groups()
        fields = {"train": False, "_type": "torch.CudaTensor", "output": tensor(np.ones(2, "f4"), cuda=True)}
        if numbers[0]:
            fields |= {k: int(v) for k, v in zip(("kW", "kH", "dW", "dH", "padW", "padH"), numbers, strict=True)}
        if shape:
            for key in ("weight", "bias"):
                used.add(f"{path}.{key}")
                fields[key] = tensor(weights[f"{path}.{key}"], cuda=True)
            fields["gradWeight"] = fields["weight"]
            assert fields["weight"].sizes == tuple(map(int, shape.split("x")))
        made[path] = Object(name, fields | extra(path, name))
        if path != "m":
            made[path.rpartition(".")[0]].fields.setdefault("modules", []).append(made[path])
    assert used == set(weights)
    return made["m"]


def extra(path: str, name: str) -> dict:
    """The fields that the list does not tell; in multipathnet.lua they depend on the region m.3.R and its level m.3.R.2.1.L."""
    numbers = path.split(".")[1:]
    region = int(numbers[1]) if numbers[:1] == ["3"] and len(numbers) > 1 else 0
    level = int(numbers[4]) if region and numbers[2:4] == ["2", "1"] and len(numbers) > 4 else 1
    narrow = (1, 4 * 4096) if path == "m.4.1" else (4 * 4096 + 1, 4096)
    return {
        "nn.SpatialMaxPooling": {"ceil_mode": True, "indices": tensor(np.ones(2, "f4"))},
        "inn.ROIPooling": {"W": 7, "H": 7, "v2": True, "spatial_scale": 2.0**level / 32},
        "nn.Select": {"dimension": 1, "index": (1, 2, 3, 4, 2)[region - 1]},
        "nn.SelectTable": {"index": level},
        "nn.Normalize": {"p": 2, "eps": 1e-10, "norm": tensor(np.ones((2, 1), "f4"), cuda=True)},
        "nn.MulConstant": {"constant_scalar": 1000, "inplace": False},
        "nn.JoinTable": {"dimension": 2, "size": Storage(np.int64([2, 24]))},
        "nn.Narrow": {"dimension": 2, "index": narrow[0], "length": narrow[1]},
        "nn.ModelParallelTable": {"dimension": 2, "gpuAssignments": [1, 2, 3, 4, 4], "inputGpu": [[tensor(np.ones(2, "f4"))]]},
        "nn.Dropout": {"p": 0.5, "v2": True, "inplace": True, "noise": tensor(np.ones(2, "f4"))},
        "nn.BBoxNorm": {k: tensor(np.array([v], "f4")) for k, v in BOXES.items()},
    }.get(name, {})  # fmt: skip
