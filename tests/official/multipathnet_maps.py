"""The official tiny networks of `oracle/multipathnet` as ours: their sizes, and their names -> our parameters.

All three have 20 categories and six classifiers. Boxes of official files are 1-based; `rois_of` makes them ours.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.roi_pooling import LinearTower, ResidualTower
from fairseg_lite.models.trunks import ResNetTrunk, VGGTrunk
from fairseg_lite.official.reader import Record, loads

WIDTHS = ((16, 16), (24, 24), (32, 32, 256), (32, 32, 512), (32, 32, 512))


ORACLE = Path(__file__).resolve().parents[1] / "data" / "oracle"  # what is small enough to come with the tests


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path) as z:
        return {k: torch.from_numpy(z[k]) for k in z.files}


def rois_of(official: Tensor) -> Tensor:
    """(N, 5) counted from 1 -> counted from 0, picture and corners alike."""
    return official - 1


def narrow_tower(channels: int, pooled: int) -> LinearTower:
    """fc6 of 16 numbers, fc7 of 4096."""
    return LinearTower(channels, pooled, hidden=16, width=4096)


def weights_of(module: Record, path: str = "m") -> dict[str, Tensor]:
    """The tensors of a file that Torch7 wrote, by the path of their module."""
    found = {f"{path}.{k}": torch.tensor(module.fields[k]) for k in ("weight", "bias", "a", "b") if k in module.fields}
    for i, inside in module.fields.get("modules", {}).items():
        found |= weights_of(inside, f"{path}.{i}")
    return found


def resnet_file() -> bytes:
    """The official ResNet as `torch.save` wrote it."""
    return gzip.decompress((ORACLE / "multipathnet_resnet.t7.gz").read_bytes())


def resnet_case() -> dict[str, Tensor]:
    """Its weights by path, a picture, RoIs, and what came of them."""
    return weights_of(loads(resnet_file())) | arrays(ORACLE / "multipathnet_resnet.npz")


def official_network(kind: str, data: dict[str, Tensor]) -> MultiPathNet:
    """The network in evaluation mode with the weights among the data; kind "multipathnet", "vgg" or "resnet"."""
    options = {"num_classes": 20, "foveal": kind == "multipathnet", "skip": kind == "multipathnet"}
    if kind == "resnet":
        trunk = ResNetTrunk(depths=(2, 2, 2), inner=(16, 32, 64), out=(16, 32, 64), block="basic", stem=(7, 16), eps=0.0)
        tower = lambda c, p: ResidualTower(c, p, inner=128, width=128, depth=2, block="basic")  # noqa: E731
        model = MultiPathNet(trunk=trunk, tower=tower, pooled=14, **options)
        for m in model.regions.modules():
            if hasattr(m, "eps"):
                m.eps = 0.0
        pairs = resnet_pairs(model)
    else:
        model = MultiPathNet(trunk=VGGTrunk(widths=WIDTHS, ceil=True), tower=narrow_tower, **options)
        pairs = linear_pairs(model, {k.rsplit(".", 1)[0] for k in data if k.startswith("m.")}, kind)
    used = set()
    with torch.no_grad():
        for name, parameter in pairs:
            parameter.copy_(data[name].view_as(parameter))
            used.add(name)
    assert used == {k for k in data if k.startswith("m.")}, "an official tensor was left over"
    model.delta_mean.copy_(torch.tensor([0.01, -0.02, 0.03, -0.04]))  # what the files' BBoxNorm was given
    model.delta_std.copy_(torch.tensor([0.1, 0.12, 0.2, 0.25]))
    return model.eval()


def heads(model: MultiPathNet, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for i, head in enumerate([*model.classes, model.boxes]):
        name = f"{prefix}.1.{i + 1}" if i < len(model.classes) else f"{prefix}.2"
        yield from ((f"{name}.{k}", p) for k, p in head.named_parameters())


def linear_pairs(model: MultiPathNet, modules: set[str], kind: str) -> Iterator[tuple[str, Tensor]]:
    convolutions = sorted((m for m in modules if m.startswith("m.1.")), key=depth_first)
    ours = [m for m in model.trunk.features if isinstance(m, nn.Conv2d)]
    for name, conv in zip(convolutions, ours, strict=True):
        yield from ((f"{name}.{k}", p) for k, p in conv.named_parameters())
    if kind == "vgg":
        tower = model.regions[0].tower
        yield from ((f"m.4.{i}.{k}", p) for i in (1, 4) for k, p in tower[i].named_parameters())
    else:
        for r, region in enumerate((*model.regions, model.box_region), 1):
            yield from ((f"m.3.{r}.2.4.{k}", p) for k, p in region.mix.conv.named_parameters())
            yield from ((f"m.3.{r}.3.{i}.{k}", p) for i in (1, 4) for k, p in region.tower[i].named_parameters())
    yield from heads(model, "m.5")


def depth_first(name: str) -> list[int]:
    return [int(n) for n in name.split(".")[1:]]


def resnet_pairs(model: MultiPathNet) -> Iterator[tuple[str, Tensor]]:
    """The stem and layer1 have their norm folded into the convolution's bias; the rest has fixed affine norms."""

    def folded(name: str, conv: nn.Conv2d, norm: nn.Module):
        yield f"{name}.weight", conv.weight
        yield f"{name}.bias", norm.bias

    def affine(name: str, index: int, conv: nn.Conv2d, norm: nn.Module):
        yield f"{name}.{index}.weight", conv.weight
        yield f"{name}.{index + 1}.a", norm.weight
        yield f"{name}.{index + 1}.b", norm.bias

    stem = "m.1.1.1.1.1"
    yield from folded(f"{stem}.1", model.trunk.conv1, model.trunk.bn1)
    for b, block in enumerate(model.trunk.layer1, 1):
        yield from folded(f"{stem}.4.{b}.1.1.1", block.conv1, block.bn1)
        yield from folded(f"{stem}.4.{b}.1.1.3", block.conv2, block.bn2)
    layers = {"m.1.1.1.2": model.trunk.layer2, "m.1.1.1.3": model.trunk.layer3, "m.3.1.1": model.regions[0].tower.layer4}
    for prefix, layer in layers.items():
        for b, block in enumerate(layer, 1):
            yield from affine(f"{prefix}.{b}.1.1", 1, block.conv1, block.bn1)
            yield from affine(f"{prefix}.{b}.1.1", 4, block.conv2, block.bn2)
            if block.downsample is not None:
                yield from affine(f"{prefix}.{b}.1.2", 1, *block.downsample)
    yield from heads(model, "m.4")
