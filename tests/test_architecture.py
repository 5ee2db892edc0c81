"""ARCHITECTURE.md tells the truth: its rooms are there, in the order of their floors, and its numbers are today's."""

import re
from pathlib import Path

import pytest

from tests.test_house import FLOORS, PACKAGE, the_house

PAGE = (Path(__file__).resolve().parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROOMS = [name.strip("/").removesuffix(".py") for name in re.findall(r"^\| `([\w.]+/?)` \|", PAGE, re.M)]


def test_its_rooms_are_those_that_are_there():
    there = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert set(ROOMS) == there - {"__init__"} and len(ROOMS) == len(set(ROOMS))


def test_what_stands_below_imports_from_above():
    floors = [FLOORS[room] for room in ROOMS]
    assert floors == sorted(floors)


@pytest.mark.parametrize("what", ["files", "lines", "lines of core code", "options of all commands"])
def test_its_numbers_are_todays(what):
    told = re.search(rf"([\d,]+) {what}\b(?! of)", PAGE)
    assert told, f"no number of {what}"
    number, today = int(told[1].replace(",", "")), the_house()[what][0]
    assert abs(number - today) <= 0.06 * today, f"the page says {number}, counted are {today}"
