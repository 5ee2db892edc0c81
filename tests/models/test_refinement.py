"""Refinement modules: two forms of one function, ablations, padding, up-sampling."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseg_lite.geometry.pixels import symmetric_pad
from fairseg_lite.models.refinement import (
    NaiveRefinementModule,
    OfficialConv2d,
    RefinementModule,
    conv3x3,
    doubled_conv,
    refactor,
)


@settings(max_examples=15)
@given(
    features=st.integers(2, 40),
    channels=st.integers(1, 9),
    out=st.integers(1, 9),
    side=st.integers(1, 7),
    upsample=st.sampled_from(["bilinear", "nearest"]),
    padding=st.sampled_from(["zeros", "symmetric"]),
    seed=st.integers(0, 99),
)
def test_both_forms_are_one_function(features, channels, out, side, upsample, padding, seed):
    torch.manual_seed(seed)
    options = {"features": features, "channels": channels, "out": out, "upsample": upsample, "padding": padding}
    naive = NaiveRefinementModule(**options).double()
    module = refactor(naive)
    x = torch.randn(2, features, side, side, dtype=torch.float64, requires_grad=True)
    m = torch.randn(2, channels, side, side, dtype=torch.float64, requires_grad=True)
    slow, fast = naive(x, m), module(x, m)
    assert slow.shape == (2, out, 2 * side, 2 * side)
    assert (slow - fast).abs().max() <= 1e-12
    weight = torch.randn_like(slow)
    gradients = [torch.autograd.grad((y * weight).sum(), (x, m)) for y in (slow, fast)]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() <= 1e-12 * max(a.abs().max().item(), 1)


@settings(max_examples=15)
@given(
    channels=st.integers(1, 5),
    out=st.integers(1, 4),
    side=st.integers(1, 7),
    upsample=st.sampled_from(["bilinear", "nearest"]),
    padding=st.sampled_from(["zeros", "symmetric", "official"]),
    seed=st.integers(0, 99),
)
def test_the_convolution_of_a_doubled_map_without_the_map(channels, out, side, upsample, padding, seed):
    torch.manual_seed(seed)
    conv = conv3x3(channels, out, padding).double()
    x = torch.randn(2, channels, side, side, dtype=torch.float64, requires_grad=True)
    bilinear = {"mode": "bilinear", "align_corners": False} if upsample == "bilinear" else {"mode": "nearest"}
    slow, fast = conv(F.interpolate(x, scale_factor=2, **bilinear)), doubled_conv(x, conv, upsample)
    assert slow.shape == fast.shape and (slow - fast).abs().max() <= 1e-12
    weight = torch.randn_like(slow)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), (x, conv.weight, conv.bias)) for y in (slow, fast)), strict=True):
        assert (a - b).abs().max() <= 1e-11


def test_another_mask_changes_the_sum_but_not_its_lateral_part():
    torch.manual_seed(0)
    module = RefinementModule(features=16, channels=4, out=2)
    x, a, b = torch.randn(1, 16, 5, 5), torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)
    lateral = module.lateral(x)
    for m in (a, b):
        assert torch.equal(module(x, m), module.merge(lateral, m))
    assert not torch.equal(module(x, a), module(x, b))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_upsampling(mode):
    module = RefinementModule(features=4, channels=1, out=1, paths="skip", upsample=mode)
    m = torch.tensor([[[[0.0, 4.0]]]])
    wanted = {"nearest": [0.0, 0.0, 4.0, 4.0], "bilinear": [0.0, 1.0, 3.0, 4.0]}[mode]  # half-pixel centres
    assert module.merge(None, m)[0, 0, 0].tolist() == wanted


def test_ablations_look_at_one_side_only():
    torch.manual_seed(0)
    x, m = torch.randn(2, 1, 16, 5, 5).unbind(), torch.rand(2, 1, 4, 5, 5).unbind()
    skip = RefinementModule(features=16, channels=4, out=4, paths="skip")
    for mask in m:
        F_only = skip.lateral(x[0])
        torch.testing.assert_close(skip(x[0], mask), F.interpolate(F.relu(F_only + mask), scale_factor=2, mode="bilinear"))
    deconvolution = RefinementModule(features=16, channels=4, out=2, paths="deconvolution")
    assert torch.equal(deconvolution(x[0], m[0]), deconvolution(x[1], m[0]))
    assert not torch.equal(deconvolution(x[0], m[0]), deconvolution(x[0], m[1]))


def test_mirrored_borders_are_those_of_the_trunk():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 6)
    for padding in ("symmetric", "official"):
        conv = conv3x3(3, 2, padding)
        torch.testing.assert_close(conv(x), F.conv2d(symmetric_pad(x, 1, 1, 1, 1), conv.weight, conv.bias))
    assert not torch.allclose(conv3x3(3, 2, "zeros")(x)[..., 0], conv(x)[..., 0])


def test_the_official_border_sends_no_gradient():
    conv = OfficialConv2d(1, 1, 3)
    torch.nn.init.ones_(conv.weight)
    official, whole = torch.zeros(1, 1, 3, 3, requires_grad=True), torch.zeros(1, 1, 3, 3, requires_grad=True)
    conv(official).sum().backward()
    assert official.grad[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]  # windows that see the pixel itself
    F.conv2d(symmetric_pad(whole, 1, 1, 1, 1), conv.weight).sum().backward()
    assert whole.grad.eq(9).all()  # with its mirror images, every pixel is seen nine times


@pytest.mark.parametrize(
    "change, message",
    [
        ({"upsample": "cubic"}, "upsample is 'cubic'; choose one of 'bilinear', 'nearest'"),
        ({"padding": "reflect"}, "padding is 'reflect'"),
        ({"paths": "none"}, "paths is 'none'"),
        ({"paths": "skip"}, "adds to a mask of 4 channels, not 2; it needs schedule='constant'"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        RefinementModule(**{"features": 8, "channels": 4, "out": 2, **change})
