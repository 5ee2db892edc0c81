"""The trunks in official files, a ResNet up to conv4 or VGG, as ours.

What differs from file to file (depth, widths, padding, strides, rounding of poolings) is read off and comes back as options.
"""

from itertools import groupby
from typing import Any

from fairseg_lite.errors import InputError
from fairseg_lite.official.modules import Layer, Mapping, expect, modules, padding_of


def residual_trunk(mapping: Mapping, found: Any, path: str, prefix: str, end: str) -> tuple[dict, str]:
    """Map the ResNet up to conv4, after which come layers of the pattern `end`; its options and its padding."""
    layers = expect(found, path, rf"conv (affine )?relu (pool )?(fork add relu)( fork add relu)*{end}")
    stem, folded = layers[0], layers[1].word != "affine"
    mapping.normed(stem, None if folded else layers[1], f"{prefix}conv1", f"{prefix}bn1")
    forks = [layer for layer in layers if layer.word == "fork"]
    stages = [list(group) for _, group in groupby(forks, key=lambda fork: fork.path.rsplit(".", 2)[0])]
    if len(stages) != 3:
        raise InputError(f"{path}: {len(stages)} stages of residual blocks; three are wanted (official trunks end with conv4)")
    found = [residual_stage(mapping, stage, f"{prefix}layer{i}") for i, stage in enumerate(stages, 1)]
    forms, convs = [form for form, _ in found], [stem, *(conv for _, convs in found for conv in convs)]
    if len({form["block"] for form in forms}) != 1:
        raise InputError(f"{path}: its stages have blocks of different kinds")
    trunk = {name: [form[key] for form in forms] for name, key in (("depths", "depth"), ("inner", "inner"), ("out", "width"))}
    trunk |= {"block": forms[0]["block"], "stem": [stem.number("kW"), stem.outputs], "eps": 0.0}
    trunk |= {"stem_pool": any(layer.word == "pool" for layer in layers), "stride_in_1x1": any(form["early"] for form in forms)}
    return trunk, padding_of(convs)


def residual_stage(mapping: Mapping, forks: list[Layer], name: str) -> tuple[dict, list[Layer]]:
    """Map the residual blocks of one stage; what they have in common, and their convolutions."""
    forms, convs = [], []
    for b, fork in enumerate(forks):
        branches = modules(fork.record, fork.path)
        if len(branches) != 2:
            raise InputError(f"{fork.path}: {len(branches)} branches; a residual block has two")
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
    early = block == "bottleneck" and convs[0].number("dW") > 1
    return {"depth": len(forks), "inner": inner, "width": width, "block": block, "early": early}, convs


def _pairs(layers: list[Layer]) -> list[tuple[Layer, Layer | None]]:
    """Each convolution with the norm behind it, if there is one."""
    after = zip(layers, [*layers, None][1:], strict=True)
    return [(x, y if y and y.word == "affine" else None) for x, y in after if x.word == "conv"]


def vgg_trunk(mapping: Mapping, found: Any, path: str, skip: bool) -> dict:
    """Map VGG up to conv5; its options. With `skip` conv4 and conv5 hang on forks that pass the level before on as well."""
    first = "conv relu( conv relu)*( halve( conv relu)+)"
    layers = expect(found, path, first + ("{2} fork fork flatten" if skip else "{4}"))
    if skip:
        *layers, fork4, fork5, _ = layers
        conv4, to5 = _fork(fork4)[0], _fork(fork5)[0]
        (inner,) = expect(to5[0], to5[1], "fork")
        conv5 = _fork(inner)[0]
        layers += [*expect(*conv4, "halve( conv relu)+"), *expect(*conv5, "halve( conv relu)+")]
    groups, halves = [[]], [layer for layer in layers if layer.word == "halve"]
    for i, layer in enumerate(layers):  # our modules have the same order
        if layer.word == "halve":
            groups.append([])
        elif layer.word == "conv":
            mapping.weighted(layer, f"trunk.features.{i}")
            groups[-1].append(layer)
    if len(rounding := {bool(layer.number("ceil_mode")) for layer in halves}) != 1:
        raise InputError(f"{path}: some poolings round sizes up and some down; one is wanted for all")
    convs = [conv for group in groups for conv in group]
    return {"widths": [[c.outputs for c in group] for group in groups], "padding": padding_of(convs), "ceil": rounding.pop()}


def _fork(layer: Layer) -> tuple[tuple[Any, str], tuple[Any, str]]:
    """The two branches of a fork, of which the second passes on what comes in; each with its path."""
    branches = modules(layer.record, layer.path)
    if len(branches) != 2:
        raise InputError(f"{layer.path}: {len(branches)} branches; two are wanted, and the second changes nothing")
    expect(branches[1], f"{layer.path}.2", "")
    return (branches[0], f"{layer.path}.1"), (branches[1], f"{layer.path}.2")
