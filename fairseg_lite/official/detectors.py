"""The three kinds of official MultiPathNet files as ours: which module is the trunk, a region, a head.

    kind          m.1        then                                             in the end
    resnet        to conv4   RoI pooling, ResNet's conv5, mean                classes and boxes
    vgg           to conv5   RoI pooling, fc6, fc7                            classes and boxes
    multipathnet  all three  for each region its boxes, pooled levels, 1x1    classes of the first regions, boxes of one more
                  levels     convolution, fc6, fc7

All end with a BBoxNorm, and all come with one classifier or with several (the integral loss). Only the first was released.
The VGG kinds expect pictures as `detect_official(transform="ross")` makes them: BGR, 0 to 255, less Caffe's mean.
Source: official `models/resnet.lua`, `models/vgg.lua`, `models/multipathnet.lua`, `models/model_utils.lua`. Lesson: 04, 09.
"""

import re
from collections.abc import Callable
from typing import Any

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import FOVEAL
from fairseg_lite.models.multipathnet import BOX_REGION, levels_seen, multipathnet_resnet18, multipathnet_vgg16
from fairseg_lite.official.modules import Layer, Mapping, chain, expect, modules, padding_of
from fairseg_lite.official.reader import Record
from fairseg_lite.official.trunks import residual_stage, residual_trunk, vgg_trunk

ONE_REGION = "ParallelTable ROIPooling Sequential ConcatTable ParallelTable"
REGIONS = "ParallelTable ParallelTable ModelParallelTable ConcatTable( ParallelTable)? ParallelTable"
TOWER = "linear relu linear relu"
Part = tuple[Any, str]  # a record and its path


def map_multipathnet(mapping: Mapping, found: Record) -> tuple[Callable, dict]:
    """Map a file of any of the kinds: the function that builds ours, and its options."""
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
    if len(inside) > 2 or inside[0][0].kind == "ParallelTable":
        build, kwargs = multipathnet_vgg16, _regions(mapping, trunk, inside)
    elif any(layer.word == "fork" for layer in chain(*trunk)):
        build, kwargs = multipathnet_resnet18, _resnet(mapping, trunk, *inside)
    else:
        build, kwargs = multipathnet_vgg16, _vgg(mapping, trunk, *inside)
    return build, {**kwargs, **_heads(mapping, heads, norm)}


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
    if padding_of(convs) != padding or padding != "zeros" or tower.pop("early") or trunk["stride_in_1x1"]:
        raise InputError("m: another kind of ResNet than the official one (zeros as padding, strides in 3x3 convolutions)")
    return {"foveal": False, "skip": False, **cells, "trunk": trunk, "conv5": {**tower, "eps": 0.0}}


def _vgg(mapping: Mapping, trunk_at: Part, pooling: Part, tower_at: Part) -> dict:
    """VGG to conv5, RoI pooling, fc6 and fc7: Fast R-CNN, with the integral loss or without."""
    trunk = vgg_trunk(mapping, *trunk_at, skip=False)
    tower = _tower(mapping, expect(*tower_at, TOWER), "regions.0")
    return {"foveal": False, "skip": False, **_pooling(Layer(pooling[1], "", pooling[0]), 16), "trunk": trunk, "tower": tower}


def _tower(mapping: Mapping, layers: list[Layer], region: str) -> dict:
    for i, layer in ((1, layers[0]), (4, layers[2])):
        mapping.weighted(layer, f"{region}.tower.{i}")
    return {"hidden": layers[0].outputs, "width": layers[2].outputs}


