"""Lesson 08: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import math

import numpy as np
import torch
from torchvision.ops import nms

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess

HEARTS = {"draw": "fairseg_lite.data.rois:draw", "average_precision": "fairseg_lite.evaluation.precision:average_precision"}
HINTS = {
    "draw": (
        "Three kinds of RoIs: of an object (IoU >= cut), background (from `background` on), and what is easier still.",
        "From each kind in turn, shuffled with g.permutation, take at most so many: round(count * fg_fraction) of the "
        "first, and of "
        "the others what is left to count.",
        "chosen.append(g.permutation(rows)[: min(most, count - how many are chosen)]), then np.concatenate",
    ),
    "average_precision": (
        "Go down the ranks: how many hits so far; precision = hits / rank, recall = hits / objects.",
        "From the end to the front: precision[i] = max(precision[i], precision[i + 1]).",
        'np.searchsorted(recall, RECALLS, side="left") is the first rank that reaches each of the 101 recalls; beyond the '
        "last rank it counts 0",
    ),
    "decoded": (
        "Sides first, then the middle of the box.",
        "The middle moves by dx widths and dy heights; the sides grow by exp(dw) and exp(dh).",
        "The new box is the new middle, half a new side to each direction.",
    ),
    "nms_by_class": (
        "If boxes of different classes lie far apart, none of them overlap.",
        "How far is far? Further than any box reaches.",
        "boxes + (boxes.max() - boxes.min() + 1) * labels[:, None]",
    ),
    "eleven_points": (
        "First the curve: (recall, precision) after each rank.",
        "For each of the recalls 0, .1, ..., 1: the highest precision of all points with at least that recall, 0 if there "
        "is none.",
        "max((p for r, p in curve if r >= wanted / 10 - 1e-9), default=0)",
    ),
}
WRONG = {
    "draw": {
        "objects may take their fraction at most": ("(round(count * fg_fraction), count, count)", "(count, count, count)"),
        "a RoI is drawn once": ("g.permutation(rows)", "g.choice(rows, len(rows))"),
        "what is below `background` comes last": ("(ious < cut) & (ious >= background)", "ious < cut - 0.4"),
    },
    "average_precision": {
        "where precision rises again, the higher value counts before, too": (
            "max(precision[i], precision[i + 1])",
            "precision[i]",
        ),
        "recalls that are never reached count 0": ("/ len(RECALLS)", "/ max(1, sum(i < len(precision) for i in reached))"),
        "precision is the share of right ones so far": ("found / rank", "found / objects"),
    },
    "decoded": {
        "the middle moves, not the corner": lambda box, d: (
            box[0] + d[0] * (box[2] - box[0]),
            box[1] + d[1] * (box[3] - box[1]),
            box[0] + d[0] * (box[2] - box[0]) + (box[2] - box[0]) * math.exp(d[2]),
            box[1] + d[1] * (box[3] - box[1]) + (box[3] - box[1]) * math.exp(d[3]),
        ),
        "dx is a share of the width, not pixels": ("dx * width", "dx"),
    },
    "nms_by_class": {
        "a pixel apart is not apart": ("boxes + apart", "boxes + labels[:, None]"),
        "boxes of another class drop nobody": ("boxes + apart", "boxes"),
    },
    "eleven_points": {
        "this is the mean over hits, another AP still": lambda hits, objects: (
            sum(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit) / objects
        ),
        "a higher recall's precision counts, too": (">= wanted / 10 - 1e-9", "== wanted / 10"),
    },
}
PREDICTIONS = {
    "pixels": Guess(25, within=3, why="100 x 96 x 96 over 192 x 192."),
    "pushes": Guess(4, within=2, why="Only where a rounded edge jumps by a cell: twice for each of two edges."),
    "coded": Guess(
        "(0.1, 0, 0, 0.69)",
        ("(4, 0, 0, 20)", "(0.1, 0, 0, 2)", "(0.1, 0, 0, 0.69)"),
        why="Moves are shares of the sides, sizes logarithms; scale drops out.",
    ),
    "share": Guess(0.21, within=0.08, ask="The share of an object", why="Windows between objects, and pieces of objects."),
    "ten": Guess(0.604, within=0.05, ask="The AP", why="Precision 1 up to a recall of .6, and nothing beyond."),
}


def check_draw(answer):
    ious = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.2, 0.05, 0.04, 0.02, 0.0])
    same = {"fg_fraction": 0.25, "cut": 0.5}
    rows = np.asarray(answer(ious, np.random.default_rng(0), count=8, background=0.0, **same))
    equal(len(rows), 8, "8 of 12 RoIs, 5 of an object (how many)")
    equal(int((ious[rows] >= 0.5).sum()), 2, "8 of 12 RoIs, a quarter of them of an object (those)")
    equal(len(set(rows.tolist())), 8, "8 of 12 RoIs (how many different ones)")
    rows = answer(ious, np.random.default_rng(0), count=4, background=0.1, **same)
    equal(int((ious[rows] < 0.1).sum()), 0, "4 of 12 RoIs, three of them background from 0.1 on (RoIs below that)")
    rows = answer(ious[4:], np.random.default_rng(0), count=8, background=0.1, **same)
    equal(sorted(np.asarray(rows).tolist()), list(range(8)), "8 of 8 RoIs, more than are left above 0.1")


def check_average_precision(answer):
    equal(answer([True], 1), 1, "one object and a hit")
    equal(answer([False, False], 3), 0, "two misses")
    equal(answer([False, True], 1), 0.5, "a miss before the only hit")
    equal(answer([True, False, True], 4), (26 + 25 * 2 / 3) / 101, "hit, miss, hit, of four objects")
    equal(answer([True, False, True, True], 4), (26 + 50 * 0.75) / 101, "hit, miss, hit, hit, of four objects")


def decoded(box, deltas):
    x1, y1, x2, y2 = box
    dx, dy, dw, dh = deltas
    width, height = x2 - x1, y2 - y1
    x, y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
    half = width * math.exp(dw) / 2, height * math.exp(dh) / 2
    return x - half[0], y - half[1], x + half[0], y + half[1]


def check_decoded(answer):
    equal(answer((0, 0, 10, 20), (0.5, 0, 0, 0)), (5, 0, 15, 20), "a step of half a width")
    equal(answer((10, 20, 50, 40), (0.1, 0, 0, np.log(2))), (14, 10, 54, 50), "the box of step 2")
    equal(answer((0, 0, 8, 8), (0, -0.25, np.log(0.5), 0)), (2, -2, 6, 6), "half as wide, a quarter further up")


def nms_by_class(boxes, scores, labels, overlap):
    apart = (boxes.max() - boxes.min() + 1) * labels[:, None]
    return nms(boxes + apart, scores, overlap)


def check_nms_by_class(answer):
    from torchvision.ops import batched_nms

    g = torch.Generator().manual_seed(0)
    for n, side in ((60, 50), (200, 400)):
        corner = torch.rand(n, 2, generator=g) * side
        boxes = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=g) * side], 1)
        scores, labels = torch.rand(n, generator=g), torch.randint(9, (n,), generator=g)
        wanted = batched_nms(boxes, scores, labels, 0.3)
        equal(answer(boxes, scores, labels, 0.3), wanted, f"{n} boxes of 9 classes in a picture of {2 * side + 5} px")


def eleven_points(hits, objects):
    found, curve = 0, []
    for rank, hit in enumerate(hits, 1):
        found += hit
        curve.append((found / objects, found / rank))
    return sum(max((p for r, p in curve if r >= wanted / 10 - 1e-9), default=0) for wanted in range(11)) / 11


def check_eleven_points(answer):
    equal(answer([True, True], 2), 1.0, "two hits of two objects")
    equal(answer([False, False], 2), 0.0, "no hit")
    equal(answer([True, False, True], 4), (3 * 1 + 3 * 2 / 3) / 11, "hits, miss, hit, of four objects")
    equal(answer([False, True], 1), 0.5, "a miss before the only hit")
