"""The three kinds of official MultiPathNet files as ours: which module is the trunk, a region, a head.

    kind          m.1        then                                             in the end
    resnet        to conv4   RoI pooling, ResNet's conv5, mean                classes and boxes
    vgg           to conv5   RoI pooling, fc6, fc7                            classes and boxes
    multipathnet  all three  for each region its boxes, pooled levels, 1x1    classes of the first regions, boxes of one more
                  levels     convolution, fc6, fc7

All end with a BBoxNorm, and all come with one classifier or with several (the integral loss). Only the first was released; of
the others the official code has made files with random numbers, whose outputs the tests know, and their other forms are refused.
Source: official `models/resnet.lua`, `models/vgg.lua`, `models/multipathnet.lua`, `models/model_utils.lua`. Lesson: 04, 09.
"""

import re
from collections.abc import Callable
from typing import Any

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import FOVEAL
from fairseg_lite.geometry.pixels import Pixels
from fairseg_lite.models.multipathnet import BOX_REGION, levels_seen, multipathnet_resnet18, multipathnet_vgg16
from fairseg_lite.official.modules import Layer, Mapping, chain, expect, modules, padding_of, residual_stage, residual_trunk
from fairseg_lite.official.reader import Record

ONE_REGION = "ParallelTable ROIPooling Sequential ConcatTable ParallelTable"
REGIONS = "ParallelTable ParallelTable ModelParallelTable ConcatTable ParallelTable ParallelTable"
TOWER = "linear relu linear relu"
CAFFE = Pixels(mean=(102.9801, 115.9465, 122.7717), std=(1, 1, 1), order="BGR", white=255)  # official RossTransformer
TORCH = Pixels(  # official ImagenetTransformer
    mean=(0.48462227599918, 0.45624044862054, 0.40588363755159), std=(0.22889466674951, 0.22446679341259, 0.22495548344775)
)
Part = tuple[Any, str]  # a record and its path


def map_multipathnet(mapping: Mapping, found: Record) -> tuple[Callable, dict, Pixels]:
    """Map a file of any of the kinds: the function that builds ours, its options, and how it wants its pictures."""
    parts = [(m, f"m.{i}") for i, m in enumerate(modules(found, "m"), 1) if m.kind not in ("View", "ModeSwitch")]
    form = " ".join(m.kind for m, _ in parts)
    if not re.fullmatch(f"{ONE_REGION}|{REGIONS}", form):
        raise InputError(
            f"m is made of {form.replace(' ', ', ')}; official are a pooled tower, or some for regions, heads and a norm of boxes"
        )
    pictures, *inside, heads, norm = parts
    images = modules(*pictures)
    if len(images) != 2:
        raise InputError(f"{pictures[1]} has {len(images)} branches; wanted pictures and boxes")
    trunk = images[0], f"{pictures[1]}.1"
    if len(inside) > 2:
        build, kwargs, pixels = multipathnet_vgg16, _regions(mapping, trunk, *inside), CAFFE
    elif any(layer.word == "fork" for layer in chain(*trunk)):
        build, kwargs, pixels = multipathnet_resnet18, _resnet(mapping, trunk, *inside), TORCH
    else:
        build, kwargs, pixels = multipathnet_vgg16, _vgg(mapping, trunk, *inside), CAFFE
    return build, {**kwargs, **_heads(mapping, heads, norm)}, pixels


def _heads(mapping: Mapping, heads: Part, norm: Part) -> dict:
    """Map classifiers, boxes and the norm of boxes."""
    both, norms = modules(*heads), [(i, m) for i, m in enumerate(modules(*norm), 1) if m.kind == "BBoxNorm"]
    if len(both) != 2 or len(norms) != 1:
        raise InputError(f"m: wanted classes and boxes in {heads[1]}, and one BBoxNorm at the end")
    classes = modules(both[0], f"{heads[1]}.1") if both[0].kind == "ConcatTable" else [both[0]]
    layer = None
    for i, head in enumerate(classes):
        (layer,) = expect(head, f"{heads[1]}.1.{i + 1}", "linear")
        mapping.weighted(layer, f"classes.{i}")
    if layer is None:
        raise InputError(f"{heads[1]}.1 has no classifier")
    (boxes,) = expect(both[1], f"{heads[1]}.2", "linear")
    mapping.weighted(boxes, "boxes")
    ((i, record),) = norms
    last = Layer(f"{norm[1]}.{i}", "", record)
    mapping.take(last, "mean", "delta_mean")
    mapping.take(last, "std", "delta_std")
    return {"num_classes": layer.outputs - 1, "integral": len(classes)}


def _pooling(layer: Layer, stride: int) -> dict:
    """The options of a RoI pooling, which is a square of cells of features with this stride."""
    layer.check(spatial_scale=1 / stride, H=layer.number("W"))
    return {"pooled": layer.number("W"), "pooling": "v2" if layer.record.fields.get("v2") else "v1"}