def _regions(mapping: Mapping, trunk_at: Part, parts: list[Part]) -> dict:
    """The paper's network: foveal regions, each with its levels, its 1x1 convolution and its tower."""
    (boxes, boxes_at), (table, table_at), *parts_at = parts
    trunk = vgg_trunk(mapping, *trunk_at, skip=True)
    branches = modules(boxes, boxes_at)
    if len(branches) != 2:
        raise InputError(f"{boxes_at} has {len(branches)} branches; wanted features and boxes")
    expect(branches[1], f"{boxes_at}.2", "foveal swap")
    regions, own = modules(table, table_at), bool(parts_at)
    if len(regions) < 2 + own:
        raise InputError(f"{table_at} has {len(regions)} regions; at least {2 + own} are wanted")
    found = []
    for i, region in enumerate(regions):
        name = "box_region" if own and i == len(regions) - 1 else f"regions.{i}"
        found.append(_region(mapping, region, f"{table_at}.{i + 1}", name))
    factors, levels, forms = (list(column) for column in zip(*found, strict=True))
    if any(form != forms[0] for form in forms):
        raise InputError(f"{table_at}: its regions differ in more than their factors and levels, or pool in different ways")
    boxes_see, width = 3, forms[0]["tower"]["width"]
    if own:
        boxes_see = levels.pop()
        if (last := factors.pop()) != BOX_REGION:
            raise InputError(f"{table_at}.{len(regions)}, for the boxes, sees {last:g}x; ours sees {BOX_REGION:g}x")
        _narrows(*parts_at, [len(factors) * width, width])
    sees = [way for way in ("text", "figure") if levels == [len(levels_seen(f, True, way)) for f in factors]]
    if not sees or boxes_see != 3:
        counts = ", ".join(map(str, levels)) + (f" levels, and the boxes' {boxes_see}" if own else " levels")
        raise InputError(
            f"{table_at}: its regions see {counts}; official is 3 up to 1x, 2 up to 2x, 1 beyond, or 3, and the boxes' 3"
        )
    return {
        "foveal": factors, "skip": True, "sees": sees[0], "box_tower": "own" if own else "joined", "trunk": trunk,
        "frozen": 5 if trunk_at[0].kind == "NoBackprop" else 2, **forms[0],
    }  # fmt: skip


def _region(mapping: Mapping, found: Any, path: str, name: str) -> tuple[float, int, dict]:
    """Map one region: the factor, the number of levels, and what it must have in common with the others."""
    boxes, pools, *mix, fc6, relu6, fc7, relu7 = expect(found, path, f"fork fork join (times )?conv {TOWER}")
    which = modules(boxes.record, boxes.path)[-1:]
    (select,) = expect(which[0] if which else None, f"{boxes.path}.2", "which")
    if not 1 <= (index := select.number("index")) <= len(FOVEAL):
        raise InputError(f"{select.path} takes region {index}; there are 1 to {len(FOVEAL)}")
    select.check(dimension=1)
    mix[0].check(dimension=2)
    forms, levels = [], modules(pools.record, pools.path)
    if not 1 <= len(levels) <= 3:
        raise InputError(f"{pools.path} pools {len(levels)} levels; there are conv5, conv4 and conv3")
    for i, pool in enumerate(levels):  # conv5 first, in ours, too
        level, roi, scaled = expect(pool, f"{pools.path}.{i + 1}", "fork roi (normalise|times)")
        picked = modules(level.record, level.path)[:1]
        (table,) = expect(picked[0] if picked else None, f"{level.path}.1", "which")
        table.check(index=i + 1)
        if scaled.word == "times":
            scaled.check(constant_scalar=(1, 1 / 30, 1 / 200)[i])
        forms.append({**_pooling(roi, 16 >> i), "normalise": scaled.word == "normalise"})
    if any(form != forms[0] for form in forms) or forms[0]["normalise"] != (len(mix) == 3):
        raise InputError(f"{path}: its levels must all be normalised and then multiplied, or none; and pooled alike")
    mapping.weighted(mix[-1], f"{name}.mix.conv")
    form = {**forms[0], "mixed": mix[-1].outputs, "tower": _tower(mapping, [fc6, relu6, fc7, relu7], name)}
    if len(mix) == 3:
        scale = mix[1].record.fields.get("constant_scalar")
        if not isinstance(scale, int | float) or not 0 < scale < 1e6:
            raise InputError(f"{mix[1].path}: constant_scalar is {scale!r}; normalised levels are multiplied by 1000 or so")
        form["skip_scale"] = float(scale)
    return FOVEAL[index - 1], len(forms), form


def _narrows(at: Part, lengths: list[int]) -> None:
    """What the heads get: the first numbers are the classes', the rest is the boxes'."""
    start = 1
    for i, (record, length) in enumerate(zip(modules(*at), lengths, strict=False), 1):
        (part,) = expect(record, f"{at[1]}.{i}", "part")
        part.check(dimension=2, index=start, length=length)
        start += length
    if len(modules(*at)) != 2:
        raise InputError(f"{at[1]} has {len(modules(*at))} parts; wanted the classes' and the boxes'")
