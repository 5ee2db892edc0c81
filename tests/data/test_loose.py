"""What annotation tools write in a form of their own is read as it is meant, counted; what has no meaning is named."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, check
from fairseg_lite.data.layouts import Names, locate, other_format
from fairseg_lite.data.photos import listed_pictures
from fairseg_lite.data.pictures import load_image
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import polygons_to_mask, rle_counts, rle_encode
from tests.data.test_cases import CASES, rewritten

H, W = 96, 128
CONTENT = json.loads((CASES / "bom/instances.json").read_text("utf-8-sig"))
PLAIN = CocoDataset(CASES / "bom")


def runs(polygons) -> list[int]:
    return rle_counts(rle_encode(polygons_to_mask(polygons, H, W))).tolist()


def text_of_bytes(polygons) -> str:
    return repr(rle_encode(polygons_to_mask(polygons, H, W))["counts"].encode())


def pairs(polygon) -> list[list[float]]:
    return np.reshape(polygon, (-1, 2)).tolist()


SEGMENTATIONS = {
    "runs": (lambda s: {"size": [H, W], "counts": runs(s)}, None),
    "runs without a size": (lambda s: {"counts": runs(s)}, "6 RLEs without a size"),
    "runs as fractions": (lambda s: {"size": [96.0, 128.0], "counts": [float(n) for n in runs(s)]}, "numbers written as text"),
    "runs as text": (lambda s: {"size": ["96", "128"], "counts": [str(n) for n in runs(s)]}, "numbers written as text"),
    "bytes shown by Python": (lambda s: {"size": [H, W], "counts": text_of_bytes(s)}, "6 RLEs with the marks of Python's bytes"),
    "a list of one": (lambda s: [{"size": [H, W], "counts": runs(s)}], "6 RLEs in a list"),
    "JSON in JSON": (json.dumps, "6 segmentations written as text"),
    "flat": (lambda s: s[0], "6 polygons that are no list of lists"),
    "flat text": (lambda s: [str(v) for v in s[0]], "6 polygons written as points or as text"),
    "text": (lambda s: [[str(v) for v in p] for p in s], "6 polygons written as points or as text"),
    "points": (lambda s: [pairs(p) for p in s], "6 polygons written as points or as text"),
    "points alone": (lambda s: pairs(s[0]), "6 polygons that are no list of lists"),
    "an empty part": (lambda s: [*s, []], "6 bad parts of masks, left out"),
    "a part that is no number": (lambda s: [[1, 2, 3, 4, None, 6], *s], "6 bad parts of masks, left out"),
    "a part without end": (lambda s: [[1, 2, 3, 4, 1e12, 6], *s], "6 bad parts of masks, left out"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_segmentations_in_other_forms_are_the_same_masks(tmp_path, name):
    form, told = SEGMENTATIONS[name]

    def change(content):
        for a in content["annotations"]:
            a["segmentation"] = form(a["segmentation"])

    data = CocoDataset(rewritten(tmp_path, change), on_fault="collect")
    assert not data.faults and data.measured == 0
    assert told in " ".join(data.mended) if told else not data.mended
    for i in range(3):
        np.testing.assert_array_equal(data[i].masks, PLAIN[i].masks)
    np.testing.assert_allclose(data.instances.box, PLAIN.instances.box, atol=1)


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_unicode_is_read(tmp_path, code):
    root = rewritten(tmp_path, lambda c: c["categories"][0].update(name="Tür"))
    text = (root / "instances.json").read_text("utf-8").replace("\\u00fc", "ü")
    (root / "instances.json").write_text(text, code)
    assert CocoDataset(root).categories[0] == "Tür" and listed_pictures(root)[0][0].id == 301


def test_text_in_an_old_code_is_refused(tmp_path):
    root = rewritten(tmp_path, lambda c: None)
    (root / "instances.json").write_bytes('{"images": ["Tür"]}'.encode("cp1252"))
    with pytest.raises(InputError, match="is not UTF-8: .* at byte 14; save it as UTF-8"):
        CocoDataset(root)


def everywhere(**changes):
    """A change of every entry of some lists: images=f, annotations=g, ..."""

    def change(content):
        for key, f in changes.items():
            for entry in content[key]:
                entry.update(f(entry))

    return change


NAMED = {c["id"]: c["name"] for c in CONTENT["categories"]}
FILES = {i["id"]: i["file_name"] for i in CONTENT["images"]}
as_text = {"images": lambda e: {"id": f"{e['id']}.0"}, "categories": lambda e: {"id": f"{e['id']}.0"}}


@pytest.mark.parametrize(
    "change, told",
    [
        (everywhere(**as_text, annotations=lambda e: {"image_id": f"{e['image_id']}.0", "id": f" {e['id']}"}), "as text"),
        (everywhere(annotations=lambda e: {"bbox": [str(v) for v in e["bbox"]], "area": str(e["area"])}), None),
        (everywhere(annotations=lambda e: {"image_id": FILES[e["image_id"]]}), "6 pictures of annotations given by name"),
        (everywhere(annotations=lambda e: {"image_id": FILES[e["image_id"]][:-4]}), "6 pictures of annotations given by name"),
        (everywhere(annotations=lambda e: {"category_id": NAMED[e["category_id"]]}), "6 categories of annotations given by name"),
        (everywhere(annotations=lambda e: {"iscrowd": None}), None),
        (everywhere(images=lambda e: {"height": 0, "width": 0}), None),
        (everywhere(images=lambda e: {"path": f"/home/u/{e.pop('file_name')}"}), "3 names of pictures that stand for another"),
        (lambda c: c["images"].append(dict(c["images"][0])), "1 pictures that are listed twice, taken once (first: p0.png)"),
    ],
)
def test_entries_in_other_forms_are_the_same(tmp_path, change, told):
    data = CocoDataset(rewritten(tmp_path, change), on_fault="collect")
    assert not data.faults and data.measured == 0
    assert told in " ".join(data.mended) if told else not data.mended
    assert data.image_ids == PLAIN.image_ids and data.categories == PLAIN.categories
    for column in ("image", "box", "label", "area", "crowd"):
        np.testing.assert_array_equal(getattr(data.instances, column), getattr(PLAIN.instances, column))


@pytest.mark.parametrize(
    "change, categories, told",
    [
        (lambda c: c.pop("categories"), ("1", "2"), "1 lists of categories that are missing, their ids taken as names"),
        (lambda c: c.update(categories=[]), ("1", "2"), "1 lists of categories that are missing"),
        (lambda c: (c.pop("categories"), everywhere(annotations=lambda e: {"category_id": None})(c)), ("object",), "missing"),
        (lambda c: (everywhere(annotations=lambda e: {"category_id": None})(c), c["categories"].pop()), ("disc",), "just one"),
        (everywhere(categories=lambda e: {"name": e["id"]}), ("1", "2"), "2 names of categories that are no text"),
        (lambda c: c["categories"].insert(0, {"id": 0, "name": "disc", "supercategory": "none"})
         or c["categories"][1].update(supercategory="disc"), ("disc", "box"), "1 categories that are mere groups"),
    ],
)  # fmt: skip
def test_categories_that_are_hardly_given(tmp_path, change, categories, told):
    data = CocoDataset(rewritten(tmp_path, change), on_fault="collect")
    assert data.categories == categories and not data.faults and told in " ".join(data.mended)
    assert len(data.instances) == 6


def test_a_category_that_is_missing_among_several_is_a_fault(tmp_path):
    report = check(rewritten(tmp_path, everywhere(annotations=lambda e: {"category_id": None})), progress=False)
    assert [f.kind for f in report.faults] == ["unknown category"] * 6 and report.faults[0].file == "p0.png"


def test_corners_as_shares_of_the_picture_are_told(tmp_path):
    shares = everywhere(annotations=lambda e: {"segmentation": [[v / 128 for v in p] for p in e["segmentation"]]})
    report = check(rewritten(tmp_path, shares), progress=False)
    assert "between 0 and 1: multiply them by the picture's size" in report.faults[0].text


def test_new_pictures_get_ids_that_no_entry_has(tmp_path):
    root = rewritten(tmp_path, lambda c: c["images"][2].update(file_name=None))
    pictures, told = listed_pictures(root)
    assert {p.name: p.id for p in pictures} == {"p0.png": 301, "p1.png": 302, "p2.png": 304} and "new ids from 304 on" in told


# --- names


@pytest.mark.parametrize(
    "name",
    ["images/8d3f1a2b-p0.png", "upload/1/8d3f1a2b__P0.PNG", "p0.jpg", "p0", " p0.png ", "https://host/x/p0.png?raw=1",
     "s3://bucket/p0.png", "/data/local-files/?d=imgs/p0.png", "..\\x\\p0.png"],
)  # fmt: skip
def test_a_name_that_stands_for_another(tmp_path, name):
    data = CocoDataset(rewritten(tmp_path, lambda c: c["images"][0].update(file_name=name)))
    assert data.pictures[0].path.name == "p0.png" and len(data) == 3


def test_label_studio_names_files_anew_and_not_the_entries(tmp_path):
    root = rewritten(tmp_path, lambda c: None)
    for i, p in enumerate(sorted((root / "images").iterdir())):
        p.rename(p.with_name(f"{i}d3f1a2b-{p.name}"))
    assert [p.path.name for p in CocoDataset(root).pictures] == ["0d3f1a2b-p0.png", "1d3f1a2b-p1.png", "2d3f1a2b-p2.png"]


def test_another_ending_counts_only_where_nothing_else_fits():
    names = Names([])
    names.files = list(map(CASES.joinpath, ("a/x.png", "b/x.jpg", "0a1b2c3d-y.png", "y.png")))
    assert [p.name for p in names.likely("c/x.jpg")] == ["x.jpg"]
    assert {p.name for p in names.likely("x.tif")} == {"x.png", "x.jpg"}
    assert [p.name for p in names.likely("y.png")] == ["y.png"]


# --- layouts


@pytest.mark.parametrize(
    "json_at, images_at",
    [
        ("labels.json", "data"),  # FiftyOne
        ("Instances.JSON", "images"),
        ("annotations.json", "."),
        ("annotations/train.json", "images"),
        ("labels/deep/down.json", "images"),
        ("images/coco.json", "images"),
        ("a/b/labels.json", "."),
    ],
)
def test_one_file_of_any_name_is_found(tmp_path, json_at, images_at):
    root = tmp_path / "set"
    shutil.copytree(CASES / "bom/images", root / images_at, dirs_exist_ok=True)
    (root / json_at).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CASES / "bom/instances.json", root / json_at)
    (root / "proposals.json").write_text('[{"image_id": 1}]', "utf-8")
    (root / "notes.json").write_text('{"images": 3}', "utf-8")
    assert CocoDataset(root).image_ids == [301, 302, 303]


def test_two_files_of_other_names_are_named(tmp_path):
    for name in ("a.json", "b.json"):
        shutil.copy(CASES / "bom/instances.json", tmp_path / name)
    with pytest.raises(InputError, match="several annotation files, '.*a.json' and '.*b.json'; give one of them"):
        locate(tmp_path)


@pytest.mark.parametrize(
    "content, told",
    [
        ({"version": "5", "shapes": [], "imagePath": "a"}, "'version', 'shapes', 'imagePath': labelme's format, which"),
        ({"_via_settings": {}, "_via_img_metadata": {}}, "VIA's format, which `fairseg-lite data convert` reads"),
        ({"a.png123": {"filename": "a.png", "regions": []}}, "VIA's annotations"),
        ([{"image_id": 1, "score": 1}], "a list of 'image_id', 'score': COCO results"),
        ([{"id": 1, "data": {}, "annotations": []}], "Label Studio's own format; export as COCO"),
        ({"info": {}}, "'info'"),
        ([], "list"),
        (7, "int"),
    ],
)
def test_what_another_file_is(tmp_path, content, told):
    assert told in other_format(content)
    (tmp_path / "instances.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match="has no list 'images'; is it a COCO 'instances' file\\? There is "):
        CocoDataset(tmp_path)


def test_a_folder_that_is_not_understood_names_what_convert_reads(tmp_path):
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="labelme, VIA, YOLO, PASCAL VOC and .* convert`; there is labels/"):
        locate(tmp_path)


def test_a_json_alone_is_checked_without_its_pictures(tmp_path):
    shutil.copy(CASES / "bom/instances.json", tmp_path / "some.json")
    report = check(tmp_path / "some.json", progress=False)
    assert (report.absent, report.images, report.instances, report.faults) == (True, 3, 6, [])
    assert "none is there: the annotations alone are checked" in str(report)
    for source in (tmp_path, f"{tmp_path}/some.json:{tmp_path}"):  # who names a folder wants its pictures
        assert [f.kind for f in check(source, progress=False).faults] == ["picture missing"] * 3
    with pytest.raises(InputError, match="there is no file"):
        CocoDataset(tmp_path / "some.json")
    shutil.copy(CASES / "bom/images/p1.png", tmp_path)
    report = check(tmp_path / "some.json", progress=False)
    assert not report.absent and len(report.faults) == 2


# --- pictures


def test_a_picture_of_too_many_pixels_is_not_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("FAIRSEG_MAX_MEGAPIXELS", "0.01")
    told = "has 0.0123 megapixels, and at most 0.01 are opened; cut it into tiles or reduce it"
    faults = check(CASES / "bom", progress=False).faults
    assert [f.kind for f in faults] == ["picture too large"] * 3 and told in faults[0].text
    assert told in listed_pictures(CASES / "bom")[0][0].fault
    with pytest.raises(InputError, match=told):
        load_image(CASES / "bom/images/p0.png")


def test_a_format_without_a_decoder_is_named(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 30)
    with pytest.raises(InputError, match="a.heic' cannot be decoded: no decoder of .heic comes with Pillow; save it as"):
        load_image(tmp_path / "a.heic")


@pytest.mark.parametrize("name, tags", [("a.dng", {}), ("a.NEF", {}), ("a.tif", {50706: b"\1\4\0\0"})])
def test_the_preview_of_raw_data_is_not_taken_for_the_picture(tmp_path, name, tags):
    Image.new("RGB", (8, 6)).save(tmp_path / name, "TIFF", tiffinfo=tags)
    with pytest.raises(InputError, match="cannot be decoded: it is a camera's raw data, of which only the preview would be seen"):
        load_image(tmp_path / name)
    Image.new("RGB", (8, 6)).save(tmp_path / "b.tif")
    assert load_image(tmp_path / "b.tif").shape == (6, 8, 3)


@pytest.mark.parametrize("top, seen", [(4095, None), (65535, 255), (20000, 78)])
def test_sixteen_bits_of_colour(tmp_path, top, seen):
    (tmp_path / "a.png").write_bytes(png(top))
    if seen is None:
        with pytest.raises(InputError, match="16 bits of which less than 14 are used: it would be black; save it with 8 bits"):
            load_image(tmp_path / "a.png")
    else:
        assert load_image(tmp_path / "a.png").max() == seen


def png(top: int) -> bytes:
    """A 16-bit RGB PNG of 4 x 2 pixels, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = np.linspace(0, top, 24).astype(">u2").reshape(2, 12)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
