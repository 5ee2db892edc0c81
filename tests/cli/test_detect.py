"""`detect` and `evaluate detections`: what they write, whose categories, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from fairseg_lite.data.coco import CocoDataset, to_coco, write_coco_folder
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.precision import evaluate_detections


@pytest.fixture
def detect(cli, detectors, network, tmp_path):
    """Run `detect` on something with the two-category network; gives (exit code, stdout, results)."""

    def run(source, *options, model="two"):
        words = ("detect", source, "-o", tmp_path / "out", "--model", detectors / f"{model}.safetensors", "--proposer", network)
        code, said, err = cli(*words, "--top-k", 20, *options)
        assert code == 0, err
        return said, json.loads((tmp_path / "out/detections.json").read_text("utf-8"))

    return run


def test_a_picture_gets_names_drawn_in_results_and_a_table(detect, photo, tmp_path):
    said, rows = detect(photo, "--draw", 0.2)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["detections.json", "photo.png"]
    assert rows and {r["category_id"] for r in rows} <= {90, 7} and {r["file_name"] for r in rows} == {"photo.jpg"}
    assert all(r["segmentation"]["size"] == [70, 90] for r in rows)
    assert np.asarray(Image.open(tmp_path / "out/photo.png")).shape == (490, 630, 3)
    assert f"{len(rows)} detections for 1 of 1 pictures" in said[0]
    listed = [line.split()[0] for line in said[3:]]
    assert listed and set(listed) <= {"cat", "dog"} and len(listed) == sum(r["score"] >= 0.2 for r in rows)


def test_where_nothing_is_drawn_the_surest_is_said(detect, photo):
    said, rows = detect(photo, "--draw", 1)
    best = rows[0]
    name = {90: "cat", 7: "dog"}[best["category_id"]]
    assert said[-1] == f"nothing is that sure; the surest: {name} {best['score']:.2f}. A lower --draw draws and lists it"
    assert "nothing is that sure" not in detect(photo, "--draw", 0.2)[0][-1]


def test_options_reach_the_detector(detect, photo, tmp_path):
    _, plain = detect(photo, "--draw", 1)
    assert not (tmp_path / "out/photo.png").exists()
    _, boxes = detect(photo, "--masks", "none", "--draw", 1)
    assert "segmentation" not in boxes[0] and [r["bbox"] for r in boxes] == [r["bbox"] for r in plain]
    _, refined = detect(photo, "--masks", "refined", "--draw", 1)
    assert refined == plain, "the default, where the network that proposes is at hand"
    _, other = detect(photo, "--masks", "proposal", "--draw", 1)
    assert [r["segmentation"] for r in other] != [r["segmentation"] for r in plain]
    _, tight = detect(photo, "--set", "mask_boxes=true", "--draw", 1)
    assert [r["segmentation"] for r in tight] == [r["segmentation"] for r in plain]
    assert [r["bbox"] for r in tight] != [r["bbox"] for r in plain]
    for option in ("flip=true", "crops=2", "iterations=2", "vote=0.5", "short_side=96", "nms=0.9"):
        _, other = detect(photo, "--masks", "none", "--draw", 1, "--set", option)
        assert [(r["bbox"], r["score"]) for r in other] != [(r["bbox"], r["score"]) for r in boxes], option
    _, sure = detect(photo, "--draw", 1, "--set", "score_threshold=0.99")
    assert sure == []


def test_proposals_from_a_file_are_the_same_as_made_on_the_way(detect, cli, network, scenes, tmp_path):
    said, direct = detect(scenes, "--masks", "proposal")
    assert said[2].split() == ["name", "objects", "mean", "score"]
    assert cli("propose", scenes, "-o", tmp_path / "p", "--model", network, "--top-k", 30, "--draw", 0)[0] == 0
    _, filed = detect(scenes, "--proposals", tmp_path / "p/proposals.json")
    assert [r["segmentation"] for r in filed] == [r["segmentation"] for r in direct]
    names = {i["id"] for i in json.loads((scenes / "instances.json").read_text("utf-8"))["images"]}
    assert {r["image_id"] for r in filed} <= names
    boxes = [
        {k: v for k, v in r.items() if k != "segmentation"}
        for r in json.loads((tmp_path / "p/proposals.json").read_text("utf-8"))
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes), "utf-8")
    _, unmasked = detect(scenes, "--proposals", tmp_path / "boxes.json", "--masks", "none")
    assert [r["score"] for r in unmasked] == [r["score"] for r in filed]


def test_proposals_of_another_program(detect, cli, network, scenes, tmp_path):
    assert cli("propose", scenes, "-o", tmp_path / "p", "--model", network, "--draw", 0, "--top-k", 20)[0] == 0
    rows = json.loads((tmp_path / "p/proposals.json").read_text("utf-8"))
    for r in rows:
        x, y, w, h = r["bbox"]
        r |= {"score": str(r["score"]), "scale": "none", "position": 7}
        r["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    (tmp_path / "foreign.json").write_text(json.dumps(rows), "utf-8")
    _, found = detect(scenes, "--proposals", tmp_path / "foreign.json")
    assert {r["image_id"] for r in found} <= {r["image_id"] for r in rows} and found
    rows[1]["score"] = "much"
    (tmp_path / "foreign.json").write_text(json.dumps(rows), "utf-8")
    code, _, err = cli("detect", scenes, "-o", tmp_path / "o", "--proposals", tmp_path / "foreign.json")
    assert code == 2 and "foreign.json': result 1 has score 'much'" in err[0]


def test_proposals_of_other_pictures(refused, detect, cli, detectors, network, scenes, photo, tmp_path, capsys):
    cli("propose", scenes, "-o", tmp_path / "p", "--model", network, "--top-k", 3, "--draw", 0)
    path = tmp_path / "p/proposals.json"
    words = ("-o", tmp_path / "o", "--model", detectors / "two.safetensors", "--proposer", network, "--proposals")
    rows = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps([{**r, "image_id": r["image_id"] + 700} for r in rows]), "utf-8")
    assert "none of the 2 here is among them; were they made for other pictures" in refused("detect", scenes, *words, path)
    path.write_text(json.dumps([{**r, "image_id": 1} for r in rows if r["image_id"] == rows[0]["image_id"]]), "utf-8")
    assert "are they another picture's" in refused("detect", photo, *words, path), "another size"
    path.write_text(json.dumps([r for r in rows if r["image_id"] == rows[0]["image_id"]]), "utf-8")
    code, _, err = cli("detect", scenes, *words, path)
    assert code == 0 and "no proposals for 1 of 2 pictures" in err[0]
    path.write_text("[]", "utf-8")
    for masks in ("proposal", "none"):
        line = refused("detect", scenes, *words, path, "--masks", masks)
        assert str(path) in line
    path.write_text(json.dumps([{**r, "bbox": [0, 0, float("nan"), 1]} for r in rows]), "utf-8")
    assert "result 0 has bbox nan" in refused("detect", scenes, *words, path)


def test_boxes_of_masks_need_refined_masks(refused, detectors, network, photo, tmp_path):
    words = ("detect", photo, "-o", tmp_path / "out", "--model", detectors / "two.safetensors", "--proposer", network)
    assert "add --masks refined" in refused(*words, "--set", "mask_boxes=true", "--masks", "none")
    assert "add --masks refined" in refused(*words, "--set", "mask_boxes=true", "--proposals", tmp_path / "not read.json")


def test_an_ensemble_needs_the_same_categories(refused, cli, detectors, network, photo, tmp_path):
    two, nine = (detectors / f"{n}.safetensors" for n in ("two", "nine"))
    words = ("detect", photo, "-o", tmp_path / "o", "--proposer", network)
    assert "an ensemble needs the same" in refused(*words, "--model", two, nine)
    assert cli(*words, "--model", two, two, "--top-k", 3)[0] == 0
    assert "wanted a MultiPathNet" in refused(*words, "--model", network)
    assert "holds no network that proposes" in refused("detect", photo, "-o", tmp_path / "o", "--model", two, "--proposer", two)
    assert "--draw is 2.0" in refused(*words, "--model", two, "--draw", 2)


# evaluate detections


def perfect(scenes):
    truth = to_coco(CocoDataset(scenes))
    return [
        {**{k: a[k] for k in ("image_id", "category_id", "segmentation", "bbox")}, "score": 0.9} for a in truth["annotations"]
    ]


def test_results_are_judged_and_drawn(cli, scenes, tmp_path):
    rows = perfect(scenes)
    (tmp_path / "r.json").write_text(json.dumps(rows[1:]), "utf-8")
    out, drawings = tmp_path / "n/numbers.json", (tmp_path / "d/confusion.png", tmp_path / "d/curve.png")
    code, said, _ = cli("evaluate", "detections", tmp_path / "r.json", scenes, "-o", out, "--figures", tmp_path / "d")
    assert code == 0
    assert said[0].startswith(f"masks      {len(rows)} instances: AP 0.") and said[1].startswith("boxes ")
    assert any(line.startswith("category") for line in said) and any("1 of" in line and "objects missed" in line for line in said)
    numbers = json.loads(out.read_text("utf-8"))
    report = evaluate_detections(CocoDataset(scenes), rows[1:], "segm")
    assert numbers["precision"]["segm"]["ap"] == report.ap < 1
    assert numbers["errors"]["bbox"]["counts"]["missed"] == 1
    assert np.array(numbers["confusion"]["table"]).trace() == len(rows) - 1
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in drawings)


def test_what_the_results_have_is_judged(cli, scenes, tmp_path):
    path = tmp_path / "r.json"
    for key, words in (("segmentation", ["boxes"]), ("bbox", ["masks", "boxes"])):  # without boxes those around the masks
        path.write_text(json.dumps([{k: v for k, v in r.items() if k != key} for r in perfect(scenes)]), "utf-8")
        _, said, _ = cli("evaluate", "detections", path, scenes)
        assert [line.split()[0] for line in said[: said.index("")]] == words and all("AP 1.000" in s for s in said[: len(words)])
    rows = perfect(scenes)
    path.write_text(json.dumps([{k: v for k, v in rows[0].items() if k != "segmentation"}, *rows[1:]]), "utf-8")
    _, said, _ = cli("evaluate", "detections", path, scenes)
    assert said[0] == f"1 of {len(rows)} results have no mask: boxes alone are judged" and said[1].startswith("boxes ")
    path.write_text("[]", "utf-8")
    code, said, _ = cli("evaluate", "detections", path, scenes)
    assert code == 0 and "holds no result" in said[0] and "AP 0.000, AP50 0.000" in said[1]


def test_a_checkpoint_detects_first_and_what_it_found_is_kept(cli, detectors, network, scenes, tmp_path):
    path = tmp_path / "found.json"
    words = (
        "evaluate",
        "detections",
        detectors / "nine.safetensors",
        scenes,
        "--proposer",
        network,
        "--top-k",
        10,
        "--save",
        path,
    )
    code, said, _ = cli(*words)
    assert code == 0 and "s each" in said[-1]
    _, again, _ = cli("evaluate", "detections", path, scenes)
    assert again[:2] == said[:2]
    plain = COCO(str(scenes / "instances.json")).loadRes(str(path))
    assert len(plain.getAnnIds()) == len(json.loads(path.read_text("utf-8"))) > 0
    code, said, _ = cli(*words[:4], "--proposer", network, "--limit", 1)
    assert code == 0 and "in 1 of 2 pictures" in said[-1]
    code, said, _ = cli("evaluate", "detections", path, scenes, "--limit", 1)
    assert code == 0 and "in 1 of 2 pictures" in said[-1]


def test_results_that_do_not_fit_the_data(refused, detectors, network, scenes, tmp_path):
    path, rows = tmp_path / "r.json", perfect(scenes)

    def said(content):
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return refused("evaluate", "detections", path, scenes)

    assert "category_id 77; the data set has" in said([{**rows[0], "category_id": 77}])
    assert "is of picture 4711" in said([{**rows[0], "image_id": 4711}])
    assert "bbox nan; wanted a finite number" in said([{**rows[0], "bbox": [0, 0, float("nan"), 1]}])
    assert "is not JSON" in said("[")
    assert "hold a dict; wanted a COCO result file" in said({"images": rows})
    assert "none.json' cannot be read: No such file" in refused("evaluate", "detections", tmp_path / "none.json", scenes)
    line = refused("evaluate", "detections", detectors / "two.safetensors", scenes, "--proposer", network)
    assert "names cat, dog, none of which data" in line


def test_names_that_the_data_has_not_are_left_out(cli, network, tmp_path):
    """A network of nine names against data with one of them: its objects of that name are judged, the others' are no mistakes."""
    folder = tmp_path / "stars"
    write_coco_folder(ShapesDataset(3), folder)
    content = json.loads((folder / "instances.json").read_text("utf-8"))
    star = next(c for c in content["categories"] if c["name"] == "star")
    content |= {"categories": [star], "annotations": [o for o in content["annotations"] if o["category_id"] == star["id"]]}
    (folder / "instances.json").write_text(json.dumps(content), "utf-8")
    code, said, err = cli(
        "evaluate", "detections", "shapes-multipath", folder, "--proposer", network, "--save", tmp_path / "r.json"
    )
    assert code == 0 and not [line for line in err if "picture" not in line and line]  # but for a bar where it takes long
    assert "names 8 categories that are none of the data's" in said[0]
    assert {row["category_id"] for row in json.loads((tmp_path / "r.json").read_text("utf-8"))} <= {star["id"]}


def test_evaluate_of_one_word_still_measures_proposals(cli, network):
    code, said, _ = cli("evaluate", network, "shapes:1", "--top-k", 5)
    assert code == 0 and said[0].startswith("patches") and "AR@10" in said[1]


def test_names_of_made_up_shapes_are_not_taken_for_names_of_photographs(cli, detect, photo, tmp_path):
    words = ("--model", "shapes-multipath", "--proposer", "shapes-sharp", "--set", "top=5")
    code, said, _ = cli("detect", photo, "-o", tmp_path / "o", *words)
    assert code == 0 and any("learnt made-up shapes" in line for line in said)
    assert not any("made-up" in line for line in detect(photo)[0])
