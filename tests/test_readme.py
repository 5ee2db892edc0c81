"""The README and the pages it links to: their Python runs, their commands are commands, their links lead somewhere."""

import contextlib
import io
import re
import shlex
from importlib.metadata import metadata
from pathlib import Path

import pytest

from fairseg_lite.cli import build_parser, main
from tests.cli.conftest import cli, detectors, network, photo, scenes  # noqa: F401  (fixtures)
from tests.cli.test_help import JOBS, examples
from tests.official.small import Official, small_deepmask
from tests.official.writer import dump

ROOT = Path(__file__).resolve().parents[1]
DOCS = ("results", "your-own-data", "robustness", "glossary", "teachers")
NAMES = ("README.md", "ARCHITECTURE.md", *(f"docs/{name}.md" for name in DOCS))
PAGES = {name: (ROOT / name).read_text("utf-8") for name in NAMES}
README, ALL = PAGES["README.md"], "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", ALL, re.S | re.M)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", ALL, flags=re.S | re.M))
COMMANDS = [shlex.split(s)[1:] for s in SPANS if s.startswith("fairseg-lite ")]
COMMANDS += [words for language, block in BLOCKS if language == "sh" for words in examples(block)]
SMALL = {  # what is added so that the command ends in seconds; None: it needs a network connection or minutes
    "demo": ["-o", "OUT/demo"],
    "data shapes": ["-n", "2"],
    "data check": [],
    "data coco": None,
    "train deepmask": ["--steps", "2", "--set", "positives=3"],
    "train sharpmask": ["--steps", "2", "--set", "positives=3"],
    "train multipathnet": ["--steps", "2", "--set", "images=1", "--proposals", "MODEL", "--set", "top=5"],
    "ablate": None,
    "propose": ["--model", "MODEL", "--top-k", "3"],
    "detect": ["--proposer", "MODEL", "--top-k", "3"],
    "evaluate": ["--limit", "1", "--top-k", "10"],
    "evaluate detections": ["--proposer", "MODEL", "--limit", "1", "--top-k", "5"],
    "bench": None,
    "bench scale": None,
    "import": [],
    "export": None,
}


def job_of(words: list[str]) -> str:
    return " ".join(max((job for job in JOBS if tuple(words[: len(job)]) == job), key=len))


def test_python_blocks_run_and_print_what_they_say(monkeypatch, tmp_path):
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(block, "README.md", "exec"), {})
        promised = re.findall(r"^print\(.*\)  # (.*)$", block, re.M)
        printed = [re.sub(r"^torch\.Size\(\[(.*)\]\)$", r"(\1)", line) for line in said.getvalue().splitlines()]
        assert printed == promised


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_one(words):
    assert build_parser().parse_args(words).run


def test_every_command_and_job_of_the_course_is_told():
    assert {job_of(words) for words in COMMANDS} == {" ".join(job) for job in JOBS}
    jobs = set(re.findall(r"python3 course\.py (\w+)", README))
    assert {"lab", "test", "demo"} <= jobs
    known = set(re.findall(r"python3 course\.py (\w+)", (ROOT / "course.py").read_text("utf-8")))
    assert jobs <= known


def test_every_option_that_is_named_exists():
    known = {s for parser in JOBS.values() for action in parser._actions for s in action.option_strings}
    known |= {"--full", "--gpu-report", "--only"}  # of course.py, `tests.survived` and `python -m fairseg_lite.bench`
    named = {word for span in SPANS for word in span.split() if word.startswith("--")}
    assert named - known == set()
    assert "--resume" in named


def test_the_table_of_commands_works_on_small_settings(cli, detectors, network, photo, scenes, tmp_path):  # noqa: F811
    table = [shlex.split(span)[1:] for span in re.findall(r"^\| `(fairseg-lite .*?)` \|", README, re.M)]
    assert {job_of(words) for words in table} == set(SMALL)
    (tmp_path / "official.t7").write_bytes(dump(Official().deepmask(small_deepmask())))
    for words in table:
        if (small := SMALL[job_of(words)]) is None:
            continue
        out = tmp_path / words[0] / words[-1]
        places = {
            "NAMED": detectors / "nine.safetensors",
            "OUT": out,
            "RUN": out,
            "PICTURE": photo,
            "FOLDER": scenes,
            "DATA": scenes,
            "MODEL": network,
            "FILE": tmp_path / "official",
        }
        real = [re.sub(r"^[A-Z]{3,}", lambda m, places=places: str(places[m[0]]), word) for word in words + small]
        assert cli(*real)[0] == 0, " ".join(real)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text, folder = PAGES[page], (ROOT / page).parent
    headings = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        assert (folder / path).exists(), link
        assert path or anchor in headings, link


def test_files_that_it_names_are_there():
    named = [word for span in SPANS for word in span.split() if re.fullmatch(r"[\w./]+\.(py|yml|md|toml)", word)]
    assert named
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "fairseg_lite" / name).exists(), name


def test_main_is_the_console_script():
    assert 'fairseg-lite = "fairseg_lite.cli:main"' in (ROOT / "pyproject.toml").read_text("utf-8")
    with pytest.raises(SystemExit, match="^0$"):
        main(["--help"])


def test_a_package_index_shows_links_to_the_repository():
    shown = metadata("fairseg-lite")
    home = shown["Project-URL"].partition(", ")[2]
    link = re.compile(r"\]\(([^)]+)\)")
    links = link.findall(shown.get_payload())
    for address in links:
        kind, path = re.fullmatch(rf"{home}/(raw|blob)/main/(.+)", address).groups()
        assert (ROOT / path).exists() and (kind == "raw") == (path.endswith((".jpg", ".png")))
    if link.sub("", shown.get_payload()).split() != link.sub("", README).split():
        pytest.skip("the package was installed before the README changed")
    assert links and len(links) == len(link.findall(README))
