"""Boundary measures against answers worked out by hand, a slow loop over pixel pairs, and what must always hold."""

import json
import math
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseg_lite.data.scenes import Subset
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation import boundary as module
from fairseg_lite.evaluation.boundary import (
    boundary_f,
    boundary_pixels,
    boundary_report,
    squared_distance,
    trimap_iou,
)
from fairseg_lite.evaluation.patches import patch_masks, patch_report
from fairseg_lite.geometry.masks import mask_iou
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.models.deepmask import deepmask_tiny


def drawn(*rows):
    return torch.tensor([[c == "#" for c in row] for row in rows])[None]


def square(left, top, side, size=24):
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


def loop_trimap(predicted, truth, d):
    """The definition, pixel by pixel: a pixel counts if one of the other side is within d."""
    p, t = predicted.numpy(), truth.numpy()
    places, common, total = list(np.ndindex(t.shape)), 0, 0
    for a in places:
        if any(t[a] != t[b] and math.dist(a, b) <= d for b in places):
            common, total = common + (p[a] and t[a]), total + (p[a] or t[a])
    return common / total if total else math.nan


def loop_boundary(mask):
    m = mask.numpy()
    steps, inside = ((0, 1), (1, 0), (0, -1), (-1, 0)), set(np.ndindex(m.shape))
    near = {a: [(a[0] + y, a[1] + x) for y, x in steps] for a in inside}
    return [a for a in inside if m[a] and any(b in inside and not m[b] for b in near[a])]


def loop_f(predicted, truth, tolerance):
    p, t = loop_boundary(predicted), loop_boundary(truth)
    if not t:
        return (math.nan,) * 3
    shares = [sum(any(math.dist(a, b) <= tolerance for b in y) for a in x) / max(len(x), 1) for x, y in ((p, t), (t, p))]
    return (2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0, *shares)


def test_a_boundary_by_hand():
    mask = drawn("......", ".####.", ".####.", ".####.", ".####.", "......")
    edge = drawn("......", ".####.", ".#..#.", ".#..#.", ".####.", "......")
    assert torch.equal(boundary_pixels(mask), edge)
    assert torch.equal(boundary_pixels(drawn("##..", "##..", "##..")), drawn(".#..", ".#..", ".#.."))  # the rim is none
    assert torch.equal(boundary_pixels(drawn("###", "###", "##.")), drawn("...", "..#", ".#."))  # a corner does not touch


def test_trimap_by_hand():
    truth = drawn("........", "..####..", "..####..", "..####..", "..####..", "........")
    # one pixel too much beside the object, one far away, one missing in the middle
    wrong = drawn("#.......", "..####..", ".#####..", "..#.##..", "..####..", "........")
    # within 1 px: the ring of 12, of which none is missing, and 1 of 16 outside it
    # within 1.5 px (corners too): the same pixels inside, for the 4 in the middle are 2 px from outside
    # within 2 px: all 16, 1 missing, 1 too much; the far one is sqrt(1 + 4) away
    assert trimap_iou(wrong, truth, widths=(1, 1.5, 2, 2.2, 2.3)).tolist() == [
        pytest.approx([12 / 13, 12 / 13, 15 / 17, 15 / 17, 15 / 18])
    ]


def test_boundary_f_by_hand():
    truth = drawn(".......", ".###...", ".###...", ".###...", ".......", ".......")  # 8 px of boundary
    dot = drawn(".......", ".......", ".......", ".......", ".......", "....#..")
    # the dot is sqrt(5) from the corner, then sqrt(8) from its left neighbour and sqrt(10) from the one above
    for tolerance, precision, recall in ((2.2, 0, 0), (math.sqrt(5) + 1e-6, 1, 1 / 8), (2.9, 1, 2 / 8)):
        score = boundary_f(dot, truth, tolerance=tolerance)
        assert (score.precision.item(), score.recall.item()) == (precision, recall)
        assert score.f.item() == pytest.approx(2 * precision * recall / (precision + recall) if precision else 0)


