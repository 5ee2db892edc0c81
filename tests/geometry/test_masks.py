"""Masks against pycocotools and against slow, obvious loops, on odd masks, damaged codes and odd windows."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fairseg_lite.geometry.masks import (
    mask_iou,
    mask_to_box,
    paste_masks,
    polygons_to_mask,
    polygons_to_rle,
    rle_counts,
    rle_decode,
    rle_encode,
)

seeds = st.integers(0, 2**32 - 1)


def random_mask(seed: int, h: int, w: int) -> np.ndarray:
    """Noise of any density, or long runs."""
    g = np.random.default_rng(seed)
    if seed % 2:
        return g.random((h, w)) < g.random()
    return (np.cumsum(g.random(h * w) < 0.05) % 2 == 1).reshape(w, h).T


# --- run-length code


@settings(max_examples=60)
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_rle_is_cocos(seed, h, w):
    mask = random_mask(seed, h, w)
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = json.loads(json.dumps(rle_encode(mask)))
    assert ours == {"size": [h, w], "counts": theirs["counts"].decode()}
    counts = rle_counts(ours)
    listed = {"size": [h, w], "counts": counts.tolist()}
    assert coco_mask.frPyObjects(dict(listed), h, w)["counts"] == theirs["counts"]
    for code in (ours, theirs, listed):
        np.testing.assert_array_equal(rle_decode(code), mask)


def test_rle_of_long_runs():
    mask = np.zeros((3000, 2000), bool)  # runs of more than 2^20 pixels, and differences below zero
    mask[:, 700:705], mask[17, 1999] = True, True
    code = rle_encode(mask)
    np.testing.assert_array_equal(coco_mask.decode(code).astype(bool), mask)
    np.testing.assert_array_equal(rle_decode(code), mask)


def test_rle_of_several_masks_and_of_tensors():
    masks = np.stack([random_mask(s, 7, 5) for s in range(3)])
    assert rle_encode(torch.from_numpy(masks)) == rle_encode(masks) == [rle_encode(m) for m in masks]
    assert rle_encode(masks[:0]) == []


@pytest.mark.parametrize("h, w", [(0, 0), (0, 4), (4, 0)])
def test_rle_of_no_pixels(h, w):
    code = rle_encode(np.zeros((h, w), bool))
    assert rle_decode(code).shape == (h, w)
    assert rle_encode(np.zeros((2, h, w), bool)) == [code, code]


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.uint8), np.zeros(4, bool), np.zeros((1, 1, 2, 2), bool)])
def test_rle_encode_wants_bool_pictures(mask):
    with pytest.raises(ValueError, match="wanted bool, \\(H, W\\) or \\(N, H, W\\)"):
        rle_encode(mask)


@pytest.mark.parametrize(
    "code, message",
    [
        (None, "RLE size is None"),
        ({"counts": [4]}, "RLE size is None; wanted \\[height, width\\]"),
        ({"size": [2], "counts": [4]}, "RLE size is \\[2\\]"),
        ({"size": [2, -2], "counts": [4]}, "RLE size is \\[2, -2\\]"),
        ({"size": [2.0, 2], "counts": [4]}, "RLE size"),
        ({"size": [2, 2]}, "RLE counts are a NoneType"),
        ({"size": [2, 2], "counts": [1, 2.5]}, "wanted text or a list of whole numbers"),
        ({"size": [2, 2], "counts": [True, 3]}, "wanted text or a list of whole numbers"),
        ({"size": [2, 2], "counts": [1, 2]}, "add up to 3 .* but 2 x 2 has 4 px"),
        ({"size": [2, 2], "counts": [1, -1, 4]}, "smallest -1"),
        ({"size": [2, 2], "counts": [2**70, 4 - 2**70]}, "more pixels than the 2 x 2 px"),
        ({"size": [2, 2], "counts": ""}, "no whole run-length code"),
        ({"size": [2, 3], "counts": "211"}, "add up to"),
        ({"size": [2, 3], "counts": "2111é"}, "no whole run-length code"),
        ({"size": [2, 3], "counts": "211Q"}, "no whole run-length code"),  # the last character says "more follow"
        ({"size": [2, 2], "counts": "o" * 12 + "0"}, "more than 45 bits"),
    ],
)
def test_damaged_rle_is_named(code, message):
    with pytest.raises(ValueError, match=message):
        rle_decode(code)


@settings(max_examples=200)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12), st.integers(0, 6), st.integers(0, 6))
def test_any_text_is_a_mask_or_a_named_error(text, h, w):
    try:
        counts = rle_counts({"size": [h, w], "counts": text})
    except ValueError as error:
        message = str(error)
    else:
        message = "RLE" if counts.sum() == h * w and (counts >= 0).all() else "no mask"
    assert message.startswith("RLE")


# --- polygons


def even_odd(points: np.ndarray, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixel centres an odd number of edges separates from the far left, and their distance to the next edge."""
    y, x = np.mgrid[:h, :w] + 0.5
    inside, distance = np.zeros((h, w), bool), np.full((h, w), np.inf)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= ((ay > y) != (by > y)) & (x > ax + (y - ay) * (bx - ax) / (by - ay))
        length = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-12)
        t = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length).clip(0, 1)
        distance = np.minimum(distance, np.hypot(ax + t * (bx - ax) - x, ay + t * (by - ay) - y))
    return inside, distance


