"""Boxes: corners and sizes exact both ways; clipping, regions, coding and voting against slow loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseg_lite.geometry.boxes import (
    clip_boxes,
    decode_boxes,
    encode_boxes,
    foveal_boxes,
    vote_boxes,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

eighths = st.integers(-8000, 8000).map(lambda n: n / 8)  # exact in float32
boxes = st.lists(st.lists(eighths, min_size=4, max_size=4), min_size=0, max_size=5).map(
    lambda rows: torch.tensor(rows).reshape(-1, 4)
)


@given(boxes)
def test_there_and_back(xyxy):
    xywh = xyxy_to_xywh(xyxy)
    for (x1, y1, x2, y2), row in zip(xyxy.tolist(), xywh.tolist(), strict=True):
        assert row == [x1, y1, x2 - x1, y2 - y1]
    assert torch.equal(xywh_to_xyxy(xywh), xyxy)


@given(boxes, st.integers(0, 50), st.integers(0, 50))
def test_clip_against_a_loop(xyxy, height, width):
    slow = [[min(max(v, 0), n) for v, n in zip(row, (width, height) * 2, strict=True)] for row in xyxy.tolist()]
    assert clip_boxes(xyxy, height, width).tolist() == slow


@pytest.mark.parametrize("function", [xyxy_to_xywh, xywh_to_xyxy, lambda b: clip_boxes(b, 7, 9)])
def test_any_leading_shape_and_dtype(function):
    for dtype in (torch.float64, torch.int64):
        stack = torch.arange(24, dtype=dtype).reshape(2, 3, 4)
        assert torch.equal(function(stack)[1, 2], function(stack[1, 2]))
        assert function(stack).dtype == dtype
    assert function(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
def test_not_four_numbers(shape):
    with pytest.raises(ValueError, match="wanted \\(..., 4\\): four numbers for each box"):
        clip_boxes(torch.zeros(shape), 7, 9)


def test_a_picture_of_negative_size():
    with pytest.raises(ValueError, match="picture of -1 x 9 px"):
        clip_boxes(torch.zeros(1, 4), -1, 9)


@pytest.mark.gpu
def test_cuda_is_cpu(cuda):
    xyxy = torch.tensor([[-3.0, 2, 50, 8], [1, 1, 2, 2]])
    for function in (xyxy_to_xywh, xywh_to_xyxy, lambda b: clip_boxes(b, 7, 9)):
        assert function(xyxy.to(cuda)).is_cuda
        assert torch.equal(function(xyxy.to(cuda)).cpu(), function(xyxy))


def some_boxes(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g, dtype=torch.float64) * 100
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=g, dtype=torch.float64) * 60], 1)


def test_foveal_boxes_against_a_loop():
    found = some_boxes(7)
    regions = foveal_boxes(found, (0.5, 1.0, 4.0))
    clipped = foveal_boxes(found, (0.5, 1.0, 4.0), clip=(90, 110))
    for f, factor in enumerate((0.5, 1.0, 4.0)):
        for i, (x1, y1, x2, y2) in enumerate(found.tolist()):
            x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * factor, (y2 - y1) * factor
            slow = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            assert regions[f, i].tolist() == pytest.approx(slow)
            assert clipped[f, i].tolist() == pytest.approx([min(max(v, 0), n) for v, n in zip(slow, (110, 90) * 2, strict=True)])
    assert torch.equal(regions[1], found) and foveal_boxes(torch.zeros(0, 4)).shape == (4, 0, 4)


def test_coding_against_a_loop_and_back():
    found, targets = some_boxes(9), some_boxes(9, seed=1)
    deltas = encode_boxes(found, targets)
    for (x1, y1, x2, y2), (a1, b1, a2, b2), delta in zip(found.tolist(), targets.tolist(), deltas.tolist(), strict=True):
        w, h = x2 - x1, y2 - y1
        slow = [(a1 + a2 - x1 - x2) / 2 / w, (b1 + b2 - y1 - y2) / 2 / h, math.log((a2 - a1) / w), math.log((b2 - b1) / h)]
        assert delta == pytest.approx(slow)
    torch.testing.assert_close(decode_boxes(found, deltas), targets)
    several = torch.stack([deltas, torch.zeros_like(deltas)], 1)  # (9, 2, 4): one box for each of two classes
    torch.testing.assert_close(decode_boxes(found, several), torch.stack([targets, found], 1))
    assert decode_boxes(torch.zeros(0, 4), torch.zeros(0, 3, 4)).shape == (0, 3, 4)


def test_a_wild_delta_stays_finite():
    assert decode_boxes(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 1000, 1000]])).isfinite().all()


@pytest.mark.parametrize("box", [[5.0, 5, 5, 9], [5.0, 9, 8, 5], [math.nan, 0, 1, 1]])
def test_encoding_wants_an_area(box):
    good = torch.tensor([[0.0, 0, 4, 4]])
    for pair in ((torch.tensor([box]), good), (good, torch.tensor([box]))):
        with pytest.raises(ValueError, match="drop boxes without area"):
            encode_boxes(*pair)


def test_voting_against_a_loop():
    found = some_boxes(30)
    scores = torch.rand(30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    voted = vote_boxes(found[:10], found, scores, threshold=0.2)
    for kept, ours in zip(found[:10].tolist(), voted.tolist(), strict=True):
        total, mean = 0.0, [0.0] * 4
        for box, score in zip(found.tolist(), scores.tolist(), strict=True):
            wide = max(min(kept[2], box[2]) - max(kept[0], box[0]), 0)
            high = max(min(kept[3], box[3]) - max(kept[1], box[1]), 0)
            areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (kept, box))
            if wide * high / (areas - wide * high) >= 0.2:
                total += score
                mean = [m + score * v for m, v in zip(mean, box, strict=True)]
        assert ours == pytest.approx([m / total for m in mean])
    assert not torch.equal(voted, found[:10])


def test_without_votes_a_box_stays():
    kept = torch.tensor([[0.0, 0, 10, 10]])
    assert torch.equal(vote_boxes(kept, torch.tensor([[50.0, 50, 60, 60]]), torch.ones(1)), kept)
    assert torch.equal(vote_boxes(kept, kept, torch.zeros(1)), kept)
    assert torch.equal(vote_boxes(kept, torch.zeros(0, 4), torch.zeros(0)), kept)
    assert vote_boxes(torch.zeros(0, 4), kept, torch.ones(1)).shape == (0, 4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: foveal_boxes(torch.zeros(2, 4), (1, 0)), "factors are"),
        (lambda: decode_boxes(torch.zeros(2, 4), torch.zeros(3, 4)), "do not fit"),
        (lambda: vote_boxes(torch.zeros(1, 4), torch.zeros(2, 4), torch.ones(3)), r"wanted \(2,\)"),
        (lambda: vote_boxes(torch.zeros(1, 4), torch.zeros(2, 4), -torch.ones(2)), "none below 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
