"""Lesson 05: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

from types import SimpleNamespace

import numpy as np

from fairseg_lite.course.checks import Wrong, equal
from fairseg_lite.course.predictions import Guess

THRESHOLDS = np.linspace(0.5, 0.95, 10)
HEARTS = {"_count": "fairseg_lite.evaluation.recall:_count"}
HINTS = {
    "_count": (
        "For each area range: which entries of judge.evalImgs are its own? They stand range by range, a picture after the other.",
        "Wanted objects are those with gtIgnore 0. Hits: dtMatches above 0 and dtIgnore false, (thresholds, proposals); the "
        "first k.",
        'hits = [((e["dtMatches"] > 0) & ~e["dtIgnore"].astype(bool))[:, :k].sum(1) for e in judged]; their sum over the total',
    ),
    "average_recall_of": (
        "Compare every IoU with every threshold: [:, None] makes a table of it.",
        "A threshold that is just reached counts.",
        "(np.asarray(best_iou)[:, None] >= THRESHOLDS).mean(), with np.linspace(0.5, 0.95, 10)",
    ),
    "recall_curve": (
        "The best IoU among the first k of each object, for all k: np.maximum.accumulate down the rows.",
        "Compare with the threshold and take the mean over objects: a recall for each k.",
        "k may be too large: recall[min(k, len(iou)) - 1]",
    ),
    "by_size": (
        "Three ranges: (0, 32**2), (32**2, 96**2), (96**2, np.inf).",
        "Both ends of a range belong to it: >= low and <= high.",
        "average_recall_of(best_iou[chosen]) if chosen.any() else None",
    ),
    "mask_nms": (
        "A loop over proposals, best first, and a list of those kept.",
        "Compare with the kept ones alone.",
        "if not kept or iou[i, kept].max() <= limit: kept.append(i)",
    ),
}
WRONG = {
    "_count": {
        "ignored objects are not asked for": ('(e["gtIgnore"] == 0).sum()', 'len(e["gtIgnore"])'),
        "a proposal that finds an ignored object is no hit": (' & ~e["dtIgnore"].astype(bool)', ""),
        "only the first k proposals may find something": ("[:, :k]", ""),
    },
    "average_recall_of": {
        "a threshold that is just reached counts": (">= THRESHOLDS", "> THRESHOLDS"),
        "there are ten thresholds, and the last is .95": ("THRESHOLDS)", "np.linspace(0.5, 1, 11))"),
    },
    "recall_curve": {
        "the k-th proposal does not stand alone: the first k count": ("np.maximum.accumulate(iou, 0)", "iou"),
        "recall is the share of objects, not of proposals": (".mean(1)", ".mean(0)"),
    },
    "by_size": {
        "an object on a border counts on both sides": ("areas <= high", "areas < high"),
        "AR of a size is that of its objects alone": ("average_recall_of(best_iou[c])", "average_recall_of(best_iou)"),
    },
    "mask_nms": {
        "who was dropped drops nobody": ("not kept or iou[i, kept].max() <= limit", "i == 0 or iou[i, :i].max() <= limit"),
        "an overlap of the limit or less is let pass": ("<= limit", "> limit"),
    },
}
PREDICTIONS = {
    "boxes": Guess("no", ("yes", "no"), why="Boxes of two objects may share most of their area, so one proposal may fit both."),
    "categories": Guess(
        "about a tenth of it",
        ("the same", "about a tenth of it", "nothing at all"),
        why="Only objects of category 1 can be found.",
    ),
    "sorted": Guess(
        0.642, within=0.04, ask="AR@10, perfectly sorted", why="It is AR@1000: ten places are enough for ten objects."
    ),
    "exact": Guess(
        "segments", ("DeepMask", "segments"), why="They are made of the picture's own pixels, so what fits, fits well."
    ),
    "nms": Guess(
        "up and down",
        ("up and up", "down and down", "up and down"),
        ask="AR@10 and AR@100 go",
        why="Few places: no repetitions. Many: a repetition may be the better mask.",
    ),
    "contrast": Guess("segments", ("DeepMask", "segments"), why="Without a colour edge there is nothing to merge by."),
}


def check__count(answer):
    def entry(ignored, matches, not_counted):
        return {"gtIgnore": np.array(ignored), "dtMatches": np.array(matches), "dtIgnore": np.array(not_counted)}

    params = SimpleNamespace(areaRng=["all"], imgIds=[1, 2, 3], iouThrs=[0.5, 0.75])
    first = entry([0, 0, 1], [[1, 0, 2], [0, 0, 3]], [[0, 0, 0], [0, 0, 1]])
    judge = SimpleNamespace(params=params, evalImgs=[first, None, entry([0], [[0], [0]], [[0], [0]])])
    totals, recall = answer(judge, (1, 3))
    equal(totals, [3], "two pictures with objects, 2 wanted and 1 ignored, and 1 wanted (totals)")
    equal(recall[1][0], [1 / 3, 0], "the same, recall with 1 proposal at two thresholds")
    equal(recall[3][0], [2 / 3, 0], "the same, recall with 3 proposals")


def average_recall_of(best_iou):
    return (np.asarray(best_iou)[:, None] >= THRESHOLDS).mean()


def check_average_recall_of(f):
    equal(f([1.0]), 1.0, "one object found exactly")
    equal(f([0.5]), 0.1, "one object that just reaches the first threshold")
    equal(f([0.49, 0.77]), 0.3, "a miss and an IoU of 0.77")
    equal(f([0.97, 0.97, 0.2, 0.66]), 0.6, "four objects")


def recall_curve(iou, ks, threshold):
    best_so_far = np.maximum.accumulate(iou, 0)  # (K, N)
    recall = (best_so_far >= threshold).mean(1)
    return [recall[min(k, len(iou)) - 1] for k in ks]


def check_recall_curve(f):
    iou = np.array([[0.6, 0.1, 0.0], [0.2, 0.0, 0.4], [0.1, 0.8, 0.1], [0.3, 0.2, 0.0]])
    equal(f(iou, [1, 2, 3, 4], 0.5), [1 / 3, 1 / 3, 2 / 3, 2 / 3], "four proposals and three objects")
    equal(f(iou, [3], 0.7), [1 / 3], "a stricter threshold")
    equal(f(iou, [1000], 0.3), [1.0], "a limit beyond the last proposal")


def by_size(best_iou, areas):
    ranges = ((0, 32**2), (32**2, 96**2), (96**2, np.inf))
    chosen = [(areas >= low) & (areas <= high) for low, high in ranges]
    return tuple(average_recall_of(best_iou[c]) if c.any() else None for c in chosen)


def check_by_size(f):
    def same(best_iou, areas, wanted, when):
        answer = f(np.array(best_iou), np.array(areas))
        if [v is None for v in answer] != [v is None for v in wanted]:
            raise Wrong(f"for {when} the answer is {answer}, wanted {wanted}")
        equal([v for v in answer if v is not None], [v for v in wanted if v is not None], when)

    same([1.0, 0.5, 0.0], [100, 2000, 20000], (1.0, 0.1, 0.0), "one object of each size")
    same([1.0, 0.5], [100, 2000], (1.0, 0.1, None), "no large object")
    same([0.0, 1.0], [100, 1024], (0.5, 1.0, None), "an object of exactly 1024 pixels")


def mask_nms(iou, limit):
    kept = []
    for i in range(len(iou)):
        if not kept or iou[i, kept].max() <= limit:
            kept.append(i)
    return kept


def check_mask_nms(f):
    chain = np.array([[1.0, 0.6, 0.1], [0.6, 1.0, 0.6], [0.1, 0.6, 1.0]])
    equal(f(chain, 0.7), [0, 1, 2], "three that overlap less than the limit")
    equal(f(chain, 0.5), [0, 2], "a chain: 2 overlaps 1, but 1 was dropped already")
    equal(f(np.ones((4, 4)), 0.9), [0], "four copies")