@settings(max_examples=60)
@given(seeds, st.integers(3, 7), st.sampled_from([0.5, 1, 4, 1e3, 1e6]))
def test_polygons_are_filled_even_odd_inside_and_outside_the_picture(seed, corners, spread):
    h, w = 17, 23
    g = np.random.default_rng(seed)
    points = np.array([w, h]) * (0.5 + spread * g.uniform(-1, 1, (corners, 2)))
    mask = polygons_to_mask([points.ravel().tolist()], h, w)
    expected, distance = even_odd(points, h, w)
    sure = distance > 1  # COCO draws the outline itself in fifths of a pixel
    np.testing.assert_array_equal(mask[sure], expected[sure])
    np.testing.assert_array_equal(rle_decode(polygons_to_rle([points.ravel().tolist()], h, w)), mask)


@settings(max_examples=40)
@given(st.lists(st.lists(st.floats(0, 20), min_size=6, max_size=6), min_size=1, max_size=3))
def test_polygons_in_the_picture_are_cocos(polygons):
    theirs = coco_mask.merge(coco_mask.frPyObjects([[float(v) for v in p] for p in polygons], 20, 20))
    np.testing.assert_array_equal(polygons_to_mask(polygons, 20, 20), coco_mask.decode(theirs).astype(bool))


@pytest.mark.parametrize(
    "polygon, pixels",
    [
        ([-9, -9, 30, -9, 30, 30, -9, 30], 8 * 6),  # the whole picture and more
        ([-1e8, -1e8, 1e8, -1e8, 1e8, 1e8, -1e8, 1e8], 8 * 6),
        ([50, 50, 60, 50, 60, 60], 0),  # outside
        ([-1e8, 0, -1e8, 6, -9e7, 3], 0),
        ([3, 3, 3, 3, 3, 3], 0),  # a point
        ([1, 1, 5, 1, 1, 1], 0),  # a line
    ],
)
def test_odd_polygons(polygon, pixels):
    assert polygons_to_mask([polygon], 6, 8).sum() == pixels


def test_polygons_unite_and_none_is_empty():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [1, 0, 4, 0, 4, 2, 1, 2]
    assert polygons_to_mask([left, right], 2, 4).all()
    assert not polygons_to_mask([], 2, 4).any()
    assert polygons_to_mask([left], 0, 4).shape == (0, 4)


@pytest.mark.parametrize(
    "polygon, message",
    [
        ([0, 0, 1, 1], "4 coordinates; wanted an even number, at least 6"),
        ([0, 0, 1, 1, 2, 2, 3], "7 coordinates"),
        ([0, 0, 1, 1, 2, float("nan")], "beyond 1e9 px or not a number"),
        ([0, 0, 1, 1, 2, 1e12], "beyond 1e9 px"),
        ([[0, 0], [1, 1], [2, 0]], "not a flat list of numbers"),
        (["0", "0", "1", "1", "2", "2"], "not a flat list of numbers"),
        ([0, 0, [1], 1, 2, 2], "not a flat list of numbers"),
        (None, "not a flat list of numbers"),
    ],
)
def test_bad_polygons_are_named(polygon, message):
    with pytest.raises(ValueError, match=message):
        polygons_to_mask([polygon], 6, 8)


