"""MultiPathNet: a picture and boxes -> for each box which category is in it, and where that object's box really is.

    picture -> trunk -> conv3, conv4, conv5
    box -> regions 1x, 1.5x, 2x, 4x around it      foveal: look wider
        -> each region pools features of conv5, and of conv4 and conv3 where small things matter      skip: look finer
        -> each region has its own tower (two layers)
        -> the four joined -> n classifiers, one for each IoU u at which a box counts as right      integral: strict and lax
           a fifth tower (1.5x) -> the box, one for each category

All three are switches: with all off this class is Fast R-CNN (one region, one level, one classifier).

Which region sees which level (`sees`): "text", the paper's text and the official code: 1x conv3 + 4 + 5, 1.5x and 2x
conv4 + 5, 4x conv5; "figure", the paper's figure 1: each sees all. The box head (`box_tower`): "own", official, a tower for
it alone that sees all levels at 1.5x; "joined", the paper's figure: the four towers of the classifiers. Without foveal regions
one tower serves both.

The ResNet kinds pool 14 x 14 cells of layer3 (stride 16: "conv5" above), and their tower is layer4 and the mean over its cells:
what FAIR released, without foveal regions and skips. With `foveal` every region has its own copy of layer4, as VGG's have their
own fc6 and fc7; with `skip` the levels are mixed to layer3's channels before it. That combination is ours.

Shapes: B batch, C channels, H W image, N RoIs, K categories (class 0 is background), U classifiers, P grid side.
Differs from the official code: boxes are 0-based, levels come finest first, box deltas count in (N, K+1, 4).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairseg_lite.errors import InputError, check_choice, check_range
from fairseg_lite.geometry.boxes import FOVEAL, decode_boxes, foveal_boxes
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.network import Network, Weights, copy_weights, load_trunk_weights, recorded
from fairseg_lite.models.roi_pooling import METHODS, LinearTower, Mix, Region, ResidualTower, check_rois, levels_seen, roi_pool
from fairseg_lite.models.trunks import VGG_16, ResNetTrunk, Trunk, VGGTrunk, tiny_trunk

BOX_REGION = 1.5


class MultiPathOutput(NamedTuple):
    """logits (U, N, K+1), class 0 is background; deltas (N, K+1, 4), still divided by the model's deviations."""

    logits: Tensor
    deltas: Tensor


