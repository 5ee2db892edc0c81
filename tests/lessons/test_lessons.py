"""The lessons' own rules: structure, honest numbers, exercises that check, code that is the library's."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

from fairseg_lite.course import checks, lesson

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PATHS = sorted((ROOT / "lessons").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not PATHS, reason="no lessons here")
LIMIT_BYTES, LIMIT_CELLS, LIMIT_LINES, LIMIT_MEDIAN, LIMIT_WORDS = 660_000, 40, 30, 8, 3150


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if c["cell_type"] == "code" and source(c).strip()]


def tags(cell: dict, kind: str) -> list[str]:
    return [t.split(":", 1)[1] for t in cell["metadata"].get("tags", []) if t.startswith(f"{kind}:")]


def each(paths=PATHS):
    return pytest.mark.parametrize("path", paths, ids=[p.stem for p in paths])


@each()
def test_sizes(path):
    notebook = load(path)
    lines = [len(source(c).splitlines()) for c in code_cells(notebook)]
    cells = sum(n > 1 for n in lines)  # a question or a try is one line
    words = sum(len(source(c).split()) for c in notebook["cells"][1:] if c["cell_type"] == "markdown")
    assert path.stat().st_size < LIMIT_BYTES
    assert cells <= LIMIT_CELLS and max(lines) <= LIMIT_LINES and statistics.median(lines) <= LIMIT_MEDIAN
    assert words <= LIMIT_WORDS


@each()
def test_stored_outputs_are_whole(path):
    notebook = load(path)
    assert "widgets" not in notebook["metadata"], "GitHub shows such notebooks as invalid"
    for number, cell in enumerate(code_cells(notebook), 1):
        assert cell["execution_count"] == number, "run the whole lesson once, in order"
        assert all(o["output_type"] != "error" for o in cell["outputs"])
        assert all(o.get("name") != "stderr" for o in cell["outputs"])


@each()
def test_no_path_of_a_machine(path):
    assert not re.search(r"(/home/|/root/|/work/|/tmp/|/Users/|C:\\\\)", path.read_text(encoding="utf-8"))


@each()
def test_every_figure_is_told_in_words(path):
    """By an argument of the code, and in what is stored; no two figures of a lesson by the same words."""
    told = []
    for cell in code_cells(load(path)):
        stored = [(kind, o) for o in cell["outputs"] for kind in o.get("data", {}) if kind.startswith("image/")]
        shows = re.search(r"lesson\.(show|slide)\(", source(cell))
        words = re.findall(r"alt=(\"[^\"]+\"|'[^']+')", source(cell)) if shows else []
        assert len(stored) == len(words), f"a figure without words in {source(cell)[-200:]}"
        for (kind, output), text in zip(stored, words, strict=True):
            assert output["metadata"][kind]["alt"] == ast.literal_eval(text) == "".join(output["data"]["text/plain"])
            told.append(ast.literal_eval(text))
    assert told and len(set(told)) == len(told) and all(35 <= len(text) <= 130 for text in told), sorted(told, key=len)[:2]


def printed(notebook: dict) -> str:
    parts = []
    for cell in code_cells(notebook):
        parts.append(source(cell))
        for o in cell["outputs"]:
            text = o.get("text") or o.get("data", {}).get("text/plain", "")
            parts.append("".join(text))
    return "\n".join(parts)


SOURCED = re.compile(r"paper|sections? \d|DeepMask section|SharpMask section|MultiPath section|official|\$", re.I)


@each()
def test_decimal_numbers_in_prose_are_printed_or_sourced(path):
    """A number with a point in a sentence must stand in a cell's code or output, or on a line that names its source."""
    notebook = load(path)
    known = printed(notebook)
    orphans = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for paragraph in source(cell).split("\n"):
            if SOURCED.search(paragraph):
                continue
            for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", paragraph):
                if number not in known:
                    orphans.append((number, paragraph[:80]))
    assert not orphans


def stripped(code: str) -> str:
    """A syntax tree without docstrings, annotations and comments."""
    tree = ast.parse(textwrap.dedent(code))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                plain = [
                    ast.Assign([v.target], v.value, lineno=0) if isinstance(v, ast.AnnAssign) and v.value else v for v in value
                ]
                setattr(node, field, plain)
    return ast.dump(tree)