@pytest.mark.parametrize("shift", range(9))
def test_a_shifted_square(shift):
    side = 8
    truth, moved = square(4, 8, side), square(4 + shift, 8, side)
    assert trimap_iou(moved, truth, widths=(100,)).item() == pytest.approx((side - shift) / (side + shift))
    # within 1 px: the ring of 28 without `shift` columns from the left, and the column beside it on the right
    if shift < side:
        kept = 28 - (side if shift else 0) - 2 * max(shift - 1, 0)
        assert trimap_iou(moved, truth, widths=(1,)).item() == pytest.approx(kept / (28 + (side if shift else 0)))
    # at 0 px: two rows of side - shift pixels are shared; by 7, one whole column: the right edge lies on the left one
    same = {0: 28, 7: 8}.get(shift, 2 * (side - shift))
    assert boundary_f(moved, truth, tolerance=0).f.item() == pytest.approx(same / 28)
    assert boundary_f(moved, truth, tolerance=shift).f.item() == 1


def test_a_shift_costs_most_near_the_boundary_and_the_more_the_further():
    truth = square(4, 4, 12)
    rows = torch.cat([trimap_iou(square(4 + s, 4, 12), truth, widths=(1, 2, 4, 8, 24)) for s in range(6)])
    assert (rows.diff(dim=0) < 0).all() and (rows[1, :4].diff() > 0).all()
    assert rows[5, 0] > rows[5, -1]  # not so a shift wider than the band: this band has as much of it as the picture
    f = torch.cat([boundary_f(square(4 + s, 4, 12), truth, tolerance=1).f for s in range(6)])
    assert (f[:2] == 1).all() and (f[1:].diff() < 0).all()


def test_empty_and_full_masks():
    empty, full, some = (square(0, 0, side) for side in (0, 24, 9))
    assert trimap_iou(empty, some, widths=(1, 5)).tolist() == [[0, 0]]
    assert [v.item() for v in boundary_f(empty, some)] == [0, 0, 0] == [v.item() for v in boundary_f(full, some)]
    for truth in (empty, full):
        for predicted in (empty, full, some):
            assert trimap_iou(predicted, truth).isnan().all()
            assert all(v.isnan().all() for v in boundary_f(predicted, truth))
    both = trimap_iou(torch.cat([some, some]), torch.cat([empty, some]))  # a neighbour in the batch changes nothing
    assert both[0].isnan().all() and (both[1] == 1).all()
    for shape in ((0, 5, 5), (2, 0, 5), (2, 5, 0), (2, 1, 1)):
        nothing = torch.zeros(shape, dtype=torch.bool)
        assert trimap_iou(nothing, nothing, widths=(1, 3)).shape == (shape[0], 2)
        assert boundary_f(nothing, nothing).f.shape == shape[:1]


def masks_of(seed, count=4, size=(9, 11)):
    g = np.random.default_rng(seed)
    field = torch.from_numpy(g.normal(size=(count, 1, *size))).float()
    smooth = torch.nn.functional.avg_pool2d(field, 3, 1, 1)[:, 0]
    return smooth > torch.from_numpy(g.normal(0, 0.2, (count, 1, 1))).float()


pairs = st.integers(0, 10**6).map(lambda seed: (masks_of(2 * seed), masks_of(2 * seed + 1)))


