"""Each trial of `survived`, in short; and docs/robustness.md holds a table of all of them, in full."""

import re
import sys
from pathlib import Path

import pytest

from tests.survived import TRIALS, tried

PAGE = Path(__file__).resolve().parents[1] / "docs/robustness.md"


@pytest.mark.skipif(sys.platform != "linux", reason="kills, mounts and limits as Linux has them")
@pytest.mark.parametrize("name", TRIALS)
def test_everything_is_survived(name):
    count = tried(name)
    assert count.tried > 0 and count.survived == count.tried, count.faults[:5]


def test_the_page_tells_of_every_trial_and_of_nothing_lost():
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE.read_text("utf-8"), re.M)
    assert [name for name, _, _ in rows] == list(TRIALS)
    assert all(there == survived for _, there, survived in rows)
