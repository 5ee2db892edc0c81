"""FAIR's DeepMask, SharpMask and MultiPathNet files as our networks: every tensor in them has its place in ours, exactly once.

    load(file) -> records of modules -> chains of layers -> sizes and options -> our network, with their numbers

Nothing is known beforehand but the layout: the sizes, the depth of the trunk and its padding are read off the modules. A layer
where none belongs, a tensor left over or one that is missing is an error that names its path, such as
`trunk.5.1.1.1.4.2.weight` (official `model.trunk.modules[5].modules[1]...`). Our network is first built without memory, so that
a file with absurd sizes is refused before anything is allocated.
Official names: inn.ConstAffine and nn.SpatialConstDiagonal (a, b) are our fixed norms; km, ks: k; config: kept as it is.

MultiPathNet's files are of three kinds; which module is the trunk, a region, a head:
    kind          m.1        then                                             in the end
    resnet        to conv4   RoI pooling, ResNet's conv5, mean                classes and boxes
    vgg           to conv5   RoI pooling, fc6, fc7                            classes and boxes
    multipathnet  all three  for each region its boxes, pooled levels, 1x1    classes of the first regions, boxes of one more
                  levels     convolution, fc6, fc7

All end with a BBoxNorm, and all come with one classifier or with several (the integral loss). Only the first was released; of
the others the official code has made files with random numbers, whose outputs the tests know, and their other forms are refused.
Source: official `DeepMask.lua`, `SharpMask.lua`, `modelUtils.lua`; MultiPathNet's `resnet.lua`, `vgg.lua`, `multipathnet.lua`,
`model_utils.lua`. Lesson: 04, 09.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import FOVEAL
from fairseg_lite.geometry.pixels import Pixels
from fairseg_lite.models.deepmask import deepmask_resnet50
from fairseg_lite.models.multipathnet import BOX_REGION, levels_seen, multipathnet_resnet18, multipathnet_vgg16
from fairseg_lite.models.network import Network
from fairseg_lite.models.sharpmask import sharpmask_resnet50
from fairseg_lite.official.modules import (
    Layer,
    Mapping,
    chain,
    expect,
    leftovers,
    modules,
    padding_of,
    resnet_stage,
    resnet_trunk,
    two,
)
from fairseg_lite.official.reader import Record, Table, load


def import_official(path: str | Path) -> Network:
    """Read an official file and make it a network of ours, in evaluation mode and float32.

    Args: path: what `torch.save` wrote: {model = nn.DeepMask or nn.SharpMask, config = ...}, or MultiPathNet's nn.Sequential.
    Returns: The network, float32 whatever the file's numbers are; its record builds it again, and says in `about` what the
        official options ("config") were and how many tensors ("tensors") the file had.
    Raises:
        InputError: a damaged file (Torch7Error), another network, or tensors missing, left over, of another shape, or not finite.
    Source: official `DeepMask.lua`, `SharpMask.lua`. Lesson: 04.
    """
    return from_object(load(path))


def from_object(found: Any) -> Network:
    """As `import_official`, from what the reader returned."""
    config, found = (_plain(found.get("config")), found.get("model")) if isinstance(found, Table) else ({}, found)
    mapping, traits, kind = Mapping(), {}, found.kind if isinstance(found, Record) else type(found).__name__
    if kind == "DeepMask":
        build, kwargs = deepmask_resnet50, _deepmask(mapping, found, config, "maskBranch", "")
    elif kind == "SharpMask":
        build, kwargs = sharpmask_resnet50, _sharpmask(mapping, found, config)
    elif kind == "Sequential" and [m.kind for m in modules(found, "m")[:1]] == ["ParallelTable"]:
        kind, (build, kwargs, pixels) = "MultiPathNet", map_multipathnet(mapping, found)
        traits = {"pixels": pixels, "short_side": 800, "max_side": 1000}  # of the official COCO script
    else:
        raise InputError(f"the file holds a {kind}; wanted an official DeepMask, SharpMask or MultiPathNet")
    if unused := leftovers(found, mapping.used):
        raise InputError(f"{len(unused)} tensors have no place in a {kind}: {', '.join(unused[:5])}")
    with torch.device("meta"):
        model = build(**kwargs)
    mapping.fill(model)
    model.record = replace(model.record, **traits, about={"config": config, "tensors": len(mapping.used)})
    return model.eval()


def _deepmask(mapping: Mapping, found: Record, config: dict, mask: str, prefix: str) -> dict:
    """Map trunk, mask and score; the options that build a network of that form."""
    trunk, padding = resnet_trunk(mapping, found.fields.get("trunk"), "trunk", f"{prefix}trunk.", " conv relu linear")
    *_, reduce, _, embed = chain(found.fields["trunk"], "trunk")
    features, embedding = reduce.outputs, embed.outputs
    grid = max(math.isqrt(embed.tensor("weight").size // (embedding * features)), 1)  # its shape is looked at in the end
    masks = expect(found.fields.get(mask), mask, "linear( resize)?")
    scores = expect(found.fields.get("scoreBranch"), "scoreBranch", "linear relu linear")
    for name, layer in {"reduce": reduce, "embed": embed, "mask": masks[0], "score.1": scores[0], "score.4": scores[2]}.items():
        mapping.weighted(layer, prefix + name)
    mask_size, patch_size = math.isqrt(masks[0].outputs), 16 * grid
    for what, ours in (("iSz", patch_size), ("oSz", mask_size)):
        if config.get(what, ours) != ours:
            raise InputError(f"config.{what} is {config[what]}, but the network's tensors are made for {ours}")
    target = masks[-1].number("owidth") if masks[-1].word == "resize" else 0
    target = target or (config.get("gSz") if prefix == "" else 0) or 2 * mask_size
    if not isinstance(target, int) or not 0 < target <= 2 * patch_size:
        raise InputError(f"the mask's target has {target} px a side; a patch has {patch_size}")
    crop = [m.fields.get("pad_l") for m in modules(found.fields["trunk"], "trunk") if m.kind == "SpatialZeroPadding"]
    if any(not isinstance(c, int) or not -8 < c < 0 for c in crop):
        raise InputError(f"trunk: a border of {crop} cells is cut off; 1 to 7 are possible")
    return {
        "padding": padding, "trunk": trunk, "patch_size": patch_size, "context": 32 * -sum(crop) or 32, "mask_size": mask_size,
        "target_size": target, "features": features, "embedding": embedding, "score_hidden": scores[0].outputs,
    }  # fmt: skip


def _sharpmask(mapping: Mapping, found: Record, config: dict) -> dict:
    """Map the DeepMask inside and the refinement; the options that build a network of that form.

    `refs` name the parts of `neths` and `netvs` again; only what comes after them is theirs.
    """
    deepmask = _deepmask(mapping, found, config, "maskBranchDM", "deepmask.")
    tables = {name: found.fields.get(name) for name in ("refs", "neths", "netvs")}
    if not all(isinstance(t, dict) for t in tables.values()):
        raise InputError(f"a SharpMask without {', '.join(k for k, t in tables.items() if not isinstance(t, dict))}")
    (first,) = expect(tables["netvs"].get(0), "netvs.0", "linear")
    mapping.weighted(first, "first")
    convs = []
    for i in range(1, 5):
        lateral = expect(tables["neths"].get(i), f"neths.{i}", "conv relu conv relu conv")[::2]
        top_down = expect(tables["netvs"].get(i), f"netvs.{i}", "conv relu conv")[::2]
        ref = expect(tables["refs"].get(i), f"refs.{i}", "fork add relu nearest" + (" conv" if i == 4 else ""))
        for part, layers in (("lateral", lateral), ("top_down", top_down)):
            for j, layer in enumerate(layers):
                mapping.weighted(layer, f"refinements.{i - 1}.{part}.{2 * j}")
        convs += lateral + top_down
    mapping.weighted(ref[4], "last")
    k = first.outputs // (deepmask["patch_size"] // 16) ** 2
    return {"deepmask": deepmask, "k": k, "upsample": "nearest", "padding": padding_of([*convs, ref[4]])}


def _plain(table: Any) -> dict:
    """What JSON can hold of the official options."""
    kept = table.items() if isinstance(table, dict) else ()
    short = {
        k: v for k, v in kept if isinstance(k, str) and (isinstance(v, int | float) or (isinstance(v, str) and len(v) < 1000))
    }
    return {k: v for k, v in short.items() if isinstance(v, str) or math.isfinite(v)}


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
        official = "official are a pooled tower, or some for regions, heads and a norm of boxes"
        raise InputError(f"m is made of {form.replace(' ', ', ')}; {official}")
    pictures, *inside, heads, norm = parts
    trunk = two(*pictures, "pictures and boxes")[0], f"{pictures[1]}.1"
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
    if not classes:
        raise InputError(f"{heads[1]}.1 has no classifier")
    for i, head in enumerate(classes):
        (layer,) = expect(head, f"{heads[1]}.1.{i + 1}", "linear")
        mapping.weighted(layer, f"classes.{i}")
    (boxes,) = expect(both[1], f"{heads[1]}.2", "linear")
    mapping.weighted(boxes, "boxes")
    last = Layer(f"{norm[1]}.{norms[0][0]}", "", norms[0][1])
    for name in ("mean", "std"):
        mapping.take(last, name, f"delta_{name}")
    return {"num_classes": layer.outputs - 1, "integral": len(classes)}


def _pooling(layer: Layer, stride: int) -> dict:
    """The options of a RoI pooling, which is a square of cells of features with this stride."""
    layer.check(spatial_scale=1 / stride, H=layer.number("W"))
    return {"pooled": layer.number("W"), "pooling": "v2" if layer.record.fields.get("v2") else "v1"}


def _resnet(mapping: Mapping, trunk_at: Part, pooling: Part, tower_at: Part) -> dict:
    """ResNet to conv4, RoI pooling, conv5 for each RoI: the kind that was released."""
    trunk, padding = resnet_trunk(mapping, *trunk_at, "trunk.", "")
    *forks, mean = expect(*tower_at, "(fork add relu )+mean")
    tower, convs = resnet_stage(mapping, [layer for layer in forks if layer.word == "fork"], "regions.0.tower.layer4")
    cells = _pooling(Layer(pooling[1], "", pooling[0]), 16)
    if any(2 * mean.number(side) != cells["pooled"] for side in ("kW", "kH")):
        what = f"{mean.path} takes the mean of {mean.number('kW')}; half are wanted"
        raise InputError(f"{pooling[1]} pools {cells['pooled']} cells a side and {what}")
    if padding_of(convs) != padding or padding != "zeros":
        raise InputError("m: another kind of ResNet than the official one, whose convolutions pad with zeros")
    return {"foveal": False, "skip": False, **cells, "trunk": trunk, "conv5": {**tower, "eps": 0.0}}


def _vgg(mapping: Mapping, trunk_at: Part, pooling: Part, tower_at: Part) -> dict:
    """VGG to conv5, RoI pooling, fc6 and fc7: Fast R-CNN, with the integral loss or without."""
    trunk, tower = _vgg_trunk(mapping, *trunk_at, skip=False), _tower(mapping, expect(*tower_at, TOWER), "regions.0")
    return {"foveal": False, "skip": False, **_pooling(Layer(pooling[1], "", pooling[0]), 16), "trunk": trunk, "tower": tower}


def _tower(mapping: Mapping, layers: list[Layer], region: str) -> dict:
    for i, layer in ((1, layers[0]), (4, layers[2])):
        mapping.weighted(layer, f"{region}.tower.{i}")
    return {"hidden": layers[0].outputs, "width": layers[2].outputs}


def _regions(mapping: Mapping, trunk_at: Part, boxes_at: Part, table_at: Part, parts_at: Part) -> dict:
    """The paper's network: foveal regions, each with its levels, its 1x1 convolution and its tower."""
    trunk = _vgg_trunk(mapping, *trunk_at, skip=True)
    regions = modules(*table_at)
    expect(two(*boxes_at, "features and boxes")[1], f"{boxes_at[1]}.2", "foveal swap")
    if len(regions) != len(FOVEAL) + 1:
        raise InputError(f"{table_at[1]} has {len(regions)} regions; wanted are {len(FOVEAL)} for classes and one for boxes")
    names = [f"regions.{i}" for i in range(len(FOVEAL))] + ["box_region"]
    levels = [len(levels_seen(factor, True, "text")) for factor in FOVEAL] + [3]
    rows = enumerate(zip(regions, names, (*FOVEAL, BOX_REGION), levels, strict=True), 1)
    forms = [_region(mapping, r, f"{table_at[1]}.{i}", name, FOVEAL.index(u) + 1, count) for i, (r, name, u, count) in rows]
    if any(form != forms[0] for form in forms):
        raise InputError(f"{table_at[1]}: its regions differ in more than their factors and levels, or pool in different ways")
    width = forms[0]["tower"]["width"]
    start = 1  # what the heads get: the first numbers are the classes', the rest is the boxes'
    for i, (record, length) in enumerate(zip(two(*parts_at, "classes and boxes"), (len(FOVEAL) * width, width), strict=True), 1):
        (part,) = expect(record, f"{parts_at[1]}.{i}", "part")
        part.check(dimension=2, index=start, length=length)
        start += length
    return {"foveal": True, "skip": True, "trunk": trunk, "frozen": 5 if trunk_at[0].kind == "NoBackprop" else 2, **forms[0]}


