"""The laptop's trunk: its way back, and that its last stages at stride 16 are the original's at stride 32."""

import copy

import pytest
import torch

from fairseg_lite.models import mobile


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 2), (5, 2, 1), (3, 2, 1)])
def test_a_depthwise_kernel_goes_back_as_autograd_says(kernel, stride, dilation):
    conv = mobile._Depthwise(6, 6, kernel, stride, dilation * (kernel // 2), dilation, groups=6, bias=False).double()
    x = torch.randn(2, 6, 9, 8, dtype=torch.double, requires_grad=True)
    bias = torch.randn(6, dtype=torch.double, requires_grad=True)
    ours = conv._conv_forward(x, conv.weight, bias)
    plain = torch.nn.functional.conv2d(x, conv.weight, bias, stride, dilation * (kernel // 2), dilation, 6)
    torch.testing.assert_close(ours, plain)
    up = torch.randn_like(plain)
    wanted = torch.autograd.grad((plain * up).sum(), [x, conv.weight, bias])
    torch.testing.assert_close(torch.autograd.grad((ours * up).sum(), [x, conv.weight, bias]), wanted)


def test_a_deep_trunk_is_the_original_at_every_second_cell():
    trunk = mobile.LiteTrunk(deep=True).eval().double()
    original = copy.deepcopy(trunk)
    for i, block in enumerate(original._blocks[11:]):
        conv = block._depthwise_conv
        conv.stride, conv.dilation, conv.padding = (1 if i else 2,) * 2, (1, 1), (conv.kernel_size[0] // 2,) * 2
    picture = torch.rand(1, 3, 224, 192, dtype=torch.double)
    with torch.no_grad():
        ours, wanted = trunk(picture), original(picture)
    assert ours.shape == (1, 320, 14, 12) and wanted.shape == (1, 320, 7, 6)
    torch.testing.assert_close(ours[:, :, ::2, ::2], wanted, rtol=1e-9, atol=1e-12)


def test_a_trunk_that_stays_in_part_keeps_all_depthwise_kernels():
    trunk = mobile.LiteTrunk(deep=True).freeze(6)
    learning = [name for name, p in trunk.named_parameters() if p.requires_grad]
    assert learning and all(name.startswith("_blocks.15.") and "depthwise" not in name for name in learning)
    assert any("depthwise" in name for name, p in mobile.LiteTrunk().freeze(0).named_parameters() if p.requires_grad)
