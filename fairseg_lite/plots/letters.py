"""Fonts that have the letters of a text: names of categories come in every script of the world."""

import sys
import warnings
from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

NO_LETTERS = ("Last Resort", "STIX", "cm", "DejaVu Sans Display")  # fonts whose glyphs are boxes or formulas


def font_for(text: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font to draw a text with.

    Args: text of any script; size in pixels.
    Returns: Pillow's own font for ASCII; else the first of matplotlib's, DejaVu Sans before all, that has every letter. Where
        none has, the text's letters are said on stderr, once, and Pillow's own font draws a box for each.
    """
    if not text.isascii():
        letters = frozenset(c for c in text if c.isprintable() and not c.isspace())
        for path, _ in _having(letters):
            try:
                return ImageFont.truetype(path, size)
            except OSError:  # pictures of letters, of one size alone
                continue
        _lacking("".join(sorted(c for c in letters if not c.isascii())))
    return ImageFont.load_default(size=size)


def families(texts: Iterable[str]) -> list[str]:
    """Names of fonts for matplotlib, which looks for each letter in the first that has it; where none has, it is said, once."""
    wanted = [frozenset("".join(t.split())) for t in texts if not t.isascii()]
    found = [next(iter(_having(letters)), (None, None))[1] for letters in wanted]
    if missing := [letters for letters, name in zip(wanted, found, strict=True) if not name]:
        _lacking("".join(sorted(c for c in frozenset.union(*missing) if not c.isascii())))
    return list(dict.fromkeys(["DejaVu Sans", *(name for name in found if name)]))


def fitting(text: str, width: float, font) -> str:
    """The text in one line of at most so many pixels; what is too long loses letters before its last word."""
    head, space, last = " ".join(text.split()).rpartition(" ")
    if not space:
        head, last = last, ""
    shown = head + space + last
    while len(head) > 1 and font.getlength(shown) > width:
        head = head[:-1]
        shown = f"{head.rstrip()}...{space}{last}"
    return shown


@cache
def _having(letters: frozenset[str]) -> list[tuple[str, str]]:
    """(file, name) of every font with all of these letters."""
    ranked = [(f.name != "DejaVu Sans", f.style != "normal", f.weight != 400, f.name, f.fname) for f in fontManager.ttflist]
    fonts = {file: name for *_, name, file in sorted(ranked) if not name.startswith(NO_LETTERS)}
    wanted = {ord(c) for c in letters}
    return [(file, name) for file, name in fonts.items() if wanted <= _glyphs(file)]


@cache
def _glyphs(file: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _lacking(letters: str) -> None:
    advice = "boxes are drawn for them; install one that has, such as Noto"
    print(f"no font here has the letters {letters}: {advice}", file=sys.stderr)
    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # as matplotlib would say for each letter and figure
