"""FAIR's DeepMask and SharpMask files as our networks: every tensor in them has its place in ours, exactly once.

    load(file) -> records of modules -> chains of layers -> sizes and options -> our network, with their numbers

Nothing is known beforehand but the layout: the sizes, the depth of the trunk, its padding and the form (as trained, or turned
into convolutions by `inference()`) are read off the modules. A layer where none belongs, a tensor left over or one that is
missing is an error that names its path, such as `trunk.5.1.1.1.4.2.weight` (official `model.trunk.modules[5].modules[1]...`).
Our network is first built without memory, so that a file with absurd sizes is refused before anything is allocated.

Official names: inn.ConstAffine and nn.SpatialConstDiagonal (a, b) are our fixed norms; km, ks: k; config: kept as it is.
Source: official `DeepMask.lua`, `SharpMask.lua`, `modelUtils.lua`. Lesson: 04.
"""

import math
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fairseg_lite.models.deepmask import deepmask_resnet50
from fairseg_lite.models.sharpmask import sharpmask_resnet50
from fairseg_lite.torch7.modules import Mapping, chain, expect, leftovers, modules, padding_of
from fairseg_lite.torch7.reader import Record, Table, load

LINEAR = "(linear|conv)"  # as trained, or in inference form


class Imported(NamedTuple):
    """A network of ours with official weights, and what `save_model` needs to keep it.

    name and kwargs build it again; form is "training" or "inference"; config is the official one; tensors were used.
    """

    model: nn.Module
    name: str
    kwargs: dict
    form: str
    config: dict
    tensors: int


def import_official(path: str | Path) -> Imported:
    """Read an official file and make it a network of ours, in evaluation mode and float32.

    Args:
        path: what `torch.save` wrote: {model = nn.DeepMask or nn.SharpMask, config = ...}.
    Returns:
        Imported; its model's dtype is float32 whatever the file's is.
    Raises:
        Torch7Error: the file is damaged.
        ValueError: another network, or tensors that are missing, left over, of another shape, or not finite.
    Source: official `DeepMask.lua`, `SharpMask.lua`. Lesson: 04.
    """
    return from_object(load(path))


def from_object(found: Any) -> Imported:
    """As `import_official`, from what the reader returned."""
    config = {}
    if isinstance(found, Table):
        config, found = _plain(found.get("config")), found.get("model")
    if not isinstance(found, Record) or found.kind not in ("DeepMask", "SharpMask"):
        what = found.name if isinstance(found, Record) else type(found).__name__
        raise ValueError(f"the file holds a {what}; wanted an official nn.DeepMask or nn.SharpMask")
    mapping = Mapping()
    if found.kind == "DeepMask":
        name, build, kwargs = "deepmask_resnet50", deepmask_resnet50, _deepmask(mapping, found, config, "maskBranch", "")
    else:
        name, build, kwargs = "sharpmask_resnet50", sharpmask_resnet50, _sharpmask(mapping, found, config)
    if unused := leftovers(found, mapping.used):
        raise ValueError(f"{len(unused)} tensors have no place in a {found.kind}: {', '.join(unused[:5])}")
    with torch.device("meta"):
        model = build(**kwargs)
    mapping.fill(model)
    form = "inference" if chain(found.fields["trunk"], "trunk")[-1].word == "conv" else "training"
    return Imported(model.eval(), name, kwargs, form, config, len(mapping.used))


