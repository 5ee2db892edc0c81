"""Figures of lessons: words beside them, charts sharp, pictures small; and those that a reader can change."""

import base64
import io

import numpy as np
import pytest
from IPython.utils.capture import capture_output
from PIL import Image

from fairseg_lite import plots
from fairseg_lite.course import lesson
from fairseg_lite.errors import InputError
from tests.course.test_predictions import run

WORDS = "A line that rises from left to right"


def shown(figure, monkeypatch, **values):
    """What is displayed: kind, picture, and what is said of it. A function of some values is given to `slide`."""
    told = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: told.append((data, metadata)))
    lesson.slide(figure, alt=WORDS, **values) if values else lesson.show(figure, alt=WORDS)
    ((data, metadata),) = told
    (mime,) = metadata
    assert data["text/plain"] == metadata[mime]["alt"] == WORDS
    return mime, Image.open(io.BytesIO(base64.b64decode(data[mime]))), metadata[mime]


def test_a_chart_is_png_at_twice_the_size_of_the_page(monkeypatch):
    figure = plots.curves({"a": ([0, 1], [0, 1])}, x="x", y="y")
    mime, image, about = shown(figure, monkeypatch)
    assert mime == "image/png" and image.size == (2 * about["width"], 2 * about["height"])
    assert about["width"] == round(figure.get_figwidth() * figure.dpi)


def test_pictures_are_jpeg_and_small(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    mime, image, about = shown(plots.grid([noise]), monkeypatch)
    assert mime == "image/jpeg" and "width" not in about and image.mode == "RGB"


@pytest.mark.parametrize("words", ["", "a chart"])
def test_words_that_say_nothing_are_refused(words):
    with pytest.raises(InputError, match="wanted a sentence"):
        lesson.show(plots.curves({"a": ([0, 1], [0, 1])}, x="x", y="y"), alt=words)


def test_it_shows_in_a_notebook_once():
    with capture_output() as said:
        assert lesson.show(plots.curves({"a": ([0, 1], [0, 1])}, x="x", y="y"), alt=WORDS) is None
    assert WORDS in said.stdout or said.outputs


def line(slope=1, end=1):
    return plots.curves({"a": ([0, end], [0, slope])}, x="x", y="y", size=(3, 2))


def test_a_slide_is_one_picture_of_both_ends_and_the_middle(monkeypatch):
    drawn = []

    def draw(slope, end):
        drawn.append((slope, end))
        return line(slope, end)

    mime, image, about = shown(draw, monkeypatch, slope=[1, 2, 3, 4, 5], end=range(1, 4))
    assert drawn == [(1, 1), (3, 2), (5, 3)] and mime == "image/png"
    one = shown(line(), monkeypatch)[1]
    assert image.size == (3 * one.width, one.height) == (2 * about["width"], 2 * about["height"])


def test_two_values_are_two_pictures_and_wide_ones_stand_below_each_other(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    each = [shown(plots.grid([noise] * n, side=6), monkeypatch)[1] for n in (1, 2)]
    mime, image, _ = shown(lambda n: plots.grid([noise] * n, side=6), monkeypatch, n=(1, 2))
    assert mime == "image/jpeg" and image.size == (each[1].width, each[0].height + each[1].height)
    below = np.asarray(image)[each[0].height :].astype(float)
    assert np.abs(below - np.asarray(each[1])).mean() < 3, "the second is whole"


@pytest.mark.parametrize("values", [{}, {"slope": [1]}, {"slope": [1, 2], "end": []}])
def test_a_slide_without_a_way_to_go_is_refused(values):
    with pytest.raises(InputError, match="wanted a name with at least two"):
        lesson.slide(line, alt=WORDS, **values)


DRAW = """
from fairseg_lite import plots
seen = []
def draw(n):
    seen.append(n)
    return plots.curves({"a": ([0, 1], [0, n])}, x="x", y="y", title=f"n = {n}")
lesson.slide(draw, alt="A line that becomes steeper with n", n=(1, 2, 5))
"""
MOVE = "made(w.SelectionSlider)[-1].value = 5"
SEEN = "print(seen, len(made(w.SelectionSlider)), [len(o.outputs) for o in made(w.Output)])"


def test_somebody_can_move_it_and_the_picture_stays_beside():
    shown = run(DRAW, SEEN, MOVE, SEEN)
    assert "widget-view+json" in shown[0] and "'image/png'" in shown[0], "what has no widgets shows the picture"
    assert shown[1] == "[1, 2, 5, 2] 1 [1]\n", "the picture, then the slider's middle"
    assert shown[3] == "[1, 2, 5, 2, 5] 1 [1]\n", "and one figure in its place"


def test_where_there_are_no_widgets_there_is_the_picture():
    hide = (
        "import importlib.util as u\nfind = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'ipywidgets' else find(n, *a)"
    )
    for shown in (run(hide, DRAW, SEEN)[1:], run(DRAW, SEEN, asked=False)):
        assert "'image/png'" in shown[0] and "widget" not in shown[0] and shown[1] == "[1, 2, 5] 0 []\n"
