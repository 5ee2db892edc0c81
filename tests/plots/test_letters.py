"""Names of every script are drawn with a font that has their letters; where there is none, that is said once."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import ImageFont

from fairseg_lite.plots import confusion_table, letters, named


@pytest.fixture
def cats(tmp_path):
    """A font in which the sign for a cat is a black square of a known size, and no other letter but "a" and digits."""
    names = {ord("猫"): "cat", **{ord(c): f"c{ord(c)}" for c in "a.0123456789"}}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 900)), pen.lineTo((900, 900)), pen.lineTo((900, 0)), pen.closePath()
    square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    builder.setupGlyf({".notdef": nothing, **{n: square if n == "cat" else nothing for n in names.values()}})
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(tmp_path / "cats.ttf")
    before = list(fontManager.ttflist)
    letters._having.cache_clear()
    fontManager.addfont(tmp_path / "cats.ttf")
    yield tmp_path / "cats.ttf"
    fontManager.ttflist[:] = before
    letters._having.cache_clear()


@pytest.fixture
def no_cats():
    letters._having.cache_clear(), letters._lacking.cache_clear()
    if letters._having(frozenset("猫")):
        pytest.skip("this machine has a Chinese font")


def test_each_text_gets_a_font_that_has_its_letters(cats):
    assert letters.font_for("cat .97", 20).getname() == ImageFont.load_default(size=20).getname()
    assert letters.font_for("Tür .97", 20).getname()[0] == letters.font_for("кошка", 20).getname()[0] == "DejaVu Sans"
    assert letters.font_for("猫 .97", 20).path == str(cats)
    assert letters.families(["dog", "猫", "Tür"]) == ["DejaVu Sans", "Cats"]


def test_a_name_is_drawn_with_its_own_glyphs(cats, capsys):
    drawn = named(np.zeros((640, 640, 3), np.uint8), np.array([[100, 200, 300, 400]]), ["猫"], [0])
    label = drawn[184:199, 100:130]
    ground = label[0, -1]
    assert (label[:, :14] != ground).any(2).sum() > 100, "a square, not an outline of one"
    assert capsys.readouterr().err == ""


def test_letters_of_no_font_are_told_once(no_cats, capsys):
    for _ in range(2):
        named(np.zeros((64, 64, 3), np.uint8), np.array([[10, 20, 30, 40]]), ["猫 0.97"], [0])
    assert capsys.readouterr().err.splitlines() == [
        "no font here has the letters 猫: boxes are drawn for them; install one that has, such as Noto"
    ]


def test_letters_of_no_font_are_told_once_beside_a_table(no_cats, tmp_path, capsys, recwarn):
    figure = confusion_table(np.zeros((3, 3), int), ["猫", "dog"])
    figure.savefig(tmp_path / "c.png")
    assert capsys.readouterr().err.count("no font here has the letters 猫") == 1 and not len(recwarn)


def test_a_table_has_room_beside_long_names(tmp_path, recwarn):
    figure = confusion_table(np.eye(3, dtype=int), ["very long " * 20, "dog"])
    figure.savefig(tmp_path / "c.png")
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == ["very long very long very long...", "dog", "background"]
    assert not len(recwarn) and figure.axes[0].get_position().width > 0.2


def test_long_names_keep_their_score():
    font = ImageFont.load_default(size=14)
    shown = letters.fitting("very long " * 20 + "0.97", 200, font)
    assert shown.startswith("very long very") and shown.endswith("... 0.97") and font.getlength(shown) <= 200
    assert letters.fitting("two\nlines\t0.5", 200, font) == "two lines 0.5"
    assert letters.fitting("cat", 1, font) == "c..." and letters.fitting("", 9, font) == ""
    assert named(np.zeros((64, 64, 3), np.uint8), np.array([[1, 2, 30, 40]]), ["x" * 500], [0]).shape == (640, 640, 3)


def test_names_are_no_formulas(tmp_path):
    figure = confusion_table(np.zeros((3, 3), int), ["Tür $_{x}^2$", "$a^{$"])
    figure.savefig(tmp_path / "c.png")
    assert figure.axes[0].get_yticklabels()[0].get_text() == "Tür $_{x}^2$"