def _region(mapping: Mapping, found: Any, path: str, name: str, index: int, count: int) -> dict:
    """Map a region that takes the foveal boxes of this index and pools so many levels; what it has in common with the others."""
    boxes, pools, join, times, conv, *tower = expect(found, path, f"fork fork join times conv {TOWER}")
    (select,) = expect([None, *modules(boxes.record, boxes.path)][-1], f"{boxes.path}.2", "which")
    select.check(dimension=1, index=index)
    join.check(dimension=2)
    levels, cells = modules(pools.record, pools.path), []
    if len(levels) != count:
        raise InputError(f"{pools.path} pools {len(levels)} levels; official are {count} here, of conv5, conv4 and conv3")
    for i, pool in enumerate(levels):  # conv5 first, in ours, too
        level, roi, _ = expect(pool, f"{pools.path}.{i + 1}", "fork roi normalise")
        (table,) = expect([*modules(level.record, level.path), None][0], f"{level.path}.1", "which")
        table.check(index=i + 1)
        cells.append(_pooling(roi, 16 >> i))
    scale = times.record.fields.get("constant_scalar")
    if any(c != cells[0] for c in cells) or not isinstance(scale, int | float) or not 0 < scale < 1e6:
        raise InputError(f"{path}: its levels must be pooled alike, and multiplied by 1000 or so; here by {scale!r}")
    mapping.weighted(conv, f"{name}.mix.conv")
    return {**cells[0], "mixed": conv.outputs, "skip_scale": float(scale), "tower": _tower(mapping, tower, name)}


