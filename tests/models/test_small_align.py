"""RoI align as matrix products is torchvision's RoI align, forwards and backwards."""

import pytest
import torch
from torchvision.ops import roi_align

from fairseg_lite.models.roi_pooling import SAMPLES, roi_pool


@pytest.mark.parametrize("h, w", [(12, 17), (1, 1), (30, 5)])
def test_on_any_box_inside_across_and_outside(h, w):
    g = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, h, w, generator=g).requires_grad_()
    corner = torch.rand(60, 2, generator=g) * 300 - 60
    rois = torch.cat([torch.randint(0, 3, (60, 1), generator=g), corner, corner + torch.rand(60, 2, generator=g) * 200], 1)
    rois[:3, 3:] = rois[:3, 1:3]  # of no size
    ours = roi_pool(features, rois, (3, 5), scale=1 / 16, how="align")
    theirs = roi_align(features, rois, (3, 5), 1 / 16, SAMPLES, aligned=True)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    assert ours.abs().max() > 0.5
    weight = torch.randn(ours.shape, generator=g)
    a, b = (torch.autograd.grad((x * weight).sum(), features)[0] for x in (ours, theirs))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_of_no_roi():
    features = torch.randn(2, 4, 5, 5, requires_grad=True)
    pooled = roi_pool(features, torch.zeros(0, 5), 6, scale=1 / 16, how="align")
    assert pooled.shape == (0, 4, 6, 6)
    pooled.sum().backward()
    assert not features.grad.any()


def test_under_bfloat16():
    features = torch.randn(1, 4, 9, 9).bfloat16()
    rois = torch.tensor([[0.0, 10, 10, 90, 60]])
    with torch.autocast("cpu", torch.bfloat16):
        pooled = roi_pool(features, rois, 6, scale=1 / 16, how="align")
    assert pooled.dtype == torch.bfloat16
    exact = roi_align(features.float(), rois, 6, 1 / 16, SAMPLES, aligned=True)
    torch.testing.assert_close(pooled.float(), exact, atol=0.02, rtol=0.01)
