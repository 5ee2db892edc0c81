"""Trunks: the feature extractors the three papers share, with stride 16 (8 for `ResNetTrunk(poolings=3)`).

`ResNetTrunk` is ResNet up to conv4 (paper 2) and, with small numbers, the tiny trunk of the lessons; `VGGTrunk` is VGG-A
without its last pooling (paper 1). Parameter names are torchvision's, so its ImageNet weights load by name.
Differs from the official code: padding is zeros by default (official: symmetric, `padding="symmetric"`), and a fixed batch
norm is torchvision's `FrozenBatchNorm2d` (official: `inn.ConstAffine`, two numbers a channel; same function).

Shapes: B batch, C channels, H W image.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_weight
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.geometry.resample import symmetric_pad

STRIDE = 16


class Step(NamedTuple):
    """One function of a trunk's chain; its output cell o looks at input cells o * stride - reach .. o * stride + reach."""

    run: Callable[[Tensor], Tensor]
    stride: int
    reach: int
    inside: Callable[[Tensor], Tensor] | None = None  # as `run`, faster, and right except within reach of the border


class SymmetricConv2d(nn.Conv2d):
    """Convolution whose border is the picture mirrored with its edge pixel repeated: ... b a | a b ...

    Args: those of `torch.nn.Conv2d`; padding is the mirrored width in pixels.
    Example:
        >>> SymmetricConv2d(3, 8, 7, padding=3)(torch.zeros(1, 3, 9, 9)).shape
        torch.Size([1, 8, 9, 9])

    Source: official `nn.SpatialSymmetricPadding` before every 3x3 and 7x7 convolution. Lesson: 02.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        top, left = self.padding
        x = symmetric_pad(x, left, left, top, top)
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int, padding: str) -> nn.Conv2d:
    conv = SymmetricConv2d if padding == "symmetric" and kernel > 1 else nn.Conv2d
    return conv(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def _normed(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)); a fixed affine norm is folded into the convolution's weights, which saves two passes over its output."""
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return conv._conv_forward(x, conv.weight * scale[:, None, None, None], shift)


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride). Source: He et al. 2015."""

    def __init__(self, cin: int, inner: int, cout: int, stride: int, *, norm: Callable, padding: str, **_: bool):
        super().__init__()
        self.conv1, self.bn1 = _conv(cin, inner, 3, stride, padding), norm(inner)
        self.conv2, self.bn2 = _conv(inner, cout, 3, 1, padding), norm(cout)
        self.downsample = _shortcut(cin, cout, stride, norm)

    @property
    def step(self) -> Step:
        stride = self.conv1.stride[0]
        return Step(self, stride, 1 + stride)

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
        self.downsample = _shortcut(cin, cout, stride, norm)

    @property
    def step(self) -> Step:
        first, second = self.conv1.stride[0], self.conv2.stride[0]
        return Step(self, first * second, first)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(_normed(self.conv1, self.bn1, x))
        y = F.relu(_normed(self.conv2, self.bn2, y))
        y = _normed(self.conv3, self.bn3, y)
        return F.relu(y + (x if self.downsample is None else _normed(*self.downsample, x)))


def _shortcut(cin: int, cout: int, stride: int, norm: Callable) -> nn.Module | None:
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), norm(cout))


class ResNetTrunk(nn.Module):
    """ResNet from the stem to conv4: (B, 3, H, W) -> (B, C, ceil(H/16), ceil(W/16)).

    Args:
        depths: residual blocks in layer1, layer2, layer3.
        inner: channels inside a block of each layer.
        out: channels each layer returns.
        block: "bottleneck" or "basic".
        stem: (kernel side in pixels, channels) of the first convolution, stride 2.
        stem_pool: a 3x3 max-pool of stride 2 follows the stem; without it layer1 has stride 2.
        poolings: how often H and W are halved: 4 for stride 16, or 3, where layer3 keeps the size, for stride 8.
        norm: "frozen" (fixed affine batch norm, paper 2) or "batch" (trained from scratch).
        eps: added to the variance, by both norms.
        padding: "zeros" (torchvision) or "symmetric" (official code), for 3x3 and 7x7 convolutions.
        stride_in_1x1: stride of a bottleneck on its first 1x1 instead of its 3x3.
    Raises:
        ValueError: block, poolings, norm or padding is not one of those above.
    Example:
        >>> ResNetTrunk(depths=(1, 1, 1)).eval()(torch.zeros(1, 3, 33, 48)).shape
        torch.Size([1, 1024, 3, 3])

    Source: SharpMask 2.2 (W160-P4-D39); official `DeepMask.lua` `createTrunk`. Lesson: 02.
    """

    def __init__(
        self,
        *,
        depths: tuple[int, int, int] = (3, 4, 6),
        inner: tuple[int, int, int] = (64, 128, 256),
        out: tuple[int, int, int] = (256, 512, 1024),
        block: str = "bottleneck",
        stem: tuple[int, int] = (7, 64),
        stem_pool: bool = True,
        poolings: int = 4,
        norm: str = "frozen",
        eps: float = 1e-5,
        padding: str = "zeros",
        stride_in_1x1: bool = False,
    ):
        super().__init__()
        make_norm = _choose("norm", norm, {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d})
        make_block = _choose("block", block, {"bottleneck": Bottleneck, "basic": Basic})
        _choose("padding", padding, {"zeros": 0, "symmetric": 1})
        last = _choose("poolings", poolings, {3: 1, 4: 2})
        make_norm = partial(make_norm, eps=eps)
        self.conv1, self.bn1 = _conv(3, stem[1], stem[0], 2, padding), make_norm(stem[1])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else None
        channels, strides = (stem[1], *out), (1 if stem_pool else 2, 2, last)
        for i, depth in enumerate(depths):
            blocks = [
                make_block(
                    channels[i + (j > 0)],
                    inner[i],
                    out[i],
                    strides[i] if j == 0 else 1,
                    norm=make_norm,
                    padding=padding,
                    stride_in_1x1=stride_in_1x1,
                )
                for j in range(depth)
            ]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.channels, self.out_channels, self.stride = channels, out[-1], 2**poolings
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 64, H/2, W/2)
        return F.relu(_normed(self.conv1, self.bn1, x))

    def pooled_stem(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 64, H/4, W/4), or H/2 without the pool
        x = self.stem(x)
        return x if self.maxpool is None else self.maxpool(x)

    @property
    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """The trunk as a list of functions to call in turn: stem with pool, layer1, layer2, layer3."""
        return [self.pooled_stem, self.layer1, self.layer2, self.layer3]

    @property
    def steps(self) -> list[Step]:
        """The trunk as a chain of the smallest parts whose reach is known."""
        pool = [] if self.maxpool is None else [Step(self.maxpool, 2, 1)]
        blocks = [block.step for layer in (self.layer1, self.layer2, self.layer3) for block in layer]
        return [Step(self.stem, 2, self.conv1.kernel_size[0] // 2), *pool, *blocks]

    @property
    def tap_steps(self) -> list[int]:
        """After how many steps the features of `taps` are there."""
        pooled = 1 + (self.maxpool is not None)
        return [1, *(pooled + n for n in accumulate(len(layer) for layer in (self.layer1, self.layer2, self.layer3)))]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x  # (B, C, H/16, W/16)

    def taps(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8 and 16: what SharpMask's skip connections look at (official `skpos`)."""
        first = self.stem(x)
        features = [first]
        x = first if self.maxpool is None else self.maxpool(first)
        for layer in (self.layer1, self.layer2, self.layer3):
            features.append(x := layer(x))
        return features


