"""Windows and merged regions: how many, how large, always the same, and no worse than the obvious."""

import numpy as np
import pytest
import torch

from fairseg_lite.course.baselines import segment_proposals, sliding_boxes
from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.recall import average_recall
from fairseg_lite.geometry.masks import mask_iou, rle_decode


def best_iou(proposals, mask):
    return float(mask_iou(torch.from_numpy(proposals.masks), torch.from_numpy(mask)[None]).max())


def squares(*boxes, size=(60, 80), ground=(40, 90, 60), noise=0):
    """Squares of other colours on plain ground, and their masks."""
    g = np.random.default_rng(0)
    image, masks = np.full((*size, 3), ground, np.int64), np.zeros((len(boxes), *size), bool)
    for k, (x, y, side) in enumerate(boxes):
        masks[k, y : y + side, x : x + side] = True
        image[masks[k]] = ((220, 60, 50), (60, 80, 230), (230, 210, 60))[k % 3]
    return np.clip(image + g.integers(-noise, noise + 1, image.shape), 0, 255).astype(np.uint8), masks


@pytest.mark.parametrize("height, width", [(64, 64), (48, 120), (120, 48), (5, 300)])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_windows_are_rectangles_inside_the_picture(height, width, count):
    masks, scores = sliding_boxes(height, width, count)
    assert masks.shape == (count, height, width) and masks.dtype == bool
    assert (np.diff(scores) < 0).all() and np.isfinite(scores).all()
    rows, cols = masks.any(2).sum(1), masks.any(1).sum(1)
    assert (masks.sum((1, 2)) == rows * cols).all() and masks.any((1, 2)).all()
    short, long = np.minimum(rows, cols), np.maximum(rows, cols)
    assert (long <= min(height, width)).all() and (long <= 2 * short + 1).all()
    assert len(np.unique(masks.reshape(count, -1), axis=0)) == count


def test_a_level_covers_the_picture_half_a_window_apart():
    masks = sliding_boxes(64, 96, 5 + 2 * 3 + 2 * 3).masks
    largest = masks[masks.sum((1, 2)) == 64 * 64]
    assert [int(np.flatnonzero(m.any(0))[0]) for m in largest] in ([0, 32], [32, 0])
    assert masks.any(0).all()
    big, small = sliding_boxes(64, 96, 2000).masks[[0, -1]].sum((1, 2))
    assert big > 10 * small


def test_levels_are_a_root_of_two_apart():
    masks = sliding_boxes(64, 64, 10_000).masks
    sides = np.maximum(masks.any(2).sum(1), masks.any(1).sum(1))
    assert sorted(set(sides.tolist())) == [4, 6, 8, 11, 16, 23, 32, 45, 64]
    assert (np.diff(sides) <= 0).all()


def test_a_tiny_picture_has_few_windows():
    assert len(sliding_boxes(1, 1, 50).masks) in range(1, 51)
    assert len(sliding_boxes(6, 6, 10_000).masks) < 200


def test_windows_are_the_same_for_the_same_seed():
    one, same, other = (sliding_boxes(64, 64, 200, seed).masks for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()
    whole = [sliding_boxes(64, 64, 7, seed).masks.reshape(7, -1) for seed in (0, 1)]  # a level that is complete
    assert {m.tobytes() for m in whole[0]} == {m.tobytes() for m in whole[1]}


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, 0, 5), (5, 5, 0), (-3, 5, 5)])
def test_windows_of_nothing(sizes):
    with pytest.raises(ValueError, match="must be at least 1"):
        sliding_boxes(*sizes)


@pytest.mark.parametrize("noise", [0, 8])
def test_regions_find_an_obvious_square_first(noise):
    image, masks = squares((25, 20, 24), noise=noise)
    proposals = segment_proposals(image, 50)
    assert best_iou(proposals, masks[0]) > 0.8
    first = proposals._replace(masks=proposals.masks[:2])
    assert best_iou(first, masks[0]) > 0.8


def test_regions_find_a_square_of_two_colours_as_one():
    image, masks = squares((10, 10, 40))
    image[10:50, 30:50] = 180, 60, 50
    assert best_iou(segment_proposals(image, 50), masks[0]) > 0.8


def test_regions_find_each_of_several():
    image, masks = squares((5, 5, 15), (40, 30, 24), (60, 5, 10), noise=5)
    proposals = segment_proposals(image, 100)
    assert min(best_iou(proposals, m) for m in masks) > 0.8


def strips(*colours_and_widths):
    return np.concatenate([np.full((12, w, 3), c, np.uint8) for c, w in colours_and_widths], axis=1)


