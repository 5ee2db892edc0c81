"""Every lesson begins alike: its head says what one can do afterwards, how long it takes, what it needs, and where to go.

python -m tests.lessons.test_template     writes links and badges anew: after a lesson was added, or the repository moved
"""

import json
import re
from pathlib import Path

from tests.lessons.test_lessons import PATHS, PROJECT, ROOT, each, load, source

ADDRESS = PROJECT["urls"]["Repository"]  # nowhere else is it decided
COLAB = f"https://colab.research.google.com/github/{ADDRESS.removeprefix('https://github.com/')}/blob/main/lessons"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
TABLE = "| You will build | Minutes to read | Minutes to run | Needs | Paper |\n|---|---|---|---|---|\n"
GOALS = "**Afterwards you can**"
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


@each()
def test_minutes_to_read_are_true(path):
    said = int(source(load(path)["cells"][0]).partition(TABLE)[2].split(" | ")[1])
    assert abs(said - minutes_to_read(path)) <= 0.3 * said, f"{minutes_to_read(path):.0f} minutes"


@each()
def test_nothing_names_another_place_of_the_repository(path):
    owner = re.compile(r"github\.com/(?!facebookresearch/)([\w-]+/[\w-]+)|/github/([\w-]+/[\w-]+)/blob")
    found = {a or b for cell in load(path)["cells"] for a, b in owner.findall(source(cell))}
    assert found == {ADDRESS.removeprefix("https://github.com/")}


@each()
def test_teachers_have_notes(path):
    notes = (ROOT / "docs/teachers.md").read_text("utf-8")
    section = re.search(rf"^## {re.escape(title(path))}\n(.*?)(?=^## |\Z)", notes, re.M | re.S)
    assert section, f"docs/teachers.md has no section '## {title(path)}'"
    assert re.findall(r"^- \*\*(.+?)\.\*\*", section[1], re.M) == ["Time", "Pitfalls", "Discuss", "Assess"]


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
        new = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if new != text:
            path.write_text(new, "utf-8")
            print(path.name)


if __name__ == "__main__":
    write()
