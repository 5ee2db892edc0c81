"""The photographs that come with the library: whole, small, and each with its origin and licence."""

import json

from fairseg_lite.data.coco import check
from fairseg_lite.data.photos import FOLDER, photographs


def test_they_are_whole_and_small():
    report = check(FOLDER, progress=False)
    assert 12 <= report.images <= 24 and not report.faults and not report.empty_images
    assert sum(p.stat().st_size for p in FOLDER.rglob("*")) < 1.5e6
    assert max(max(p.height, p.width) for p in photographs().pictures) == 480


def test_each_names_its_origin_and_licence():
    table = (FOLDER / "README.md").read_text("utf-8")
    for picture in json.loads((FOLDER / "instances.json").read_text("utf-8"))["images"]:
        row = next(line for line in table.splitlines() if picture["file_name"] in line)
        assert picture["url"].startswith("http") and picture["url"] in row
        allowed = ("Attribution License", "No known copyright restrictions", "CC0 1.0", "CC BY 4.0")
        assert picture["license"].startswith(allowed) and picture["license"] in row
