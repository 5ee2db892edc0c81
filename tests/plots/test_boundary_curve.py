"""The curve of lesson 06 shows the numbers that it is given, and refuses what it cannot show."""

import matplotlib.colors as colors
import numpy as np
import pytest

from fairseg_lite.plots import CYCLE, boundary_curve

DEEP, SHARP = {1: 0.41, 2: 0.52, 8: 0.75}, [{1: 0.5, 2: 0.6}, {2: 0.8, 1: 0.7}, {1: 0.6, 2: 0.7}]


def test_lines_bands_and_labels_are_the_numbers():
    axis = boundary_curve({"DeepMask": DEEP, "SharpMask": SHARP}).axes[0]
    deep, sharp = axis.lines
    assert (deep.get_xdata().tolist(), deep.get_ydata().tolist()) == ([1, 2, 8], [0.41, 0.52, 0.75])
    np.testing.assert_allclose(sharp.get_ydata(), [0.6, 0.7])
    (band,) = axis.collections  # only where there are several runs
    corners = band.get_paths()[0].vertices
    assert {(x, round(y, 6)) for x, y in corners} == {(1, 0.5), (1, 0.7), (2, 0.6), (2, 0.8)}
    assert [colors.to_hex(line.get_color()).upper() for line in (deep, sharp)] == list(CYCLE[:2])
    assert deep.get_marker() != sharp.get_marker()  # not by colour alone
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["DeepMask", "SharpMask"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "2", "8"]
    assert "px" in axis.get_xlabel() and "IoU" in axis.get_ylabel()


@pytest.mark.parametrize(
    "lines, says",
    [
        ({}, "hold nothing to draw"),
        ({"a": {}}, "hold nothing to draw"),
        ({"a": []}, "hold nothing to draw"),
        ({"a": [{1: 0.5}, {}]}, "hold nothing to draw"),
        ({"a": [{1: 0.5}, {2: 0.5}]}, "runs of 'a' are unlike"),
    ],
)
def test_what_cannot_be_drawn_is_refused(lines, says):
    with pytest.raises(ValueError, match=says):
        boundary_curve(lines)
