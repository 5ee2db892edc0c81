"""Figures of lessons: words beside them, charts sharp, pictures small."""

import base64
import io

import numpy as np
import pytest
from IPython.utils.capture import capture_output
from PIL import Image

from fairseg_lite import plots
from fairseg_lite.course import lesson
from fairseg_lite.errors import InputError

WORDS = "A line that rises from left to right"


def shown(figure, monkeypatch):
    told = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: told.append((data, metadata)))
    lesson.show(figure, alt=WORDS)
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