def _deepmask(mapping: Mapping, found: Record, config: dict, mask: str, prefix: str) -> dict:
    """Map trunk, mask and score; the options that build a network of that form."""
    trunk, padding = _trunk(mapping, found.fields.get("trunk"), prefix)
    layers = expect(found.fields.get("trunk"), "trunk", rf".*add relu conv relu {LINEAR}")
    reduce, embed = layers[-3], layers[-1]
    mapping.weighted(reduce, f"{prefix}reduce")
    mapping.weighted(embed, f"{prefix}embed")
    features, embedding = reduce.outputs, embed.outputs
    grid = max(math.isqrt(embed.tensor("weight").size // (embedding * features)), 1)  # its shape is looked at in the end
    masks = expect(found.fields.get(mask), mask, f"{LINEAR}( resize)?")
    scores = expect(found.fields.get("scoreBranch"), "scoreBranch", f"{LINEAR} relu {LINEAR}")
    mapping.weighted(masks[0], f"{prefix}mask")
    mapping.weighted(scores[0], f"{prefix}score.1")
    mapping.weighted(scores[2], f"{prefix}score.4")
    mask_size, patch_size = math.isqrt(masks[0].outputs), 16 * grid
    for what, ours in (("iSz", patch_size), ("oSz", mask_size)):
        if config.get(what, ours) != ours:
            raise ValueError(f"config.{what} is {config[what]}, but the network's tensors are made for {ours}")
    target = masks[-1].number("owidth") if masks[-1].word == "resize" else 0
    target = target or (config.get("gSz") if prefix == "" else 0) or 2 * mask_size
    if not isinstance(target, int) or not 0 < target <= 2 * patch_size:
        raise ValueError(f"the mask's target has {target} px a side; a patch has {patch_size}")
    crop = [m.fields.get("pad_l") for m in modules(found.fields["trunk"], "trunk") if m.kind == "SpatialZeroPadding"]
    if any(not isinstance(c, int) or not -8 < c < 0 for c in crop):
        raise ValueError(f"trunk: a border of {crop} cells is cut off; 1 to 7 are possible")
    return {
        "padding": padding, "stride_in_1x1": trunk.pop("stride_in_1x1"), "trunk": trunk, "patch_size": patch_size,
        "context": 32 * -sum(crop) or 32, "mask_size": mask_size, "target_size": target, "features": features,
        "embedding": embedding, "score_hidden": scores[0].outputs,
    }  # fmt: skip


def _trunk(mapping: Mapping, found: Any, prefix: str) -> tuple[dict, str]:
    """Map the ResNet; its options and its padding."""
    layers = expect(found, "trunk", rf"conv affine relu (pool )?(fork add relu )+conv relu {LINEAR}")
    stem, convs = layers[0], [layers[0]]
    mapping.normed(stem, layers[1], f"{prefix}trunk.conv1", f"{prefix}trunk.bn1")
    forks = [layer for layer in layers if layer.word == "fork"]
    stages = [list(group) for _, group in groupby(forks, key=lambda fork: fork.path.split(".")[1])]
    if len(stages) != 3:
        raise ValueError(f"trunk: {len(stages)} stages of residual blocks; three are wanted (the official trunk ends with conv4)")
    inner, out, sizes, early = [], [], set(), False
    for s, stage in enumerate(stages, 1):
        for b, fork in enumerate(stage):
            branches = modules(fork.record, fork.path)
            if len(branches) != 2:
                raise ValueError(f"{fork.path}: {len(branches)} branches; a residual block has two")
            body = expect(branches[0], f"{fork.path}.1", "conv affine relu conv affine( relu conv affine)?")
            shortcut = expect(branches[1], f"{fork.path}.2", "(conv affine)?")
            name, inside = f"{prefix}trunk.layer{s}.{b}", [layer for layer in body if layer.word != "relu"]
            for i in range(0, len(inside), 2):
                mapping.normed(*inside[i : i + 2], f"{name}.conv{i // 2 + 1}", f"{name}.bn{i // 2 + 1}")
            if shortcut:
                mapping.normed(*shortcut, f"{name}.downsample.0", f"{name}.downsample.1")
            convs += inside[::2]
            sizes.add((len(inside) // 2, s, inside[0].outputs, inside[-2].outputs))
            early |= len(inside) == 6 and inside[0].number("dW") > 1
        inner.append(inside[0].outputs)
        out.append(inside[-2].outputs)
    if len(sizes) != 3 or len({size[0] for size in sizes}) != 1:
        raise ValueError("trunk: the residual blocks of a stage differ in their widths")
    trunk = {
        "depths": [len(stage) for stage in stages], "inner": inner, "out": out, "eps": 0.0, "stride_in_1x1": early,
        "block": "bottleneck" if len(inside) == 6 else "basic", "stem": [stem.number("kW"), stem.outputs],
        "stem_pool": any(layer.word == "pool" for layer in layers),
    }  # fmt: skip
    return trunk, padding_of(convs)


def _sharpmask(mapping: Mapping, found: Record, config: dict) -> dict:
    """Map the DeepMask inside and the refinement; the options that build a network of that form.

    The lateral parts are taken from `neths`: the inference form has removed them from `refs`, which name the rest.
    """
    deepmask = _deepmask(mapping, found, config, "maskBranchDM", "deepmask.")
    tables = {name: found.fields.get(name) for name in ("refs", "neths", "netvs")}
    if not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"a SharpMask without {', '.join(k for k, t in tables.items() if not isinstance(t, dict))}")
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
    plain = {k: v for k, v in kept if isinstance(k, str) and isinstance(v, str | int | float)}
    return {k: v for k, v in plain.items() if (len(v) < 1000 if isinstance(v, str) else math.isfinite(v))}
