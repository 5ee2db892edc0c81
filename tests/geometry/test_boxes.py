"""Box coding: exact both ways, and clipping against a slow loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseg_lite.geometry.boxes import clip_boxes, xywh_to_xyxy, xyxy_to_xywh

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


@pytest.mark.parametrize("function", [xyxy_to_xywh, xywh_to_xyxy, lambda b: clip_boxes(b, 7, 9)])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
def test_not_four_numbers(function, shape):
    with pytest.raises(ValueError, match="wanted \\(..., 4\\): four numbers for each box"):
        function(torch.zeros(shape))


def test_a_picture_of_negative_size():
    with pytest.raises(ValueError, match="picture of -1 x 9 px"):
        clip_boxes(torch.zeros(1, 4), -1, 9)


@pytest.mark.gpu
def test_cuda_is_cpu(cuda):
    xyxy = torch.tensor([[-3.0, 2, 50, 8], [1, 1, 2, 2]])
    for function in (xyxy_to_xywh, xywh_to_xyxy, lambda b: clip_boxes(b, 7, 9)):
        assert function(xyxy.to(cuda)).is_cuda
        assert torch.equal(function(xyxy.to(cuda)).cpu(), function(xyxy))