class MultiPathNet(Network):
    """Classifies and corrects boxes.

    Args:
        trunk: with `levels`, `level_channels`, `level_strides`: `VGGTrunk` or `ResNetTrunk`.
        tower: builds a region's tower of (channels, P); it has a `width`.
        num_classes: K, categories without the background.
        integral: True for six classifiers at IoU .50, .55 .. .75; a number for so many from .50 on; False for one at .50; or
            the thresholds themselves.
        foveal: True for four regions, 1x, 1.5x, 2x, 4x; False for 1x alone; or the factors themselves.
        skip: conv3 and conv4 are seen too.
        sees: "text" or "figure", see above.
        box_tower: "own" or "joined", see above.
        pooled, pooling: P, and "v1", "v2" or "align" (models/roi_pooling.py).
        mixed: channels after the 1x1 convolution of a region; default conv5's. Without skip a number makes
            one all the same, and nothing is normalised.
        normalise, skip_scale: of `Mix`.
        frozen: so many first stages of the trunk are not trained.
    Raises: InputError, numbers that make no sense, or an unknown name.
    Example:
        >>> model = multipathnet_tiny(num_classes=9).eval()
        >>> rois = torch.tensor([[0, 10.0, 10, 40, 50], [1, 0, 0, 96, 96]])
        >>> logits, deltas = model(torch.zeros(2, 3, 96, 96), rois)
        >>> logits.shape, deltas.shape
        (torch.Size([6, 2, 10]), torch.Size([2, 10, 4]))

    Source: MultiPath section 3; official `models/multipathnet.lua`, `vgg.lua`, `resnet.lua`. Lesson: 08, 09, 10.
    """

    exact = ("classes", "boxes", "delta_mean", "delta_std")  # what says how sure it is, and where
    regions: Any  # of `Region`s
    classes: Any  # of linear layers, one for each threshold
    delta_mean: Tensor  # (4,) of box deltas as they were trained
    delta_std: Tensor

    def __init__(
        self, *, trunk: Trunk, tower: Callable[[int, int], Any], num_classes: int, integral: bool | int | Sequence[float] = True,
        foveal: bool | Sequence[float] = True, skip: bool = True, sees: str = "text", box_tower: str = "own", pooled: int = 7,
        pooling: str = "v2", mixed: int | None = None, normalise: bool = True, skip_scale: float = 1000.0, frozen: int = 0,
    ):  # fmt: skip
        super().__init__()
        check_range("num_classes", num_classes, 1, None)
        check_choice("sees", sees, ("text", "figure"))
        check_choice("box_tower", box_tower, ("own", "joined"))
        check_choice("pooling", pooling, METHODS)
        if isinstance(integral, bool | int):
            heads = (6 if integral else 1) if isinstance(integral, bool) else integral
            check_range("integral", heads, 1, 10)
            integral = [round(0.5 + 0.05 * i, 2) for i in range(heads)]
        self.thresholds = tuple(integral)
        self.num_classes, self.pooled, self.pooling = num_classes, pooled, pooling
        factors = (FOVEAL if foveal else (1.0,)) if isinstance(foveal, bool) else tuple(foveal)

        def region(factor: float, levels: Sequence[int]) -> Region:
            channels = [trunk.level_channels[i] for i in levels]
            out = mixed or channels[-1]
            mix = Mix(channels, out, normalise=skip and normalise, scale=skip_scale) if skip or mixed else None
            return Region(factor, levels, mix, tower(out, pooled))

        self.trunk = trunk
        self.regions = nn.ModuleList(region(f, levels_seen(f, skip, sees)) for f in factors)
        own = box_tower == "own" and len(factors) > 1
        self.box_region = region(BOX_REGION, levels_seen(BOX_REGION, skip, "figure")) if own else None
        width = sum(r.tower.width for r in self.regions)
        self.classes = nn.ModuleList(nn.Linear(width, num_classes + 1) for _ in self.thresholds)
        self.boxes = nn.Linear(self.box_region.tower.width if self.box_region else width, 4 * (num_classes + 1))
        self.register_buffer("delta_mean", torch.zeros(4))
        self.register_buffer("delta_std", torch.tensor([0.1, 0.1, 0.2, 0.2]))  # py-faster-rcnn's, until training sets its own
        for head, std in (*((head, 0.01) for head in self.classes), (self.boxes, 0.001)):
            nn.init.normal_(head.weight, std=std)
            nn.init.zeros_(head.bias)
        trunk.freeze(frozen)

    @property
    def towers(self) -> list[nn.Module]:
        """Those of the regions, and the one of the boxes if it has its own."""
        return [m.tower for m in self.modules() if isinstance(m, Region)]

    def features(self, images: Tensor) -> list[Tensor]:
        """conv3, conv4, conv5 of pictures: (B, 3, H, W) float, normalised -> (B, C_i, H/4, W/4), /8, /16."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"images have shape {tuple(images.shape)}; wanted (B, 3, H, W)")
        return self.trunk.levels(images)

    def classify(self, levels: Sequence[Tensor], rois: Tensor) -> MultiPathOutput:
        """Classes and boxes of RoIs.

        Args:
            levels: from `features`.
            rois: (N, 5) index of the picture in the batch, then xyxy in pixels of the pictures; may lie outside or have no
                area; N may be 0.
        Returns: MultiPathOutput: logits (U, N, K+1), deltas (N, K+1, 4).
        Raises: InputError, RoIs of another shape, with a NaN or an infinite number, or of a picture that is not there.
        """
        check_rois(rois, len(levels[0]))
        own, exact = next(self.parameters()).dtype, self.boxes.weight.dtype
        regions = [*self.regions, *([] if self.box_region is None else [self.box_region])]

        def look(factor: float) -> dict[Region, Tensor]:
            """What the regions of one factor see, from the same grids, which are gone when the next factor's are made."""
            wide = torch.cat([rois[:, :1], foveal_boxes(rois[:, 1:], (factor,))[0]], 1)
            alike, grids = [r for r in regions if r.factor == factor], {}
            for i in {i for region in alike for i in region.levels}:
                pooled = roi_pool(levels[i], wide, self.pooled, scale=1 / self.trunk.level_strides[i], how=self.pooling)
                grids[i] = pooled if own == torch.float32 else pooled.to(own)
            return {region: region([grids[i] for i in region.levels]).to(exact) for region in alike}

        seen = {region: x for factor in {r.factor for r in regions} for region, x in look(factor).items()}
        x = torch.cat([seen[region] for region in self.regions], 1)  # (N, F)
        deltas = self.boxes(x if self.box_region is None else seen[self.box_region])
        logits = torch.stack([head(x) for head in self.classes])
        return MultiPathOutput(logits, deltas.view(len(rois), self.num_classes + 1, 4))

    def forward(self, images: Tensor, rois: Tensor) -> MultiPathOutput:
        """`classify(features(images), rois)`: (B, 3, H, W), (N, 5) -> MultiPathOutput."""
        return self.classify(self.features(images), rois)

    def boxes_of(self, rois: Tensor, deltas: Tensor) -> Tensor:
        """The boxes that the deltas mean.

        Args:
            rois: (N, 4) xyxy in pixels.
            deltas: (N, K+1, 4) of a MultiPathOutput.
        Returns: (N, K+1, 4) xyxy in pixels, one box for each class; not clipped.
        """
        return decode_boxes(rois, deltas * self.delta_std + self.delta_mean)


