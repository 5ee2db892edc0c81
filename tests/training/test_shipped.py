"""The networks that come with the library: small, whole, and as good as their lessons say."""

import pytest
import torch

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.photos import photographs
from fairseg_lite.data.scenes import Subset
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.patches import patch_report
from fairseg_lite.evaluation.precision import evaluate_detections
from fairseg_lite.evaluation.recall import average_recall
from fairseg_lite.inference.detect import detect
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.checkpoints import SHIPPED, load_model


def test_sizes():
    assert SHIPPED["shapes"].stat().st_size < 8e6 and SHIPPED["shapes-sharp"].stat().st_size < 6e6
    assert SHIPPED["shapes-multipath"].stat().st_size < 8e6
    assert sum(path.stat().st_size for path in SHIPPED.values()) < 60e6


@pytest.mark.parametrize("name", ["shapes", "photos"])
def test_the_refinement_stands_on_the_deepmask_of_the_library(name):
    sharp, coarse = load_model(f"{name}-sharp"), load_model(name)
    assert all(torch.equal(v, sharp.deepmask.state_dict()[k]) for k, v in coarse.state_dict().items())


def test_refined_masks_are_the_better_ones():
    sharp, scenes = load_model("shapes-sharp"), ShapesDataset(25, seed=1)
    a, b = (patch_report(m, scenes, progress=False) for m in (sharp, sharp.deepmask))
    assert b.mean_iou > 0.75 and a.mean_iou > b.mean_iou + 0.03 and a.rate_85 > 1.3 * b.rate_85


def test_photographs_have_their_largest_object_among_the_best_ten():
    model, photos = prepare(load_model("photos-sharp")), Subset(photographs(), [4, 6, 13, 17, 21])
    rows = [row for scene in photos for row in propose(model, scene.image, top_k=10, max_side=320).to_coco(scene.image_id)]
    assert average_recall(to_coco(photos), rows, limits=[10]).largest >= 0.6


def test_photographs_say_what_they_were_trained_on():
    for name in ("photos", "photos-sharp"):
        about = load_model(name).record.about
        assert about["steps"] > 0 and "--recipe mixed" in about["command"] and "coco250" in about["sets"]


def test_the_detector_names_most_of_what_it_finds():
    sharp, scenes = load_model("shapes-sharp"), ShapesDataset(6, seed=1)
    model, found = load_model("shapes-multipath"), {}
    assert model.record.categories == scenes.categories
    for scene in scenes:
        found[scene.image_id] = detect(model, scene.image, propose(sharp, scene.image, top_k=100), masks=None)
    report = evaluate_detections(to_coco(scenes), found, "bbox")
    assert report.ap50 > 0.5 and report.ap > 0.4
