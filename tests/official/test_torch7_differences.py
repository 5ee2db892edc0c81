"""What three faults of the official code cost, measured on synthetic scenes: numbers for official/DIFFERENCES.md."""

import numpy as np

from fairseg_lite.data.patches import PatchSpec
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.evaluation.patches import patch_report
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.official.patches import OfficialSampler

from .differences import neighbours_mask


def test_the_neighbours_mask_costs_recall():
    model = load_model("shapes")
    model.scales = model.scales[2:5]
    found = neighbours_mask(ShapesDataset(2, seed=1), model, limits=(100,))
    assert all(found["official"][kind][100] < 0.6 * found["right"][kind][100] for kind in ("segm", "bbox"))


def test_labels_one_pixel_off():
    """The same draws with and without the shift: the IoU of a network that learns it perfectly."""
    data, spec = ShapesDataset(20, seed=0), PatchSpec()
    rules = [OfficialSampler(data, spec, positives=1, negatives=0, label_shift=shift) for shift in (False, True)]
    ious, sides = [], []
    for seed in range(40):
        right, shifted = (r.mask_sample(np.random.default_rng(seed)).mask for r in rules)
        ious.append((right & shifted).sum() / (right | shifted).sum())
        g = np.random.default_rng(seed)
        rows = rules[0].classes[int(g.integers(len(rules[0].classes)))]
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
