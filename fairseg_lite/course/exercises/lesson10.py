"""Lesson 10: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import numpy as np
import torch

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess
from fairseg_lite.models.multipathnet import MultiPathOutput

HEARTS = {"multipath_loss": "fairseg_lite.models.losses:multipath_loss"}
HINTS = {
    "multipath_loss": (
        "The loop of `loss_slow` is right; what is new: a label of -1 is not counted, and the total is classes + box_weight "
        "* boxes.",
        'F.cross_entropy(..., ignore_index=-1, reduction="none") over all U * N rows at once, viewed as (U, N); each row is '
        "divided "
        "by how many of its labels are 0 or more.",
        "head, roi = (labels > 0).nonzero(as_tuple=True) lists the RoIs of objects of all classifiers; deltas[roi, "
        "labels[head, roi]] "
        "are their corrections; each distance is divided by its row's number, and the sum by U.",
    ),
    "score_of": (
        "Which thresholds does the IoU reach?",
        "Threshold number i is 0.5 + 0.05 * i.",
        "sum(iou >= ... for i in range(n)) / n",
    ),
    "untied_labels": (
        "Begin with a table of -1: torch.full((heads, len(ious)), -1).",
        "One row is filled: the class where the IoU is at least u, else 0.",
        "table[head] = torch.where(ious >= u, classes, 0)",
    ),
    "agreed": (
        "Each row may be at most the smallest of the rows above it.",
        "torch has that: a running minimum along dimension 0.",
        "p.cummin(0).values",
    ),
}
WRONG = {
    "multipath_loss": {
        "background has no box": ("found = labels > 0", "found = labels >= 0"),
        "the box term is a mean over classifiers, too": ("counted).mean()\n    return", "counted).sum()\n    return"),
        "a label of -1 is not counted": ("counted = (labels >= 0).sum(1)", "counted = (labels >= -1).sum(1)"),
    },
    "score_of": {
        "a box exactly at a threshold is right": ("iou >= 0.5", "iou > 0.5"),
        "the mean of their answers, so divide by n": (" / n", ""),
    },
    "untied_labels": {
        "0 would teach all others that everything is background": (
            "torch.full((heads, len(ious)), -1)",
            "torch.zeros(heads, len(ious), dtype=torch.long)",
        ),
        "a box exactly at the threshold is right": ("ious >= u", "ious > u"),
    },
    "agreed": {
        "sorting gives one classifier's answer to another": ("p.cummin(0).values", "p.sort(0, descending=True).values"),
        "the smallest of *all* makes them equal": ("p.cummin(0).values", "p.amin(0, keepdim=True).expand_as(p)"),
    },
}
PREDICTIONS = {
    "ap": Guess(0.3, within=0.01, ask="AP", why="It reaches .50, .55 and .60: three thresholds of ten."),
    "six": Guess(0.69, within=0.07, ask="The AP of six", why="It follows the upper edge of the others: only the order differs."),
    "pull": Guess("1, 3, 6", ("1, 1, 1", "1, 2, 3", "1, 3, 6"), why="As many classifiers as call each an object."),
    "star": Guess(0.667, within=0.01, why="Four of six."),
    "highest": Guess(
        "one, .75",
        ("one, .50", "one, .75", "six", "six, untied"),
        ask="The highest AP",
        why="Our proposals are tight; being strict costs little here.",
    ),
    "pairs": Guess(
        0.805, within=0.1, ask="One, .50: the share in order", why="Doubt alone ranks: an unsure network trusts loose boxes less."
    ),
}


def check_multipath_loss(answer):
    def case(labels, when, classes, boxes):
        labels = torch.tensor(labels)
        output = MultiPathOutput(torch.zeros(*labels.shape, 3), torch.zeros(labels.shape[1], 3, 4))
        total, *parts = answer(output, labels, torch.full((labels.shape[1], 4), 0.1), box_weight=2.0)
        equal(parts[0], classes, f"{when} (classes)")
        equal(parts[1], boxes, f"{when} (boxes)")
        equal(total, classes + 2 * boxes, f"{when} (total, box_weight 2)")

    one, know_nothing = 4 * 0.5 * 0.1**2, np.log(3)  # smooth L1 of an object's four corrections
    case([[1, 2]], "two objects and one classifier", know_nothing, one)
    case([[1, 0]], "an object, a background and one classifier", know_nothing, one / 2)
    case([[1, 0], [0, 0]], "two classifiers, the second strict", know_nothing, one / 4)
    case([[1, -1], [-1, -1]], "two classifiers, one label counted", know_nothing / 2, one / 2)


def score_of(iou, n):
    return sum(iou >= 0.5 + 0.05 * i for i in range(n)) / n


def check_score_of(answer):
    equal(answer(0.62, 6), 3 / 6, "IoU 0.62 and six classifiers")
    equal(answer(0.5, 6), 1 / 6, "IoU 0.5: right at .50 itself")
    equal(answer(0.62, 2), 1.0, "IoU 0.62 and the two at .50 and .55")
    equal(answer(0.3, 4), 0.0, "IoU 0.3")


def untied_labels(ious, classes, heads, head, u):
    table = torch.full((heads, len(ious)), -1)
    table[head] = torch.where(ious >= u, classes, 0)
    return table


def check_untied_labels(answer):
    ious, classes = torch.tensor([0.9, 0.6, 0.2]), torch.tensor([4, 2, 7])
    wanted = torch.tensor([[-1, -1, -1], [4, 0, 0], [-1, -1, -1]])
    equal(answer(ious, classes, 3, 1, 0.7), wanted, "three RoIs, the second of three heads, u = 0.7")
    equal(answer(ious, classes, 2, 0, 0.6), [[4, 2, 0], [-1, -1, -1]], "the first of two heads, u = 0.6")


def agreed(p):
    return p.cummin(0).values


def check_agreed(answer):
    equal(answer(torch.tensor([[0.9], [0.6], [0.2]])), [[0.9], [0.6], [0.2]], "classifiers that agree")
    equal(answer(torch.tensor([[0.5], [0.8], [0.4]])), [[0.5], [0.5], [0.4]], "a second that is surer than the first")
    equal(answer(torch.tensor([[0.3], [0.1], [0.2]])), [[0.3], [0.1], [0.1]], "a third that is surer than the second")
