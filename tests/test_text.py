"""Text is read and written as UTF-8, also where the system's own encoding is another: every call says so."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = {"read_text": 0, "write_text": 1}  # of the argument `encoding`
NO_TEXT = {"Image", "tarfile", "os", "webbrowser"}  # whose `open` is another
FILES = sorted(p for folder in ("fairseg_lite", "tests", "lessons") for p in (ROOT / folder).rglob("*.py")) + [ROOT / "course.py"]
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))


def silent(code: str) -> list[int]:
    """Lines of calls that leave the encoding to the system."""
    return [node.lineno for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and leaves_it(node)]


def leaves_it(call: ast.Call) -> bool:
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if method else getattr(call.func, "id", "")
    given = {word.arg: word.value for word in call.keywords}
    if "encoding" in given or None in given:
        return False
    if method and name in PLACES:
        return len(call.args) <= PLACES[name]
    if name not in ("open", "fdopen") or (name == "open" and method and getattr(call.func.value, "id", "") in NO_TEXT):
        return False
    place = 0 if method and name == "open" else 1
    mode = given.get("mode", call.args[place] if len(call.args) > place else ast.Constant("r"))
    return isinstance(mode, ast.Constant) and "b" not in mode.value


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_file_says_how_text_is_read(path):
    assert silent(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_lesson_does(path):
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        code = re.sub(r"^(\s*)%.*", r"\1pass", "".join(cell["source"]), flags=re.M)  # %pip is no Python
        assert cell["cell_type"] != "code" or silent(code) == []


SILENT = (
    "p.read_text() | p.write_text(x) | open(p) | open(p, 'w') | p.open() | p.open('a') | open(p, mode='r') | os.fdopen(n, 'w')"
)
TOLD = "p.read_text('utf-8') | p.write_text(x, 'utf-8') | p.write_text(x, **options) | open(p, encoding='utf-8')"
BYTES = "p.write_bytes(x) | open(p, 'rb') | p.open('rb') | open(p, mode='wb') | os.open(p, 0) | Image.open(p)"


@pytest.mark.parametrize("code", SILENT.split(" | "))
def test_a_silent_call_is_seen(code):
    assert silent(f"import os\n{code}") == [2]


@pytest.mark.parametrize("code", f"{TOLD} | {BYTES}".split(" | "))
def test_others_are_not(code):
    assert silent(code) == []
