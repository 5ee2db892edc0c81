"""Help: quick, with an example that the command itself accepts."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest

import fairseg_lite
from fairseg_lite.cli import build_parser


def jobs(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Every command and job, by its words."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                here = (*words, *name.split())  # `evaluate detections` is one command of two words
                found |= jobs(child, here) or {here: child}
    return found


JOBS = jobs(build_parser())


def examples(text: str) -> list[list[str]]:
    """The lines of a text that call `fairseg-lite`, as words; what stands after three spaces explains."""
    lines = re.sub(r"\\\n *", "", text).splitlines()
    calls = [line.strip() for line in lines if line.strip().startswith("fairseg-lite ")]
    return [shlex.split(call.split("   ")[0])[1:] for call in calls]


def test_the_commands_are_those_of_the_plan():
    assert {" ".join(words) for words in JOBS} == {
        "demo", "propose", "detect", "train deepmask", "train sharpmask", "train multipathnet", "ablate", "evaluate",
        "evaluate detections", "bench", "data shapes", "data check", "data split", "data convert", "data coco", "import",
        "export", "bench scale",
    }  # fmt: skip


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_help_shows_a_worked_example_of_this_very_command(words, cli):
    code, out, err = cli(*words, "--help")
    assert code == 0
    assert err == []
    shown = examples("\n".join(out))
    assert any(tuple(call[: len(words)]) == words for call in shown)
    for call in shown:
        assert build_parser().parse_args(call).run, call


@pytest.mark.parametrize("words", [(), ("train",), ("data",)], ids=str)
def test_help_of_a_group_lists_its_members(words, cli):
    code, out, _ = cli(*words, "--help")
    assert code == 0
    for job in JOBS:
        if job[: len(words)] == words:
            assert any(line.strip().startswith(job[len(words)]) for line in out), job


@pytest.mark.parametrize("words", [(), ("train", "multipathnet"), ("detect",), ("bench",)], ids=str)
def test_help_needs_no_torch(words):
    code = f"""
import contextlib, sys
from fairseg_lite.cli import main
with contextlib.suppress(SystemExit):
    main([*{words!r}, "--help"])
print("torch" in sys.modules, "numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("False False\n"), done.stderr


def test_the_version_is_told(cli):
    assert cli("--version") == (0, [f"fairseg-lite {fairseg_lite.__version__}"], [])


@pytest.mark.parametrize("words, said", [
    ((), "arguments are required: COMMAND"),
    (("propse",), "invalid choice: 'propse'"),
    (("train",), "arguments are required: JOB"),
    (("propose", "x.jpg"), "required: --out/-o"),
    (("propose", "x.jpg", "-o", "y", "--top-k", "0"), "'0' is not a whole number of at least 1"),
    (("propose", "x.jpg", "-o", "y", "--set", "nms"), "'nms' is not NAME=VALUE, such as fit.lr=1e-3"),
    (("propose", "x.jpg", "-o", "y", "--set", "=3"), "'=3' is not NAME=VALUE"),
    (("train", "deepmask", "shapes", "-o", "y", "--recipe", "mine"), "invalid choice: 'mine'"),
    (("data", "shapes", "y", "-n", "-3"), "'-3' is not a whole number of at least 1"),
    (("bench", "--speed"), "unrecognized arguments: --speed"),
])  # fmt: skip
def test_wrong_words_get_one_line_that_names_them(words, said, refused):
    line = refused(*words)
    assert said in line
    assert "--help)" in line
