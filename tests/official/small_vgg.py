"""Official-format files of MultiPathNet's VGG kinds, written of small networks of ours with random weights."""

import torch
from torch import nn

from fairseg_lite.geometry.boxes import FOVEAL
from fairseg_lite.models.multipathnet import MultiPathNet, multipathnet_vgg16
from fairseg_lite.models.roi_pooling import Region

from .small import Official
from .writer import Object

WIDTHS = [[4, 3], [3, 5], [4, 4, 6], [5, 7], [4, 8]]


def small_vgg(kind: str, **options) -> MultiPathNet:
    """kind: "vgg" (one region, no skips) or "multipathnet"."""
    torch.manual_seed(0)
    skip = kind == "multipathnet"
    sizes = {"num_classes": 3, "foveal": skip, "skip": skip, "pooled": 3}
    forms = {"trunk": {"widths": WIDTHS, "ceil": True}, "tower": {"hidden": 5, "width": 6}}
    model = multipathnet_vgg16(**{**sizes, **forms, **options})
    model.delta_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    return model.eval()


class OfficialVGG(Official):
    """Makes official modules of ours."""

    def fork(self, *modules: Object, kind: str = "ConcatTable") -> Object:
        return Object(f"nn.{kind}", {"modules": list(modules)})

    def layers(self, ours: nn.Sequential) -> list[Object]:
        made = []
        for m in ours:
            if isinstance(m, nn.Conv2d):
                made.append(self.conv(m))
            elif isinstance(m, nn.ReLU):
                made.append(self.relu())
            else:
                size = {"kW": 2, "kH": 2, "dW": 2, "dH": 2, "padW": 0, "padH": 0, "ceil_mode": m.ceil_mode}
                made.append(Object("nn.SpatialMaxPooling", size))
        return made

    def tower(self, region: Region) -> list[Object]:
        a, b = (Object("nn.Dropout", {"p": 0.5, "v2": True}) for _ in range(2))
        return [self.linear(region.tower[1]), self.relu(), a, self.linear(region.tower[4]), self.relu(), b]

    def cells(self, model: MultiPathNet, stride: int) -> Object:
        side = {"W": model.pooled, "H": model.pooled, "spatial_scale": 1 / stride}
        return Object("inn.ROIPooling", {**side, "v2": model.pooling == "v2"})

    def region(self, model: MultiPathNet, region: Region) -> Object:
        identity, mix = Object("nn.Identity"), region.mix
        levels = []
        for level in reversed(region.levels):
            pick = self.fork(Object("nn.SelectTable", {"index": 3 - level}), identity, kind="ParallelTable")
            normal = [Object("nn.View"), Object("nn.Normalize", {"p": 2}), Object("nn.Contiguous"), Object("nn.View")]
            levels.append(self.sequential(pick, self.cells(model, 4 << level), *normal))
        scale = Object("nn.MulConstant", {"constant_scalar": mix.scale})
        join = Object("nn.JoinTable", {"dimension": 2})
        mixed = self.sequential(self.fork(*levels), join, scale, self.conv(mix.conv), Object("nn.View"))
        select = Object("nn.Select", {"dimension": 1, "index": FOVEAL.index(region.factor) + 1})
        tower = self.sequential(*self.tower(region))
        return self.sequential(self.fork(identity, select, kind="ParallelTable"), mixed, tower)

    def vgg(self, model: MultiPathNet, phase2: bool = False) -> Object:
        identity = Object("nn.Identity")
        heads = [self.linear(head) for head in model.classes]
        classes = self.fork(*heads) if len(heads) > 1 else heads[0]
        norm = Object("nn.BBoxNorm", {"mean": self.array(model.delta_mean[None]), "std": self.array(model.delta_std[None])})
        last = [Object("nn.ModeSwitch"), self.fork(identity, norm, kind="ParallelTable")]
        if not model.regions[0].mix:
            layers = self.layers(model.trunk.features)
            trunk = self.sequential(Object("nn.NoBackprop", {"modules": [self.sequential(*layers[:10])]}), *layers[10:])
            return self.sequential(
                self.fork(trunk, identity, kind="ParallelTable"), self.cells(model, 16), Object("nn.View"),
                self.sequential(*self.tower(model.regions[0])), self.fork(classes, self.linear(model.boxes)), *last,
            )  # fmt: skip
        a, b, c, d, e = (self.layers(stage) for stage in model.trunk.stages)  # c and d end in a pooling
        to5 = self.fork(self.fork(self.sequential(d[-1], *e), identity), identity, kind="ParallelTable")
        trunk = [self.fork(self.sequential(c[-1], *d[:-1]), identity), to5, Object("nn.FlattenTable")]
        trunk = self.sequential(*a, *b, *c[:-1], *trunk)
        trunk = trunk if phase2 else Object("nn.NoBackprop", {"modules": [self.sequential(trunk)]})
        foveal = self.sequential(Object("nn.Foveal"), Object("nn.View"), Object("nn.Transpose"))
        split = model.classes[0].in_features
        parts = ((1, split), (split + 1, model.boxes.in_features))
        narrow = [Object("nn.Narrow", {"dimension": 2, "index": i, "length": n}) for i, n in parts]
        return self.sequential(
            self.fork(trunk, identity, kind="ParallelTable"), self.fork(identity, foveal, kind="ParallelTable"),
            self.fork(*(self.region(model, r) for r in (*model.regions, model.box_region)), kind="ModelParallelTable"),
            self.fork(*narrow), self.fork(classes, self.linear(model.boxes), kind="ParallelTable"), *last,
        )  # fmt: skip
