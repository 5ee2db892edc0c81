"""Limits are said with their values where they leave something out, and can be moved."""

import json

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, check, write_coco_folder
from fairseg_lite.data.pictures import TooLarge, load_image, probe_image
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.errors import analyse_errors
from fairseg_lite.evaluation.precision import evaluate_detections
from fairseg_lite.geometry.masks import rle_decode
from fairseg_lite.training.recipes import DEEPMASK, SHARPMASK, Recipe

QUICK = ("--steps", 1, "--set", "positives=2", "--set", "negatives=1", "--set", "fit.precision=fp32")


def test_small_objects_are_left_out_and_said_so(cli, scenes, tmp_path):
    table = CocoDataset(scenes).instances
    sides = (table.box[:, 2:] - table.box[:, :2]).min(1)
    for area, side in ((100, 5), (300, 20), (1, 1)):
        left = int(((table.area < area) | (sides < side)).sum())
        words = ("--set", f"min_area={area}", "--set", f"min_side={side}")
        code, said, _ = cli("train", "deepmask", scenes, "--out", tmp_path / f"{area}", *words, *QUICK, "--valid", scenes)
        told = f"{left} of {len(table)} objects are left out, as they are smaller than {area} px of area or {side} px of side"
        assert code == 0 and (f"{told} (--set min_area={area}, --set min_side={side})" in said) == bool(left)
        assert said[-1].split(": ")[1] == f"{len(table) - left} instances"
        code, said, _ = cli("evaluate", "shapes", scenes, "--top-k", 2, *words)
        assert code == 0 and f" {len(table) - left} instances" in said[0] and (told in said[1]) == bool(left)
    code, _, err = cli("train", "deepmask", scenes, "--out", tmp_path / "none", "--set", "min_area=1e6")
    assert code == 2 and "smaller than 1e+06 px of area or 5 px of side (--set min_area=1e+06, --set min_side=5)" in err[-1]
    assert (
        "min_side is -1.0; it must be at least 0"
        in cli("train", "deepmask", scenes, "-o", tmp_path, "--set", "min_side=-1")[2][-1]
    )


def crowded(count: int) -> dict:
    """A picture of many objects of one category."""
    boxes = [[10 * (i % 20), 10 * (i // 20), 8, 8] for i in range(count)]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 7, "iscrowd": 0, "bbox": b, "area": 64, "segmentation": []}
        for i, b in enumerate(boxes, 1)
    ]
    images = [{"id": 1, "file_name": "1.png", "width": 200, "height": 100}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "berry"}]}


def test_more_objects_than_detections_that_count(cli, tmp_path):
    truth = crowded(150)
    rows = [{"image_id": 1, "category_id": 7, "bbox": a["bbox"], "score": 1 - a["id"] / 1e3} for a in truth["annotations"]]
    assert evaluate_detections(truth, rows, "bbox").ap == pytest.approx(2 / 3, abs=0.01)
    assert evaluate_detections(truth, rows, "bbox", max_dets=150).ap == pytest.approx(1)
    assert analyse_errors(truth, rows).counts["missed"] == 50
    assert analyse_errors(truth, rows, max_dets=150).counts["missed"] == 0
    assert evaluate_detections(truth, rows, "bbox", max_dets=5).ar.keys() == {1, 5}
    Image.new("RGB", (200, 100)).save(tmp_path / "1.png")
    (tmp_path / "instances.json").write_text(json.dumps(truth), "utf-8")
    (tmp_path / "rows.json").write_text(json.dumps(rows), "utf-8")
    code, said, _ = cli("evaluate", "detections", tmp_path / "rows.json", tmp_path)
    assert (
        code == 0
        and "a picture has 150 objects of a category; the best 100 detections of it count (--max-dets 150: more)" in said
    )
    code, said, _ = cli("evaluate", "detections", tmp_path / "rows.json", tmp_path, "--max-dets", 150)
    assert code == 0 and said[0].startswith("boxes      150 instances: AP 1.000") and "the best 100" not in " ".join(said)


