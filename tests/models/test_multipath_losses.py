"""The integral loss against the paper's formula written as a loop."""

import math

import pytest
import torch

from fairseg_lite.models.losses import multipath_loss
from fairseg_lite.models.multipathnet import MultiPathOutput

LABELS = torch.tensor([[0, 2, 1, -1, 0, 3], [0, 0, 1, 2, -1, 3], [0, 0, 0, 0, 0, 3]])


def case(dtype=torch.float32):
    g = torch.Generator().manual_seed(4)
    logits, deltas = torch.randn(3, 6, 4, generator=g, dtype=dtype), torch.randn(6, 4, 4, generator=g, dtype=dtype)
    return MultiPathOutput(logits, deltas), torch.randn(6, 4, generator=g, dtype=dtype) * 2


def slow_loss(output, labels, targets, weight):
    classes = boxes = 0.0
    for logits, row in zip(output.logits.tolist(), labels.tolist(), strict=True):
        counted = sum(k >= 0 for k in row)
        for i, k in enumerate(row):
            if k >= 0:
                classes -= math.log(math.exp(logits[i][k]) / sum(map(math.exp, logits[i]))) / counted / len(labels)
            if k >= 1:
                for d, t in zip(output.deltas[i, k].tolist(), targets[i].tolist(), strict=True):
                    e = abs(d - t)
                    boxes += (e * e / 2 if e < 1 else e - 0.5) / counted / len(labels)
    return classes + weight * boxes, classes, boxes


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_against_the_formula(weight):
    output, targets = case()
    ours = multipath_loss(output, LABELS, targets, box_weight=weight)
    assert [x.item() for x in ours] == pytest.approx(slow_loss(output, LABELS, targets, weight), rel=1e-5)


def test_gradients_reach_only_what_counts():
    """A box of the background or of another class, and a RoI that is not counted, teach nothing."""
    output, targets = case(torch.float64)
    for x in output:
        x.requires_grad_()
    multipath_loss(output, LABELS, targets).total.backward()
    taught = output.deltas.grad.abs().sum(-1) > 0
    wanted = torch.zeros(6, 4, dtype=torch.bool)
    for row in LABELS.tolist():
        for i, k in enumerate(row):
            wanted[i, k] |= k >= 1
    assert torch.equal(taught, wanted)
    assert torch.equal(output.logits.grad.abs().sum(-1) > 0, LABELS >= 0)


def test_one_classifier_is_fast_rcnn():
    """n equal classifiers with equal labels have the loss of one."""
    output, targets = case()
    one = MultiPathOutput(output.logits[:1], output.deltas)
    many = MultiPathOutput(output.logits[:1].expand(3, -1, -1), output.deltas)
    for a, b in zip(
        multipath_loss(one, LABELS[:1], targets), multipath_loss(many, LABELS[:1].expand(3, -1), targets), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("labels", [torch.zeros(3, 6, dtype=torch.int64), torch.full((3, 6), -1)])
def test_without_foreground(labels):
    output, targets = case()
    for x in output:
        x.requires_grad_()
    loss = multipath_loss(output, labels, targets * math.nan)  # a target of the background is never looked at
    loss.total.backward()
    assert loss.boxes == 0 and loss.total.isfinite() and output.deltas.grad.eq(0).all() and output.logits.grad.isfinite().all()


def test_without_rois():
    output = MultiPathOutput(torch.zeros(3, 0, 4, requires_grad=True), torch.zeros(0, 4, 4, requires_grad=True))
    loss = multipath_loss(output, torch.zeros(3, 0, dtype=torch.int64), torch.zeros(0, 4))
    loss.total.backward()
    assert [x.item() for x in loss] == [0, 0, 0]


def test_half_precision_is_summed_in_single():
    output, targets = case()
    half = MultiPathOutput(*(x.bfloat16() for x in output))
    loss = multipath_loss(half, LABELS, targets)
    assert all(x.dtype == torch.float32 for x in loss)


@pytest.mark.parametrize(
    "labels, targets, message",
    [
        (LABELS[:2], torch.zeros(6, 4), r"wanted int64 \(3, 6\)"),
        (LABELS.float(), torch.zeros(6, 4), "labels are torch.float32"),
        (LABELS, torch.zeros(5, 4), r"wanted \(6, 4\)"),
        (LABELS + 1, torch.zeros(6, 4), r"labels are 0 .. 4; wanted -1, 0 \(background\) or 1 .. 3"),
        (LABELS - 1, torch.zeros(6, 4), r"labels are -2 .. 2"),
        (LABELS, torch.full((6, 4), math.nan), "foreground target is not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused(labels, targets, message):
    with pytest.raises(ValueError, match=message):
        multipath_loss(case()[0], labels, targets)
