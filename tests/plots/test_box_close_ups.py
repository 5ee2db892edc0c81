"""Two boxes around an object, cut out: both are drawn where they are, and the cut-out holds both."""

import numpy as np
import pytest

from fairseg_lite.plots import box_close_ups

PICTURE = np.zeros((60, 80, 3), np.uint8)


@pytest.mark.parametrize("corner", [(0, 0), (30, 20), (60, 40)])
def test_the_cut_out_holds_both_boxes_and_stays_in_the_picture(corner):
    truth = np.array([[*corner, corner[0] + 20, corner[1] + 20]])
    axis = box_close_ups([PICTURE], truth, truth + [[2, 0, 0, -5]], ["a"]).axes[0]
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert 0 <= left <= truth[0, 0] and truth[0, 2] <= right <= 80
    assert 0 <= top <= truth[0, 1] and truth[0, 3] <= bottom <= 60
    assert {tuple(r.get_bbox().extents.astype(int)) for r in axis.patches} == {
        tuple(truth[0]), (corner[0] + 2, corner[1], corner[0] + 20, corner[1] + 15)
    }  # fmt: skip
    assert axis.get_title() == "a"


def test_every_box_needs_its_truth():
    with pytest.raises(ValueError, match="1 pictures, 2 true boxes and 1 others"):
        box_close_ups([PICTURE], np.zeros((2, 4)), np.zeros((1, 4)))
