"""The mode that copies the official code: the same rows and the same pixels."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairseg_lite.geometry.resample import aligned_resize
from fairseg_lite.inference.propose import best_windows
from fairseg_lite.inference.pyramid import Level
from fairseg_lite.models.deepmask import DenseFeatures
from tests.official.inference import propose_official, top_masks, top_scores
from tests.official.oracle_weights import official_deepmask

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
