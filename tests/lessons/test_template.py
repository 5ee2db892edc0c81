"""Every lesson begins alike: its head says what one can do afterwards, how long it takes, what it needs, and where to go.

python -m tests.lessons.test_template     writes links and badges anew: after a lesson was added, or the repository moved
"""

import contextlib
import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from fairseg_lite import __version__
from fairseg_lite.course import lesson
from fairseg_lite.errors import InputError
from tests.lessons.test_lessons import PATHS, PROJECT, ROOT, code_cells, each, load, source

ADDRESS = PROJECT["urls"]["Repository"]  # nowhere else is it decided
COLAB = f"https://colab.research.google.com/github/{ADDRESS.removeprefix('https://github.com/')}/blob/main/lessons"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
TABLE = "| You will build | Minutes to read | Minutes to run | Needs | Paper |\n|---|---|---|---|---|\n"
GOALS = "**Afterwards you can**"
SETUP = f"""import importlib.util

# "smoke" only shows that the lesson runs, in about a minute
SCALE = "lesson"  # @param ["lesson", "smoke"]
if importlib.util.find_spec("fairseg_lite") is None:  # Colab, Kaggle: the course is not there yet
    %pip install -q "fairseg-lite @ git+{ADDRESS}@v{__version__}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("fairseg_lite") is None:
        raise SystemExit("The course could not be installed, for the reason above. Is there a network? Then run this cell again.")

import numpy as np
import torch

from fairseg_lite import plots
from fairseg_lite.course import lesson

here = lesson.setup(SCALE)"""
PLACE = re.compile(r"github\.com/(?!facebookresearch/)([\w-]+/[\w-]+)|/github/([\w-]+/[\w-]+)/blob")
WORDS, LINES = 180, 12  # that one reads in a minute, of prose and of code


def title(path: Path) -> str:
    return source(load(path)["cells"][0]).partition("\n")[0].removeprefix("# ")


def links(path: Path) -> str:
    """The line under the title. Neighbours are relative, for copies to lead to copies; the rest is in the repository alone."""
    i, number = PATHS.index(path), path.stem[:2]
    found = [f"[previous: {title(PATHS[i - 1])}]({PATHS[i - 1].name})"] if i else []
    found += [f"[next: {title(PATHS[i + 1])}]({PATHS[i + 1].name})"] if i + 1 < len(PATHS) else []
    found += [f"[glossary]({ADDRESS}/blob/main/docs/glossary.md)"]
    found += [f"[solutions]({ADDRESS}/blob/main/fairseg_lite/course/exercises/lesson{number}.py)"]
    return " | ".join(found)


def head(path: Path) -> str:
    """The first cell as it has to be: title, links and badge made anew, what follows as it is there."""
    rest = source(load(path)["cells"][0]).partition("\n| ")[2]
    return f"# {title(path)}\n\n{links(path)}\n\n{BADGE}({COLAB}/{path.name})\n\n| {rest}"


def minutes_to_read(path: Path) -> float:
    """At an even pace, without the exercises."""
    cells = [(c["cell_type"], source(c)) for c in load(path)["cells"][1:]]
    words = sum(len(text.split()) for kind, text in cells if kind == "markdown")
    return words / WORDS + sum(len(text.splitlines()) for kind, text in cells if kind == "code") / LINES


@each()
def test_the_head_has_links_badge_table_and_goals(path):
    first = source(load(path)["cells"][0])
    assert first == head(path), "python -m tests.lessons.test_template writes links and badges"
    table, _, goals = first.partition("\n| ")[2].partition(f"\n\n{GOALS}\n\n")
    assert f"| {table}".startswith(TABLE) and re.match(r"\| .+ \| \d+ \| \d+\b.* \| .+ \| .+ \|$", table.splitlines()[-1])
    assert re.match(r"\d\d ", title(path)) and 2 <= len(goals.splitlines()) <= 4
    assert all(line.startswith("- ") for line in goals.splitlines()), f"under {GOALS} stands a list"


@pytest.fixture(autouse=True)
def style():
    """Set-up changes the style of figures: of these tests only."""
    with matplotlib.rc_context():
        yield


@each()
def test_the_set_up_cell_is_the_same_everywhere(path):
    assert source(code_cells(load(path))[0]) == SETUP, "python -m tests.lessons.test_template writes it"