def _vgg_trunk(mapping: Mapping, found: Any, path: str, skip: bool) -> dict:
    """Map VGG up to conv5; its options. With `skip` conv4 and conv5 hang on forks that pass the level before on as well."""
    first = "conv relu( conv relu)*( halve( conv relu)+)"
    layers = expect(found, path, first + ("{2} fork fork flatten" if skip else "{4}"))
    if skip:
        *layers, fork4, fork5, _ = layers
        (inner,) = expect(*_fork(fork5), "fork")
        layers += [*expect(*_fork(fork4), "halve( conv relu)+"), *expect(*_fork(inner), "halve( conv relu)+")]
    groups, halves = [[]], [layer for layer in layers if layer.word == "halve"]
    for i, layer in enumerate(layers):  # our modules have the same order
        if layer.word == "halve":
            groups.append([])
        elif layer.word == "conv":
            mapping.weighted(layer, f"trunk.features.{i}")
            groups[-1].append(layer)
    if len(rounding := {bool(layer.number("ceil_mode")) for layer in halves}) != 1:
        raise InputError(f"{path}: some poolings round sizes up and some down; one is wanted for all")
    widths = [[c.outputs for c in group] for group in groups]
    return {"widths": widths, "padding": padding_of(sum(groups, [])), "ceil": rounding.pop()}


def _fork(layer: Layer) -> Part:
    """The first branch of a fork, with its path; the second passes on what comes in."""
    first, second = two(layer.record, layer.path, "one and one that changes nothing")
    expect(second, f"{layer.path}.2", "")
    return first, f"{layer.path}.1"
