"""Lesson 00: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import numpy as np

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess

HEARTS = {}
HINTS = {
    "count_above": (
        "Go through the scores and compare each with the limit.",
        "True counts as 1 in a sum.",
        "sum(... > limit for ...)",
    ),
    "share": (
        "A sum over an array of True and False counts the pixels that are True.",
        "All pixels: rows times columns; an array knows that number.",
        "mask.sum() divided by mask.size",
    ),
    "iou_of": (
        "Two counts: pixels in both (a & b), and pixels in at least one (a | b).",
        "Divide the first by the second; what if the second is 0?",
        "... / union if union else 0.0",
    ),
}
WRONG = {
    "count_above": {
        "a score equal to the limit is not above it": (">", ">="),
        "scores are counted, not added up": ("sum(s > limit for s in scores)", "sum(s for s in scores if s > limit)"),
    },
    "share": {
        "all pixels are rows times columns, not rows alone": ("mask.size", "len(mask)"),
        "a share is wanted, not a count": ("mask.sum() / mask.size", "mask.sum()"),
    },
    "iou_of": {
        "the union holds the pixels of both": ("(a | b).sum()", "a.sum()"),
        "pixels in both are counted twice below the line": ("(a | b).sum()", "a.sum() + b.sum()"),
    },
}
PREDICTIONS = {
    "cells": Guess(12, ask="Cells along each side", why="192 / 16; that makes 144 in all."),
    "gains": Guess("a star", ("a large plain square", "a star"), why="Its tips and notches are what a coarse mask rounds off."),
    "boxes": Guess(
        "one", ("one", "a few", "as many as proposals"), why="Of boxes with the same name on one spot only the surest stays."
    ),
}


def count_above(scores, limit):
    return sum(s > limit for s in scores)


def check_count_above(answer):
    equal(answer([0.9, 0.5, 0.2], 0.4), 2, "scores 0.9, 0.5, 0.2 and limit 0.4")
    equal(answer([0.9, 0.5, 0.2], 0.5), 1, "the same and limit 0.5 (not above)")


def share(mask):
    return mask.sum() / mask.size


def check_share(answer):
    equal(answer(np.array([[True, False], [False, False]])), 0.25, "one pixel of four")
    equal(answer(np.ones((3, 5), bool)), 1.0, "a full mask")


def iou_of(a, b):
    union = (a | b).sum()
    return (a & b).sum() / union if union else 0.0


def check_iou_of(answer):
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    equal(answer(a, b), 1 / 3, "masks 1100 and 0110")
    equal(answer(a, a), 1.0, "a mask with itself")
    equal(answer(a & ~a, a & ~a), 0.0, "two empty masks")