def test_pixels_of_a_picture(cli, refused, network, scenes, tmp_path, monkeypatch):
    path = next((scenes / "images").iterdir())
    monkeypatch.setenv("FAIRSEG_MAX_MEGAPIXELS", "0.01")
    for read in (load_image, probe_image):
        with pytest.raises(
            TooLarge,
            match="has 0.0125 megapixels, and at most 0.01 are opened; cut it into tiles or reduce it, .* or set the environment",
        ):
            read(path)
    assert {f.kind for f in check(scenes, progress=False).faults} == {"picture too large"}
    assert "at most 0.01 are opened" in refused("propose", path, "-o", tmp_path / "o", "--model", network)
    monkeypatch.setenv("FAIRSEG_MAX_MEGAPIXELS", "many")
    assert "FAIRSEG_MAX_MEGAPIXELS is 'many'" in refused("propose", path, "-o", tmp_path / "o", "--model", network)
    monkeypatch.setenv("FAIRSEG_MAX_MEGAPIXELS", "200")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 100  # of others who use Pillow
    try:
        assert load_image(path).shape == (112, 112, 3) and Image.MAX_IMAGE_PIXELS == 100
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture(params=["png", "jpg", "turned"])
def large(request, tmp_path):
    """Scenes of 320 x 480 px, as PNG, JPEG, or JPEG that EXIF turns; every other mask is an RLE."""
    write_coco_folder(ShapesDataset(2, seed=3, size=(320, 480)), tmp_path / "d", progress=False)
    content = json.loads((tmp_path / "d/instances.json").read_text("utf-8"))
    for image in content["images"] if request.param != "png" else []:
        path = tmp_path / "d/images" / image["file_name"]
        image["file_name"] = path.with_suffix(".jpg").name
        exif, picture = Image.Exif(), Image.open(path)
        if request.param == "turned":
            exif[0x0112], picture = 6, picture.transpose(Image.Transpose.ROTATE_90)
        picture.save(path.with_suffix(".jpg"), quality=95, exif=exif)
        path.unlink()
    for a in content["annotations"][::2]:
        ys, xs = (np.unique(v)[[0, -1]] + [0, 1] for v in np.nonzero(rle_decode(a["segmentation"])))
        a["segmentation"] = [[float(v) for x, y in zip(xs[[0, 1, 1, 0]], ys[[0, 0, 1, 1]], strict=True) for v in (x, y)]]
        a["area"] = float(np.prod([xs[1] - xs[0], ys[1] - ys[0]]))
    (tmp_path / "d/instances.json").write_text(json.dumps(content), "utf-8")
    return tmp_path / "d"


def test_large_pictures_can_be_reduced_for_training(large):
    whole, small = CocoDataset(large), CocoDataset(large, max_side=120)
    for i in range(2):
        a, b = whole[i], small[i]
        assert a.image.shape[:2] == (320, 480) and b.image.shape[:2] == (80, 120) == b.masks.shape[1:]
        shrunk = np.asarray(Image.fromarray(a.image).resize((120, 80), Image.Resampling.BOX))
        assert np.abs(shrunk.astype(float) - b.image).mean() < 4, "the same picture, upright"
        for big, little in zip(a.masks, b.masks, strict=True):
            share = np.asarray(Image.fromarray(big.astype(np.uint8) * 255).resize((120, 80), Image.Resampling.BOX)) / 255
            assert np.abs(share - little).sum() < 0.5 * big.sum() / 16 + 12
    np.testing.assert_allclose(small.instances.box, whole.instances.box / 4, rtol=1e-5)
    np.testing.assert_allclose(small.instances.area, whole.instances.area / 16)
    assert CocoDataset(large, max_side=480)[0].image.shape == whole[0].image.shape
    with pytest.raises(ValueError, match="max_side is 8; it must be at least 32"):
        CocoDataset(large, max_side=8)


def test_training_says_that_pictures_are_reduced_or_would_better_be(cli, large, tmp_path, monkeypatch):
    words = ("train", "deepmask", large, *QUICK)
    code, said, _ = cli(*words, "--out", tmp_path / "a", "--set", "max_side=200")
    assert code == 0 and "2 of 2 pictures are reduced to --set max_side=200, as `propose` does" in said
    assert not any("pictures" in line for line in cli(*words, "--out", tmp_path / "b")[1])
    monkeypatch.setattr("fairseg_lite.cli.train.LARGE", 400)
    assert "2 of 2 pictures have more than 400 px a side: --set max_side=1024 trains" in " ".join(
        cli(*words, "-o", tmp_path / "c")[1]
    )
    assert Recipe().max_side is None
    assert {r["photos"].max_side for r in (DEEPMASK, SHARPMASK)} == {1024}
