"""Every lesson in JupyterLab, as a learner has it: opened in a browser, run to its end, a prediction answered, a slider moved.

It needs Chromium or Chrome, and playwright, which is not among the packages of the course. Screenshots go to the folder that
FAIRSEG_SCREENSHOTS names.
"""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lessons.test_book import BROWSER, in_a_browser
from tests.lessons.test_lessons import PATHS, ROOT, each

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = in_a_browser
PANEL = "jupyterapp.shell.currentWidget"
READY = f"() => window.jupyterapp && {PANEL}?.sessionContext?.session?.kernel?.status === 'idle'"
WHOLE = f"() => {{ {PANEL}.content.notebookConfig = {{...{PANEL}.content.notebookConfig, windowingMode: 'none'}}; }}"
CELLS = f"{PANEL}.model.toJSON().cells.filter(c => c.cell_type === 'code' && c.source.length)"
FAILED = f"{CELLS}.flatMap(c => c.outputs).filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)"
NEWS = """async () => (await jupyterapp.serviceManager.settings.fetch('@jupyterlab/apputils-extension:notification')).schema
    .properties.fetchNews.default"""
ENDED = (
    f"() => {FAILED}.length || ({CELLS}.every(c => c.execution_count) && {PANEL}.sessionContext.session.kernel.status === 'idle')"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab that was started as `course.py lab` does it."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    course = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(course)
    course.MINE = tmp_path_factory.mktemp("lab") / "my-lessons"
    course.copy_lessons()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        *course.LAB.replace("my-lessons", str(course.MINE)).split(),
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
    ]
    words += [f"--ServerApp.port={port}", "--IdentityProvider.token=t"]
    env = {**os.environ, "FAIRSEG_SCALE": "smoke", "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(course.MINE.parent)}
    with subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token=t", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(600):
        assert server.poll() is None, "JupyterLab has ended"
        try:
            return urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {address}")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


SAID = re.compile(r": (right\.|no, |now compare )")  # now compare: of a question that is not judged


@pytest.fixture
def page(browser, lab, path):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(240_000)
    page.goto(f"{lab}/lab/tree/{path.name}?token=t&reset")
    page.wait_for_function(READY)
    yield page
    page.evaluate(f"() => {PANEL}.sessionContext.shutdown()")
    page.close()


def answer(page) -> str:
    """Answer the first prediction of the page, rightly or not: what is said of it."""
    asked = page.locator(".prediction").first
    asked.scroll_into_view_if_needed()
    if asked.locator("button").count():
        asked.locator("button").first.click()
    elif asked.locator("img").count():
        asked.locator("img").click()
    else:
        asked.locator("input").fill("1")
        asked.locator("input").press("Enter")
    said = asked.get_by_text(SAID)
    said.wait_for()
    return said.inner_text()


def move_a_slider(page) -> None:
    """Move the first slider that is not hidden behind a prediction, if the lesson has one: its figure has to change."""
    sliders = page.locator(".widget-slider:visible")
    if sliders.count():
        figure = page.locator(".widget-vbox", has=sliders.first).locator("img").first
        before = figure.get_attribute("src")
        sliders.first.locator(".noUi-handle").press("ArrowLeft")
        playwright.expect(figure).not_to_have_attribute("src", before, timeout=60_000)


@each()
def test_a_lesson_runs_and_its_predictions_and_sliders_answer(path, page, tmp_path):
    shots = Path(os.environ.get("FAIRSEG_SCREENSHOTS", tmp_path))
    assert page.locator(".jp-DirListing-itemText").all_inner_texts() == [p.name for p in PATHS], (
        "the file list shows lessons only"
    )
    assert page.evaluate(NEWS) == "false", "nobody is asked about Jupyter's news"
    page.evaluate(WHOLE)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(ENDED, timeout=1_200_000)
    assert page.evaluate(f"() => {FAILED}") == []
    notices = page.get_by_text("hidden until you have predicted, above").locator("visible=true")
    hidden = notices.count()
    page.screenshot(path=shots / f"{path.stem}-end.png")
    assert SAID.search(answer(page)) and hidden
    playwright.expect(notices).to_have_count(hidden - 1)
    page.wait_for_timeout(500)
    page.screenshot(path=shots / f"{path.stem}-answered.png")
    move_a_slider(page)
    page.screenshot(path=shots / f"{path.stem}-moved.png")
    assert page.get_by_text(re.compile(r"^Lesson \d\d: .* predictions made")).count() == 1
