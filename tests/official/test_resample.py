"""Torch7's resizing, against its own results and its definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseg_lite.official.patches import scale_weights
from tests.official.resample import aligned_resize, image_scale

ORACLE = Path(__file__).parents[1] / "data" / "oracle" / "resample.npz"


@pytest.fixture(scope="module")
def oracle():
    return {k: torch.from_numpy(v) for k, v in np.load(ORACLE).items()}


def cases(prefix: str) -> list[str]:
    names = np.load(ORACLE).files
    return sorted(n for n in names if n.startswith(prefix) and "grad" not in n and not n.endswith("_x"))


@pytest.mark.parametrize("name", cases("imagescale_"))
def test_image_scale_is_torch7s(oracle, name):
    torch.testing.assert_close(image_scale(oracle["x"], *oracle[name].shape[1:]), oracle[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", cases("resampling_"))
def test_aligned_resize_is_spatial_resampling_ex(oracle, name):
    height, width = oracle[name].shape[1:]
    if name.startswith("resampling_r"):
        ratio = float(name.removeprefix("resampling_r"))
        assert (height, width) == tuple(math.floor(ratio * n + 0.5) for n in oracle["x"].shape[1:])
    torch.testing.assert_close(aligned_resize(oracle["x"], height, width), oracle[name], rtol=0, atol=1e-6)


def test_aligned_resize_has_the_official_gradient(oracle):
    x = oracle["x"].clone().requires_grad_()
    aligned_resize(x, 25, 31).backward(oracle["resampling_25x31_gradOutput"])
    torch.testing.assert_close(x.grad, oracle["resampling_25x31_gradInput"], rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40))
def test_scale_weights_keep_a_constant_and_the_place(n, m):
    weights = scale_weights(n, m)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(m))
    assert torch.equal(weights.flip(0, 1) > 1e-4, weights > 1e-4)  # no side is preferred
    if m <= n:  # an area mean spends every pixel equally
        torch.testing.assert_close(weights.sum(0), torch.full((n,), m / n), rtol=0, atol=1e-4)


@pytest.mark.parametrize("resize", [image_scale, aligned_resize])
@pytest.mark.parametrize("shape, height, width", [((0, 3), 2, 2), ((3, 3), 0, 2), ((3, 3), 2, -1)])
def test_nothing_to_resize(resize, shape, height, width):
    with pytest.raises(ValueError, match="both need a pixel"):
        resize(torch.zeros(shape), height, width)
