"""The mode that copies the official code: the same rows and the same pixels."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fairseg_lite.inference.propose import Level, best_windows
from fairseg_lite.models.deepmask import DenseFeatures
from tests.official.inference import propose_official, top_masks, top_scores
from tests.official.oracle_weights import official_deepmask
from tests.official.resample import aligned_resize

CASE = dict(np.load(Path(__file__).parents[1] / "data" / "oracle" / "deepmask_infer.npz"))
SCALES = CASE["scales"].tolist()
MASKS = np.unpackbits(CASE["topMasks_bits"]).reshape(20, 120, 160).astype(bool)


def levels() -> list[Level]:
    maps = [(CASE[f"score_raw_{i}"], CASE[f"mask_{i}"]) for i in (1, 2, 3)]
    return [
        Level((s, s), DenseFeatures(torch.from_numpy(m), None, torch.from_numpy(score)[None]))
        for s, (score, m) in zip(SCALES, maps, strict=True)
    ]


def network() -> SimpleNamespace:
    """A stand-in with the sizes of the official tiny network, whose masks are the stored maps."""
    return SimpleNamespace(patch_size=64, stride=16, masks_at=lambda dense, _, rows, cols: dense.features[rows, cols])


def test_pyramid():
    image = torch.from_numpy(CASE["image"])
    for i, s in enumerate(SCALES, 1):
        level = aligned_resize(image, int(s * 120 + 0.5), int(s * 160 + 0.5))
        assert torch.equal(level[:, ::7, ::7], torch.from_numpy(CASE[f"pyramid_{i}"]))


def test_rows_and_masks_from_the_official_maps():
    rows = top_scores(levels(), 20)
    np.testing.assert_allclose(rows.numpy(), CASE["topScores"], atol=1e-7)
    masks = top_masks(network(), levels(), rows, SCALES, 120, 160, 0.2)
    assert int((masks.numpy() != MASKS).sum()) == 0


def test_the_right_cells_are_one_down_and_one_left():
    """Away from the grid's border the official row is the true cell, counted from 1, moved up by one and right by one."""
    _, level, row, col = best_windows(levels(), 20)
    right = torch.stack([level + 1, row + 1, col + 1], 1)
    official = top_scores(levels(), 20)[:, 1:].long()
    widths = torch.tensor([x.dense.scores.shape[-1] for x in levels()])[level]
    inner = (row > 0) & (col + 1 < widths)
    assert inner.sum() >= 10
    assert torch.equal(official[inner], right[inner] + torch.tensor([0, -1, 1]))
    assert not torch.equal(official, right)


def test_missing_windows_are_filled_as_officially():
    rows = top_scores(levels()[:1], 40)
    assert rows[30:].eq(1).all() and rows[29, 0] < 1  # 5 x 6 windows


def test_no_more_windows_than_the_last_scale_has():
    """`rowN` is the last scale's: of 30 + 63 + 99 windows 99 are taken, the best of all scales, and score 1 follows."""
    assert [level.dense.scores.numel() for level in levels()] == [30, 63, 99]
    rows = top_scores(levels(), 150)
    assert rows[:99, 0].max() < 1 and rows[99:].eq(1).all()
    assert set(rows[:99, 1].tolist()) == {1, 2, 3}
    every = torch.cat([level.dense.scores.flatten() for level in levels()]).double().sigmoid().sort(descending=True).values
    torch.testing.assert_close(rows[:99, 0], every[:99])


def test_masks_that_shrink_are_averaged_over_area():
    """At scale 8 a patch of 64 px is painted 8 px wide: each of its pixels is the mean of 2 x 2 of the 16 x 16 logits."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 16, 16, generator=g)
    level = Level((8.0, 8.0), DenseFeatures(logits, None, torch.zeros(1, 1, 1)))
    (mask,) = top_masks(network(), [level], torch.tensor([[0.9, 1, 1, 1]]), [8.0], 20, 20, 0.5)
    whole = F.avg_pool2d(logits[0], 2)[0] > 0
    assert torch.equal(mask[:4, :4], whole[4:, 4:]) and not mask[4:].any() and not mask[:, 4:].any()  # it begins at -4, -4
    assert not torch.equal(whole, aligned_resize(logits[0, 0], 8, 8) > 0)


def test_whole_network(shared):
    with np.load(shared / "oracle" / "deepmask" / "infer_f64.npz") as z:
        full = {k: z[k] for k in ("image", "scales", "topScores", "topMasks")}
    model = official_deepmask(shared / "oracle" / "deepmask" / "weights.npz")
    found = propose_official(model, torch.from_numpy(full["image"]), full["scales"].tolist(), top_k=20)
    np.testing.assert_allclose(found.rows.numpy(), full["topScores"], atol=1e-7)
    assert int((found.masks.numpy() != full["topMasks"].astype(bool)).sum()) == 0


def test_other_pictures_are_refused():
    with pytest.raises(ValueError, match=r"picture is torch.uint8 \(3, 8, 8\); wanted float32"):
        propose_official(network(), torch.zeros(3, 8, 8, dtype=torch.uint8), [1.0])
