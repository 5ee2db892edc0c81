"""FAIR's DeepMask, SharpMask and MultiPathNet files as our networks: every tensor in them has its place in ours, exactly once.

    load(file) -> records of modules -> chains of layers -> sizes and options -> our network, with their numbers

Nothing is known beforehand but the layout: the sizes, the depth of the trunk and its padding are read off the modules. A layer
where none belongs, a tensor left over or one that is missing is an error that names its path, such as
`trunk.5.1.1.1.4.2.weight` (official `model.trunk.modules[5].modules[1]...`).
Our network is first built without memory, so that a file with absurd sizes is refused before anything is allocated.

Official names: inn.ConstAffine and nn.SpatialConstDiagonal (a, b) are our fixed norms; km, ks: k; config: kept as it is.
The MultiPathNet family (detectors.py): ResNet-18 as FAIR released it for COCO, Fast R-CNN with VGG, and the paper's network.
Source: official `DeepMask.lua`, `SharpMask.lua`, `modelUtils.lua`. Lesson: 04.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import deepmask_resnet50
from fairseg_lite.models.network import Network
from fairseg_lite.models.sharpmask import sharpmask_resnet50
from fairseg_lite.official.detectors import map_multipathnet
from fairseg_lite.official.modules import Mapping, chain, expect, leftovers, modules, padding_of, residual_trunk
from fairseg_lite.official.reader import Record, Table, load


def import_official(path: str | Path) -> Network:
    """Read an official file and make it a network of ours, in evaluation mode and float32.

    Args:
        path: what `torch.save` wrote: {model = nn.DeepMask or nn.SharpMask, config = ...}, or MultiPathNet's nn.Sequential.
    Returns:
        The network, float32 whatever the file's numbers are; its record builds it again, and says in `about` what the official
        options ("config") were and how many tensors ("tensors") the file had.
    Raises:
        Torch7Error: the file is damaged.
        InputError: another network, or tensors that are missing, left over, of another shape, or not finite.
    Source: official `DeepMask.lua`, `SharpMask.lua`. Lesson: 04.
    """
    return from_object(load(path))


def from_object(found: Any) -> Network:
    """As `import_official`, from what the reader returned."""
    config = {}
    if isinstance(found, Table):
        config, found = _plain(found.get("config")), found.get("model")
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
    trunk, padding = residual_trunk(mapping, found.fields.get("trunk"), "trunk", f"{prefix}trunk.", " conv relu linear")
    layers = chain(found.fields["trunk"], "trunk")
    reduce, embed = layers[-3], layers[-1]
    mapping.weighted(reduce, f"{prefix}reduce")
    mapping.weighted(embed, f"{prefix}embed")
    features, embedding = reduce.outputs, embed.outputs
    grid = max(math.isqrt(embed.tensor("weight").size // (embedding * features)), 1)  # its shape is looked at in the end
    masks = expect(found.fields.get(mask), mask, "linear( resize)?")
    scores = expect(found.fields.get("scoreBranch"), "scoreBranch", "linear relu linear")
    mapping.weighted(masks[0], f"{prefix}mask")
    mapping.weighted(scores[0], f"{prefix}score.1")
    mapping.weighted(scores[2], f"{prefix}score.4")
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
        "padding": padding, "trunk": trunk, "patch_size": patch_size,
        "context": 32 * -sum(crop) or 32, "mask_size": mask_size, "target_size": target, "features": features,
        "embedding": embedding, "score_hidden": scores[0].outputs,
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
    plain = {k: v for k, v in kept if isinstance(k, str) and isinstance(v, str | int | float)}
    return {k: v for k, v in plain.items() if (len(v) < 1000 if isinstance(v, str) else math.isfinite(v))}
