"""The course as a book: static pages that need no network and no server, made by nbconvert from the lessons and these pages.

    python docs/book.py                the whole book, in out/book: open index.html
    python docs/book.py --slides 04    lesson 04 as slides, one for each section, in out/slides: the arrow keys turn them

`course.py book` and `course.py slides 04` run this file. Formulas are drawn here, by matplotlib; the result that a lesson asks to
predict is folded; every page can be searched and printed.
"""

import argparse
import functools
import html
import inspect
import json
import posixpath
import re
import shutil
import sys
import textwrap
import time
import tomllib
from pathlib import Path

import matplotlib
import nbformat
from bs4 import BeautifulSoup, Tag
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath, text_to_path
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"] + "/blob/main/"
LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.ipynb"))
SOLUTIONS = [ROOT / f"fairseg_lite/course/exercises/lesson{path.stem[:2]}.py" for path in LESSONS]
SOURCES = [*LESSONS, *sorted(HERE.glob("*.md")), *SOLUTIONS]
NAMES = {path.relative_to(ROOT).as_posix(): f"{path.stem}.html" for path in SOURCES}  # by the place in the repository
PEN = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - fairseg-lite</title><link rel="stylesheet" href="book.css"></head><body class="{kind}">
<header><a href="index.html">fairseg-lite</a><label>Search <input type="search" id="search"></label><ol id="found"></ol></header>
<main>{body}</main>{around}
<script src="words.js"></script><script src="book.js"></script></body></html>
"""


SILENT = ["a", "code", "pre", "svg", "h3", "th", "style"]  # no word is explained in these


def drawn(formula: str, *, size: float = 16) -> str:
    """A formula as SVG, in the colour of the text around it and on its line.

    Args:
        formula: TeX without dollars, as far as matplotlib's mathtext knows it.
        size: of the letters, in px.
    Raises:
        ValueError: it cannot be read; the text says where.
    Example:
        >>> drawn("x^2")[:47]
        '<svg class="maths" role="img" aria-label="x^2" '
    """
    told = html.escape(" ".join(formula.split()))
    text = re.sub(r"\\sum(?:[_^](?:\{[^}]*\}|\w))+", r"\g<0>\\;", f"${' '.join(formula.split())}$")  # a sum needs room behind it
    with matplotlib.rc_context({"mathtext.fontset": "cm"}):
        outline = TextPath((0, 0), text, size=size)
        width, height, below = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), True)
    steps = (PEN[code] + " ".join(f"{v:.2f}" for v in points) * (PEN[code] != "Z") for points, code in outline.iter_segments())
    above, below = height - below + 1, below + 1  # a px of air
    return (
        f'<svg class="maths" role="img" aria-label="{told}" width="{width:.1f}" height="{above + below:.1f}" '
        f'viewBox="0 {-above:.1f} {width:.1f} {above + below:.1f}" style="vertical-align:{-below:.1f}px">'
        f'<title>{told}</title><path fill="currentColor" transform="scale(1 -1)" d="{"".join(steps)}"/></svg>'
    )


class Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas drawn instead of left to a script of the network."""

    def inline_math(self, body: str) -> str:
        return drawn(body)

    def block_math(self, body: str) -> str:
        return f'<div class="maths">{drawn(body, size=18)}</div>'


@functools.cache
def exporter() -> HTMLExporter:
    """nbconvert's, without the parts that need a network. What we wrote is not cleaned of scripts, which takes long."""
    made = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    made.register_filter("markdown2html", lambda text: MarkdownWithMath(Renderer(escape=False)).render(text))
    made.register_filter("clean_html", lambda text: text)
    return made


