"""Lesson 11: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import numpy as np
import torch
from torchvision.ops import box_iou

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess

HEARTS = {"vote_boxes": "fairseg_lite.geometry.boxes:vote_boxes"}
HINTS = {
    "vote_boxes": (
        "box_iou(kept, boxes) >= threshold says who votes for whom: a table, a row for each kept box.",
        "Times the scores it is a table of weights; weights @ boxes adds up weighted boxes, weights.sum(1, keepdim=True) "
        "the weights.",
        "Divide the one by the other, and keep the box itself where nobody votes: torch.where(total > 0, ..., kept)",
    ),
    "times": (
        "Copies first: the picture's boxes and each shaken copy.",
        "Each copy is looked at twice with a flip.",
        "Multiply: copies, flip, iterations, networks.",
    ),
    "one_name": (
        "The surest of what is left is kept; all that overlap it go; and so on.",
        "box_iou(boxes[left[:1]], boxes[left[1:]])[0] are the overlaps with the surest.",
        "left = left[1:][overlaps <= overlap], until nothing is left",
    ),
    "calibration": (
        "One bin after the other: zip(edges, edges[1:]).",
        "inside = (scores >= low) & (scores < high)",
        "hits[inside].mean() if inside.any() else np.nan",
    ),
}
WRONG = {
    "vote_boxes": {
        "a vote weighs as much as its score": (" >= threshold) * scores", " >= threshold) * torch.ones_like(scores)"),
        "only boxes that overlap enough have a vote": (
            "(box_iou(kept, boxes) >= threshold) * scores",
            "scores.expand(len(kept), -1)",
        ),
        "weights are divided by their sum": (
            "weights @ boxes / total.clamp(min=torch.finfo(total.dtype).tiny)",
            "weights @ boxes",
        ),
    },
    "times": {
        "every copy is mirrored, too": ("(1 + flip) * (1 + crops)", "(1 + flip + crops)"),
        "the plain look counts, too": ("(1 + crops)", "max(1, crops)"),
    },
    "one_name": {
        "who was dropped drops nobody": lambda boxes, scores, overlap: (o := scores.argsort(descending=True))[
            box_iou(boxes[o], boxes[o]).triu(1).amax(0) <= overlap
        ].tolist(),
        "the surest comes first": ("descending=True", "descending=False"),
    },
    "calibration": {
        "a share of the detections in the bin, not of all hits": ("hits[inside].mean()", "hits[inside].sum() / hits.sum()"),
        "a score equal to an upper edge belongs to the next bin": (
            "(scores >= low) & (scores < high)",
            "(scores > low) & (scores <= high)",
        ),
    },
}
PREDICTIONS = {
    "sun": Guess(
        "in that of a small scale",
        ("in that of a small scale", "in that of a large scale"),
        why="There the picture is small, and the sun fits a window.",
    ),
    "loses": Guess(
        "their name",
        ("their window", "their box", "their name"),
        ask="Most objects lose",
        why="Nearly all have a box; far fewer the right name first.",
    ),
    "more": Guess("true names", ("true names", "true boxes"), why="Boxes are good already."),
    "vote": Guess(0.5, within=0.01, ask="Its left edge, x", why="(0.75 x 0 + 0.25 x 2) / 1."),
    "pays": Guess(
        "flip",
        ("flip", "shaken copy", "second look", "voting"),
        ask="The largest gain",
        why="It is the only look that shows something new.",
    ),
    "redrawn": Guess("better", ("better", "worse"), why="It is drawn for the box that is reported."),
}


def check_vote_boxes(answer):
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
    scores = torch.tensor([0.75, 0.25, 0.9])
    equal(answer(boxes[:1], boxes[:2], scores[:2]), [[0.5, 0, 10.5, 10]], "two boxes with scores .75 and .25, the first kept")
    equal(answer(boxes[[0, 2]], boxes, scores), [[0.5, 0, 10.5, 10], [50, 50, 60, 60]], "the same and one far away, kept, too")
    equal(answer(boxes[:1], boxes[1:], scores[1:], threshold=0.9), [[0, 0, 10, 10]], "a kept box for which nobody votes")


def times(flip, crops, iterations, networks):
    return (1 + flip) * (1 + crops) * iterations * networks


def check_times(answer):
    equal(answer(False, 0, 1, 1), 1, "a plain look")
    equal(answer(True, 0, 1, 1), 2, "a flip")
    equal(answer(False, 2, 1, 1), 3, "two shaken copies besides")
    equal(answer(True, 2, 3, 6), 108, "flip, two copies, three iterations, six networks")


def one_name(boxes, scores, overlap):
    left, kept = scores.argsort(descending=True), []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][box_iou(boxes[left[:1]], boxes[left[1:]])[0] <= overlap]
    return kept


def check_one_name(answer):
    from torchvision.ops import nms

    g = torch.Generator().manual_seed(0)
    for n, side in ((3, 20), (40, 60), (150, 200)):
        corner = torch.rand(n, 2, generator=g) * side
        boxes, scores = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=g) * side], 1), torch.rand(n, generator=g)
        equal(answer(boxes, scores, 0.5), nms(boxes, scores, 0.5), f"{n} boxes")


def calibration(scores, hits, edges):
    scores, hits, shares = np.asarray(scores), np.asarray(hits, float), []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (scores >= low) & (scores < high)
        shares.append(hits[inside].mean() if inside.any() else np.nan)
    return shares


def check_calibration(answer):
    edges = (0, 0.5, 1)
    equal(answer([0.3, 0.3, 0.3, 0.9], [True, False, False, True], edges), [1 / 3, 1], "four detections")
    equal(answer([0.5, 0.1], [False, True], edges), [1, 0], "a score that is an edge")
    equal(np.isnan(answer([0.9], [True], edges)), [True, False], "an empty bin")