def library_source(name: str) -> str:
    module, attribute = name.split(":")
    thing = importlib.import_module(module)
    for part in attribute.split("."):
        thing = getattr(thing, part)
    return inspect.getsource(thing)


@each()
def test_built_cells_are_the_librarys_code(path):
    for cell in code_cells(load(path)):
        for name in tags(cell, "lib"):
            assert stripped(source(cell)) == stripped(library_source(name)), f"{path.name}: {name} differs from the library"


@each()
def test_what_a_lesson_imports_of_the_library_is_there(path):
    """Also where nobody runs the lesson, such as in a commit that moves a file."""
    cells = [re.sub(r"^(\s*)%.*", r"\1pass", source(c), flags=re.M) for c in code_cells(load(path))]
    imports = [n for c in cells for n in ast.walk(ast.parse(c)) if isinstance(n, ast.ImportFrom) and "fairseg" in n.module]
    assert imports
    for module, name in ((n.module, a.name) for n in imports for a in n.names):
        assert hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}"), (module, name)


def test_the_comparison_sees_a_changed_sign_and_ignores_words():
    a = 'def f(x: int) -> int:\n    "doc"\n    y: int = x + 1  # why\n    return y'
    assert stripped(a) == stripped("def f(x):\n    y = x + 1\n    return y")
    assert stripped(a) != stripped("def f(x):\n    y = x - 1\n    return y")


def stubs() -> list:
    """Every cell that a learner fills, and the one that tries what is in it."""
    found = []
    for path in PATHS:
        cells = code_cells(load(path))
        for kind, after in (("exercise", "check"), ("heart", "yours")):
            tries = {t: source(c) for c in cells for t in tags(c, after)}
            names = [(t, source(c)) for c in cells for t in tags(c, kind)]
            found += [pytest.param(path, t, stub, tries.get(t), id=f"{path.stem[:2]}-{t}") for t, stub in names]
    return found


@pytest.mark.parametrize("path, name, stub, tried", stubs())
def test_stubs_are_tried_in_the_package_and_not_written_yet(path, name, stub, tried, capsys):
    assert tried is not None, f"no cell tries {name}"
    scope = {"nn": torch.nn, "lesson": lesson}
    exec(stub, scope)
    exec(tried, scope)
    assert capsys.readouterr().out.startswith("not written yet\n")
    key = f"{path.stem[:2]}.{name}"
    assert key in tried
    file, _ = checks.find(key)
    if name in file.HEARTS:
        target = tried.partition(" = ")[0]
        assert eval(target, scope) is checks.solved(file, name), "the lesson goes on with the library's"
        assert tried == f'{target} = lesson.solution("{key}", {target})'
    else:
        assert tried == f'lesson.check("{key}", {name})', "and no answer stands under the stub"


@each()
def test_a_lesson_has_all_that_its_file_tells_of_and_ends_with_a_tally(path):
    number, cells = path.stem[:2], code_cells(load(path))
    file, _ = checks.find(f"{number}.1")
    asked = [t for c in cells for kind in ("heart", "exercise") for t in tags(c, kind)]
    assert sorted(asked) == sorted(file.HINTS) and 3 <= len(file.HINTS) - len(file.HEARTS) <= 5
    assert source(cells[-1]) == f'lesson.tally("{number}")'


def numbers_in(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text)]


NOT_PRINTED = {"01.slip"}  # an assert there says 12 / 20


@each()
def test_predictions_stand_before_their_answers_and_numbers_are_printed_there(path):
    number, cells = path.stem[:2], code_cells(load(path))
    file, _ = checks.find(f"{number}.1")
    asked = [(i, name) for i, c in enumerate(cells) for name in tags(c, "predict")]
    assert [name for _, name in asked] == list(file.PREDICTIONS), "each once, in the order of the lesson"
    for i, name in asked:
        assert source(cells[i]) == f'lesson.predict("{number}.{name}")'
        guess, after = file.PREDICTIONS[name], printed({"cells": cells[i + 1 : i + 3]})
        assert len(source(cells[i + 1]).splitlines()) > 1, "the next cell shows the result"
        if not guess.choices and f"{number}.{name}" not in NOT_PRINTED:
            assert min(abs(n - guess.right) for n in numbers_in(after)) <= guess.within / 2 + 1e-9, (name, guess.right)


