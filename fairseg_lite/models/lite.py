"""MultiPathNet for a laptop's photographs: EfficientNet-Lite0's last layer is the tower of every region.

Its trunk is that of the DeepMask that proposes: one trunk, stored once, for all three networks.
Shapes: N RoIs, C channels, P side of a grid.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.mobile import EPS, LiteTrunk
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.network import Weights, copy_weights, load_trunk_weights, recorded


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


MODELS: dict[str, Callable[..., MultiPathNet]] = {"multipathnet_lite0": multipathnet_lite0}
