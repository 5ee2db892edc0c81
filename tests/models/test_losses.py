"""The joint loss against the paper's formula written as a loop."""

import math

import pytest
import torch

from fairseg_lite.models.deepmask import DeepMaskOutput
from fairseg_lite.models.losses import deepmask_loss


def slow_loss(f, s, m, y, weight):
    """DeepMask section 3.3, one pixel at a time; the mask term is the mean over positives, the score term over all."""
    f, s, y = f.tolist(), s.tolist(), y.tolist()
    mask, score, positives = 0.0, 0.0, 0
    for k in range(len(y)):
        total = sum(math.log1p(math.exp(-(1 if m[k, i, j] else -1) * v)) for i, row in enumerate(f[k]) for j, v in enumerate(row))
        mask += (1 + y[k]) / 2 * total / m[0].numel()
        positives += y[k] > 0
        score += math.log1p(math.exp(-y[k] * s[k]))
    mask = mask / max(positives, 1)
    return mask + weight * score / len(y), mask, score / len(y)


def batch(labels):
    g = torch.Generator().manual_seed(3)
    n = len(labels)
    output = DeepMaskOutput(torch.randn(n, 5, 5, generator=g).double(), torch.randn(n, generator=g).double())
    return output, torch.rand(n, 5, 5, generator=g) > 0.4, torch.tensor(labels)


@pytest.mark.parametrize("labels", [[1.0, -1.0, 1.0], [1.0], [-1.0, -1.0]])
def test_loss_is_the_papers(labels):
    output, masks, y = batch(labels)
    ours = deepmask_loss(output, masks, y, score_weight=0.25)
    for a, b in zip(ours, slow_loss(output.masks, output.scores, masks, y, 0.25), strict=True):
        assert float(a) == pytest.approx(float(b), abs=1e-12)


def test_negatives_teach_the_score_and_never_the_mask():
    output, masks, y = batch([1.0, -1.0])
    f, s = output.masks.requires_grad_(), output.scores.requires_grad_()
    deepmask_loss(DeepMaskOutput(f, s), masks, y).total.backward()
    assert (f.grad[1] == 0).all() and (f.grad[0] != 0).all() and (s.grad != 0).all()


@pytest.mark.parametrize("only, moves_mask, moves_score", [("mask", True, False), ("score", False, True)])
def test_one_branch_alone(only, moves_mask, moves_score):
    output, masks, y = batch([1.0, -1.0])
    f, s = output.masks.requires_grad_(), output.scores.requires_grad_()
    deepmask_loss(DeepMaskOutput(f, s), masks, y, only=only).total.backward()
    assert (f.grad is not None and bool(f.grad.abs().sum() > 0)) is moves_mask
    assert (s.grad is not None and bool(s.grad.abs().sum() > 0)) is moves_score


def test_coarse_masks_are_upsampled_to_the_target():
    output = DeepMaskOutput(torch.full((1, 2, 2), 3.0), torch.zeros(1))
    loss = deepmask_loss(output, torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1))
    assert loss.mask.item() == pytest.approx(math.log1p(math.exp(-3)), abs=1e-6)


def test_bad_targets_are_refused():
    output, masks, y = batch([1.0, -1.0])
    with pytest.raises(ValueError, match="each -1 or \\+1"):
        deepmask_loss(output, masks, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="wanted bool"):
        deepmask_loss(output, masks.float(), y)
    with pytest.raises(ValueError, match="wanted bool"):
        deepmask_loss(output, masks[:1], y)
    with pytest.raises(ValueError, match="only is 'both'"):
        deepmask_loss(output, masks, y, only="both")
