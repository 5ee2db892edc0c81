"""The book of the course: every page is there, needs no network, leads somewhere and works in a browser."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from bs4 import BeautifulSoup

from fairseg_lite.course import checks
from tests.lessons.test_lessons import PATHS, ROOT, code_cells, load, source

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium and no Chrome is on the path")


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("book", ROOT / "docs/book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def book(maker, tmp_path_factory) -> Path:
    return maker.write_book(tmp_path_factory.mktemp("book")).parent


@pytest.fixture(scope="module")
def pages(book) -> dict[str, BeautifulSoup]:
    return {path.name: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in sorted(book.glob("*.html"))}


def open_in_browser(address: str, *options: str) -> str:
    """What a browser without a network makes of a page; errors of scripts are raised."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    done = subprocess.run([BROWSER, *quiet, *options, address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr[-2000:]
    return done.stdout


def test_every_lesson_and_page_is_there_and_turns_to_the_next(pages):
    there = {f"{path.stem}.html" for path in [*PATHS, *ROOT.glob("docs/*.md")]}
    there |= {f"lesson{path.stem[:2]}.html" for path in PATHS}
    assert set(pages) == there | {"index.html"}
    listed = [a["href"] for a in pages["index.html"].main("a")]
    turned, at = [], listed[0]
    while at != "index.html":
        turned.append(at)
        at = pages[at].find("a", rel="next")["href"]
        assert at == "index.html" or pages[at].find("a", rel="prev")["href"] == turned[-1]
    assert turned == listed and set(turned) == there


def test_nothing_is_fetched(pages, book):
    for name, page in pages.items():
        fetched = [t.get("src") or t.get("href") for t in page(["script", "link", "img", "iframe", "source"])]
        assert all(a is None or not re.match("(https?:)?//", a) for a in fetched), name
        assert all((book / a).exists() for a in fetched if a and not a.startswith("data:")), name
    assert not re.search(r"@import|url\(", (book / "book.css").read_text("utf-8"))


def test_links_within_lead_to_a_page_and_a_place_on_it(pages):
    places = {name: {t["id"] for t in page(id=True)} for name, page in pages.items()}
    inside = [(name, a["href"]) for name, page in pages.items() for a in page("a", href=True) if ":" not in a["href"]]
    assert len(inside) > 100
    for name, address in inside:
        page, _, place = address.partition("#")
        assert not place or place in places[page or name], (name, address)
        assert not page or page in pages, (name, address)


def test_formulas_are_drawn(pages):
    asked = [m for p in PATHS for c in load(p)["cells"] if c["cell_type"] == "markdown" for m in re.findall(r"\$", source(c))]
    assert sum(len(page("svg", class_="maths")) for page in pages.values()) > len(asked) // 4 > 20
    for name, page in pages.items():
        words = "".join(t for t in page.main.find_all(string=True) if t.find_parent(["pre", "code"]) is None)
        assert "$" not in words, name


def test_a_formula_that_cannot_be_drawn_is_an_error(maker):
    with pytest.raises(ValueError, match="Unknown symbol"):
        maker.drawn(r"\nosuchsymbol")


def test_what_follows_a_prediction_is_folded(pages):
    for path in PATHS:
        asked = sum(source(c).startswith("lesson.predict(") for c in code_cells(load(path)))
        folded = pages[f"{path.stem}.html"]("details", class_="result")
        assert len(folded) == asked > 0, path.stem
        assert all(detail.summary and detail.find(class_="output") for detail in folded)


def test_words_of_the_glossary_are_explained_where_they_come_up(pages, maker):
    meanings = maker.glossary()
    linked = [term for page in pages.values() for term in page("a", class_="term")]
    assert {term["data-tip"].partition(": ")[0] for term in linked} > {"trunk", "tower", "taps", "AR", "NMS"}
    for term in linked:
        word, _, meaning = term["data-tip"].partition(": ")
        assert meanings[word] == meaning and word.lower() in term.get_text().lower()
    for lesson in (pages[f"{path.stem}.html"] for path in PATHS):
        assert len(lesson("a", class_="term")) > 10
        assert not lesson.select("pre a.term, code a.term, a a.term")


def test_solutions_stand_in_the_book(pages):
    for path in PATHS:
        lesson, page = checks.find(f"{path.stem[:2]}.1")[0], pages[f"lesson{path.stem[:2]}.html"]
        assert [h.get_text() for h in page.main("h2")] == list(lesson.HINTS)
        assert all(f"def {checks.solved(lesson, name).__name__}(" in page.main.get_text() for name in lesson.HINTS)
        assert pages[f"{path.stem}.html"].main.find("a", string="solutions")["href"] == f"lesson{path.stem[:2]}.html"
        asked = [a["href"] for a in pages[f"{path.stem}.html"]("a", class_="solution")]
        assert sorted(asked) == sorted(f"lesson{path.stem[:2]}.html#{name}" for name in lesson.HINTS)


def test_no_solution_stands_under_its_stub(pages):
    for path in PATHS:
        written = "".join(out.get_text() for out in pages[f"{path.stem}.html"](class_="output_stream"))
        assert "(lesson.hint(" not in written and "lesson.solution(" not in written and "(The lesson goes on" not in written


def test_search_knows_every_section(pages, book):
    known = json.loads((book / "words.js").read_text("utf-8").removeprefix("const WORDS = ").rstrip(";\n"))
    headings = sum(len(page.main(["h1", "h2"])) for name, page in pages.items() if name != "index.html")
    assert len(known) == headings
    assert any("mask_loss" in entry["text"] for entry in known), "code is found, too"


@in_a_browser
def test_a_search_finds_sections(book):
    page = BeautifulSoup(open_in_browser(f"{(book / 'index.html').as_uri()}?q=jitter+scale", "--dump-dom"), "html.parser")
    hits = page.find(id="found")("a")
    assert hits[0]["href"].startswith("01_") and "jitter" in hits[0].get_text()
    page = BeautifulSoup(open_in_browser(f"{(book / 'index.html').as_uri()}?q=zebracorn", "--dump-dom"), "html.parser")
    assert page.find(id="found").get_text() == "Nothing has all of these words."


@in_a_browser
def test_a_lesson_prints(book, tmp_path):
    open_in_browser((book / f"{PATHS[3].stem}.html").as_uri(), f"--print-to-pdf={tmp_path / 'lesson.pdf'}")
    printed = (tmp_path / "lesson.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type */Page\b", printed)) > 5


@in_a_browser
def test_slides_are_the_sections_of_a_lesson(maker, tmp_path):
    path = maker.write_slides(PATHS[3], tmp_path)
    page = BeautifulSoup(open_in_browser(path.as_uri(), "--dump-dom"), "html.parser")
    titles = [section.find(["h1", "h2"]).get_text() for section in page("section")]
    assert titles[0].startswith("03 ") and len(titles) > 10 and "Recap" in titles


def test_a_lesson_that_is_not_there_is_named(maker, capsys):
    assert maker.main(["--slides", "77"]) == 2
    assert "there is no lesson '77'; there are 00, 01" in capsys.readouterr().err