def solutions(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of a page of solutions: hearts, which are the library's own code, and exercises."""
    from fairseg_lite.course import checks

    number = path.stem[-2:]
    exercises, _ = checks.find(f"{number}.1")
    cells = [
        nbformat.v4.new_markdown_cell(f"# Solutions of lesson {number}\n\nTry first: `lesson.hint` gives three hints for each.")
    ]
    for name in exercises.HINTS:
        cells.append(nbformat.v4.new_markdown_cell(f"## {name}"))
        cells.append(nbformat.v4.new_code_cell(textwrap.dedent(inspect.getsource(checks.solved(exercises, name)))))
    return cells


def fragment(path: Path) -> BeautifulSoup:
    """What stands in a lesson, a page or a file of solutions, as HTML whose links lead to the book, or to the repository."""
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
    else:
        cells = solutions(path) if path.suffix == ".py" else [nbformat.v4.new_markdown_cell(path.read_text("utf-8"))]
        notebook = nbformat.v4.new_notebook(cells=cells)
    page = BeautifulSoup(exporter().from_notebook_node(notebook)[0], "html.parser")
    for part in [*page("a", class_="anchor-link"), *page("style")]:  # the style of code is in book.css
        part.decompose()
    for link in page("a", href=True):
        link["href"] = leads_to(link["href"], path)
    for picture in page("img", src=re.compile("^(?!data:)")):
        picture["src"] = leads_to(picture["src"], path, "figures/")
    for badge in page("img", src=re.compile("^https?:")):
        badge.parent.decompose()  # it would be fetched; and who reads here has the course
    return page


def leads_to(address: str, path: Path, figures: str = "") -> str:
    """Where a link on a page of the repository leads to from the book.

    Example:
        >>> leads_to("00_start_here.ipynb#stop", LESSONS[1]), leads_to("../course.py", LESSONS[1]) == ADDRESS + "course.py"
        ('00_start_here.html#stop', True)
    """
    if not address.startswith(ADDRESS) and re.match("[a-z]+:|#", address):
        return address
    place, mark, anchor = address.removeprefix(ADDRESS).partition("#")
    if not address.startswith(ADDRESS):
        place = posixpath.normpath(posixpath.join(path.parent.relative_to(ROOT).as_posix(), place))
    if figures:
        return figures + posixpath.basename(place)
    return NAMES.get(place, ADDRESS + place) + mark + anchor


def fold_predictions(page: BeautifulSoup) -> None:
    """The outputs after a question open by a click, and when the page is printed."""
    for cell in page(class_=re.compile("^celltag_predict")):
        after = (c.find(class_="output_wrapper") for c in cell.find_next_siblings(class_="code_cell", limit=2))
        if output := next(filter(None, after), None):
            output.wrap(page.new_tag("details", attrs={"class": "result"}))
            output.insert_before(summary := page.new_tag("summary"))
            summary.string = "The result: predict first, then open"


def lead_to_solutions(page: BeautifulSoup, solutions: str) -> None:
    """Where a reader writes something, a link leads to what one could have written; what the empty stub was told is not."""
    for cell in page(class_=re.compile("^celltag_(yours|check)")):
        name = next(tag for tag in cell["class"] if tag.startswith("celltag_")).partition(":")[2]
        if output := cell.find(class_="output_wrapper"):
            output.clear()
            output.append(link := page.new_tag("a", href=f"{solutions}#{name}", attrs={"class": "solution"}))
            link.string = "A solution: write yours first"


def glossary() -> dict[str, str]:
    """Meanings by word, from the tables of docs/glossary.md, where every row has four cells."""
    rows = re.findall(r"^\| ([^|]+) \|[^|]*\| ([^|]+) \| \d\d \|$", (HERE / "glossary.md").read_text("utf-8"), re.M)
    return {word.strip("`"): meaning.replace("`", "").replace("*", "") for word, meaning in rows}


def explain(page: BeautifulSoup, meanings: dict[str, str]) -> None:
    """A word of the glossary, where it first comes up in a section, leads there and says what it means."""
    by_lower = {word.lower(): word for word in meanings}
    words = "|".join(re.escape(word) for word in sorted(meanings, key=len, reverse=True))
    pattern = re.compile(rf"\b(?:{words})(?=s?\b)", re.I)
    for _, parts in sections(page):
        told: set[str] = set()

        def link(match: re.Match, told: set[str] = told) -> str:
            word = by_lower[match[0].lower()]
            if word in told or (word.isupper() and not match[0].isupper()):
                return match[0]
            told.add(word)
            tip = html.escape(f"{word}: {meanings[word]}")
            return f'<a class="term" href="glossary.html#{slug(word)}" data-tip="{tip}">{match[0]}</a>'

        for text in [t for part in parts for t in part.find_all(string=True) if not t.find_parent(SILENT)]:
            new = pattern.sub(link, html.escape(text, quote=False))
            if "<a " in new:
                text.replace_with(BeautifulSoup(new, "html.parser"))


def slug(word: str) -> str:
    return word.lower().replace(" ", "-")


def sections(page: BeautifulSoup) -> list[tuple[Tag, list[Tag]]]:
    """Headings of the first two ranks, each with the parts of the page that follow it."""
    found: list[tuple[Tag, list[Tag]]] = []
    for part in [p for cell in page.find_all(recursive=False) for p in (cell.select_one(".text_cell_render") or [cell])]:
        if isinstance(part, Tag):
            if part.name in ("h1", "h2"):
                found.append((part, []))
            elif found:
                found[-1][1].append(part)
    return found


def words(page: BeautifulSoup, name: str) -> list[dict[str, str]]:
    """What a search finds on a page: its sections, with their text."""
    title, found = page.h1.get_text(), []
    for heading, parts in sections(page):
        text = " ".join(p.get_text() for p in parts)
        at = f"{name}#{heading['id']}"
        found.append({"at": at, "in": title, "title": heading.get_text(), "text": " ".join(text.split())})
    return found


def listed(links: list[tuple[str, str]], kind: str = "ul") -> str:
    """A list of links, given as (address, text)."""
    lines = (f'<li><a href="{at}">{html.escape(text)}</a></li>' for at, text in links)
    return f"<{kind}>{''.join(lines)}</{kind}>"


def contents(pages: dict[str, BeautifulSoup], lessons: int) -> str:
    """The first page: every lesson with what one builds in it, then the other pages."""
    rows = []
    for name, page in list(pages.items())[:lessons]:
        head, row = page.table("tr")[:2]
        cells = [f"<p><b>{t.get_text()}:</b> {d.decode_contents()}</p>" for t, d in zip(head("th"), row("td"), strict=True)]
        rows.append(f'<section><h2><a href="{name}">{page.h1.get_text()}</a></h2>{"".join(cells)}</section>')
    others = listed([(name, page.h1.get_text()) for name, page in list(pages.items())[lessons:]])
    return f"<h1>Find every object, draw its outline, name it</h1>{''.join(rows)}<h2>Other pages</h2>{others}"


def write_book(out: Path) -> Path:
    """The whole book.

    Args:
        out: folder of the pages; what lies there is kept, a page of the same name is written anew.
    Returns:
        Its first page.
    """
    pages = {NAMES[path.relative_to(ROOT).as_posix()]: fragment(path) for path in SOURCES}
    shutil.copytree(ROOT / "lessons/figures", out / "figures", dirs_exist_ok=True)
    write_looks(out)
    index = [entry for name, page in pages.items() for entry in words(page, name)]
    meanings = glossary()
    for cell in pages["glossary.html"]("td"):
        if cell.get_text() in meanings and not cell.find_previous_sibling("td"):
            cell["id"] = slug(cell.get_text())
    (out / "words.js").write_text(f"const WORDS = {json.dumps(index, ensure_ascii=False)};\n", "utf-8")
    first = PAGE.format(title="Contents", kind="contents", body=contents(pages, len(LESSONS)), around="")
    names = ["index.html", *pages, "index.html"]
    titles = {"index.html": "Contents", **{name: page.h1.get_text() for name, page in pages.items()}}
    for before, (name, page), after in zip(names, pages.items(), names[2:], strict=False):
        fold_predictions(page)
        lead_to_solutions(page, f"lesson{name[:2]}.html")
        if name != "glossary.html":
            explain(page, meanings)
        inside = [(f"#{heading['id']}", heading.get_text()) for heading, _ in sections(page)[1:]]
        around = f'<nav id="sections">{listed(inside, "ol")}</nav><footer><a rel="prev" href="{before}">{titles[before]}</a>'
        around += f'<a rel="next" href="{after}">{titles[after]}</a></footer>'
        text = PAGE.format(title=titles[name], kind="page", body=page.decode(), around=around)
        (out / name).write_text(text, "utf-8")
    (out / "index.html").write_text(first, "utf-8")
    return out / "index.html"


def write_slides(path: Path, out: Path) -> Path:
    """A lesson as slides: a section each, which scrolls where it is long."""
    page = fragment(path)
    fold_predictions(page)
    slides = "".join(
        f"<section>{heading.decode()}{''.join(p.decode() for p in parts)}</section>" for heading, parts in sections(page)
    )
    write_looks(out)
    (out / "words.js").write_text("const WORDS = [];\n", "utf-8")
    text = PAGE.format(title=page.h1.get_text(), kind="slides", body=slides, around="")
    (out / f"{path.stem}.html").write_text(text, "utf-8")
    return out / f"{path.stem}.html"


def write_looks(out: Path) -> None:
    """Style and script of all pages; the colours of code are Pygments' own, on light ground and on dark."""
    out.mkdir(parents=True, exist_ok=True)
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    code = f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    code += ".highlight, .highlight pre { background: var(--code); }\n"
    (out / "book.css").write_text((HERE / "book.css").read_text("utf-8") + code, "utf-8")
    shutil.copy(HERE / "book.js", out)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The course as static pages.")
    parser.add_argument("out", nargs="?", type=Path, help="folder of the pages (default: out/book or out/slides)")
    parser.add_argument("--slides", metavar="NN", help="this lesson as slides instead of the book")
    given, start = parser.parse_args(arguments), time.time()
    chosen = [path for path in LESSONS if path.stem.startswith(f"{given.slides}_")]
    if given.slides and not chosen:
        print(f"there is no lesson {given.slides!r}; there are {', '.join(p.stem[:2] for p in LESSONS)}", file=sys.stderr)
        return 2
    first = write_slides(chosen[0], given.out or ROOT / "out/slides") if chosen else write_book(given.out or ROOT / "out/book")
    print(f"{first} ({time.time() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
