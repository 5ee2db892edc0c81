"""The house in numbers: how much there is, and who imports whom; neither grows past what one head can hold.

    python -m tests.test_house     the same as a table

A room is a folder of the library, or a file beside the folders. It imports only from rooms on floors below its own: the arrow of
the pipeline never turns back. Lines of code are those with a token on them that is no comment, no docstring and no line end.
"""

import argparse
import ast
import io
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "fairseg_lite"
CORE = ("geometry", "data", "models", "inference", "evaluation", "training")
FLOORS = {  # `errors` is the ground, open to all
    "geometry": 0, "data": 1, "models": 1, "inference": 2, "evaluation": 2, "training": 3, "official": 3, "formats": 3,
    "__init__": 3, "plots": 4, "bench": 4, "course": 5, "cli": 6, "errors": -1,
}  # fmt: skip
MATERIAL = "course/exercises/"  # what lessons ask: hints, mistakes, solutions. In the wheel like the lessons, and counted apart
FOR_CLI_ALONE = ("official", "formats", "course")  # and for tests and lessons: the library is whole without them
BARS = {  # what the house is built for; it may hold 5,000 lines of core code and 12,500 lines in all, no more
    "lines of core code": 4500,
    "lines": 11000,
    "files": 66,
    "lines of exercises": 1860,
    "lines of the longest file": 300,
    "lines of code of the longest function": 50,
    "options of all commands": 115,
    "names of files in two rooms": 0,
    "import circles": 0,
    "imports that go up": 0,
}
STANDING = {  # above the bar today; these numbers go down (lines once went up by 33, for `reranked`), and an entry goes with them
    "lines of core code": 5726,
    "lines": 15665,
    "files": 85,
}
NAMESAKES = {  # one name in two rooms, because both are about one thing
    "propose": "the command and what it calls",
    "detect": "the command and what it calls",
    "errors": "the class that everything raises, and what goes wrong in detections",
    "patches": "ours, those of the official sampler, and how well their masks are predicted",
    "pictures": "read, and drawn",
}


class Module(NamedTuple):
    """What the house knows of one file."""

    name: str  # with dots
    file: str  # "data/coco.py"
    room: str  # "data"
    lines: int
    code: set[int]  # numbers of the lines that hold code
    functions: dict[str, int]  # lines of code of each, by its name and first line
    imports: set[str]  # modules of this package, wherever in the file they are imported


