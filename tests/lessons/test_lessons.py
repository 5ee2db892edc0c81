"""The lessons' own rules: structure, honest numbers, exercises that check, code that is the library's."""

import ast
import importlib
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fairseg_lite.course import lesson

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "lessons").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not PATHS, reason="no lessons here")
LIMIT_BYTES, LIMIT_CELLS, LIMIT_LINES, LIMIT_MEDIAN, LIMIT_WORDS = 600_000, 40, 30, 8, 3000


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


def test_the_set_up_cell_is_the_same_everywhere():
    assert len({source(code_cells(load(p))[0]) for p in PATHS}) == 1


@each()
def test_first_cell_has_badge_and_table(path):
    first = source(load(path)["cells"][0])
    assert re.match(rf"# {path.stem[:2]} ", first)
    assert f"/github/fairseg-lite/fairseg-lite/blob/main/lessons/{path.name})" in first
    for column in ("You will build", "Minutes", "Needs", "Paper"):
        assert column in first


@each()
def test_sizes(path):
    notebook = load(path)
    lines = [len(source(c).splitlines()) for c in code_cells(notebook)]
    words = sum(len(source(c).split()) for c in notebook["cells"] if c["cell_type"] == "markdown")
    assert path.stat().st_size < LIMIT_BYTES
    assert len(lines) <= LIMIT_CELLS and max(lines) <= LIMIT_LINES and statistics.median(lines) <= LIMIT_MEDIAN
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


def test_the_comparison_sees_a_changed_sign_and_ignores_words():
    a = 'def f(x: int) -> int:\n    "doc"\n    y: int = x + 1  # why\n    return y'
    assert stripped(a) == stripped("def f(x):\n    y = x + 1\n    return y")
    assert stripped(a) != stripped("def f(x):\n    y = x - 1\n    return y")


def exercises() -> list:
    found = []
    for path in PATHS:
        cells = code_cells(load(path))
        checks = {t: c for c in cells for t in tags(c, "check")}
        for cell in cells:
            found += [pytest.param(path, t, cell, checks.get(t), id=f"{path.stem[:2]}-{t}") for t in tags(cell, "exercise")]
    return found


@pytest.mark.parametrize("path, name, stub, check", exercises())
def test_exercise_accepts_the_solution_and_refuses_the_rest(path, name, stub, check, capsys):
    assert check is not None, f"exercise {name} has no cell tagged check:{name}"
    solutions: dict = {}
    solution_file = ROOT / "lessons" / "solutions" / f"{path.stem[:2]}.py"
    exec(compile(solution_file.read_text("utf-8"), str(solution_file), "exec"), solutions)
    for prefix, wanted in (("", "correct"), ("wrong_", "wrong, because"), (None, "not written yet")):
        import numpy as np
        import torch

        from fairseg_lite import plots

        scope = {"np": np, "torch": torch, "lesson": lesson, "plots": plots}
        if prefix is None:
            exec(source(stub), scope)
        else:
            scope[name] = solutions[prefix + name]
        capsys.readouterr()
        exec(source(check), scope)
        assert capsys.readouterr().out.strip().startswith(wanted)


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
