"""The cheaper way through the trunk changes no feature, for any trunk, size and place."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fairseg_lite.inference.canvas import grey_template, trunk_on_canvas
from fairseg_lite.inference.pyramid import on_canvas, prepare
from fairseg_lite.models.deepmask import DeepMask, deepmask_tiny
from fairseg_lite.models.trunks import ResNetTrunk, VGGTrunk


def networks():
    small = {"depths": (1, 1, 2), "inner": (8, 8, 8), "out": (16, 16, 16)}
    return {
        "tiny": deepmask_tiny(),
        "bottleneck": DeepMask(trunk=ResNetTrunk(**small), patch_size=96),
        "stride in 1x1, symmetric": DeepMask(trunk=ResNetTrunk(**small, stride_in_1x1=True, padding="symmetric"), patch_size=64),
        "vgg": DeepMask(trunk=VGGTrunk(), patch_size=96),
    }


def moved(model):
    """Prepared, in float64, with batch norms that have seen something."""
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if hasattr(m, "running_var"):
            m.running_mean.normal_(generator=g), m.running_var.uniform_(0.5, 2, generator=g)
            nn.init.normal_(m.bias, generator=g)
    return prepare(model.double())


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("size", [(170, 301), (257, 190)])
def test_the_same_features(name, size):
    torch.manual_seed(0)
    model = moved(networks()[name])
    picture = torch.randn(3, *size, dtype=torch.float64)
    canvas = on_canvas(picture, model.patch_size)
    with torch.no_grad():
        whole = model.trunk(canvas)
        with FlopCounterMode(display=False) as plain:
            model.trunk(canvas)
        trunk_on_canvas(model, canvas, size)  # makes the template
        with FlopCounterMode(display=False) as cheaper:
            ours = trunk_on_canvas(model, canvas, size)
    assert (ours - whole).abs().max() <= 1e-12 * whole.abs().max()
    assert cheaper.get_total_flops() < 0.99 * plain.get_total_flops()


def test_a_small_canvas_takes_the_plain_way():
    model = moved(deepmask_tiny())
    canvas = on_canvas(torch.randn(3, 20, 30, dtype=torch.float64), 96)
    assert torch.equal(trunk_on_canvas(model, canvas, (20, 30)), model.trunk(canvas))


def test_the_template_is_wide_enough():
    """Its middle cells are equal: the edge's influence has ended before."""
    model = moved(deepmask_tiny())
    for grey in grey_template(model, torch.full((1, 3, 1, 1), 0.7, dtype=torch.float64)):
        t = grey.shape[-1] // 2
        assert (grey[..., t, t] - grey[..., t - 1, t - 1]).abs().max() <= 1e-12 * grey.abs().max()
