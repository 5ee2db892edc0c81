"""Torch7 modules as chains of layers, and the book of which official tensor becomes which of ours.

The file's records are not trusted to be what they say: `expect` compares a module's layers with a pattern, `Mapping` lends each
tensor once and compares its shape with ours, and `leftovers` names what nobody asked for. The ResNet that all released files
share is mapped here, too: its depth, widths, padding and strides are read off the modules and come back as options.
"""

import math
import re
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fairseg_lite.errors import InputError
from fairseg_lite.official.reader import Record

WORDS = {
    "SpatialConvolution": "conv", "SpatialConvolutionMM": "conv", "Linear": "linear", "ReLU": "relu", "Threshold": "relu",
    "ConstAffine": "affine", "SpatialConstDiagonal": "affine", "SpatialMaxPooling": "pool", "ConcatTable": "fork",
    "ParallelTable": "fork", "CAddTable": "add", "SpatialReSamplingEx": "resize", "SpatialUpSamplingNearest": "nearest",
    "SpatialAveragePooling": "mean", "FlattenTable": "flatten", "Foveal": "foveal", "Transpose": "swap", "Select": "which",
    "SelectTable": "which", "ROIPooling": "roi", "Normalize": "normalise", "MulConstant": "times", "JoinTable": "join",
    "Narrow": "part",
}  # fmt: skip
SEQUENCES = ("Sequential", "NoBackprop")
NEUTRAL = ("Identity", "View", "Reshape", "Copy", "Contiguous", "Dropout", "SpatialZeroPadding", "SpatialSymmetricPadding")
BUFFERS = (
    "output", "inps", "finput", "fgradInput", "noise", "addBuffer", "indices", "buffer", "buffer2", "columns", "ones",
    "norm", "normp", "inputGpu", "outputGpu",
)  # fmt: skip
FIXED = {  # what a module's numbers must be for it to be what our networks have
    "pool": {"kW": 3, "kH": 3, "dW": 2, "dH": 2, "padW": 1, "padH": 1, "ceil_mode": False}, "nearest": {"scale_factor": 2},
    "halve": {"kW": 2, "kH": 2, "dW": 2, "dH": 2, "padW": 0, "padH": 0}, "relu": {"threshold": 0}, "normalise": {"p": 2},
}  # fmt: skip
LARGEST = 2**16  # channels
DEEPEST = 24  # Sequentials in Sequentials


class Layer(NamedTuple):
    """A module with its path, the word for what it does, and the mirrored border that is put around its input."""

    path: str
    word: str
    record: Record
    mirrored: int = 0

    def number(self, name: str) -> int:
        value = self.record.fields.get(name, 0)
        if not isinstance(value, int):
            raise InputError(f"{self.path}: {name} is {value!r}; a whole number is wanted")
        return value

    def check(self, **wanted: float) -> None:
        """Numbers that must be what ours are."""
        for name, value in wanted.items():
            found = self.record.fields.get(name)
            if not isinstance(found, int | float) or not math.isclose(found, value, rel_tol=1e-6):
                raise InputError(f"{self.path} ({self.record.name}): {name} is {found!r}, ours has {value:g}")

    def tensor(self, name: str) -> np.ndarray | None:
        value = self.record.fields.get(name)
        return value if isinstance(value, np.ndarray) and value.size else None

    @property
    def outputs(self) -> int:
        weight = self.tensor("weight")
        if weight is None or weight.ndim < 2:
            raise InputError(f"{self.path}: a {self.record.name} without a weight")
        if weight.shape[0] > LARGEST:
            raise InputError(f"{self.path}: a weight of shape {weight.shape}; at most {LARGEST} outputs are possible")
        return weight.shape[0]


