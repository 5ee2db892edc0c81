"""Colour and turn: a pure function of seed and step, and the mask goes with the picture."""

import numpy as np
import pytest
import torch

from fairseg_lite.data.patches import PatchSampler, PatchSpec
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.data.windows import turned

TINY = PatchSpec(patch_size=48, context=16, object_size=28, target_size=24)


def batches(**options):
    samplers = [PatchSampler(ShapesDataset(8), TINY, positives=4, negatives=4, **o) for o in ({}, options, options)]
    return [s.batch(0) for s in samplers]


def test_colour_shakes_pixels_and_nothing_else():
    plain, shaken, again = batches(colour=0.4)
    assert torch.equal(plain.masks, shaken.masks) and torch.equal(plain.labels, shaken.labels)
    assert torch.equal(shaken.images, again.images), "a pure function of seed and step"
    apart = (plain.images - shaken.images).abs().mean((1, 2, 3))
    assert (apart > 0).all() and apart.max() < 1.5


def test_turn_moves_picture_and_mask():
    plain, turn, again = batches(turn=20.0)
    assert torch.equal(turn.images, again.images) and torch.equal(turn.masks, again.masks)
    assert torch.equal(plain.labels, turn.labels) and turn.masks.dtype == torch.bool
    assert not turn.masks[4:].any(), "negatives stay empty"
    share = turn.masks[:4].float().mean((1, 2)) / plain.masks[:4].float().mean((1, 2))
    assert not torch.equal(plain.masks, turn.masks) and (share - 1).abs().max() < 0.15, "the object keeps its size"


@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns_are_exact(quarters):
    g = torch.Generator().manual_seed(0)
    images, masks = torch.rand(2, 3, 12, 12, generator=g), torch.rand(2, 8, 8, generator=g) > 0.5
    a, b = turned(images, masks, np.full(2, 90.0 * quarters))
    torch.testing.assert_close(a, images.rot90(quarters, (2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(b, masks.rot90(quarters, (1, 2)))


def test_what_turns_in_is_no_object():
    _, masks = turned(torch.zeros(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool), np.array([45.0]))
    assert not masks[0, 0, 0] and masks[0, 4:-4, 4:-4].all()