def test_numbers_are_found_in_words():
    assert numbers_in("3.5 of 1,024, x12 and .5; 7%") == [3.5, 1024.0, 7.0]


FLIP = "(lambda f: lambda levels, k: tuple(t.flip(0) for t in f(levels, k)))(m.best_windows)"
NEAREST = "lambda x, mode: x.repeat_interleave(2, 2).repeat_interleave(2, 3)"
TWICE = "(lambda f: lambda n: (lambda r: (r.top_down[2].bias.data.copy_(n.join.bias), r)[1])(f(n)))(m.refactor)"
ONE_CLASS = "(lambda f: lambda boxes, scores, labels, iou: f(boxes, scores, labels * 0, iou))(m.batched_nms)"
PER_CELL = "lambda length, x: length * x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)"
FIRST = "lambda output: output.logits.softmax(-1)[0]"
FAULTS = {  # lesson -> (module, function, what replaces it): the lesson must notice
    "01": ("fairseg_lite.data.patches", "is_negative", "lambda *a, **k: True"),
    "04": ("fairseg_lite.inference.propose", "best_windows", FLIP),
    "06": ("fairseg_lite.models.refinement", "_doubled", NEAREST),
    "07": ("fairseg_lite.models.refinement", "refactor", TWICE),  # the bias goes to both parts
    "08": ("fairseg_lite.inference.detect", "batched_nms", ONE_CLASS),
    "09": ("fairseg_lite.models.roi_pooling", "_of_length", PER_CELL),  # loudness taken from each cell, not from the whole grid
    "10": ("fairseg_lite.models.multipathnet", "probabilities", FIRST),  # one classifier speaks for all
    "11": ("fairseg_lite.inference.detect", "mirrored", "lambda boxes, width: boxes"),
}


def in_turn(commit: str) -> str:
    """The lesson that is run broken at this commit: another one for another push, the same one wherever it is tested."""
    return sorted(FAULTS)[int(commit or "0", 16) % len(FAULTS)]


def commit() -> str:
    """The checked-out commit; empty where there is none, as in a source archive."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git
        return ""


def test_every_lesson_has_its_turn():
    assert {in_turn(f"{n:040x}") for n in range(len(FAULTS))} == set(FAULTS)
    assert in_turn("") == in_turn("0" * 40) and re.fullmatch("[0-9a-f]{40}|", commit())


@pytest.mark.parametrize("module, name, replacement", FAULTS.values(), ids=FAULTS)
def test_what_a_fault_replaces_is_there(module, name, replacement):
    m = importlib.import_module(module)
    assert callable(getattr(m, name)) and callable(eval(replacement, {"m": m}))


@pytest.mark.parametrize("number", sorted(FAULTS))
def test_a_broken_library_breaks_the_lesson(number, tmp_path):
    """Proof that a lesson can fail: one function of the library is replaced before the kernel starts."""
    path = next(p for p in PATHS if p.stem.startswith(number))
    if os.environ.get("FAIRSEG_SCALE") != "lesson" and number != in_turn(commit()):
        pytest.skip(f"at this commit it is lesson {in_turn(commit())}'s turn; `course.py test --full` breaks every one")
    module, name, replacement = FAULTS[number]
    for hook in ("usercustomize", "sitecustomize"):
        (tmp_path / f"{hook}.py").write_text(f"import {module} as m\nm.{name} = {replacement}\n", encoding="utf-8")
    env = {**os.environ, "FAIRSEG_SCALE": "smoke", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    options = "-q -x -p no:cacheprovider -p no:xdist --nbval-lax --nbval-current-env --nbval-cell-timeout=200"
    command = [sys.executable, "-m", "pytest", *options.split(), str(path)]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "AssertionError" in result.stdout, result.stdout[-2000:] + result.stderr[-2000:]