def modules(package: Path) -> dict[str, Module]:
    """Every file of a package, by its dotted name; that of a folder is its `__init__`."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for name, path in files.items():
        source, inside = path.read_text(encoding="utf-8"), path.relative_to(package)
        tree = ast.parse(source)
        code = code_lines(source, tree)
        functions = {f"{f.name}:{f.lineno}": sum(f.lineno <= n <= f.end_lineno for n in code) for f in _functions(tree)}
        imports = {target for target in _imports(tree, files) if target != name}
        room = inside.parts[0].removesuffix(".py")
        found[name] = Module(name, inside.as_posix(), room, len(source.splitlines()), code, functions, imports)
    return found


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines with code on them.

    >>> code_lines(text := '"doc"' + chr(10) + "x = [  # why" + chr(10) + "]" + chr(10), ast.parse(text))
    {2, 3}
    """
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in silent for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _imports(tree: ast.Module, files: dict[str, Path]) -> Iterator[str]:
    """Modules among files that a file names; `from a import b` is of a.b where that is a module, else of a."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            names = [f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in files else node.module for a in node.names]
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name in files)


def circles(house: dict[str, Module]) -> list[list[str]]:
    """Groups of modules in which each one needs each other one."""

    def reach(name: str) -> set[str]:
        seen, ahead = set(), [name]
        while ahead:
            new = house[ahead.pop()].imports - seen
            seen |= new
            ahead += new
        return seen

    far = {name: reach(name) for name in house}
    return [list(group) for group in sorted({tuple(sorted(n for n in far[m] if m in far[n])) for m in far if m in far[m]})]


def going_up(house: dict[str, Module]) -> list[str]:
    """Imports of a room that is not below, and of one that only `cli` may open."""
    found = []
    for m in house.values():
        for other in sorted({house[name].room for name in m.imports} - {m.room}):
            if m.room not in FLOORS or other not in FLOORS:
                found.append(f"no floor for {m.room} -> {other}")
            elif FLOORS[other] >= FLOORS[m.room] or (other in FOR_CLI_ALONE and m.room != "cli"):
                found.append(f"{m.name} imports {other}")
    return found


def namesakes(house: dict[str, Module]) -> dict[str, list[str]]:
    """Names that files of several rooms have, without those that have a reason."""
    rooms = defaultdict(set)
    for m in house.values():
        rooms[Path(m.file).stem].add(m.room)
    return {k: sorted(v) for k, v in rooms.items() if len(v) > 1 and k not in {"__init__", "__main__", *NAMESAKES}}


def options(parser: argparse.ArgumentParser) -> dict[str, int]:
    """How many options each command has, but for --help and --debug, which all have."""
    found = Counter()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):  # an alias is no second command
                found.update(options(command))
        elif action.option_strings and action.dest not in ("help", "debug"):
            found[parser.prog] += 1
    return dict(found)


def measures(house: dict[str, Module], commands: dict[str, int]) -> dict[str, tuple[int, str]]:
    """By name: the number, and where it comes from."""
    core = {room: sum(len(m.code) for m in house.values() if m.room == room) for room in CORE}
    longest = max(house.values(), key=lambda m: m.lines)
    functions = {f"{m.name}.{f}": n for m in house.values() for f, n in m.functions.items()}
    function = max(functions, key=functions.get)
    library = [m for m in house.values() if not m.file.startswith(MATERIAL)]
    same, round_, up = namesakes(house), circles(house), going_up(house)
    return {
        "lines of core code": (sum(core.values()), ", ".join(f"{room} {n}" for room, n in core.items())),
        "lines": (sum(m.lines for m in library), f"of code {sum(len(m.code) for m in library)}"),
        "files": (len(library), ""),
        "lines of exercises": (sum(m.lines for m in house.values()) - sum(m.lines for m in library), MATERIAL),
        "lines of the longest file": (longest.lines, longest.name),
        "lines of code of the longest function": (functions[function], function),
        "options of all commands": (sum(commands.values()), f"most: {max(commands, key=commands.get)}"),
        "names of files in two rooms": (len(same), "; ".join(f"{k} in {', '.join(v)}" for k, v in same.items())),
        "import circles": (len(round_), "; ".join(" <-> ".join(c) for c in round_)),
        "imports that go up": (len(up), "; ".join(up)),
    }


def table(found: dict[str, tuple[int, str]]) -> str:
    lines = [f"{'':40}{'today':>7}{'limit':>7}{'bar':>7}"]
    for name, (number, where) in found.items():
        lines.append(f"{name:40}{number:7}{STANDING.get(name, BARS[name]):7}{BARS[name]:7}  {where}".rstrip())
    return "\n".join(lines)


def the_house() -> dict[str, tuple[int, str]]:
    from fairseg_lite.cli import build_parser

    return measures(modules(PACKAGE), options(build_parser()))


def test_the_house_keeps_its_limits():
    found = the_house()
    over = [name for name, (number, _) in found.items() if number > STANDING.get(name, BARS[name])]
    assert not over, f"too much: {', '.join(over)}\n{table(found)}"
    assert found["files"][0] > 40, "the test looks at the wrong folder"


def test_rooms_say_their_floor():
    said = {path.parent.name: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*/__init__.py")}
    assert {room: text.partition(":")[0] for room, text in said.items()} == {room: f'"""Floor {FLOORS[room]}' for room in said}


def test_what_is_let_pass_is_needed():
    assert all(STANDING[name] > BARS[name] for name in STANDING)
    rooms = {name: {p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob(f"{name}.py")} for name in NAMESAKES}
    assert all(len(found) > 1 for found in rooms.values()), rooms