def probabilities(output: MultiPathOutput) -> Tensor:
    """(N, K+1): the mean of the classifiers' softmaxes, which is what counts at test time. Source: MultiPath section 3."""
    return output.logits.softmax(-1).mean(0)


@recorded
def multipathnet_tiny(
    *, num_classes: int, width: int = 192, mixed: int = 64, pooled: int = 6, dropout: float = 0.0, norm: str = "frozen",
    trunk_from: DeepMask | None = None, **options: Any,
) -> MultiPathNet:  # fmt: skip
    """MultiPathNet for a laptop: the tiny DeepMask's trunk, towers of width 192, pooled by "align".

    Args:
        num_classes, mixed, pooled, options: as `MultiPathNet`.
        width, dropout: of a tower's two layers.
        norm: of the trunk; "frozen" goes with `trunk_from` (two pictures are too few to measure), "batch" without.
        trunk_from: a tiny DeepMask, whose trunk weights are copied; None starts at random.
    Raises: InputError, as `MultiPathNet`, or a DeepMask with another trunk.
    Example:
        >>> sum(p.numel() for p in multipathnet_tiny(num_classes=9).parameters()) < 4_000_000
        True

    Source: ours. Lesson: 08.
    """
    trunk = tiny_trunk(norm=norm)
    if trunk_from is not None:
        copy_weights(trunk, trunk_from.trunk.state_dict(), "trunk_from")
    # so that a normalised level's numbers are about 1
    options = {"mixed": mixed, "pooled": pooled, "pooling": "align", "skip_scale": (mixed * pooled**2) ** 0.5, **options}
    return MultiPathNet(trunk=trunk, tower=partial(LinearTower, width=width, dropout=dropout), num_classes=num_classes, **options)


