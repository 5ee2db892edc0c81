"""Trunks: the feature extractors the three papers share, with stride 16 (8 for `ResNetTrunk(poolings=3)`).

`ResNetTrunk` is ResNet up to conv4 (paper 2) and, with small numbers, the tiny trunk of the lessons; `VGGTrunk` is VGG
without its last pooling, VGG-A in paper 1 and VGG-16 ("VGG-D") in paper 3. Parameter names are torchvision's, so its ImageNet
weights load by name.
Differs from the official code: padding is zeros by default (official: symmetric, `padding="symmetric"`), and a fixed batch
norm is torchvision's `FrozenBatchNorm2d` (official: `inn.ConstAffine`, two numbers a channel; same function).

Shapes: B batch, C channels, H W image.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch  # noqa: F401  (the examples use it)
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.geometry.pixels import symmetric_pad
from fairseg_lite.models.network import Trunk, fuses

STRIDE = 16
VGG_A = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG_16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)


class SymmetricConv2d(nn.Conv2d):
    """Convolution whose border is the picture mirrored with its edge pixel repeated: ... b a | a b ...

    Args: those of `torch.nn.Conv2d`; padding is the mirrored width in pixels.
    Example:
        >>> SymmetricConv2d(3, 8, 7, padding=3)(torch.zeros(1, 3, 9, 9)).shape
        torch.Size([1, 8, 9, 9])

    Source: official `nn.SpatialSymmetricPadding` before every 3x3 and 7x7 convolution. Lesson: 02.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        top, left = cast(tuple[int, int], self.padding)
        x = symmetric_pad(x, left, left, top, top)
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int, padding: str) -> nn.Conv2d:
    conv = SymmetricConv2d if padding == "symmetric" and kernel > 1 else nn.Conv2d
    return conv(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def _normed(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)); a fixed affine norm is folded into the convolution's weights, which saves two passes over its output."""
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    scale, shift = _folded(norm)
    return conv._conv_forward(x, conv.weight * scale, shift)


def activated(conv: nn.Conv2d, norm: nn.Module, x: Tensor, act: str = "relu", plus: Tensor | None = None) -> Tensor:
    """act(norm(conv(x)) + plus), act being "relu", "hardtanh" (here of 0 to 6) or "none".

    For a prepared network, whose norm is gone, one call of oneDNN, unless something looks on: gradients, a FLOP count, an export.
    """
    plain = isinstance(norm, nn.Identity) and not isinstance(conv, SymmetricConv2d) and x.is_cpu and x.numel() > 0
    alone = not torch.is_grad_enabled() and _get_current_dispatch_mode() is None and x.dtype == conv.weight.dtype
    if plain and alone and fuses(x.dtype):
        how, onednn = (conv.padding, conv.stride, conv.dilation, conv.groups), torch.ops.mkldnn._convolution_pointwise
        if plus is None:
            return onednn(x, conv.weight, conv.bias, *how, act, [0, 6] if act == "hardtanh" else [], "")
        y = onednn.binary(x, plus, conv.weight, conv.bias, *how, "add", 1, None, [], "")
    else:
        y = _normed(conv, norm, x) if plus is None else _normed(conv, norm, x) + plus
    return {"relu": F.relu, "hardtanh": F.relu6, "none": lambda x: x}[act](y)


FOLDED: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()  # fixed norm -> its numbers, their versions, scale, shift


