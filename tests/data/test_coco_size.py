"""A file as large as COCO's is read within a minute and 3 GB (`course.py test --full`); a small one says the same."""

import os
import sys

import pytest

from tests.data.coco_size import checked, write

FULL = os.environ.get("FAIRSEG_SCALE") == "lesson"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
@pytest.mark.parametrize(
    "pictures, instances",
    [(50, 900), pytest.param(118_000, 860_000, marks=pytest.mark.skipif(not FULL, reason="takes two minutes: --full"))],
)
def test_a_large_file(tmp_path, pictures, instances):
    write(tmp_path / "instances.json", pictures, instances)
    told, seconds, peak = checked(tmp_path / "instances.json")
    crowds = -(-instances // 90)
    assert f"{pictures:8,}   of which" in told and "the annotations alone are checked" in told
    assert f"instances   {instances - crowds:8,}   and {crowds:,} crowds" in told and "  0 faults" in told
    assert "did not fit" not in told
    assert peak <= 3 and (seconds <= 60 or not FULL), f"{seconds:.1f} s, {peak:.2f} GB"
