"""Lesson 13: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import torch

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess

HEARTS = {"by_name": "fairseg_lite.training.detector:by_name"}
HINTS = {
    "by_name": (
        "Begin with a copy of `begin`: a name that the network never heard has nothing else.",
        "Row 0 is the background's in both. The row of old[k] is known[1 + k], that of new[k] is rows[1 + k].",
        "for row, name in enumerate(new, 1): if name in old: rows[row] = known[1 + old.index(name)]",
    ),
    "shown": (
        "Every step shows a batch.",
        "All steps together show steps * patches, and the objects share them.",
        "steps * patches / ...",
    ),
    "whole_films": (
        "The film of a picture is what stands before the first underscore of its name.",
        "name.partition('_')[0] is the film; ask whether it is one of those put aside.",
        "[name.partition('_')[0] in aside for name in names]",
    ),
    "average": (
        "It begins with the first value, as it is.",
        "Each further value moves it: a share `keep` of the old average stays.",
        "kept = keep * kept + (1 - keep) * value",
    ),
}
WRONG = {
    "by_name": {
        "row 0 is the background's: names begin at row 1": (
            "known[1 + list(old).index(name)]",
            "known[list(old).index(name)]",
        ),
        "the background is known, too": ("rows[0] = known[0]", "pass"),
        "a row goes by its name, not by its place": ("list(old).index(name)]", "row - 1]"),
        "what was given must stay as it is: work on a copy": ("begin.clone()", "begin"),
    },
    "shown": {
        "a step shows a whole batch": ("steps * patches", "steps"),
        "the objects share the patches": (" / objects", ""),
    },
    "whole_films": {
        "film1 and film12 are two films": lambda names, aside: [name.startswith(tuple(aside)) for name in names],
        "the film stands before the underscore": ("[0]", "[2]"),
    },
    "average": {
        "`keep` is the share of the old average": ("keep * kept + (1 - keep) * value", "(1 - keep) * kept + keep * value"),
        "late values count more than early ones": lambda values, keep: sum(values) / len(values),
        "it begins with the first value, not with 0": ("kept = values[0]", "kept = 0.0"),
    },
}
PREDICTIONS = {
    "word": Guess(0, within=0.4, ask="How many words", why="It can only say words it was taught, and this is not one of them."),
    "shown": Guess(58, within=8, ask="How often", why="Steps times patches with an object, shared by all objects."),
    "gains": Guess(
        "the names",
        ("the outlines", "the names"),
        why="It knew where objects end from thousands of photographs; it meets your word for the first time.",
    ),
    "alarms": Guess(0, within=1, ask="In how many", why="Six pictures are enough to tell that a big thing may be no animal."),
}


def check_by_name(answer):
    known, begin = torch.arange(8.0).view(4, 2), -torch.ones(3, 2)
    old, new = ["cat", "dog", "owl"], ["owl", "fox"]
    equal(answer(known, begin, old, new), [[0, 1], [6, 7], [-1, -1]], "old names cat, dog, owl and new names owl, fox")
    equal(begin, -torch.ones(3, 2), "what was given to begin with, afterwards")
    equal(answer(known, begin[:2], old, ["ant"]), [[0, 1], [-1, -1]], "one new name that was never heard")


def shown(steps, patches, objects):
    return steps * patches / objects


def check_shown(answer):
    equal(answer(100, 22, 10), 220, "100 steps of 22 patches, 10 objects")
    equal(answer(3, 5, 30), 0.5, "3 steps of 5 patches, 30 objects")


def whole_films(names, aside):
    return [name.partition("_")[0] in aside for name in names]


def check_whole_films(answer):
    names = ["film1_0001.jpg", "film12_0001.jpg", "film2_0007.jpg", "film1_0002.jpg"]
    equal(answer(names, {"film1"}), [True, False, False, True], "four pictures of three films, film1 put aside")
    equal(answer(names, set()), [False] * 4, "no film put aside")


def average(values, keep):
    kept = values[0]
    for value in values[1:]:
        kept = keep * kept + (1 - keep) * value
    return kept


def check_average(answer):
    equal(answer([4.0], 0.9), 4.0, "one value")
    equal(answer([1.0, 0.0, 0.0], 0.5), 0.25, "values 1, 0, 0 and keep = .5")
    equal(answer([0.0, 1.0, 1.0], 0.9), 0.19, "values 0, 1, 1 and keep = .9")
