"""SharpMask on pictures: lateral features, refined windows, coarse masks of the same network, the official mode."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.inference.propose import Level, best_windows, masks_of, prepare, propose, pyramid
from fairseg_lite.models import sharpmask
from fairseg_lite.models.deepmask import DenseFeatures
from fairseg_lite.models.sharpmask import SharpMask, sharpmask_tiny
from tests.official.inference import official_pyramid, propose_official, top_masks
from tests.official.oracle_weights import tiny_official_deepmask
from tests.official.sharpmask_maps import load_refinement, official_refinement, official_sharpmask

ORACLE = Path(__file__).parents[1] / "data" / "oracle"


def stirred(model: SharpMask) -> SharpMask:
    """With batch norms that have seen something and biases, so that the grey border is not zero anywhere."""
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if hasattr(m, "running_var"):
            m.running_mean.normal_(generator=g), m.running_var.uniform_(0.5, 2, generator=g)
            nn.init.normal_(m.bias, generator=g)
    return model


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return prepare(stirred(sharpmask_tiny()))


@pytest.fixture(scope="module")
def image():
    return ShapesDataset(1, seed=3)[0].image


def test_proposals_are_those_of_refining_patch_by_patch(tiny, image, monkeypatch):
    """Batches and scales change nothing: each window one at a time."""
    pixels, scales = torch.randn(3, 120, 150), [0.7, 1.0]
    with torch.inference_mode():
        levels = pyramid(tiny, pixels, scales)
        _, level, rows, cols = best_windows(levels, 40)
        logits, _ = masks_of(tiny, levels, level, rows, cols)
        for i, (n, r, c) in enumerate(torch.stack([level, rows, cols], 1).tolist()):
            zero = torch.zeros(1, dtype=torch.int64)
            alone = tiny.masks_at(levels[n].dense, zero, zero + r, zero + c)[0]
            assert (alone - logits[i]).abs().max() <= 1e-5 * max(1, alone.abs().max())
        many = propose(tiny, image, top_k=30)
        monkeypatch.setattr(sharpmask, "REFINE_BYTES", 1)
        one = propose(tiny, image, top_k=30)
    assert len(many) > 10 and one.positions.tolist() == many.positions.tolist()
    assert int((one.masks() != many.masks()).sum()) == 0


def test_the_same_network_gives_coarse_masks(tiny, image):
    sharp, coarse = propose(tiny, image, top_k=20), propose(tiny, image, top_k=20, refine=False)
    alone = propose(tiny.deepmask, image, top_k=20)
    assert coarse.rle == alone.rle and torch.equal(coarse.scores, alone.scores)
    assert sharp.scores[0] == coarse.scores[0] and sharp.rle != coarse.rle
    assert propose(tiny.deepmask, image, top_k=20, refine=True).rle == alone.rle  # nothing to refine with


def test_fewer_windows_than_asked_for_are_fewer_proposals(tiny):
    """The official code fills up with score 1 and a corner's mask."""
    found = propose(tiny, np.full((20, 30, 3), 90, np.uint8), scales=[1.0], top_k=1000)
    assert 0 < len(found) <= 3 * 3 and found.scores.lt(1).all()  # (20 + 96) px and (30 + 96) px are 8 cells each, less 5


@pytest.fixture(scope="module")
def case(shared):
    with np.load(shared / "oracle" / "sharpmask" / "infer_f64.npz") as z:
        return {k: z[k] for k in z.files}


def test_official_rows_and_masks(shared, case):
    model = official_sharpmask(shared / "oracle")
    found = propose_official(model, torch.from_numpy(case["image"]), case["scales"].tolist(), top_k=20)
    np.testing.assert_allclose(found.rows.numpy(), case["topScores"], atol=1e-7)
    assert int((found.masks.numpy() != case["topMasks"].astype(bool)).sum()) == 0


def test_official_lateral_features(shared, case):
    model = official_sharpmask(shared / "oracle")
    with torch.inference_mode():
        levels = official_pyramid(model, torch.from_numpy(case["image"]), case["scales"].tolist())
    for i, level in enumerate(levels, 1):
        for j, ours in enumerate(level.dense.laterals, 1):
            official = torch.from_numpy(case[f"skip_{i}_{j}"])
            h, w = official.shape[-2:]
            assert (ours[..., :h, :w] - official).abs().max() <= 1e-9
            assert ours[..., h:, :].eq(0).all() and ours[..., w:].eq(0).all()


def test_official_windows_refined_from_the_official_maps():
    """Runs anywhere: the stored lateral features and first encodings, cut, refined and painted by us."""
    z = dict(np.load(ORACLE / "sharpmask_parts.npz"))
    model = official_refinement(tiny_official_deepmask()).double().eval()
    load_refinement(model, {k.removeprefix("weight:"): v for k, v in z.items() if k.startswith("weight:")}, whole=False)
    model.first, model.deepmask.vectors_at = nn.Identity(), lambda dense, _, rows, cols: dense.features[rows, cols]
    scales, rows, levels = z["scales"].tolist(), torch.from_numpy(z["topScores"]), []
    for i, s in enumerate(scales, 1):
        laterals = [torch.from_numpy(z[f"skip_{i}_{j}"]) for j in (1, 2, 3, 4)]
        h, w = (n - model.grid + 1 for n in laterals[0].shape[-2:])
        first = torch.full((h, w, 16 * 4 * 4), torch.nan, dtype=torch.float64)
        for (_, level, r, c), m in zip(rows.tolist(), z["M1"], strict=True):
            if level == i:
                first[int(r) - 1, int(c) - 1] = torch.from_numpy(m)
        dense = DenseFeatures(first, None, torch.zeros(1, h, w, dtype=torch.float64))
        levels.append(Level((s, s), model.joined(dense, laterals)))
    with torch.inference_mode():
        for (_, level, r, c), wanted in zip(rows.tolist(), z["topMasks0"], strict=True):
            at = [torch.tensor([int(v) - 1]) for v in (r, c)]
            ours = model.masks_at(levels[int(level) - 1].dense, torch.zeros_like(at[0]), *at)[0]
            np.testing.assert_allclose(ours.numpy(), wanted, atol=1e-5)  # stored as float32
        masks = top_masks(model, levels, rows, scales, 120, 160, 0.2)
    assert int((masks.numpy() != np.unpackbits(z["topMasks_bits"]).reshape(20, 120, 160).astype(bool)).sum()) == 0