def _folded(norm: FrozenBatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale (C, 1, 1, 1) and shift (C,) of a fixed norm; computed once, and again where one of its numbers has changed."""
    numbers = norm.weight, norm.bias, norm.running_mean, norm.running_var
    kept = not (torch.compiler.is_compiling() or any(x.is_inference() for x in numbers))
    versions, known = [x._version for x in numbers] if kept else [], FOLDED.get(norm) if kept else None
    if known is None or versions != known[1] or any(a is not b for a, b in zip(numbers, known[0], strict=True)):
        with torch.inference_mode(False):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            known = numbers, versions, scale[:, None, None, None], norm.bias - norm.running_mean * scale
        if kept:
            FOLDED[norm] = known
    return known[2], known[3]


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride). Source: He et al. 2015."""

    def __init__(self, cin: int, inner: int, cout: int, stride: int, *, norm: Callable, padding: str, stride_in_1x1: bool):
        super().__init__()
        if stride_in_1x1:
            raise InputError("stride_in_1x1 is True; a basic block has no 1x1 convolution: block='bottleneck'")
        self.conv1, self.bn1 = _conv(cin, inner, 3, stride, padding), norm(inner)
        self.conv2, self.bn2 = _conv(inner, cout, 3, 1, padding), norm(cout)
        self.downsample = _shortcut(cin, cout, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride).

    stride_in_1x1 puts the stride on the first 1x1 (the original ResNet); torchvision and FAIR have it on the 3x3.
    """

    def __init__(self, cin: int, inner: int, cout: int, stride: int, *, norm: Callable, padding: str, stride_in_1x1: bool):
        super().__init__()
        s1, s3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1, self.bn1 = _conv(cin, inner, 1, s1, padding), norm(inner)
        self.conv2, self.bn2 = _conv(inner, inner, 3, s3, padding), norm(inner)
        self.conv3, self.bn3 = _conv(inner, cout, 1, 1, padding), norm(cout)
        self.downsample: Any = _shortcut(cin, cout, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = activated(self.conv2, self.bn2, activated(self.conv1, self.bn1, x))
        short = x if self.downsample is None else _normed(self.downsample[0], self.downsample[1], x)
        return activated(self.conv3, self.bn3, y, plus=short)


def _shortcut(cin: int, cout: int, stride: int, norm: Callable) -> nn.Sequential | None:
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), norm(cout))


NORMS = {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d}


def residual_layer(
    cin: int, inner: int, cout: int, stride: int, depth: int, *,
    block: str, norm: str = "frozen", eps: float = 1e-5, padding: str = "zeros", stride_in_1x1: bool = False,
) -> nn.Sequential:  # fmt: skip
    """`depth` residual blocks, the first with the stride: (B, cin, H, W) -> (B, cout, H/stride, W/stride).

    Args: channels, stride, number of blocks; the others as `ResNetTrunk`'s.
    Raises: InputError, block, norm or padding is not one of those in `ResNetTrunk`.
    Example:
        >>> residual_layer(8, 4, 16, 2, 3, block="bottleneck")(torch.zeros(1, 8, 7, 6)).shape
        torch.Size([1, 16, 4, 3])

    Source: He et al. 2015. Lesson: 02.
    """
    make = _choose("block", block, {"bottleneck": Bottleneck, "basic": Basic})
    options = {"norm": partial(_choose("norm", norm, NORMS), eps=eps), "padding": padding, "stride_in_1x1": stride_in_1x1}
    rest = (make(cout, inner, cout, 1, **options) for _ in range(depth - 1))
    return nn.Sequential(make(cin, inner, cout, stride, **options), *rest)


class ResNetTrunk(Trunk):
    """ResNet from the stem to conv4: (B, 3, H, W) -> (B, C, ceil(H/16), ceil(W/16)).

    Args:
        depths, inner, out: residual blocks in layer1, layer2, layer3; channels inside a block of each; channels each returns.
        block: "bottleneck" or "basic". stem: (kernel side in pixels, channels) of the first convolution, stride 2.
        stem_pool: a 3x3 max-pool of stride 2 follows the stem; without it layer1 has stride 2.
        poolings: how often H and W are halved: 4 for stride 16, or 3, where layer3 keeps the size, for stride 8.
        norm: "frozen" (fixed affine batch norm, paper 2) or "batch" (trained from scratch).
        eps: added to the variance, by both norms.
        padding: "zeros" (torchvision) or "symmetric" (official code), for 3x3 and 7x7 convolutions.
        stride_in_1x1: stride of a bottleneck on its first 1x1 instead of its 3x3.
    Raises: InputError, block, poolings, norm or padding is not one of those above.
    Example:
        >>> ResNetTrunk(depths=(1, 1, 1)).eval()(torch.zeros(1, 3, 33, 48)).shape
        torch.Size([1, 1024, 3, 3])

    Source: SharpMask 2.2 (W160-P4-D39); official `DeepMask.lua` `createTrunk`. Lesson: 02.
    """

    def __init__(
        self, *, depths: Sequence[int] = (3, 4, 6), inner: tuple[int, int, int] = (64, 128, 256),
        out: tuple[int, int, int] = (256, 512, 1024), block: str = "bottleneck", stem: tuple[int, int] = (7, 64),
        stem_pool: bool = True, poolings: int = 4, norm: str = "frozen", eps: float = 1e-5, padding: str = "zeros",
        stride_in_1x1: bool = False,
    ):  # fmt: skip
        super().__init__()
        last = _choose("poolings", poolings, {3: 1, 4: 2})
        _choose("padding", padding, {"zeros": 0, "symmetric": 1})
        self.conv1, self.bn1 = _conv(3, stem[1], stem[0], 2, padding), _choose("norm", norm, NORMS)(stem[1], eps=eps)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else nn.Identity()
        channels, strides = (stem[1], *out), (1 if stem_pool else 2, 2, last)
        options: dict[str, Any] = {"norm": norm, "eps": eps, "padding": padding, "stride_in_1x1": stride_in_1x1}
        sizes = zip(channels, inner, out, strides, depths, strict=False)
        self.layer1, self.layer2, self.layer3 = (residual_layer(*size, block=block, **options) for size in sizes)
        self.channels, self.out_channels, self.stride = channels, out[-1], 2**poolings
        self.level_channels, self.level_strides = tuple(out), (4, 8, self.stride)
        self.begin()

    def stem(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 64, H/2, W/2)
        return activated(self.conv1, self.bn1, x)

    def pooled_stem(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 64, H/4, W/4), or H/2 without the pool
        return self.maxpool(self.stem(x))

    @property
    def stages(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """The trunk as a list of functions to call in turn: stem with pool, layer1, layer2, layer3."""
        return [self.pooled_stem, self.layer1, self.layer2, self.layer3]

    @property
    def parts(self) -> list[nn.Module]:
        return [nn.ModuleList([self.conv1, self.bn1]), self.layer1, self.layer2, self.layer3]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x  # (B, C, H/16, W/16)

    def taps(self, x: Tensor) -> list[Tensor]:
        features = [self.stem(x)]
        x = self.maxpool(features[0])
        for layer in (self.layer1, self.layer2, self.layer3):
            features.append(x := layer(x))
        return features


def tiny_trunk(*, depths: Sequence[int] = (1, 2, 2), norm: str = "batch", poolings: int = 4) -> ResNetTrunk:
    """The trunk of the lessons' networks: three stages of basic blocks with 32, 64 and 128 channels. Options: `ResNetTrunk`'s."""
    widths = (32, 64, 128)
    options: dict[str, Any] = {"block": "basic", "stem": (3, 16), "stem_pool": False, "norm": norm, "poolings": poolings}
    return ResNetTrunk(depths=depths, inner=widths, out=widths, **options)


class VGGTrunk(Trunk):
    """VGG without its last pooling: (B, 3, H, W) -> (B, 512, H/16, W/16), 3x3 convolutions; VGG-A: eight, 9.22 M parameters.

    Args:
        widths: channels of each convolution in the five groups between the poolings; `VGG_A` or `VGG_16`.
        padding: "zeros" or "symmetric", as in `ResNetTrunk`.
        ceil: poolings round sizes up (Caffe's, and so the official MultiPathNet's), not down (torchvision's).
    Raises: InputError, padding is neither, or there are not five groups with a convolution each.
    Example:
        >>> VGGTrunk()(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 512, 2, 3])

    Source: DeepMask section 3, MultiPath section 3; names as torchvision's `vgg11` and `vgg16`. Lesson: 02.
    """

    stride = STRIDE

    def __init__(self, *, widths: Sequence[Sequence[int]] = VGG_A, padding: str = "zeros", ceil: bool = False):
        super().__init__()
        make = _choose("padding", padding, {"zeros": nn.Conv2d, "symmetric": SymmetricConv2d})
        if len(widths) != 5 or not all(len(group) for group in widths):
            raise InputError(f"widths are {widths}; wanted five groups of convolutions, as in VGG_A")
        layers: list[nn.Module] = []
        cin = 3
        for group in widths:
            for width in group:
                layers += [make(cin, width, 3, padding=1), nn.ReLU()]
                cin = width
            layers.append(nn.MaxPool2d(2, ceil_mode=ceil))
        self.features = nn.Sequential(*layers[:-1])
        self.channels, self.out_channels = (*(widths[i][-1] for i in (0, 1, 2)), cin), cin
        self.level_channels, self.level_strides = tuple(group[-1] for group in widths[2:]), (4, 8, 16)
        self.begin()

    @property
    def stages(self) -> list[nn.Sequential]:
        """The trunk cut after each pooling: strides 2, 4, 8, 16 and the last two convolutions."""
        f = self.features
        cuts = [0, *(i + 1 for i, layer in enumerate(f) if isinstance(layer, nn.MaxPool2d)), len(f)]
        return [f[a:b] for a, b in pairwise(cuts)]

    parts = stages

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 512, H/16, W/16)

    def taps(self, x: Tensor) -> list[Tensor]:
        """After the first three poolings, and the last convolution."""
        a, b, c, d, e = self.stages
        features = [a(x)]
        features += [second := b(features[0]), third := c(second), e(d(third))]
        return features

    def levels(self, x: Tensor) -> list[Tensor]:
        """The last features of conv3, conv4 and conv5, before their poolings: strides 4, 8 and 16, finest first."""
        a, b, c, d, e = self.stages  # c and d end in a pooling
        conv3 = c[:-1](b(a(x)))
        conv4 = d[:-1](c[-1](conv3))
        return [conv3, conv4, e(d[-1](conv4))]


def _choose(what: str, name: object, options: Mapping) -> Any:
    check_choice(what, name, options)
    return options[name]
