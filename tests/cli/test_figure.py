"""`evaluate --figure`: each picture under its own word, and a picture where nothing was found is the worst."""

from fairseg_lite.cli.evaluate import _extremes
from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.shapes import ShapesDataset


def test_the_worst_has_no_proposal_and_the_best_are_the_truth():
    data = ShapesDataset(3, seed=1)
    truth = to_coco(data)
    lost = truth["images"][1]["id"]
    results = [{"image_id": a["image_id"], "segmentation": a["segmentation"], "score": 1.0} for a in truth["annotations"]]
    titles = [axis.get_title() for axis in _extremes(data, truth, [r for r in results if r["image_id"] != lost]).axes]
    assert titles == ["best: mean IoU 1.00", "median: mean IoU 1.00", "worst: mean IoU 0.00"]


def test_it_is_written_for_one_picture_too(cli, network, tmp_path):
    assert cli("evaluate", network, "shapes:1", "--top-k", 5, "--figure", tmp_path / "f.png")[0] == 0
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
