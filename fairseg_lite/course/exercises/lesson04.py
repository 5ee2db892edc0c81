"""Lesson 04: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import math
from types import SimpleNamespace

import numpy as np
import torch

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess

HEARTS = {"best_windows": "fairseg_lite.inference.propose:best_windows"}
HINTS = {
    "best_windows": (
        "Put all scores one behind the other, flattened, and take topk: that gives the scores and a place in the long row.",
        "Sizes of the levels, summed up with cumsum, say where each level ends; torch.searchsorted(ends, place, right=True) "
        "says in "
        "which level a place is. Take the level's start off, and you have the cell within the level.",
        "cell // columns and cell % columns, with the columns of each place's own level",
    ),
    "window_box": (
        "At scale s first: the corner lies at 16 * column, 16 * row, less the border of half a patch.",
        "To the pixels of the picture everything is divided by s, the border as well.",
        "x, y = 16 * column - P / 2, 16 * row - P / 2; then (x / s, y / s, (x + P) / s, (y + P) / s)",
    ),
    "cell": ("How many whole rows lie before cell i?", "What is left over is the column.", "(i // ..., i % ...)"),
    "suits": (
        "For each scale: s * size, compared with object_size.",
        "A ratio of 2 and one of a half are equally bad: the logarithm makes them so.",
        "min(scales, key=lambda s: abs(math.log(s * size / object_size)))",
    ),
    "kept": (
        "Go through the proposals in order, with a list of those that stay.",
        "Compare each with the list alone: who was dropped drops nobody.",
        "if all(iou[i][j] <= limit for j in stay): stay.append(i)",
    ),
}
WRONG = {
    "best_windows": {
        "row and column have changed places": ("cell // columns, cell % columns", "cell % columns, cell // columns"),
        "a cell is counted from the start of its own level": ("order - starts[level]", "order"),
        "levels differ in their number of columns": ("for x in levels])[level]", "for x in levels])[0]"),
    },
    "window_box": {
        "the border is half a patch at this scale, so it is divided by s, too": (
            "16 * column - P / 2, 16 * row - P / 2\n    return x / s, y / s, (x + P) / s, (y + P) / s",
            "16 * column / s - P / 2, 16 * row / s - P / 2\n    return x, y, x + P / s, y + P / s",
        ),
        "x goes with the column, y with the row": ("16 * column - P / 2, 16 * row", "16 * row - P / 2, 16 * column"),
    },
    "cell": {
        "columns are counted from 0": ("i % width", "i % width + 1"),
        "the row comes first": ("i // width, i % width", "i % width, i // width"),
    },
    "suits": {
        "ratios count, not differences": ("abs(math.log(s * size / object_size))", "abs(s * size - object_size)"),
        "at scale s the object has s * size pixels": ("s * size / object_size", "s / object_size"),
    },
    "kept": {
        "who was dropped drops nobody": ("for j in stay", "for j in range(i)"),
        "every proposal overlaps itself: leave that out": lambda iou, limit: [
            i for i in range(len(iou)) if iou[i].max() <= limit
        ],
    },
}
PREDICTIONS = {
    "windows": Guess(169, why="13 places a side, since a window may be centred on the edge."),
    "faster": Guess(
        "some 50 times",
        ("5 times", "some 50 times", "169 times"),
        why="The trunk runs once; what follows it runs for each window still.",
    ),
    "vanish": Guess(
        "yes, with enough around", ("yes, with enough around", "no, never"), why="Then all that a cell can see is the same."
    ),
    "scale": Guess("2 or more", ("0.5", "1", "2 or more"), why="At 2 to 2.83 it has 40 to 57 px, and a window expects about 55."),
}


def check_best_windows(answer):
    maps = ([[0.1, 0.5], [0.2, 0.3]], [[0.9, 0.0, 0.05], [0.0, 0.0, 0.8]])
    levels = [SimpleNamespace(dense=SimpleNamespace(scores=torch.tensor([m]))) for m in maps]
    when, names = "the best 4 of a level of 2 x 2 and one of 2 x 3 windows", ("scores", "levels", "rows", "columns")
    wanted = ([0.9, 0.8, 0.5, 0.3], [1, 1, 0, 0], [0, 1, 0, 1], [0, 2, 1, 1])
    for name, a, w in zip(names, answer(levels, 4), wanted, strict=True):
        equal(a, w, f"{when} ({name})")
    equal(len(answer(levels, 99)[0]), 10, "99 wanted where 10 are (how many)")


def window_box(row, column, s, P):
    x, y = 16 * column - P / 2, 16 * row - P / 2
    return x / s, y / s, (x + P) / s, (y + P) / s


def check_window_box(answer):
    equal(answer(0, 0, 1.0, 96), (-48, -48, 48, 48), "the first window at scale 1")
    equal(answer(3, 6, 1.0, 96), (48, 0, 144, 96), "row 3, column 6 at scale 1")
    equal(answer(3, 6, 0.5, 96), (96, 0, 288, 192), "row 3, column 6 at scale 0.5")


def cell(i, width):
    return i // width, i % width


def check_cell(answer):
    for i, width, wanted in ((0, 5, (0, 0)), (4, 5, (0, 4)), (5, 5, (1, 0)), (13, 5, (2, 3))):
        equal(answer(i, width), wanted, f"cell {i} of {width} columns")


def suits(size, scales, object_size):
    return min(scales, key=lambda s: abs(math.log(s * size / object_size)))


def check_suits(answer):
    scales = [0.5, 1.0, 2.0, 4.0]
    for size, wanted in ((110, 0.5), (55, 1.0), (40, 1.0), (37, 2.0), (6, 4.0)):
        equal(answer(size, scales, 55), wanted, f"an object of {size} px")


def kept(iou, limit):
    stay = []
    for i in range(len(iou)):
        if all(iou[i][j] <= limit for j in stay):
            stay.append(i)
    return stay


def check_kept(answer):
    iou = np.array([[1, 0.8, 0.1, 0.1], [0.8, 1, 0.6, 0.1], [0.1, 0.6, 1, 0.1], [0.1, 0.1, 0.1, 1]])
    equal(answer(iou, 0.5), [0, 2, 3], "a limit of 0.5 (2 overlaps only 1, which is gone)")
    equal(answer(iou, 0.9), [0, 1, 2, 3], "a limit of 0.9")
