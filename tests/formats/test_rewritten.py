"""Clean copies need no mending, say what the first file said, and are never written over anything; parts share no picture."""

import json
import shutil

import numpy as np
import pytest

from fairseg_lite.cli import main
from fairseg_lite.data.coco import CocoDataset, check
from fairseg_lite.data.photos import listed_pictures
from fairseg_lite.formats import clean, read_whole, stratified
from tests.data.test_cases import CASES, rewritten

COLUMNS = ("image", "box", "label", "crowd", "area")


@pytest.mark.parametrize(
    "case",
    ["annotation-ids-repeat", "float-ids", "one-bad-part", "same-category-often", "backslash", "roboflow", "subfolders",
     "same-name-twice", "exif", "coco-layout", "bom"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_a_clean_copy_needs_no_mending_and_is_the_same(tmp_path, case, where, capsys):
    root = shutil.copytree(CASES / case, tmp_path / "set")
    before = CocoDataset(root)
    out = before.path.with_name("clean.json") if where == "beside" else tmp_path / "new/deep/clean.json"
    written = before.path.read_bytes()
    assert main(["data", "check", str(root), "--fix", str(out)]) == 0
    assert f"clean.json: {len(before)} pictures with {len(before.instances)} annotations\n" in capsys.readouterr().out
    report = check(out, progress=False)
    assert report.faults == [] and not [line for line in report.mended if "EXIF" not in line]
    after = CocoDataset(out)
    assert [p.path.resolve() for p in after.pictures] == [p.path.resolve() for p in before.pictures]
    assert (after.image_ids, after.categories, after.category_ids) == (before.image_ids, before.categories, before.category_ids)
    for column in COLUMNS:
        np.testing.assert_allclose(getattr(after.instances, column), getattr(before.instances, column), atol=0.01)
    for i in range(len(before)):
        np.testing.assert_array_equal(after[i].masks, before[i].masks)
        assert after[i].annotation_ids.tolist() == before[i].annotation_ids.tolist()
    assert {p.path.resolve(): p.id for p in listed_pictures(out)[0]} == {p.path.resolve(): p.id for p in before.pictures}
    assert before.path.read_bytes() == written


def test_what_is_mended_is_counted_and_what_is_a_fault_left_out(tmp_path, capsys):
    def spoil(content):
        content["annotations"][0] |= {"id": "1", "segmentation": [*content["annotations"][0]["segmentation"], [1, 2, 3]]}
        content["annotations"][1] |= {"category_id": 77, "by": "me"}
        content["annotations"][2] |= {"id": 2.0, "by": "me"}
        content["images"].append({**content["images"][2], "id": 999})
        content["annotations"].append({**content["annotations"][-1], "id": 50, "image_id": 999})
        content["categories"].append({"id": 9, "name": "disc"})
        content["annotations"][4]["category_id"] = 9
        content["licenses"] = [{"id": 5}]

    root, out = rewritten(tmp_path, spoil), tmp_path / "clean.json"
    assert main(["data", "check", str(root), "--fix", str(out)]) == 2
    told = capsys.readouterr().out
    for line in (
        "2 numbers written as text or fractions",
        "1 bad parts of masks, left out (first: annotation 1 of p0.png)",
        "1 pictures listed under two ids, taken as one (first: p2.png under 303 and 999)",
        "1 ids of categories whose name has one already",
        "3 pictures with 6 annotations; 1 faults are left out",
    ):
        assert line in told.replace("\n    ", " ")
    new = json.loads(out.read_text("utf-8"))
    assert new["licenses"] == [{"id": 5}] and len(new["images"]) == 3 and [c["id"] for c in new["categories"]] == [1, 2]
    assert [a["id"] for a in new["annotations"]] == [1, 2, 4, 5, 6, 50] and new["annotations"][1]["by"] == "me"
    assert {a["category_id"] for a in new["annotations"]} == {1, 2} and len(new["annotations"][0]["segmentation"]) == 1
    assert check(out, progress=False).mended == []


def test_crowds_may_be_written_as_objects(tmp_path):
    assert main(["data", "check", str(CASES / "all-crowd"), "--crowds-are-objects", "--fix", str(tmp_path / "o.json")]) == 0
    assert {a["iscrowd"] for a in json.loads((tmp_path / "o.json").read_text("utf-8"))["annotations"]} == {0}


def test_nothing_is_written_over(tmp_path, capsys):
    root = rewritten(tmp_path, lambda c: None)
    for name in ("instances.json", "clean.txt"):
        before = (root / "instances.json").read_bytes()
        assert main(["data", "check", str(root), "--fix", str(root / name)]) == 2
        assert "wanted the name of a JSON file that is not there yet" in capsys.readouterr().err
        assert (root / "instances.json").read_bytes() == before
    assert main(["data", "split", str(root), str(tmp_path / "out")]) == 0
    before = (tmp_path / "out/train.json").read_bytes()
    assert main(["data", "split", str(root), str(tmp_path / "out"), "--seed", "1"]) == 2
    assert "is not written over" in capsys.readouterr().err and (tmp_path / "out/train.json").read_bytes() == before


def test_a_damaged_picture_is_not_in_the_copy(tmp_path):
    root = rewritten(tmp_path, lambda c: None)
    path = root / "images/p1.png"
    middle = bytearray(path.read_bytes())
    middle[len(middle) // 2 :][:20] = bytes(20)
    path.write_bytes(middle[:60] + bytes(40) + middle[100:])
    assert main(["data", "check", str(root), "--fix", str(tmp_path / "o.json")]) == 2
    assert CocoDataset(tmp_path / "o.json").image_ids == [301, 303]


# --- split


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_alike_in_every_category(seed):
    g = np.random.default_rng(seed)
    counts = g.poisson(1, (200, 12)) * (g.random((200, 12)) < np.linspace(0.04, 0.9, 12))
    aside = stratified(counts, 0.2, seed)
    assert aside.sum() == 40
    total, found = counts.sum(0), counts[aside].sum(0)
    assert (np.abs(found - 0.2 * total) <= np.maximum(1, 0.01 * total)).all(), (total, found)
    by_chance = [np.abs(counts[g.permutation(200)[:40]].sum(0) / total - 0.2).mean() for _ in range(200)]
    assert np.abs(found / total - 0.2).mean() < np.min(by_chance)


def test_a_split_is_drawn_by_its_seed():
    counts = np.random.default_rng(0).poisson(1, (60, 4))
    assert (stratified(counts, 0.3, 1) == stratified(counts, 0.3, 1)).all()
    assert (stratified(counts, 0.3, 1) != stratified(counts, 0.3, 2)).any()
    assert stratified(np.zeros((7, 0), int), 0.5, 0).sum() == stratified(np.zeros((7, 3), int), 0.5, 0).sum() == 4


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.2, 0.9, float("nan")])
def test_a_share_that_leaves_nothing(share):
    with pytest.raises(ValueError, match="leaves nothing on one side; choose a share above 0 and below 1"):
        stratified(np.ones((3, 1), int), share, 0)


@pytest.mark.parametrize("where", ["set", "new"])
def test_parts_are_data_sets_without_a_common_picture(tmp_path, where, capsys):
    root = shutil.copytree(CASES / "subfolders", tmp_path / "set")
    whole, out = CocoDataset(root), tmp_path / where
    assert main(["data", "split", str(root), str(out), "--valid", "0.25"]) == 0
    assert ["pictures", "3", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    parts = [CocoDataset(out / f"{name}.json") for name in ("train", "valid")]
    assert sorted(parts[0].image_ids + parts[1].image_ids) == sorted(whole.image_ids)
    assert [len(p) for p in parts] == [3, 1] and sum(len(p.instances) for p in parts) == len(whole.instances)
    assert all(p.categories == whole.categories and not p.mended for p in parts)


def test_a_split_of_faults_is_refused(tmp_path, capsys):
    root = rewritten(tmp_path, lambda c: c["annotations"][0].update(category_id=77))
    assert main(["data", "split", str(root), str(tmp_path / "out")]) == 2
    assert "--fix OUT.json` writes a clean copy: split that" in capsys.readouterr().err


def test_annotations_without_pictures_are_cleaned_by_their_names(tmp_path):
    shutil.copy(CASES / "bom/instances.json", tmp_path / "some.json")
    new = clean(read_whole(tmp_path / "some.json"), tmp_path / "new.json")
    assert [i["file_name"] for i in new["images"]] == ["p0.png", "p1.png", "p2.png"] and len(new["annotations"]) == 6