def check_scores(image, life):
    """The regions are those named by (first column, columns), with the score of their life."""
    masks, scores = segment_proposals(image, 99)
    columns = [(int(np.flatnonzero(m.any(0))[0]), int(m.any(0).sum())) for m in masks]
    assert sorted(columns) == sorted(life)
    assert scores.tolist() == pytest.approx([life[c] * (12 * c[1]) ** 0.5 for c in columns])  # 12 px high


def test_the_smallest_merge_first_and_scores_are_life_times_side():
    red, green, blue = (200, 40, 80), (40, 200, 120), (120, 80, 200)  # alike in no channel
    # green and blue are 20 of 60 columns: similarity 2 / 3; with red they are all 60: 0. First regions come at 2
    check_scores(
        strips((red, 40), (green, 10), (blue, 10)),
        {(0, 40): 2, (40, 10): 2 - 2 / 3, (50, 10): 2 - 2 / 3, (40, 20): 2 / 3, (0, 60): 0},
    )


def test_like_colours_merge_first():
    blue, red, almost_red = (40, 40, 200), (200, 40, 40), (207, 40, 40)  # 200 and 207 are in one bin of 16
    # the reds: 1 + 1 - 40 / 60; blue with them: a third, for green alone is alike, + 1 - 60 / 60
    check_scores(
        strips((blue, 20), (red, 20), (almost_red, 20)),
        {(0, 20): 2 - 1 / 3, (20, 20): 2 - 4 / 3, (40, 20): 2 - 4 / 3, (20, 40): 4 / 3 - 1 / 3, (0, 60): 0},
    )


def test_regions_are_connected_different_and_in_order():
    scene = ShapesDataset(1, seed=3)[0]
    masks, scores = segment_proposals(scene.image, 1000)
    n = len(masks)
    assert masks.shape == (n, 192, 192) and 20 < n <= 1000 and (np.diff(scores) <= 0).all()
    assert len(np.unique(np.packbits(masks, axis=-1).reshape(n, -1), axis=0)) == n
    assert all(connected(m) for m in masks[:12]) and masks.all((1, 2)).sum() == 1
    assert masks.sum((1, 2)).min() >= 20
    nested = masks.reshape(n, -1).astype(np.float32)
    common, size = nested @ nested.T, nested.sum(1)
    assert ((common == 0) | (common == np.minimum(size[:, None], size))).all()  # a tree: apart, or one in the other
    few = segment_proposals(scene.image, 10)
    assert (few.masks == masks[:10]).all() and (few.scores == scores[:10]).all()


def connected(mask):
    seen, todo = np.zeros_like(mask), [tuple(np.argwhere(mask)[0])]
    while todo:
        y, x = todo.pop()
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not seen[y, x]:
            seen[y, x] = True
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return (seen == mask).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 40)])
def test_a_plain_picture_is_one_region(size):
    masks, scores = segment_proposals(np.full((*size, 3), 7, np.uint8), 10)
    assert masks.shape == (1, *size) and masks.all() and np.isfinite(scores).all()


def test_more_scale_means_fewer_regions():
    image = ShapesDataset(1, seed=3)[0].image
    counts = [len(segment_proposals(image, 10_000, scale=scale).masks) for scale in (20, 100, 500)]
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize(
    "image, count, says",
    [
        (np.zeros((5, 5), np.uint8), 5, r"uint8 of shape \(5, 5\)"),
        (np.zeros((5, 5, 3)), 5, "float64"),
        (np.zeros((0, 5, 3), np.uint8), 5, "at least one pixel"),
        (np.zeros((5, 5, 3), np.uint8), 0, "count is 0"),
    ],
)
def test_what_is_no_picture(image, count, says):
    with pytest.raises(ValueError, match=says):
        segment_proposals(image, count)


def test_as_coco_results_they_can_be_judged():
    data = ShapesDataset(4, seed=1)
    scenes = [data[i] for i in range(4)]
    truth, windows, regions = to_coco(data), [], []
    for s in scenes:
        windows += sliding_boxes(192, 192, 300).to_coco(s.image_id)
        regions += segment_proposals(s.image, 300).to_coco(s.image_id)
    first = sliding_boxes(192, 192, 1)
    assert (rle_decode(windows[0]["segmentation"]) == first.masks[0]).all()
    assert windows[0]["bbox"] == [0.0, 0.0, 192.0, 192.0] or windows[0]["bbox"][2:] in ([192.0, 96.0], [96.0, 192.0])
    by_windows, by_regions = (average_recall(truth, r).ar[1000] for r in (windows, regions))
    assert 0 < by_windows < by_regions < 1  # shapes are no rectangles: only regions fit