def _resnet(mapping: Mapping, trunk_at: Part, pooling: Part, tower_at: Part) -> dict:
    """ResNet to conv4, RoI pooling, conv5 for each RoI: the kind that was released."""
    trunk, padding = residual_trunk(mapping, *trunk_at, "trunk.", "")
    *forks, mean = expect(*tower_at, "(fork add relu )+mean")
    tower, convs = residual_stage(mapping, [layer for layer in forks if layer.word == "fork"], "regions.0.tower.layer4")
    cells = _pooling(Layer(pooling[1], "", pooling[0]), 16)
    if any(2 * mean.number(side) != cells["pooled"] for side in ("kW", "kH")):
        raise InputError(
            f"{pooling[1]} pools {cells['pooled']} cells a side and {mean.path} takes the mean of {mean.number('kW')}; "
            "half are wanted"
        )
    if padding_of(convs) != padding or padding != "zeros":
        raise InputError("m: another kind of ResNet than the official one, whose convolutions pad with zeros")
    return {"foveal": False, "skip": False, **cells, "trunk": trunk, "conv5": {**tower, "eps": 0.0}}


def _vgg(mapping: Mapping, trunk_at: Part, pooling: Part, tower_at: Part) -> dict:
    """VGG to conv5, RoI pooling, fc6 and fc7: Fast R-CNN, with the integral loss or without."""
    trunk = _vgg_trunk(mapping, *trunk_at, skip=False)
    tower = _tower(mapping, expect(*tower_at, TOWER), "regions.0")
    return {"foveal": False, "skip": False, **_pooling(Layer(pooling[1], "", pooling[0]), 16), "trunk": trunk, "tower": tower}


def _tower(mapping: Mapping, layers: list[Layer], region: str) -> dict:
    for i, layer in ((1, layers[0]), (4, layers[2])):
        mapping.weighted(layer, f"{region}.tower.{i}")
    return {"hidden": layers[0].outputs, "width": layers[2].outputs}


def _regions(mapping: Mapping, trunk_at: Part, boxes_at: Part, table_at: Part, parts_at: Part) -> dict:
    """The paper's network: foveal regions, each with its levels, its 1x1 convolution and its tower."""
    trunk = _vgg_trunk(mapping, *trunk_at, skip=True)
    branches, regions = modules(*boxes_at), modules(*table_at)
    if len(branches) != 2:
        raise InputError(f"{boxes_at[1]} has {len(branches)} branches; wanted features and boxes")
    expect(branches[1], f"{boxes_at[1]}.2", "foveal swap")
    if len(regions) != len(FOVEAL) + 1:
        raise InputError(f"{table_at[1]} has {len(regions)} regions; wanted are {len(FOVEAL)} for classes and one for boxes")
    names = [f"regions.{i}" for i in range(len(FOVEAL))] + ["box_region"]
    levels = [len(levels_seen(factor, True, "text")) for factor in FOVEAL] + [3]
    forms = []
    for i, (region, name, factor, count) in enumerate(zip(regions, names, (*FOVEAL, BOX_REGION), levels, strict=True), 1):
        forms.append(_region(mapping, region, f"{table_at[1]}.{i}", name, FOVEAL.index(factor) + 1, count))
    if any(form != forms[0] for form in forms):
        raise InputError(f"{table_at[1]}: its regions differ in more than their factors and levels, or pool in different ways")
    width = forms[0]["tower"]["width"]
    _narrows(*parts_at, [len(FOVEAL) * width, width])
    return {"foveal": True, "skip": True, "trunk": trunk, "frozen": 5 if trunk_at[0].kind == "NoBackprop" else 2, **forms[0]}


def _region(mapping: Mapping, found: Any, path: str, name: str, index: int, count: int) -> dict:
    """Map a region that takes the foveal boxes of this index and pools so many levels; what it has in common with the others."""
    boxes, pools, join, times, conv, *tower = expect(found, path, f"fork fork join times conv {TOWER}")
    which = modules(boxes.record, boxes.path)[-1:]
    (select,) = expect(which[0] if which else None, f"{boxes.path}.2", "which")
    select.check(dimension=1, index=index)
    join.check(dimension=2)
    levels, cells = modules(pools.record, pools.path), []
    if len(levels) != count:
        raise InputError(f"{pools.path} pools {len(levels)} levels; official are {count} here, of conv5, conv4 and conv3")
    for i, pool in enumerate(levels):  # conv5 first, in ours, too
        level, roi, _ = expect(pool, f"{pools.path}.{i + 1}", "fork roi normalise")
        picked = modules(level.record, level.path)[:1]
        (table,) = expect(picked[0] if picked else None, f"{level.path}.1", "which")
        table.check(index=i + 1)
        cells.append(_pooling(roi, 16 >> i))
    scale = times.record.fields.get("constant_scalar")
    if any(c != cells[0] for c in cells) or not isinstance(scale, int | float) or not 0 < scale < 1e6:
        raise InputError(f"{path}: its levels must be pooled alike, and multiplied by 1000 or so; here by {scale!r}")
    mapping.weighted(conv, f"{name}.mix.conv")
    return {**cells[0], "mixed": conv.outputs, "skip_scale": float(scale), "tower": _tower(mapping, tower, name)}


def _narrows(found: Record, path: str, lengths: list[int]) -> None:
    """What the heads get: the first numbers are the classes', the rest is the boxes'."""
    parts, start = modules(found, path), 1
    if len(parts) != 2:
        raise InputError(f"{path} has {len(parts)} parts; wanted the classes' and the boxes'")
    for i, (record, length) in enumerate(zip(parts, lengths, strict=True), 1):
        (part,) = expect(record, f"{path}.{i}", "part")
        part.check(dimension=2, index=start, length=length)
        start += length


def _vgg_trunk(mapping: Mapping, found: Any, path: str, skip: bool) -> dict:
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
