"""Normalisation and mirrored borders, against slow loops and torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from fairseg_lite.geometry.pixels import IMAGENET_MEAN, IMAGENET_STD, normalise, symmetric_pad

ORACLE = Path(__file__).parents[1] / "data" / "oracle" / "resample.npz"


def picture(h=5, w=7, seed=0):
    return torch.randint(0, 256, (h, w, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_normalise_is_torchvisions():
    image = picture()
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    torch.testing.assert_close(normalise(image), theirs(image.movedim(-1, 0)), rtol=0, atol=1e-6)
    assert torch.equal(normalise(image.numpy()), normalise(image))


def test_normalise_keeps_batches_channels_last():
    batch = torch.stack([picture(seed=s) for s in range(3)])
    out = normalise(batch)
    assert out.shape == (3, 3, 5, 7)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out[1], normalise(batch[1]))
    assert normalise(batch[:0]).shape == (0, 3, 5, 7)


def test_normalise_leaves_the_picture_alone():
    image = picture()
    before = image.clone()
    normalise(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("image", [torch.zeros(4, 4, 3), np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)])
def test_normalise_wants_rgb_bytes(image):
    with pytest.raises(ValueError, match="wanted uint8 \\(..., H, W, 3\\), RGB"):
        normalise(image)


def mirrored(i: int, n: int) -> int:
    """Walk back into 0..n-1 by reflecting at the border, the edge pixel met twice."""
    while not 0 <= i < n:
        i = -1 - i if i < 0 else 2 * n - 1 - i
    return i


@settings(max_examples=60)
@given(*[st.integers(1, 6)] * 2, *[st.integers(-2, 20)] * 4)
def test_symmetric_pad_against_a_loop(h, w, left, right, top, bottom):
    x = torch.arange(2 * h * w).reshape(2, h, w)
    out_h, out_w = h + top + bottom, w + left + right
    if min(out_h, out_w) < 0:
        with pytest.raises(ValueError, match="takes more than the"):
            symmetric_pad(x, left, right, top, bottom)
        return
    rows, cols = [mirrored(i - top, h) for i in range(out_h)], [mirrored(j - left, w) for j in range(out_w)]
    slow = [[[plane[i][j] for j in cols] for i in rows] for plane in x.tolist()]
    assert symmetric_pad(x, left, right, top, bottom).tolist() == slow


def test_symmetric_pad_is_differentiable():
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: symmetric_pad(t, 2, 5, 1, -1), x)


def test_nothing_to_mirror():
    with pytest.raises(ValueError, match="is empty; there is nothing to mirror"):
        symmetric_pad(torch.zeros(3, 0, 4), 1, 1, 1, 1)


@pytest.mark.gpu
def test_cuda_is_cpu(cuda):
    image = picture()
    torch.testing.assert_close(normalise(image.to(cuda)).cpu(), normalise(image))
    assert torch.equal(symmetric_pad(image.to(cuda), 1, 2, 3, 9).cpu(), symmetric_pad(image, 1, 2, 3, 9))


# --- the official code's own results


@pytest.fixture(scope="module")
def oracle():
    return {k: torch.from_numpy(v) for k, v in np.load(ORACLE).items()}


def cases(prefix: str) -> list[str]:
    names = np.load(ORACLE).files
    return sorted(n for n in names if n.startswith(prefix) and "grad" not in n and not n.endswith("_x"))


@pytest.mark.parametrize("name", cases("pad_"))
def test_symmetric_pad_is_spatial_symmetric_padding(oracle, name):
    widths = [int(v.replace("m", "-")) for v in name.removeprefix("pad_").split("_")]
    assert torch.equal(symmetric_pad(oracle["pad_x"], *widths), oracle[name])