@pytest.mark.parametrize("works", [True, False], ids=["installed", "no network"])
def test_set_up_where_the_course_is_not_there_yet(monkeypatch, capsys, works):
    """On Colab: this version is asked for; where that fails, one sentence says so, and nothing else is run."""
    found, asked = importlib.util.find_spec, []
    there = iter([None, found("fairseg_lite") if works else None])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: next(there) if name == "fairseg_lite" else found(name))
    notebook = SimpleNamespace(run_line_magic=lambda magic, line: asked.append((magic, line)))
    cell, scope = TransformerManager().transform_cell(SETUP), {"get_ipython": lambda: notebook}
    with contextlib.nullcontext() if works else pytest.raises(SystemExit, match=r"^The course could not be installed, .*\.$"):
        exec(cell, scope)
    assert asked == [("pip", f'install -q "fairseg-lite @ git+{ADDRESS}@v{__version__}"')]
    assert ("here" in scope) == works


def test_the_environments_scale_goes_first(monkeypatch, capsys):
    monkeypatch.delenv("FAIRSEG_SCALE", raising=False)
    assert lesson.setup("smoke").smoke and "numbers will not be those of the text" in capsys.readouterr().out
    monkeypatch.setenv("FAIRSEG_SCALE", "lesson")
    assert not lesson.setup("smoke").smoke and "scale: lesson" in capsys.readouterr().out
    monkeypatch.setenv("FAIRSEG_SCALE", "huge")
    with pytest.raises(InputError, match="'huge'"):
        lesson.setup()


@each()
def test_minutes_to_read_are_true(path):
    said = int(source(load(path)["cells"][0]).partition(TABLE)[2].split(" | ")[1])
    assert abs(said - minutes_to_read(path)) <= 0.3 * said, f"{minutes_to_read(path):.0f} minutes"


@each()
def test_nothing_names_another_place_of_the_repository(path):
    texts = [source(cell) for cell in load(path)["cells"]] + [(ROOT / "pyproject.toml").read_text("utf-8")]
    found = {a or b for text in texts for a, b in PLACE.findall(text)}
    assert found == {ADDRESS.removeprefix("https://github.com/")}


@each()
def test_teachers_have_notes(path):
    notes = (ROOT / "docs/teachers.md").read_text("utf-8")
    section = re.search(rf"^## {re.escape(title(path))}\n(.*?)(?=^## |\Z)", notes, re.M | re.S)
    assert section, f"docs/teachers.md has no section '## {title(path)}'"
    assert re.findall(r"^- \*\*(.+?)\.\*\*", section[1], re.M) == ["Time", "Pitfalls", "Discuss", "Assess"]


@each()
def test_what_is_to_be_predicted_is_asked_and_hidden(path):
    """Below each prompt `lesson.predict` asks; a question without a key hides what the next cell shows."""
    cells = [c for c in load(path)["cells"] if source(c).strip()]
    for cell, asked, result in zip(cells, cells[1:], cells[2:], strict=False):
        if cell["cell_type"] == "markdown" and "**Predict" in source(cell):
            assert source(asked).startswith("lesson.predict("), f"nothing asks: {source(cell)[-200:]}"
        if source(asked) == "lesson.predict()":
            assert "**Predict" in source(cell) and asked["metadata"]["tags"] == ["predict"]
            assert result["cell_type"] == "code" and result["outputs"], f"nothing to hide: {source(result)[:200]}"


def test_words_of_the_glossary_stand_in_lessons():
    text = "\n".join(source(c) for p in PATHS for c in load(p)["cells"] if c["cell_type"] == "markdown").lower()
    rows = re.findall(r"^\| ([^|]+) \|[^|]*\| [^|]+ \| (\d\d) \|$", (ROOT / "docs/glossary.md").read_text("utf-8"), re.M)
    assert len(rows) > 50 and len(dict(rows)) == len(rows), "each once"
    assert [word for word, _ in rows if word.lower() not in text] == []
    assert {number for _, number in rows} <= {path.stem[:2] for path in PATHS}


def write() -> None:
    for path in PATHS:
        notebook, text = load(path), path.read_text("utf-8")
        notebook["cells"][0]["source"] = head(path).splitlines(keepends=True)
        code_cells(notebook)[0]["source"] = SETUP.splitlines(keepends=True)
        new = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if new != text:
            path.write_text(new, "utf-8")
            print(path.name)


if __name__ == "__main__":
    write()
