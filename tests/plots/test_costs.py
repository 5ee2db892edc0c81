"""The figures of lesson 07 show the numbers that they are given, and refuse what they cannot show."""

from dataclasses import replace

import matplotlib.colors as colors
import pytest
import torch

from fairseg_lite.bench import QUICK, time_scene
from fairseg_lite.plots import CYCLE, stages, tradeoff
from fairseg_lite.plots.charts import STAGES

COARSE, SHARP = {"masks": 0.01, "trunk": 0.03}, {"trunk": 0.03, "masks": 0.05, "lateral": 0.001, "polish": 0.01}


def test_a_bar_for_each_stage_end_to_end_in_the_order_of_propose():
    figure = stages({"coarse": COARSE, "sharp": SHARP})
    axis = figure.axes[0]
    bars = [(round(b.get_x(), 6), round(b.get_width(), 6), round(b.get_y() + 0.35, 6)) for b in axis.patches]
    assert bars == [(0, 30, 0), (30, 10, 0), (0, 30, 1), (30, 1, 1), (31, 50, 1), (81, 10, 1)]
    shades = [colors.to_hex(b.get_facecolor()).upper() for b in axis.patches]
    assert shades[:2] == [STAGES["trunk"], STAGES["masks"]] == [shades[2], shades[4]]
    assert [t.get_text() for t in axis.texts] == ["75%", "25%", "33%", "55%", "11%"]  # none on the sliver
    assert [t.get_text() for t in axis.get_yticklabels()] == ["coarse", "sharp"] and axis.yaxis_inverted()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["trunk", "lateral", "masks", "polish"]


def test_every_stage_of_the_library_has_its_colour():
    run = time_scene(replace(QUICK, model="sharpmask_tiny"), torch.float32, torch.device("cpu"))["stages"]
    assert list(STAGES) == list(run) and len(set(STAGES.values())) == len(STAGES)


@pytest.mark.parametrize("nothing", [{}, {"a": {}}, {"a": COARSE, "b": {"trunk": 0.0}}])
def test_time_of_nothing_is_refused(nothing):
    with pytest.raises(ValueError, match="without a stage to draw"):
        stages(nothing)


def test_points_ranges_and_labels_are_the_numbers():
    lines = {"DeepMask": [(0.1, 0.4, "10"), (0.2, 0.5, "100")], "SharpMask": [(0.3, 0.6, "few", 0.5, 0.65)]}
    axis = tradeoff(lines, x="seconds", y="AR").axes[0]
    deep, sharp = axis.lines
    assert (deep.get_xdata().tolist(), deep.get_ydata().tolist()) == ([0.1, 0.2], [0.4, 0.5])
    (ends,) = axis.collections[0].get_segments()
    assert ends.tolist() == [[0.3, 0.5], [0.3, 0.65]] and len(axis.collections) == 1
    assert [t.get_text() for t in axis.texts] == ["10", "100", "few"]
    assert [colors.to_hex(line.get_color()).upper() for line in (deep, sharp)] == list(CYCLE[:2])
    assert deep.get_marker() != sharp.get_marker() and deep.get_linestyle() == "-"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("seconds", "AR")
    assert tradeoff({"a": [(1, 2, "b")]}, x="", y="", joined=False).axes[0].lines[0].get_linestyle() == "None"


@pytest.mark.parametrize("nothing", [{}, {"a": []}])
def test_no_point_is_refused(nothing):
    with pytest.raises(ValueError, match="no point to draw"):
        tradeoff(nothing, x="", y="")
