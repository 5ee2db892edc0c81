"""`evaluate --figures`: each picture under its own word, and a picture where nothing was found is the worst."""

import numpy as np

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.plots.pictures import edges_of, extremes


def test_the_worst_has_no_proposal_and_the_best_are_the_truth():
    data = ShapesDataset(3, seed=1)
    truth = to_coco(data)
    lost = truth["images"][1]["id"]
    results = [{"image_id": a["image_id"], "segmentation": a["segmentation"], "score": 1.0} for a in truth["annotations"]]
    titles = [axis.get_title() for axis in extremes(data, truth, [r for r in results if r["image_id"] != lost]).axes]
    assert titles == ["best: mean IoU 1.00", "median: mean IoU 1.00", "worst: mean IoU 0.00"]


def test_it_is_written_for_one_picture_too(cli, network, tmp_path):
    assert cli("evaluate", network, "shapes:1", "--top-k", 5, "--figures", tmp_path / "f")[0] == 0
    assert (tmp_path / "f/pictures.png").read_bytes()[:4] == b"\x89PNG"


def test_edges_before_and_after_of_the_same_places(cli, tmp_path):
    sharp, data = load_model("shapes-sharp"), ShapesDataset(12, seed=1)
    both, one = edges_of(sharp, data, count=4), edges_of(sharp.deepmask, data, count=4)
    rows = np.array([axis.images[0].get_array() for axis in both.axes]).reshape(3, 4, 48, 48, 3)
    alone = np.array([axis.images[0].get_array() for axis in one.axes]).reshape(2, 4, 48, 48, 3)
    assert np.array_equal(rows[:2], alone), "the same close-ups"
    spread = rows[1:].max(-1).astype(int) - rows[1:].min(-1)
    wrong = (spread > 30) & (rows[1:, ..., 1] < rows[1:].max(-1))  # coloured, and not green
    assert 0 < wrong[1].sum() < 0.8 * wrong[0].sum(), "less blue and orange after refinement"
    assert cli("evaluate", "shapes-sharp", "shapes:1", "--top-k", 2, "--figures", tmp_path / "e")[0] == 0
    assert (tmp_path / "e/edges.png").read_bytes()[:4] == b"\x89PNG"