def build(folder: Path, **files: str) -> dict[str, Module]:
    """A package made of texts; `data_read` is the file `data/read.py`, `data_` the folder's own."""
    for name, text in files.items():
        path = folder / "small" / f"{name.replace('_', '/', 1)}.py"
        path = path.parent / "__init__.py" if name.endswith("_") else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return modules(folder / "small")


def test_lines_of_code_are_those_that_say_something(tmp_path):
    head = '"""Two lines\nof words."""\n\nimport os  # why\n\n\n'
    text = head + 'def f(\n    a,\n):\n    "doc"\n    # a comment\n    return """b\n\nc"""\n'
    found = build(tmp_path, geometry_box=text)["small.geometry.box"]
    assert (found.lines, sorted(found.code)) == (14, [4, 7, 8, 9, 12, 13, 14])
    assert found.functions == {"f:7": 6}
    assert found.room == "geometry" and found.imports == set()


def test_a_function_counts_what_is_defined_inside(tmp_path):
    text = "class A:\n    async def f(self):\n        def g():\n            return 1\n\n        return g\n"
    assert build(tmp_path, models_net=text)["small.models.net"].functions == {"f:2": 4, "g:3": 2}


def test_rooms_that_reach_up_are_seen(tmp_path):
    house = build(
        tmp_path,
        models_net="from small.training.fit import fit",
        training_fit="",
        data_read="def f():\n    from small.models import net",
        geometry_box="from small import plots",
        plots_="",
        attic_old="import small.geometry.box",
        training_fine="from small.models.net import Net\nfrom small.errors import InputError",
        errors="",
        bench="import small.official.reader",
        official_reader="import small.models.net",
        cli_="from small.official.reader import read",
    )
    assert going_up(house) == [
        "no floor for attic -> geometry",
        "small.bench imports official",
        "small.data.read imports models",
        "small.geometry.box imports plots",
        "small.models.net imports training",
    ]


def test_circles_are_found_whole_and_once(tmp_path):
    house = build(
        tmp_path,
        data_a="from small.data import b",
        data_b="def f():\n    import small.data.c",
        data_c="from small.data.a import f",
        data_d="from small.data.a import f",
        models_x="from small.models.y import f",
        models_y="import small.models.x",
    )
    assert circles(house) == [["small.data.a", "small.data.b", "small.data.c"], ["small.models.x", "small.models.y"]]


def test_one_name_in_two_rooms_is_seen(tmp_path):
    house = build(tmp_path, data_means="", evaluation_means="", cli_detect="", inference_detect="", cli_="")
    assert namesakes(house) == {"means": ["data", "evaluation"]}


def test_options_of_commands_within_commands_are_counted():
    parser = argparse.ArgumentParser(prog="p")
    parser.add_argument("--debug", action="store_true")
    commands = parser.add_subparsers()
    one = commands.add_parser("one", aliases=["first"])
    one.add_argument("file")
    one.add_argument("-n", "--number")
    one.add_argument("--quick", action="store_true")
    commands.add_parser("group").add_subparsers().add_parser("two").add_argument("--size")
    assert options(parser) == {"p one": 2, "p group two": 1}


def test_the_table_names_the_place_of_each_number(tmp_path):
    text = "\n".join(["def long():", *["    pass"] * 3])
    shown = table(measures(build(tmp_path, data_long=text, cli_short="x = 1"), {"p one": 2, "p two": 3}))
    rows = {line[:40].strip(): line[40:].split() for line in shown.splitlines()}
    assert rows["lines of core code"][0] == "4" and rows["lines of core code"][3:7] == ["geometry", "0,", "data", "4,"]
    assert rows["lines"][0] == "5" and rows["files"][0] == "2"
    assert rows["lines of code of the longest function"][3] == "small.data.long.long:1"
    assert rows["options of all commands"][0] == "5" and rows["options of all commands"][-3:] == ["most:", "p", "two"]


if __name__ == "__main__":
    print(table(the_house()))