# --- boxes and IoU


@settings(max_examples=40)
@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_mask_to_box_is_cocos(seed, h, w):
    g = np.random.default_rng(seed)
    masks = g.random((4, h, w)) < g.choice([0.02, 0.3])
    for mask, box in zip(masks, mask_to_box(torch.from_numpy(masks)), strict=True):
        x, y, bw, bh = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
        assert box.tolist() == ([x, y, x + bw, y + bh] if mask.any() else [0, 0, 0, 0])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_mask_to_box_of_nothing(shape):
    boxes = mask_to_box(torch.zeros(shape, dtype=torch.bool))
    assert boxes.shape == (shape[0], 4)
    assert not boxes.any()


@pytest.mark.parametrize("chunk", [2**24, 40])
def test_mask_iou_against_a_loop(monkeypatch, chunk):
    monkeypatch.setattr("fairseg_lite.geometry.masks.CHUNK", chunk)
    g = torch.Generator().manual_seed(0)
    a, b = (torch.rand(n, 9, 11, generator=g) < torch.rand(n, 1, 1, generator=g) for n in (4, 5))
    a[1], b[2] = False, True
    b[0] = False
    slow = [[int((x & y).sum()) / max(int((x | y).sum()), 1) for y in b] for x in a]
    torch.testing.assert_close(mask_iou(a, b), torch.tensor(slow))
    assert mask_iou(a[:0], b).shape == (0, 5)
    assert mask_iou(a, b[:0]).shape == (4, 0)


def test_mask_iou_counts_exactly_beyond_float32():
    big = torch.ones(1, 4100, 4100, dtype=torch.bool)  # more than 2^24 pixels
    less = big.clone()
    less[0, 0, 0] = False
    assert mask_iou(big, less).item() == np.float32((4100**2 - 1) / 4100**2)


@pytest.mark.parametrize(
    "a, b, message",
    [
        (torch.ones(1, 2, 2), torch.ones(1, 2, 2).bool(), "masks are torch.float32"),
        (torch.ones(2, 2).bool(), torch.ones(1, 2, 2).bool(), "wanted bool, \\(N, H, W\\)"),
        (torch.ones(1, 2, 3).bool(), torch.ones(1, 2, 2).bool(), "\\(2, 3\\) and \\(2, 2\\) px cannot overlap"),
    ],
)
def test_mask_iou_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        mask_iou(a, b)


# --- pasting


def slow_paste(logits: torch.Tensor, box: list[float], h: int, w: int) -> np.ndarray:
    """The bilinear value at each pixel centre of the window; NaN outside of it."""
    (rows, cols), (x1, y1, x2, y2) = logits.shape, box
    out = np.full((h, w), np.nan)
    for i in range(h):
        for j in range(w):
            if x1 <= j + 0.5 < x2 and y1 <= i + 0.5 < y2:
                y = min(max((i + 0.5 - y1) * rows / (y2 - y1) - 0.5, 0), rows - 1)
                x = min(max((j + 0.5 - x1) * cols / (x2 - x1) - 0.5, 0), cols - 1)
                top, left = min(int(y), max(rows - 2, 0)), min(int(x), max(cols - 2, 0))
                low, right, fy, fx = min(top + 1, rows - 1), min(left + 1, cols - 1), y - top, x - left
                upper = (1 - fx) * logits[top, left] + fx * logits[top, right]
                lower = (1 - fx) * logits[low, left] + fx * logits[low, right]
                out[i, j] = (1 - fy) * upper + fy * lower
    return out


ODD_BOXES = [
    [2, 3, 9, 8],  # inside
    [0, 0, 14, 11],  # the picture
    [-5.25, -7.5, 3.5, 4.125],  # partly outside
    [-60, -50, 70, 90],  # far larger than the picture
    [20, 3, 25, 8],  # outside, right
    [-9, -9, 0, 0],  # outside, left and above
    [4, 5, 5, 6],  # one pixel
    [4.125, 5.25, 4.375, 5.5],  # less than a pixel, without a centre
    [4.25, 5.25, 4.75, 5.75],  # less than a pixel, around a centre
    [4.5, 5.5, 6.5, 7.5],  # edges on centres
    [5, 5, 5, 5],  # no width
    [9, 8, 2, 3],  # turned round
    [13.5, 10.5, 40, 40],  # one centre in the corner
]