class Mapping:
    """Which official tensor goes where."""

    def __init__(self):
        self.state: dict[str, tuple[str, np.ndarray]] = {}  # our name -> path and numbers
        self.used: set[tuple[int, str]] = set()  # (record, field)
        self.layers: dict[str, Layer] = {}  # our module -> its layer

    def take(self, layer: Layer, field: str, name: str) -> None:
        """The official tensor layer.field is our parameter `name`."""
        value = layer.tensor(field)
        if value is None:
            raise InputError(f"{layer.path}.{field} is missing; our {name} needs it")
        if (id(layer.record), field) in self.used:
            raise InputError(f"{layer.path}.{field} would be used twice; is a module shared where it should not be?")
        self.used.add((id(layer.record), field))
        self.state[name] = f"{layer.path}.{field}", value

    def weighted(self, layer: Layer, name: str) -> None:
        """A linear layer or convolution with a bias."""
        self.layers[name] = layer
        self.take(layer, "weight", f"{name}.weight")
        self.take(layer, "bias", f"{name}.bias")

    def normed(self, conv: Layer, affine: Layer | None, conv_name: str, norm_name: str) -> None:
        """A convolution and the fixed norm after it; ours has no bias before a norm: a (x + bias) + b = a x + (a bias + b).

        Where the norm is folded into the convolution (None), the norm's factor is 1 and the bias is all that is left of it.
        """
        self.layers[conv_name] = conv
        self.take(conv, "weight", f"{conv_name}.weight")
        if affine is None:
            self.take(conv, "bias", f"{norm_name}.bias")
            channels = conv.outputs
            self.state[f"{norm_name}.weight"] = conv.path, np.ones(channels, np.float32)
        else:
            self.take(affine, "a", f"{norm_name}.weight")
            self.take(affine, "b", f"{norm_name}.bias")
            channels = min(affine.tensor("a").size, LARGEST)
            if conv.tensor("bias") is not None:
                path, shift = self.state[f"{norm_name}.bias"]
                self.take(conv, "bias", f"{norm_name}.bias")
                bias, scale = conv.tensor("bias"), affine.tensor("a")
                if not bias.size == scale.size == shift.size:
                    raise InputError(f"{conv.path}: {bias.size} biases before a norm of {scale.size} channels ({affine.path})")
                self.state[f"{norm_name}.bias"] = path, scale.reshape(-1) * bias.reshape(-1) + shift.reshape(-1)
        self.state[f"{norm_name}.running_mean"] = conv.path, np.zeros(channels, np.float32)
        self.state[f"{norm_name}.running_var"] = conv.path, np.ones(channels, np.float32)

    def fill(self, model: nn.Module) -> None:
        """Put all numbers into a network without memory; each of its tensors gets one."""
        wanted, state = model.state_dict(), {}
        if odd := wanted.keys() ^ self.state.keys():
            raise InputError(f"the official file and our {type(model).__name__} differ in {', '.join(sorted(odd)[:5])}")
        for name, (path, value) in self.state.items():
            shape = tuple(wanted[name].shape)
            fits = value.size == math.prod(shape) and (value.size == shape[0] or value.shape[0] == shape[0])
            if not fits:
                raise InputError(f"{path} has shape {value.shape}; it should be {shape}")
            state[name] = torch.from_numpy(np.array(value, np.float32).reshape(shape))
            if not state[name].isfinite().all():
                raise InputError(f"{path} holds numbers that are not finite")
        for name, layer in self.layers.items():
            ours = model.get_submodule(name)
            if layer.word == "conv" and isinstance(ours, nn.Conv2d):
                steps = layer.number("dH"), layer.number("dW")
                if steps != ours.stride:
                    raise InputError(f"{layer.path} steps by {steps}; ours by {ours.stride}")
        model.load_state_dict(state, assign=True)


