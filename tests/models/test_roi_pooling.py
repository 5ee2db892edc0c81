"""RoI pooling: each method against a loop over cells, and the official roundings to the bit."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from fairseg_lite.models.roi_pooling import SAMPLES, roi_pool

ORACLE = Path(__file__).resolve().parents[1] / "data" / "oracle"


def c_round(x):
    return math.floor(abs(x) + 0.5) * (1 if x >= 0 else -1)


def slow_v1(grid, low, high, bins, i):
    """Cells of bin i along one axis: the last cell counts, and bins share what they cut."""
    first, last = c_round(low), c_round(high)
    size = max(last - first + 1, 1) / bins
    return range(first + math.floor(i * size), first + math.ceil((i + 1) * size))


def slow_v2(grid, low, high, bins, i):
    first, end = c_round(low), c_round(high)
    size = max(end - first, 1) / bins
    return range(first + c_round(i * size), first + c_round((i + 1) * size))


def slow_max(cells, features, rois, size, scale):
    b, c, h, w = features.shape
    out = torch.zeros(len(rois), c, *size, dtype=features.dtype)
    for n, (picture, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i in range(size[0]):
            for j in range(size[1]):
                ys = [y for y in cells(h, y1 * scale, y2 * scale, size[0], i) if 0 <= y < h]
                xs = [x for x in cells(w, x1 * scale, x2 * scale, size[1], j) if 0 <= x < w]
                if ys and xs:
                    out[n, :, i, j] = features[int(picture), :, ys][:, :, xs].amax((1, 2))
    return out


def slow_align(features, rois, size, scale):
    """The mean of samples in each bin, each between the four cell centres around it; beyond a cell outside it is 0."""
    b, c, h, w = features.shape
    out = torch.zeros(len(rois), c, *size, dtype=features.dtype)

    def at(picture, y, x):
        if y < -1 or y > h or x < -1 or x > w:
            return torch.zeros(c, dtype=features.dtype)
        y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
        total, top, left = 0, math.floor(y), math.floor(x)
        for yy, wy in ((top, top + 1 - y), (min(top + 1, h - 1), y - top)):
            for xx, wx in ((left, left + 1 - x), (min(left + 1, w - 1), x - left)):
                total = total + wy * wx * features[picture, :, yy, xx]
        return total

    for n, (picture, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i in range(size[0]):
            for j in range(size[1]):
                for k in range(SAMPLES**2):
                    v, u = (k // SAMPLES + 0.5) / SAMPLES, (k % SAMPLES + 0.5) / SAMPLES
                    y = y1 * scale + (i + v) * (y2 - y1) * scale / size[0] - 0.5  # cell r has its centre at r + .5
                    x = x1 * scale + (j + u) * (x2 - x1) * scale / size[1] - 0.5
                    out[n, :, i, j] += at(int(picture), y, x) / SAMPLES**2
    return out


SLOW = {
    "v1": lambda *a: slow_max(slow_v1, *a),
    "v2": lambda *a: slow_max(slow_v2, *a),
    "align": slow_align,
}


def case(n=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 9, 11, generator=g, dtype=torch.float64)
    corner = torch.rand(n, 2, generator=g) * 200 - 40  # the picture has 88 x 72 px
    sides = torch.rand(n, 2, generator=g) * torch.rand(n, 1, generator=g) * 120
    rois = torch.cat([torch.arange(n)[:, None] % 2, corner, corner + sides], 1)
    far = [[1, -300.0, -300, -200, -200], [1, -500, -500, 600, 600]]
    odd = torch.tensor([[0, 20.0, 20, 20, 20], *far, [0, 4, 4, 4, 70], [1, 0, 0, 88, 72]])
    return features, torch.cat([rois, odd])  # of no area, outside, around everything, a line, the picture


@pytest.mark.parametrize("how", SLOW)
@pytest.mark.parametrize("size", [(3, 4), (7, 7)])
def test_against_a_loop(how, size):
    features, rois = case()
    ours = roi_pool(features, rois, size, scale=1 / 8, how=how)
    torch.testing.assert_close(ours, SLOW[how](features, rois, size, 1 / 8), atol=1e-5, rtol=1e-5)  # RoIs are float32
    assert (ours[-4] == 0).all() and (ours[-1] != 0).any()


@pytest.mark.parametrize("how", SLOW)
def test_gradients_and_no_roi(how):
    features, rois = case(4)
    pool = lambda x: roi_pool(x, rois.double(), 2, scale=1 / 8, how=how)  # noqa: E731
    assert gradcheck(pool, (features.requires_grad_(),))
    empty = roi_pool(features, torch.zeros(0, 5), (2, 3), scale=1 / 8, how=how)
    assert empty.shape == (0, 3, 2, 3)
    empty.sum().backward()
    assert not features.grad.any()


@pytest.mark.parametrize("how", ["v1", "v2"])
def test_official_outputs_and_gradients_to_the_bit(how):
    with np.load(ORACLE / "multipathnet_roipool.npz") as z:
        data = {k: torch.from_numpy(z[k]) for k in z.files}
    features = data["data"].requires_grad_()
    ours = roi_pool(features, data["rois"] - 1, (6, 7), scale=1 / 16, how=how)
    assert torch.equal(ours, data[f"{how}_out"])
    assert torch.equal(roi_pool(features.detach(), data["rois"] - 1, (6, 7), scale=1 / 16, how=how), ours), (
        "another way, no gradient"
    )
    short = features.detach().bfloat16()
    near = roi_pool(short, data["rois"] - 1, (6, 7), scale=1 / 16, how=how)
    assert torch.equal(near, roi_pool(short.float(), data["rois"] - 1, (6, 7), scale=1 / 16, how=how).bfloat16())
    ours.backward(data[f"{how}_gradOutput"])
    torch.testing.assert_close(features.grad, data[f"{how}_gradInput"], atol=1e-6, rtol=1e-6)  # sums in another order
    assert not torch.equal(data["v1_out"], data["v2_out"])


def test_an_unknown_method():
    with pytest.raises(ValueError, match="how is 'mean'; choose one of 'v1', 'v2', 'align'"):
        roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, scale=1, how="mean")


@pytest.mark.gpu
@pytest.mark.parametrize("how", SLOW)
def test_cuda_is_cpu(how, cuda):
    features, rois = case()
    ours = roi_pool(features.float().to(cuda), rois.to(cuda), 7, scale=1 / 8, how=how)
    torch.testing.assert_close(ours.cpu(), roi_pool(features.float(), rois, 7, scale=1 / 8, how=how))