def check_paste(logits: torch.Tensor, boxes: torch.Tensor, h: int, w: int, threshold: float) -> None:
    pasted = paste_masks(logits, boxes, h, w, threshold)
    assert pasted.shape == (len(boxes), h, w)
    assert pasted.dtype == torch.bool
    for logit, box, mask in zip(logits, boxes.tolist(), pasted.numpy(), strict=True):
        value = slow_paste(logit.double(), box, h, w) - threshold
        sure = np.isnan(value) | (np.abs(value) > 1e-4)
        np.testing.assert_array_equal(mask[sure], (value > 0)[sure], err_msg=str(box))


@pytest.mark.parametrize("budget", [2**20, 1])
@pytest.mark.parametrize("m", [1, 2, 7])
def test_paste_against_a_loop(monkeypatch, m, budget):
    monkeypatch.setattr("fairseg_lite.geometry.masks.PASTE", budget)
    logits = torch.randn(len(ODD_BOXES), m, m, generator=torch.Generator().manual_seed(m))
    check_paste(logits, torch.tensor(ODD_BOXES), 11, 14, 0.0)
    check_paste(logits, torch.tensor(ODD_BOXES), 11, 14, 0.3)


@settings(max_examples=30)
@given(*[st.integers(-160, 120)] * 2, *[st.integers(1, 240)] * 2, seeds)
def test_paste_of_any_window(x, y, width, height, seed):
    x1, y1, x2, y2 = x / 8, y / 8, (x + width) / 8, (y + height) / 8
    logits = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(seed % 1000))
    check_paste(logits, torch.tensor([[x1, y1, x2, y2]]), 10, 12, 0.0)


def test_a_constant_mask_fills_exactly_its_window():
    boxes = torch.tensor([[1.0, 2, 6, 5], [-3, -3, 2, 2]])
    masks = paste_masks(torch.full((2, 4, 4), 0.5), boxes, 8, 9)
    assert mask_to_box(masks).tolist() == [[1, 2, 6, 5], [0, 0, 2, 2]]
    assert masks.sum((1, 2)).tolist() == [15, 4]
    assert not paste_masks(torch.full((2, 4, 4), 0.5), boxes, 8, 9, threshold=0.5).any()  # strictly above


def test_paste_of_nothing_and_into_nothing():
    assert paste_masks(torch.zeros(0, 4, 4), torch.zeros(0, 4), 5, 6).shape == (0, 5, 6)
    assert paste_masks(torch.ones(1, 4, 4), torch.tensor([[0.0, 0, 4, 4]]), 0, 6).shape == (1, 0, 6)
    assert not paste_masks(torch.ones(1, 4, 4), torch.full((1, 4), float("nan")), 5, 6).any()


@pytest.mark.parametrize("logits, boxes", [((2, 4), (2, 4)), ((2, 4, 4), (1, 4)), ((2, 4, 4), (2, 5))])
def test_paste_refuses_other_shapes(logits, boxes):
    with pytest.raises(ValueError, match="wanted \\(N, M, M\\) and \\(N, 4\\)"):
        paste_masks(torch.zeros(logits), torch.zeros(boxes), 5, 6)


@pytest.mark.gpu
def test_cuda_is_cpu(cuda):
    g = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(len(ODD_BOXES), 7, 7, generator=g), torch.tensor(ODD_BOXES)
    cpu, gpu = paste_masks(logits, boxes, 11, 14), paste_masks(logits.to(cuda), boxes.to(cuda), 11, 14)
    assert gpu.is_cuda
    assert (gpu.cpu() != cpu).sum() <= 1
    torch.testing.assert_close(mask_to_box(gpu).cpu(), mask_to_box(gpu.cpu()))
    a, b = cpu[:6], cpu[6:]
    torch.testing.assert_close(mask_iou(a.to(cuda), b.to(cuda)).cpu(), mask_iou(a, b))
    assert rle_encode(gpu) == rle_encode(gpu.cpu())
