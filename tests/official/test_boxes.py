"""Parity with the official box arithmetic (`oracle/multipathnet/boxes.npz`, `selectboxes.npz`, float32): ours and its own."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseg_lite.geometry.boxes import decode_boxes, encode_boxes, foveal_boxes
from tests.official.boxes import (
    keep_top_k,
    official_decode,
    official_intersection,
    official_iou,
    official_nms,
    official_vote,
    select_boxes,
)

ORACLE = Path(__file__).resolve().parents[1] / "data" / "oracle"


@pytest.fixture(scope="module")
def data():
    with np.load(ORACLE / "multipathnet_boxes.npz") as z:
        return {k: torch.from_numpy(z[k]) for k in z.files}


def close(ours, official, tolerance=1e-5):
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= tolerance * official.abs().max().clamp(min=1)


def slow_iou(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(wide, 0) * max(high, 0)
    return shared / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - shared)


def test_iou_and_nms_against_loops():
    g = torch.Generator().manual_seed(1)
    corner = torch.rand(40, 2, generator=g) * 30
    boxes = torch.cat([corner, corner + torch.rand(40, 2, generator=g) * 20, torch.rand(40, 1, generator=g)], 1).double()
    rows = boxes.tolist()
    torch.testing.assert_close(official_iou(boxes, boxes), torch.tensor([[slow_iou(a, b) for b in rows] for a in rows]).double())
    kept = []
    for i in sorted(range(40), key=lambda i: -rows[i][4]):
        if all(slow_iou(rows[i], rows[j]) <= 0.4 for j in kept):
            kept.append(i)
    assert official_nms(boxes, 0.4).tolist() == kept and len(kept) < 35


def test_foveal_and_context_regions(data):
    """The official regions of one RoI follow one another; ours go region by region."""
    rois, regions = data["foveal_in"], foveal_boxes(data["foveal_in"][:, 1:])
    close(regions.transpose(0, 1), data["foveal_out"].view(9, 4, 5)[..., 1:])
    for factor, key in ((0.5, "5"), (1.5, "15"), (2.0, "20"), (4.0, "40")):
        close(foveal_boxes(rois[:, 1:], (factor,))[0], data[f"context_{key}"][:, 1:])


def test_coding(data):
    boxes, targets = data["code_bbox"], data["code_target"]
    close(encode_boxes(boxes, targets), data["code_convertTo"])
    close(encode_boxes(boxes[0], targets[0]), data["code_convertTo_1d"])
    close(decode_boxes(boxes, data["code_y"]), data["code_convertFrom"])
    close(decode_boxes(boxes, data["code_convertTo"]), data["code_roundtrip"])
    close(decode_boxes(data["code_bbox"][:1], data["code_y"][:1])[0], data["code_convertFrom_1d"])


def test_official_growth_has_no_limit(data):
    close(official_decode(data["code_bbox"], data["code_y"][:, None])[:, 0], data["code_convertFrom"])
    boxes, deltas = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[[0.0, 0, math.log(100), math.log(2)]]])
    torch.testing.assert_close(official_decode(boxes, deltas)[0, 0], torch.tensor([-495.0, -10, 505, 30]))
    torch.testing.assert_close(decode_boxes(boxes, deltas)[0, 0], torch.tensor([-307.5, -10, 317.5, 30]))


@pytest.mark.parametrize("percent", [3, 5, 7])
def test_nms_and_voting(data, percent):
    boxes = data["nms_in"]
    kept = official_nms(boxes, percent / 10)
    assert (kept + 1).tolist() == data[f"nms_dense_{percent}"].tolist()
    assert torch.equal(boxes[kept], data[f"nms_keep_{percent}"])
    close(official_vote(boxes[kept], boxes), data[f"bbox_vote_{percent}"])
    if percent == 3:
        close(official_vote(boxes[kept], boxes, power=2), data["bbox_vote_pow2_3"])


def test_nms_at_the_edges(data):
    """Equal boxes, equal scores, neighbours that share one column only by the extra pixel, an IoU of exactly .5."""
    boxes = data["nms_edge_in"]
    assert (official_nms(boxes, 0.5) + 1).tolist() == data["nms_edge_dense_5"].tolist()
    for percent in (3, 5):
        assert torch.equal(boxes[official_nms(boxes, percent / 10)], data[f"nms_edge_keep_{percent}"])
    assert official_nms(torch.zeros(0, 5), 0.5).shape == (0,)


def test_overlap_and_its_fault(data):
    """The file holds overlaps with the first target only, and none of the boxes meets it; the shares betray the fault."""
    close(official_iou(data["code_bbox"], data["code_target"][:1])[:, 0], data["boxoverlap"])
    close(official_intersection(data["code_bbox"], data["code_target"][0]), data["intersection"])
    apart = data["boxoverlap"] == 0
    assert (data["intersection"][apart] > 0.7).any(), "no box apart from the other that would be dropped all the same"


def test_the_best_of_all_classes(data):
    """The oracle's three classes are the first 50, the next 80 and the last 70 boxes; hundred stay."""
    kept = keep_top_k(data["nms_in"].split([50, 80, 70]), 100)
    assert all(torch.equal(ours, data[f"topk_{i}"]) for i, ours in enumerate(kept, 1))
    assert min(k[:, 4].min() for k in kept) == data["topk_thresh"].float()
    assert [len(k) for k in keep_top_k([torch.zeros(0, 5), torch.zeros(0, 5)], 3)] == [0, 0]
    assert [len(k) for k in keep_top_k([torch.zeros(2, 5), torch.ones(1, 5)], 9)] == [2, 1]


def test_box_of_the_best_class():
    with np.load(ORACLE / "multipathnet_selectboxes.npz") as z:
        classes, boxes, out = (torch.from_numpy(z[k]) for k in ("classes", "ys", "out"))
    assert torch.equal(select_boxes(classes, boxes.view(6, 5, 4)), out)