def padding_of(convs: list[Layer]) -> str:
    """How the borders of all convolutions with a reach are filled."""
    ways = set()
    for layer in convs:
        kernel, zeros = layer.number("kW"), layer.number("padW")
        if (layer.number("kH"), layer.number("padH")) != (kernel, zeros) or not 0 < kernel < 16:
            raise InputError(f"{layer.path}: a kernel of {layer.number('kH')} x {kernel}; a small square is wanted")
        if kernel > 1:
            ways.add({(0, kernel // 2): "symmetric", (kernel // 2, 0): "zeros"}.get((zeros, layer.mirrored), "odd"))
    if len(ways) != 1 or ways == {"odd"}:
        raise InputError(f"convolutions from {convs[0].path} on pad in the ways {', '.join(sorted(ways))}; one is wanted for all")
    return ways.pop()


def modules(record: Any, path: str) -> list[Record]:
    """The modules of a container, in order."""
    if not isinstance(record, Record):
        raise InputError(f"{path} is {type(record).__name__}; a module is wanted")
    inside = record.fields.get("modules")
    found = [inside.get(i + 1) for i in range(len(inside))] if isinstance(inside, dict) else []
    if any(not isinstance(m, Record) for m in found):
        raise InputError(f"{path} ({record.name}) has modules that are none")
    return found


def two(record: Any, path: str, what: str) -> list[Record]:
    """The two modules of a container."""
    if len(found := modules(record, path)) != 2:
        raise InputError(f"{path} has {len(found)} branches; wanted {what}")
    return found


def chain(record: Any, path: str, above: tuple[set, int] | None = None) -> list[Layer]:
    """The layers of a module in the order in which they run; sequences are opened, and what changes nothing is left out.

    above: what has been met in the same chain, and how deep this module lies in it.
    """
    met, depth = above or (set(), 0)
    if not isinstance(record, Record):
        raise InputError(f"{path} is {type(record).__name__}; a module is wanted")
    if id(record) in met or depth > DEEPEST:
        raise InputError(f"{path} ({record.name}) {'occurs twice' if id(record) in met else 'is nested too deep'}")
    met.add(id(record))
    if record.kind in SEQUENCES:
        layers, border = [], 0
        for i, module in enumerate(modules(record, path), 1):
            if module.kind == "SpatialSymmetricPadding":
                border = Layer(path, "", module).number("pad_l")
            found = chain(module, f"{path}.{i}", (met, depth + 1))
            if found:
                found[0], border = found[0]._replace(mirrored=found[0].mirrored or border), 0
            layers += found
        return layers
    if record.kind in NEUTRAL:
        if record.fields.get("v2") is False:
            raise InputError(f"{path} is a Dropout of 2013, which also scales in evaluation (v2 is false); ours does not")
        return []
    if record.kind not in WORDS:
        raise InputError(f"{path} is a {record.name}; the official networks have none")
    layer = Layer(path, WORDS[record.kind], record)
    if layer.word == "pool" and record.fields.get("kW") == 2:
        layer = layer._replace(word="halve")
    for name, value in FIXED.get(layer.word, {}).items():
        if name in record.fields and layer.number(name) != value:
            raise InputError(f"{path} ({record.name}): {name} is {layer.number(name)}, ours has {value}")
    return [layer]


def expect(record: Any, path: str, pattern: str) -> list[Layer]:
    """The layers of a module, which must be those that the pattern names."""
    layers = chain(record, path)
    words = " ".join(layer.word for layer in layers)
    if not re.fullmatch(pattern, words):
        raise InputError(f"{path} is made of [{words}]; the official one of [{pattern}]")
    return layers


def resnet_trunk(mapping: Mapping, found: Any, path: str, prefix: str, end: str) -> tuple[dict, str]:
    """Map the ResNet up to conv4, after which come layers of the pattern `end`; its options and its padding."""
    layers = expect(found, path, rf"conv (affine )?relu (pool )?(fork add relu)( fork add relu)*{end}")
    stem, folded = layers[0], layers[1].word != "affine"
    mapping.normed(stem, None if folded else layers[1], f"{prefix}conv1", f"{prefix}bn1")
    forks = [layer for layer in layers if layer.word == "fork"]
    stages = [list(group) for _, group in groupby(forks, key=lambda fork: fork.path.rsplit(".", 2)[0])]
    if len(stages) != 3:
        raise InputError(f"{path}: {len(stages)} stages of residual blocks; three are wanted (official trunks end with conv4)")
    found = [resnet_stage(mapping, stage, f"{prefix}layer{i}") for i, stage in enumerate(stages, 1)]
    forms, convs = [form for form, _ in found], [stem, *(conv for _, convs in found for conv in convs)]
    if len({form["block"] for form in forms}) != 1:
        raise InputError(f"{path}: its stages have blocks of different kinds")
    trunk = {name: [form[key] for form in forms] for name, key in (("depths", "depth"), ("inner", "inner"), ("out", "width"))}
    trunk |= {"block": forms[0]["block"], "stem": [stem.number("kW"), stem.outputs], "eps": 0.0}
    trunk |= {"stem_pool": any(layer.word == "pool" for layer in layers)}
    return trunk, padding_of(convs)


def resnet_stage(mapping: Mapping, forks: list[Layer], name: str) -> tuple[dict, list[Layer]]:
    """Map the residual blocks of one stage; what they have in common, and their convolutions."""
    forms, convs = [], []
    for b, fork in enumerate(forks):
        branches = two(fork.record, fork.path, "a residual block's two")
        body = expect(branches[0], f"{fork.path}.1", "conv (affine )?relu conv( affine)?( relu conv( affine)?)?")
        shortcut = expect(branches[1], f"{fork.path}.2", "(conv( affine)?)?")
        for i, (conv, affine) in enumerate(pairs := _pairs(body), 1):
            mapping.normed(conv, affine, f"{name}.{b}.conv{i}", f"{name}.{b}.bn{i}")
        for conv, affine in _pairs(shortcut):
            mapping.normed(conv, affine, f"{name}.{b}.downsample.0", f"{name}.{b}.downsample.1")
        first, last = pairs[0][0], pairs[-1][0]
        forms.append((len(pairs), first.outputs, last.outputs))
        convs += [conv for conv, _ in pairs]
    if len(set(forms)) != 1:
        raise InputError(f"{forks[0].path}: the residual blocks of this stage differ in their widths")
    count, inner, width = forms[0]
    block = {2: "basic", 3: "bottleneck"}[count]
    return {"depth": len(forks), "inner": inner, "width": width, "block": block}, convs


def _pairs(layers: list[Layer]) -> list[tuple[Layer, Layer | None]]:
    """Each convolution with the norm behind it, if there is one."""
    after = zip(layers, [*layers, None][1:], strict=True)
    return [(x, y if y and y.word == "affine" else None) for x, y in after if x.word == "conv"]


def leftovers(found: Record, used: set[tuple[int, str]]) -> list[str]:
    """Paths of all tensors of numbers that nobody used; buffers and gradients do not count."""
    unused, seen, left = [], {id(found)}, [("", found)]
    while left:
        path, container = left.pop()
        for key, value in (container.fields if isinstance(container, Record) else container).items():
            if key in BUFFERS or (isinstance(key, str) and key.startswith(("_", "grad"))):
                continue
            here = path if key == "modules" else f"{path}.{key}".lstrip(".")
            if isinstance(value, np.ndarray):
                if value.size and value.dtype.kind == "f" and (id(container), key) not in used:
                    unused.append(here)
            elif isinstance(value, Record | dict) and id(value) not in seen:
                seen.add(id(value))
                left.append((here, value))
    return sorted(unused)
