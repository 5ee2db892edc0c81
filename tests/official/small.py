"""Official-format files of small networks: our network with random weights, written as Torch7 would have written it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fairseg_lite.models.deepmask import DeepMask, deepmask_resnet50
from fairseg_lite.models.multipathnet import MultiPathNet, multipathnet_resnet18
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.official import networks

from .writer import Object, Storage, dump, tensor

SIZES = {
    "patch_size": 32, "mask_size": 8, "target_size": 16, "features": 6, "embedding": 10, "score_hidden": 7,
    "padding": "symmetric",
}  # fmt: skip
TRUNK = {"depths": [2, 1, 1], "inner": [2, 3, 4], "out": [8, 12, 16], "stem": [7, 4], "eps": 0.0}


def small_deepmask(**options) -> DeepMask:
    torch.manual_seed(0)
    trunk = {**TRUNK, **options.pop("trunk", {})}
    model = deepmask_resnet50(trunk=trunk, **{**SIZES, **options})
    for name, value in model.state_dict().items():  # the fixed norms begin as ones and zeros
        if ".bn" in name or "downsample.1" in name:
            value.copy_(torch.rand_like(value) + 0.5 if name.endswith("weight") else torch.randn_like(value) * 0.1)
        if name.endswith("running_mean"):
            value.zero_()
        if name.endswith("running_var"):
            value.fill_(1)
    return model.eval()


def example() -> DeepMask:
    """The network in fairseg_lite/official/example.t7: numbers that every machine makes alike."""
    model = small_deepmask()
    for i, (name, value) in enumerate(model.state_dict().items()):
        if not name.endswith(("running_mean", "running_var")):
            numbers = (torch.arange(value.numel()) * 7919 + 104729 * i) % 257 / 256 - 0.5
            value.copy_(numbers.view_as(value) + (value.ndim == 1 and name.endswith("weight")))
    return model


def small_multipathnet(**options) -> MultiPathNet:
    torch.manual_seed(0)
    sizes = {
        "num_classes": 3,
        "foveal": False,
        "skip": False,
        "pooled": 4,
        "conv5": {"inner": 5, "width": 6, "depth": 1, "eps": 0.0},
    }
    trunk = {"depths": [1, 2, 1], "inner": [4, 3, 4], "out": [4, 8, 12], "stem": [7, 4], "eps": 0.0}
    model = multipathnet_resnet18(trunk=trunk, **{**sizes, **options})
    folded = ("trunk.bn1", "trunk.layer1")
    for name, value in model.state_dict().items():
        if ".bn" in name or "downsample.1" in name:
            if name.endswith("bias"):
                value.normal_(std=0.1)
            elif name.endswith("weight") and not name.startswith(folded):
                value.uniform_(0.5, 1.5)
    model.delta_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    return model.eval()


def small_sharpmask() -> SharpMask:
    return SharpMask(small_deepmask(), k=16, upsample="nearest", padding="symmetric").eval()


class Official:
    """Makes official modules of ours; the options are the ways in which official files differ."""

    def __init__(self, *, affine="inn.ConstAffine", conv="cudnn.SpatialConvolution", dtype="f4", biased=False):
        self.affine_name, self.conv_name, self.dtype, self.biased = affine, conv, dtype, biased
        self.folded = False  # norms into the convolutions before them

    def array(self, x: torch.Tensor):
        return tensor(x.detach().numpy().astype(self.dtype), cuda=self.dtype == "f4")

    def sequential(self, *modules: Object | None) -> Object:
        return Object("nn.Sequential", {"modules": [m for m in modules if m is not None], "train": False})

    def conv(self, ours: nn.Conv2d, bias: torch.Tensor | None = None) -> Object:
        weight = ours.weight.flatten(1) if self.conv_name.endswith("MM") else ours.weight
        symmetric = type(ours).__name__ == "SymmetricConv2d" or ours.padding_mode == "replicate"
        (kernel, _), (step, _), pad = ours.kernel_size, ours.stride, 0 if symmetric else ours.padding[0]
        fields = {
            "weight": self.array(weight),
            "gradWeight": self.array(weight),
            "kW": kernel,
            "kH": kernel,
            "dW": step,
            "dH": step,
        }
        fields |= {"padW": pad, "padH": pad, "_type": "torch.CudaTensor"}
        bias = ours.bias if bias is None else bias
        if bias is not None:
            fields["bias"] = self.array(bias)
        made = Object(self.conv_name, fields)
        if not symmetric:
            return made
        border = {f"pad_{side}": kernel // 2 for side in "lrtb"}
        return self.sequential(Object("nn.SpatialSymmetricPadding", border), made)

    def normed(self, conv: nn.Conv2d, norm: nn.Module) -> list[Object]:
        a, bias = norm.weight * (norm.running_var + norm.eps).rsqrt(), None
        b = norm.bias - norm.running_mean * a
        if self.folded:
            return [self.conv(conv, b)]
        if self.biased:  # conv(x) + bias, and the norm takes it back
            bias = torch.linspace(-1, 1, len(a))
            b = b - a * bias
        shape = (1, -1, 1, 1) if self.affine_name == "nn.SpatialConstDiagonal" else (-1,)
        return [self.conv(conv, bias), Object(self.affine_name, {"a": self.array(a.view(shape)), "b": self.array(b.view(shape))})]

    def linear(self, ours: nn.Module) -> Object:
        weight, bias = self.array(ours.weight.flatten(1)), self.array(ours.bias)
        return Object("nn.Linear", {"weight": weight, "bias": bias, "gradBias": bias})

    def relu(self) -> Object:
        return Object("cudnn.ReLU", {"inplace": True, "threshold": 0, "output": tensor(np.ones(3, "f4"), cuda=True)})

    def block(self, ours: nn.Module) -> Object:
        body = []
        for i in (1, 2, 3) if hasattr(ours, "conv3") else (1, 2):
            body += [*self.normed(getattr(ours, f"conv{i}"), getattr(ours, f"bn{i}")), self.relu()]
        shortcut = Object("nn.Identity") if ours.downsample is None else self.sequential(*self.normed(*ours.downsample))
        fork = Object("nn.ConcatTable", {"modules": [self.sequential(*body[:-1]), shortcut]})
        return self.sequential(fork, Object("nn.CAddTable", {"inplace": True}), self.relu())

    def trunk(self, model: DeepMask) -> Object:
        ours, crop = model.trunk, -(model.context // 32)
        pool = {"kW": 3, "kH": 3, "dW": 2, "dH": 2, "padW": 1, "padH": 1, "indices": tensor(np.ones(2, "f4"))}
        pooled = [Object("nn.SpatialMaxPooling", pool)] if isinstance(ours.maxpool, nn.MaxPool2d) else []
        stages = [self.sequential(*(self.block(b) for b in layer)) for layer in (ours.layer1, ours.layer2, ours.layer3)]
        border = Object("nn.SpatialZeroPadding", {f"pad_{side}": crop for side in "lrtb"})
        return self.sequential(
            *self.normed(ours.conv1, ours.bn1), self.relu(), *pooled, *stages,
            border, self.conv(model.reduce), self.relu(), Object("nn.View", {"size": Storage(np.int64([2, 24]))}),
            self.linear(model.embed),
        )  # fmt: skip

    def heads(self, model: DeepMask) -> tuple[Object, Object]:
        side = model.target_size
        resize = Object("nn.SpatialReSamplingEx", {"owidth": side, "oheight": side, "mode": "bilinear"})
        resize = self.sequential(Object("nn.Copy"), Object("nn.View"), resize, Object("nn.View"))
        mask = self.sequential(self.sequential(self.linear(model.mask)), resize)
        relu = Object("nn.Threshold", {"threshold": 0, "val": 1e-6})
        drops = [Object("nn.Dropout", {"p": 0.5, "v2": True}) for _ in range(2)]
        return mask, self.sequential(drops[0], self.linear(model.score[1]), relu, drops[1], self.linear(model.score[4]))

    def deepmask(self, model: DeepMask) -> dict:
        mask, score = self.heads(model)
        fields = {"trunk": self.trunk(model), "maskBranch": mask, "scoreBranch": score, "fSz": model.grid}
        config = {"iSz": model.patch_size, "oSz": model.mask_size, "gSz": model.target_size, "batch": 2}
        return {"model": Object("nn.DeepMask", fields), "config": config}

    def sharpmask(self, model: SharpMask) -> dict:
        found = self.deepmask(model.deepmask)
        fields = found["model"].fields
        fields["maskBranchDM"] = fields.pop("maskBranch")
        first = self.sequential(self.linear(model.first), Object("nn.View"))
        neths, netvs, refs = {}, {0: first}, {0: first}
        for i, ours in enumerate(model.refinements, 1):
            steps = [m if isinstance(m, nn.ReLU) else self.conv(m) for m in ours.lateral]
            border = Object("nn.SpatialZeroPadding", {"pad_l": -(2 ** (i - 1))})
            neths[i] = self.sequential(border if i > 1 else None, *(self.relu() if isinstance(m, nn.ReLU) else m for m in steps))
            netvs[i] = self.sequential(*(self.relu() if isinstance(m, nn.ReLU) else self.conv(m) for m in ours.top_down))
            fork = Object("nn.ParallelTable", {"modules": [neths[i], netvs[i]]})
            end = [self.conv(model.last), Object("nn.View")] if i == 4 else []
            double = Object("nn.SpatialUpSamplingNearest", {"scale_factor": 2})
            refs[i] = self.sequential(fork, Object("nn.CAddTable"), self.relu(), double, *end)
        inps = {1: [tensor(np.ones((1, 2), "f4"), cuda=True)]}
        fields |= {"neths": neths, "netvs": netvs, "refs": refs, "km": 16, "ks": 16, "skpos": [8, 6, 5, 3], "inps": inps}
        found["model"] = Object("nn.SharpMask", fields)
        found["config"] |= {"gSz": model.patch_size, "km": 16, "dm": "deepmask"}
        return found

    def multipathnet(self, model: MultiPathNet) -> Object:
        """As `models/resnet.lua` leaves it: norms of stem and layer1 are folded, and no gradient comes so far back."""
        ours, pool = model.trunk, {"kW": 3, "kH": 3, "dW": 2, "dH": 2, "padW": 1, "padH": 1}
        layers, tower = [], model.regions[0].tower.layer4
        for layer in (ours.layer1, ours.layer2, ours.layer3, tower):
            self.folded = layer is ours.layer1
            layers.append(self.sequential(*(self.block(b) for b in layer)))
        self.folded = True
        stem = [*self.normed(ours.conv1, ours.bn1), self.relu(), Object("nn.SpatialMaxPooling", pool)]
        self.folded = False
        frozen = Object("nn.NoBackprop", {"modules": [self.sequential(*stem, layers[0])]}, version=2)
        trunk = self.sequential(self.sequential(frozen, *layers[1:3]))
        cells = {"W": model.pooled, "H": model.pooled, "v2": model.pooling == "v2", "spatial_scale": 1 / 16}
        mean = Object("cudnn.SpatialAveragePooling", {"kW": model.pooled // 2, "kH": model.pooled // 2})
        heads = [self.linear(head) for head in model.classes]
        classes = Object("nn.ConcatTable", {"modules": heads}) if len(heads) > 1 else heads[0]
        norm = Object("nn.BBoxNorm", {"mean": self.array(model.delta_mean[None]), "std": self.array(model.delta_std[None])})
        both = Object("nn.ConcatTable", {"modules": [classes, self.linear(model.boxes)]})
        return self.sequential(
            Object("nn.ParallelTable", {"modules": [trunk, Object("nn.Identity")]}), Object("inn.ROIPooling", cells),
            self.sequential(layers[3], mean, Object("nn.View")), both,
            Object("nn.ModeSwitch", {"modules": []}), Object("nn.ParallelTable", {"modules": [Object("nn.Identity"), norm]}),
        )  # fmt: skip


if __name__ == "__main__":
    Path(networks.__file__).with_name("example.t7").write_bytes(dump(Official().deepmask(example())))
