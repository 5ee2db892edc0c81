"""Patches are cut on any device alike; colour and turn: a pure function of seed and step, and the mask goes with the picture."""

import pickle

import numpy as np
import pytest
import torch

from fairseg_lite.data import windows
from fairseg_lite.data.patches import PatchSampler, PatchSpec
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.data.windows import Window, crop_image, cut_out, piece_of, turned

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


@pytest.mark.gpu
@pytest.mark.parametrize("padding", ["mean", "symmetric"])
def test_a_device_cuts_as_pillow_does(padding, cuda, monkeypatch):
    """Windows smaller and larger than the picture, mirrored, half or all outside; pictures of a few pixels."""
    g = np.random.default_rng(0)
    for h, w in ((60, 80), (7, 5), (1, 30), (90, 2)):
        image, squares, many = g.integers(0, 256, (h, w, 3), dtype=np.uint8), [], 20
        x, y, size = g.uniform(-0.3, 1.3, (2, many)), g.uniform(3, 3 * max(h, w), many), 48
        squares = [Window(a * w, b * h, size / s, bool(g.integers(2))) for a, b, s in zip(*x, y, strict=True)]
        pieces = [piece_of(image, v, size / v.scale, size) for v in squares]
        here = np.stack([crop_image(image, v, size / v.scale, size, padding) for v in squares]).astype(int)
        np.testing.assert_array_equal(cut_out(pieces, size, padding, "cpu"), here)
        there = cut_out(pieces, size, padding, cuda)
        assert there.is_cuda and there.dtype == torch.uint8 and np.abs(there.cpu().numpy() - here).max() <= 1
        monkeypatch.setattr(windows, "TOGETHER", 1)  # one by one
        assert torch.equal(cut_out(pieces, size, padding, cuda).cpu(), there.cpu())
        monkeypatch.undo()


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"colour": 0.4, "turn": 20.0, "paste": 0.7, "padding": "mean"}])
def test_a_batch_is_the_same_wherever_it_is_cut(options, cuda):
    sampler = PatchSampler(ShapesDataset(8), TINY, positives=4, negatives=4, **options)
    drawn, here = sampler.drawn(3), sampler.batch(3)
    assert len(drawn) == len(here) == 8
    there = pickle.loads(pickle.dumps(drawn)).to(cuda)  # as it comes from a worker
    for name, x in vars(here).items():
        y = getattr(there, name)
        assert y.is_cuda and y.dtype == x.dtype
        if name == "images":
            torch.testing.assert_close(y.cpu(), x, atol=0.05, rtol=0)  # 1 of 255 is .017
        else:
            assert (y.cpu() != x).float().mean() < 1e-3