class VGGTrunk(nn.Module):
    """VGG-A without its last pooling: (B, 3, H, W) -> (B, 512, H/16, W/16), eight 3x3 convolutions, 9.22 M parameters.

    Args:
        padding: "zeros" or "symmetric", as in `ResNetTrunk`.
    Example:
        >>> VGGTrunk()(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 512, 2, 3])

    Source: DeepMask section 3; names as torchvision's `vgg11`. Lesson: 02.
    """

    out_channels, stride = 512, STRIDE
    channels = (64, 128, 256, 512)

    def __init__(self, *, padding: str = "zeros"):
        super().__init__()
        make = _choose("padding", padding, {"zeros": nn.Conv2d, "symmetric": SymmetricConv2d})
        layers: list[nn.Module] = []
        cin = 3
        for width in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512):
            if width == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [make(cin, width, 3, padding=1), nn.ReLU()]
                cin = width
        self.features = nn.Sequential(*layers)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(m.bias)

    @property
    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """The trunk cut after each pooling: strides 2, 4, 8, 16 and the last two convolutions."""
        f = self.features
        return [f[0:3], f[3:6], f[6:11], f[11:16], f[16:]]

    @property
    def steps(self) -> list[Step]:
        """As `ResNetTrunk.steps`."""
        known = {nn.MaxPool2d: (2, 1), nn.ReLU: (1, 0)}
        return [Step(layer, *known.get(type(layer), (1, 1))) for layer in self.features]

    @property
    def tap_steps(self) -> list[int]:
        """As `ResNetTrunk.tap_steps`."""
        ends = list(accumulate(len(stage) for stage in self.stages))
        return [*ends[:3], ends[4]]

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)  # (B, 512, H/16, W/16)

    def taps(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8 and 16 (after the first three poolings, and the last convolution)."""
        a, b, c, d, e = self.stages
        first = a(x)
        second = b(first)
        third = c(second)
        return [first, second, third, e(d(third))]


def load_trunk_weights(trunk: nn.Module, source: str | Path) -> None:
    """Load ImageNet weights into a trunk by name; what belongs to later layers (layer4, classifier) is left aside.

    Args:
        trunk: `ResNetTrunk` or `VGGTrunk`, changed in place.
        source: a torchvision name such as "ResNet50_Weights.IMAGENET1K_V2" (downloaded on first use), or a local
            `.safetensors` or `.pth` file with torchvision's parameter names.
    Raises:
        ValueError: the file is missing, unreadable, or lacks a tensor of the trunk or has it in another shape.
    Example:
        >>> load_trunk_weights(VGGTrunk(), "nowhere.pth")
        Traceback (most recent call last):
        ValueError: trunk weights 'nowhere.pth': no such file, and no torchvision name like 'ResNet50_Weights.DEFAULT'

    Lesson: 02.
    """
    weights = _read_weights(source)
    wanted = trunk.state_dict()
    missing = [k for k in wanted if k not in weights and not k.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(
            f"trunk weights {str(source)!r}: {len(missing)} of {len(wanted)} tensors are missing, first {missing[0]!r}; "
            f"the names must be torchvision's for a {type(trunk).__name__}"
        )
    for k, v in wanted.items():
        if k in weights and weights[k].shape != v.shape:
            raise ValueError(
                f"trunk weights {str(source)!r}: {k} has shape {tuple(weights[k].shape)}, the trunk wants {tuple(v.shape)}"
            )
    trunk.load_state_dict({k: weights.get(k, v).to(v.dtype) for k, v in wanted.items()})


def _read_weights(source: str | Path) -> Mapping[str, Tensor]:
    path = Path(source)
    if path.suffix not in (".safetensors", ".pth", ".pt") or not path.is_file():
        try:
            return get_weight(str(source)).get_state_dict(progress=True)
        except (ValueError, KeyError, AttributeError):
            raise ValueError(
                f"trunk weights {str(source)!r}: no such file, and no torchvision name like 'ResNet50_Weights.DEFAULT'"
            ) from None
        except OSError as error:
            raise ValueError(f"trunk weights {str(source)!r}: download failed ({error}); try again, or give a file") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own exceptions for a damaged file
        raise ValueError(f"trunk weights {str(source)!r}: not a readable {path.suffix} file ({error})") from error


def _choose(what: str, name: str, options: Mapping):
    if name not in options:
        raise ValueError(f"{what} is {name!r}; choose one of {', '.join(map(repr, options))}")
    return options[name]
