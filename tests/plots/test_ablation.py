"""The figure of an ablation: every run is in it, and the first row's mean is the line to beat."""

import pytest

from fairseg_lite.plots import ablation


def test_every_run_is_a_dot_and_every_mean_is_written():
    rows = {"fast-rcnn": [40.0, 41.0, 45.0], "foveal": [44.0]}
    axis = ablation(rows).axes[0]
    line, *dots = axis.lines
    assert list(line.get_ydata()) == [42.0, 42.0]
    assert [list(d.get_ydata()) for d in dots] == list(rows.values())
    assert [t.get_text() for t in axis.texts] == ["42.0", "44.0"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["fast\nrcnn", "foveal"]


@pytest.mark.parametrize("rows", [{}, {"a": [1.0], "b": []}])
def test_nothing_to_draw(rows):
    with pytest.raises(ValueError, match="wanted at least one row, and a run in each"):
        ablation(rows)