@recorded
def multipathnet_vgg16(
    *, num_classes: int, trunk_weights: Weights = None, trunk: dict | None = None, tower: dict | None = None, **options: Any
) -> MultiPathNet:
    """The paper's network: VGG-16, towers of 4096. With all switches off, Fast R-CNN.

    Args:
        num_classes, options: as `MultiPathNet`, with its defaults but for frozen=2.
        trunk_weights: None, "VGG16_Weights.IMAGENET1K_V1", or a local file; its fc6 and fc7, where it has them, begin every
            tower. The official network's own weights want the trunk's `ceil` (models/trunks.py), torchvision's do not.
        trunk, tower: other options of `VGGTrunk` and `LinearTower`; the form of an official file (official/networks.py).
    Raises: InputError, as `MultiPathNet` and `load_trunk_weights`.
    Source: MultiPath section 3; official `models/multipathnet.lua`, `vgg.lua`. Lesson: 08.
    """
    vgg = VGGTrunk(**{"widths": VGG_16, **(trunk or {})})
    options = {"num_classes": num_classes, "frozen": 2, **options}
    model = MultiPathNet(trunk=vgg, tower=partial(LinearTower, **(tower or {})), **options)
    load_trunk_weights(vgg, trunk_weights, towers=model.towers, names={"classifier.0.": "1.", "classifier.3.": "4."})
    return model


@recorded
def multipathnet_resnet18(
    *, num_classes: int, trunk: dict | None = None, conv5: dict | None = None, trunk_weights: Weights = None, head: str = "conv5",
    **options: Any,
) -> MultiPathNet:  # fmt: skip
    """ResNet-18 of the kind FAIR released (there: foveal=False, skip=False). Options: `multipathnet_resnet50`'s.

    trunk, conv5: other options of `ResNetTrunk` and `ResidualTower`; the form of an official file (official/networks.py).
    """
    resnet = {"depths": (2, 2, 2), "inner": (64, 128, 256), "out": (64, 128, 256), "block": "basic", **(trunk or {})}
    tower = {"inner": 512, "width": 512, "depth": 2, "block": "basic", **(conv5 or {})}
    return _resnet(ResNetTrunk(**resnet), tower, trunk_weights, head, num_classes=num_classes, **options)


@recorded
def multipathnet_resnet50(
    *, num_classes: int, stride_in_1x1: bool = False, trunk_weights: Weights = None, head: str = "conv5", **options: Any
) -> MultiPathNet:
    """ResNet-50, otherwise as `multipathnet_resnet18`.

    Args:
        num_classes, options: as `MultiPathNet`, with its defaults but for pooled=14 (7 is a quarter of the work), frozen=2 and
            normalise=False: conv5 was trained for what layer3 gives, so mixing begins as a copy of that.
        stride_in_1x1: True for weights of the original ResNet; torchvision's and FAIR's want False.
        trunk_weights: None, "ResNet50_Weights.IMAGENET1K_V2", or a local file; its layer4, where it has one, begins every tower.
        head: "conv5", or "linear" for towers of two layers of 1024 on 7 x 7 grids mixed to 256 channels: cheaper, and fit for
            weights without layer4.
    Raises: InputError, as `MultiPathNet`, or an unknown head.
    Source: official `models/resnet.lua`; foveal regions and skips are ours. Lesson: 11.
    """
    tower = {"inner": 512, "width": 2048, "depth": 3, "block": "bottleneck", "stride_in_1x1": stride_in_1x1}
    return _resnet(ResNetTrunk(stride_in_1x1=stride_in_1x1), tower, trunk_weights, head, num_classes=num_classes, **options)


def _resnet(trunk: ResNetTrunk, conv5: dict, weights: Weights, head: str, **options: Any) -> MultiPathNet:
    check_choice("head", head, ("conv5", "linear"))
    defaults: dict[str, Any] = {"tower": partial(ResidualTower, **conv5), "pooled": 14, "normalise": False}
    if head == "linear":
        linear = partial(LinearTower, width=1024, dropout=0.0)
        defaults = {"tower": linear, "pooled": 7, "mixed": 256, "skip_scale": (256 * 7**2) ** 0.5}
    model = MultiPathNet(trunk=trunk, **{"frozen": 2, **defaults, **options})
    load_trunk_weights(trunk, weights, towers=model.towers, names={"layer4.": "layer4."} if head == "conv5" else {})
    return model


BUILDERS = (multipathnet_tiny, multipathnet_vgg16, multipathnet_resnet18, multipathnet_resnet50)
MODELS: dict[str, Callable[..., MultiPathNet]] = {build.__name__: build for build in BUILDERS}
