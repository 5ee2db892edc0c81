"""What three faults of the official code cost, measured on synthetic scenes: numbers for torch7/DIFFERENCES.md."""

from unittest.mock import patch

import numpy as np
import torch

from fairseg_lite.data.coco import to_coco
from fairseg_lite.data.official_patches import OfficialRules
from fairseg_lite.data.patches import PatchSampler, PatchSpec
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.recall import average_recall
from fairseg_lite.inference import proposals
from fairseg_lite.inference.official import top_scores
from fairseg_lite.training.checkpoints import load_model
from fairseg_lite.training.recipes import patch_report


def official_windows(levels, top_k):
    """`best_windows` with the official pairing: the score of one window, the mask of its neighbour up and to the right."""
    rows = top_scores(levels, min(top_k, sum(level.dense.scores.numel() for level in levels)))
    return torch.logit(rows[:, 0]), *(rows[:, i].long() - 1 for i in (1, 2, 3))


def test_the_neighbours_mask_costs_recall():
    data = ShapesDataset(2, seed=1)
    truth, model, found = to_coco(data), load_model("shapes"), {}
    model.scales = model.scales[2:5]
    for name, windows in (("right", proposals.best_windows), ("official", official_windows)):
        with patch.object(proposals, "best_windows", windows):
            results = [r for i in range(2) for r in proposals.propose(model, data[i].image, top_k=100).to_coco(data[i].image_id)]
        found[name] = average_recall(truth, results, limits=(100,)).ar[100]
    assert found["official"] < 0.5 * found["right"]


def test_labels_one_pixel_off():
    """The same draws with and without the shift: the IoU of a network that learns it perfectly."""
    data, spec = ShapesDataset(20, seed=0), PatchSpec()
    classes = PatchSampler(data, spec, positives=1, negatives=0).by_class
    rules = [OfficialRules(data, spec, classes, label_shift=shift) for shift in (False, True)]
    ious, sides = [], []
    for seed in range(40):
        right, shifted = (r.mask_sample(np.random.default_rng(seed)).mask for r in rules)
        ious.append((right & shifted).sum() / (right | shifted).sum())
        g = np.random.default_rng(seed)
        rows = classes[int(g.integers(len(classes)))]
        x1, y1, x2, y2 = data.instances.box[int(rows[int(g.integers(len(rows)))])].tolist()
        sides.append(max(x2 - x1, y2 - y1))
    small = np.array(sides) < np.median(sides)
    ious = np.array(ious)
    assert ious[small].mean() < ious[~small].mean() < 1, "one pixel is more of a small object"
    assert ious.mean() < 0.97


def test_the_other_upsampling_of_the_same_weights():
    """Refined with bilinear up-sampling, as it was trained, and with the official repetition of pixels."""
    data, model = ShapesDataset(3, seed=1), load_model("shapes-sharp")
    trained = patch_report(model, data).mean_iou
    for module in model.refinements:
        module.upsample = "nearest"
    assert patch_report(model, data).mean_iou < trained
