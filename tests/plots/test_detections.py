"""Named objects in pictures, and the charts of precision."""

import numpy as np
import pytest
import torch

from fairseg_lite.plots import (
    CYCLE,
    apart,
    close_ups,
    confusion_table,
    grid,
    hits,
    named,
    patch_hits,
    precision_curve,
    tinted,
)  # fmt: skip
from fairseg_lite.plots.charts import rgb


def test_each_object_has_the_colour_of_its_kind():
    image, boxes = (
        np.full((400, 640, 3), 128, np.uint8),
        np.array([[20, 120, 120, 220], [300, 120, 400, 220], [500, 300, 600, 390]]),
    )
    drawn = named(image, boxes, ["cat .9", "dog .8", "cat .7"], [4, 1, 4])
    assert drawn.shape == image.shape
    for (x1, y1, x2, y2), kind in zip(boxes, (4, 1, 4), strict=True):
        for y, x in ((y1, x1 + 50), (y2 - 1, x1 + 50), (y1 + 50, x1), (y1 + 50, x2 - 1)):
            assert drawn[y, x].tolist() == rgb(CYCLE[kind]).tolist()
        assert (drawn[y1 - 12 : y1 - 4, x1 : x1 + 30] != 128).any(), "a name above"
    assert (drawn[230:270] == 128).all(), "nothing anywhere else"


def test_the_best_lies_on_top_and_masks_are_tinted():
    image, masks = np.zeros((640, 640, 3), np.uint8), np.ones((2, 640, 640), bool)
    drawn = named(image, np.array([[0, 0, 640, 640]] * 2), ["a", "b"], [0, 1], masks)
    best, other = (rgb(CYCLE[k]) for k in (0, 1))
    assert drawn[639, 300].tolist() == best.tolist(), "the box of the best"
    assert np.abs(drawn[300, 300] - (0.45 * best + 0.55 * 0.45 * other)).max() <= 1


def test_small_pictures_grow_and_names_stay_inside():
    drawn = named(np.zeros((96, 64, 3), np.uint8), np.array([[60.5, 0, 64, 5], [-5, 90, 3, 200]]), ["wide name"] * 2, [0, 1])
    assert drawn.shape == (576, 384, 3)
    assert named(np.zeros((9, 9, 3), np.uint8), np.zeros((0, 4)), [], []).shape == (639, 639, 3)


def test_precision_curves_of_several_runs():
    figure = precision_curve({"a": {0.5: 0.4, 0.6: 0.2}, "b": [{0.5: 0.1}, {0.5: 0.3}]})
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[0.4, 0.2], [pytest.approx(0.2)]]
    for lines in ({}, {"a": []}, {"a": {}}):
        with pytest.raises(ValueError, match="nothing to draw"):
            precision_curve(lines)
    with pytest.raises(ValueError, match="runs of 'a' are unlike"):
        precision_curve({"a": [{0.5: 1}, {0.6: 1}]})


def test_a_confusion_table_shows_its_counts():
    figure = confusion_table(np.array([[8, 1, 1], [0, 5, 2], [3, 0, 0]]), ["cat", "dog"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["8", "1", "1", "5", "2", "3"]
    with pytest.raises(ValueError, match=r"wanted \(4, 4\)"):
        confusion_table(np.zeros((3, 3), int), ["a", "b", "c"])


def test_masks_of_large_pictures_are_asked_for_one_by_one():
    asked = []

    def masks():
        for i in range(9):
            asked.append(i)
            yield np.arange(9)[None] == i

    assert apart(masks(), 2) == [0, 1] and asked == [0, 1, 2]
    image = np.full((1, 9, 3), 200, np.uint8)
    assert (tinted(image, masks()) == tinted(image, np.eye(9, dtype=bool)[:, None])).all()


def test_masks_of_a_smaller_picture_are_enlarged():
    picture, mask = np.zeros((6, 6, 3), np.uint8), np.zeros((3, 3), bool)
    mask[1, 2] = True
    large = np.zeros((6, 6), bool)
    large[2:4, 4:6] = True
    assert np.array_equal(tinted(picture, [mask]), tinted(picture, [large])) and tinted(picture, [mask]).any()
    assert np.array_equal(hits(picture, mask, ~mask), hits(picture, large, ~large))


def test_an_outline_shows_on_any_ground():
    mask = np.zeros((9, 9), bool)
    mask[3:6, 3:6] = True
    for ground in (rgb(CYCLE[0]).astype(np.uint8), np.uint8(255)):
        drawn = tinted(np.full((9, 9, 3), ground, np.uint8), [mask])
        edge, around = drawn[3, 3:6].astype(int), drawn[2, 3:6].astype(int)
        assert (around == 255).all() and (edge == rgb(CYCLE[0])).all(), "its colour within, white around it"
    whole = tinted(np.zeros((9, 9, 3), np.uint8), [np.ones((9, 9), bool)])
    assert (whole == whole[4, 4]).all(), "the border of the picture is no outline"


def test_rows_of_a_grid_have_names():
    figure = grid([np.zeros((4, 4, 3), np.uint8)] * 6, ["a", "b", "c"], columns=3, rows=["before", "after"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["before", "", "", "after", "", ""]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", "", "", ""]


def test_rows_of_cut_outs_and_of_patches_have_names():
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    figure = close_ups([np.zeros((40, 40, 3), np.uint8)] * 2, [mask] * 2, [mask] * 2, rows=["picture", "mask"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["picture", "", "mask", ""]
    masks = torch.zeros(16, 8, 8, dtype=torch.bool)
    figure = patch_hits(torch.zeros(16, 3, 40, 40), masks, masks, rows=["random", "trained"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["random", *[""] * 7, "trained", *[""] * 7]