@settings(max_examples=15, derandomize=True)
@given(pairs, st.sampled_from([1, 1.5, 2, 2.9, 4, 20]))
def test_both_measures_agree_with_loops(pair, d):
    predicted, truth = pair
    fast = torch.cat([trimap_iou(predicted, truth, widths=(d,)), torch.stack(boundary_f(predicted, truth, tolerance=d), 1)], 1)
    slow = [[loop_trimap(p, t, d), *loop_f(p, t, d)] for p, t in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(fast.numpy(), np.array(slow), atol=1e-6)


@settings(max_examples=30, derandomize=True)
@given(pairs)
def test_what_always_holds(pair):
    predicted, truth = pair
    keep = boundary_pixels(truth).any(2).any(1) & boundary_pixels(predicted).any(2).any(1)
    predicted, truth = predicted[keep], truth[keep]
    assert (trimap_iou(truth, truth) == 1).all() and all((v == 1).all() for v in boundary_f(truth, truth, tolerance=0))
    assert (trimap_iou(~truth, truth) == 0).all()
    whole = mask_iou(predicted, truth).diagonal()
    torch.testing.assert_close(trimap_iou(predicted, truth, widths=(1e9,))[:, 0], whole)  # the band is the picture
    one, two = boundary_f(predicted, truth, tolerance=1), boundary_f(truth, predicted, tolerance=1)
    assert torch.equal(one.f, two.f) and torch.equal(one.precision, two.recall)
    wider = torch.stack([torch.stack(boundary_f(predicted, truth, tolerance=t)) for t in (0, 1, 2, 3, 20)])
    assert (wider.diff(dim=0) >= 0).all() and (wider[-1] == 1).all()
    turned = [m.mT.flip(1) for m in (predicted, truth)]
    torch.testing.assert_close(trimap_iou(*turned), trimap_iou(predicted, truth))
    torch.testing.assert_close(boundary_f(*turned), boundary_f(predicted, truth))


@settings(max_examples=15, derandomize=True)
@given(st.integers(0, 10**6))
def test_each_wrong_pixel_more_never_helps(seed):
    truth = masks_of(seed, count=1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(truth.numel()))
    steps = truth.flatten().repeat(truth.numel() + 1, 1)
    for i, place in enumerate(order):
        steps[i + 1 :, place] ^= True  # a further pixel wrong, the earlier ones stay so
    values = trimap_iou(steps.view(-1, *truth.shape[1:]), truth.expand(len(steps), -1, -1), widths=(1, 2, 3, 8))
    if boundary_pixels(truth).any():
        assert (values.diff(dim=0) <= 0).all() and (values[0] == 1).all() and (values[-1] == 0).all()


@pytest.mark.parametrize("reach", [0, 1, 2.5, 6, 100])
def test_distances_are_exact_up_to_the_reach(reach):
    masks = torch.from_numpy(np.random.default_rng(5).random((6, 13, 10)) < 0.04)
    assert masks.any(2).any(1).sum() > 3
    ours = squared_distance(masks, reach)
    places = torch.cartesian_prod(torch.arange(13), torch.arange(10))
    for mask, mine in zip(masks, ours, strict=True):
        seeds = mask.nonzero()
        apart = (places[:, None] - seeds).square().sum(2).float()
        true = apart.amin(1).view(13, 10) if len(seeds) else torch.full((13, 10), math.inf)
        near = true <= reach**2
        assert torch.equal(mine[near], true[near]) and (mine[~near] > reach**2).all()


@pytest.mark.parametrize(
    "measure, change, says",
    [
        (trimap_iou, {"predicted": torch.ones(1, 4, 4)}, "predicted masks are torch.float32 of shape (1, 4, 4); wanted bool"),
        (trimap_iou, {"truth": torch.ones(4, 4, dtype=torch.bool)}, "true masks are torch.bool of shape (4, 4)"),
        (trimap_iou, {"truth": torch.ones(1, 5, 4, dtype=torch.bool)}, "masks of (1, 4, 4) and true ones of (1, 5, 4)"),
        (boundary_f, {"truth": torch.ones(2, 4, 4, dtype=torch.bool)}, "(1, 4, 4) and true ones of (2, 4, 4)"),
        (boundary_f, {"predicted": torch.ones(1, 4, 4, dtype=torch.uint8)}, "predicted masks are torch.uint8"),
        (trimap_iou, {"widths": ()}, "widths are []"),
        (trimap_iou, {"widths": (1, 0.5)}, "widths are [1, 0.5]; wanted numbers of px of at least 1"),
        (trimap_iou, {"widths": (1, math.inf)}, "widths are [1, inf]"),
        (trimap_iou, {"widths": ("2",)}, "widths are ['2']"),
        (boundary_f, {"tolerance": -1}, "tolerance is -1 px"),
        (boundary_f, {"tolerance": math.nan}, "tolerance is nan px"),
        (boundary_f, {"tolerance": True}, "tolerance is True px"),
    ],
)
def test_what_is_refused(measure, change, says):
    good = {"predicted": torch.ones(1, 4, 4, dtype=torch.bool), "truth": torch.ones(1, 4, 4, dtype=torch.bool)}
    measure(**good)
    with pytest.raises(ValueError, match=re.escape(says)):
        measure(**{**good, **change})


def test_distances_refuse_a_negative_reach():
    with pytest.raises(ValueError, match="reach is -1 px"):
        squared_distance(torch.ones(1, 2, 2, dtype=torch.bool), -1)


@pytest.fixture(scope="module")
def scenes():
    return ShapesDataset(6, seed=0)


@pytest.fixture(scope="module")
def shipped():
    return load_model("shapes", kind="DeepMask")


def test_the_report_is_the_mean_of_the_measures(scenes, shipped):
    report = boundary_report(shipped, scenes, widths=(1, 3, 8), tolerance=1, progress=False)
    patches = patch_report(shipped, scenes, progress=False)
    assert (report.instances, report.left_out) == (patches.instances, 0)
    assert report.mean_iou == pytest.approx(patches.mean_iou, abs=1e-6)
    predicted, truth = (torch.cat(m) for m in zip(*patch_masks(shipped, scenes, progress=False), strict=True))
    assert list(report.trimap_iou) == [1, 3, 8]
    assert list(report.trimap_iou.values()) == pytest.approx(trimap_iou(predicted, truth, widths=(1, 3, 8)).mean(0).tolist())
    score = boundary_f(predicted, truth, tolerance=1)
    assert (report.f, report.precision, report.recall) == pytest.approx([v.mean().item() for v in score])
    said = str(report)
    assert f"within 1 px {report.trimap_iou[1]:.3f}, 3 px" in said and f"F at 1 px {report.f:.3f} " in said
    assert "\n" not in said and "left out" not in said
    assert json.loads(json.dumps(asdict(report)))["trimap_iou"]["3"] == report.trimap_iou[3]


def test_the_blurry_edge_is_seen(scenes, shipped):
    """The coarse mask of a trained DeepMask is worst at the boundary, and better than that of an untrained one."""
    torch.manual_seed(0)
    report, raw = (boundary_report(m, scenes, progress=False) for m in (shipped, deepmask_tiny().eval()))
    ious = [*report.trimap_iou.values(), report.mean_iou]
    assert ious == sorted(ious) and ious[0] < ious[-1] - 0.1
    assert raw.f < report.f and all(raw.trimap_iou[d] < v for d, v in report.trimap_iou.items())


def test_masks_without_a_boundary_are_left_out_and_counted(monkeypatch, scenes):
    some, empty = square(4, 4, 9), square(0, 0, 0)
    batches = [(torch.cat([some, some]), torch.cat([some, empty])), (empty, some)]
    monkeypatch.setattr(module, "patch_masks", lambda *a, **k: iter(batches))
    report = boundary_report(None, scenes)
    assert (report.instances, report.left_out, report.mean_iou, report.f) == (2, 1, 0.5, 0.5)
    assert report.trimap_iou == dict.fromkeys(module.BANDS, 0.5) and str(report).endswith("1 without a boundary left out")
    monkeypatch.setattr(module, "patch_masks", lambda *a, **k: iter([(some, empty)]))
    with pytest.raises(ValueError, match="none of 1 true masks has a boundary"):
        boundary_report(None, scenes)


def test_a_limit_is_kept_and_has_to_be_one(scenes, shipped):
    assert boundary_report(shipped, scenes, limit=3, progress=False).instances == 3
    assert patch_report(shipped, scenes, limit=3, progress=False).instances == 3
    for measure in (boundary_report, patch_report):
        with pytest.raises(ValueError, match="limit is 0"):
            measure(shipped, scenes, limit=0, progress=False)
        with pytest.raises(ValueError, match="no "):
            measure(shipped, Subset(scenes, []), progress=False)
