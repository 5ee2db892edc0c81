"""Lesson 06: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import torch

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess
from fairseg_lite.models.refinement import NaiveRefinementModule

HEARTS = {"forward": "fairseg_lite.models.refinement:NaiveRefinementModule.forward"}
HINTS = {
    "forward": (
        "Five things, in the order of the sentence: reduce the features, convolve the mask, concatenate, convolve, double "
        "the side.",
        "torch.cat([features, mask], 1) puts channels side by side, features first; self.join reads both; a ReLU follows it.",
        "return _doubled(F.relu(self.join(both)), self.upsample)",
    ),
    "mask_share": ("All channels begin with an equal say.", "How many are there in all?", "m / (f + m)"),
    "encodings": (
        "One entry more than modules.",
        "After i modules: k halved i times, grid doubled i times.",
        "(k >> i, grid << i) for i in range(n + 1)",
    ),
    "doubled_row": (
        "Each old number gives two new ones: one towards the number before it, one towards the number after it.",
        "0.75 of the own number, 0.25 of the neighbour.",
        "Put the first and the last number once more at the ends, and the ends need no case of their own.",
    ),
    "outline_f": (
        "One function of two lists, called twice: the share of a whose nearest pixel of b is within d.",
        "Within d is a disc: (y - v)**2 + (x - u)**2 <= d * d.",
        "2 * precision * recall / (precision + recall), and 0 where both are 0",
    ),
}
WRONG = {
    "forward": {
        "the side is doubled at the end": ("_doubled(F.relu(self.join(both)), self.upsample)", "F.relu(self.join(both))"),
        "features come first": ("[self.reduce(features), self.top_down(mask)]", "[self.top_down(mask), self.reduce(features)]"),
        "a ReLU follows the joining convolution": ("F.relu(self.join(both))", "self.join(both)"),
    },
    "mask_share": {
        "the whole is features and mask together": ("m / (f + m)", "m / f"),
        "this is the share of the features": ("m / (f + m)", "f / (f + m)"),
    },
    "encodings": {
        "the last one is missing": ("range(n + 1)", "range(n)"),
        "channels halve while the side doubles": ("k >> i", "k"),
    },
    "doubled_row": {
        "corners are aligned here; every number should move a quarter towards each side": lambda row: [
            v for x, after in zip(row, [*row[1:], row[-1]], strict=True) for v in (x, (x + after) / 2)
        ],
        "this repeats numbers instead of blending them": lambda row: [x for x in row for _ in "ab"],
    },
    "outline_f": {
        "within d px is a disc, not a square": ("(y - v) ** 2 + (x - u) ** 2 <= d * d", "max(abs(y - v), abs(x - u)) <= d"),
        "this is the mean of both, not the harmonic mean": (
            "2 * precision * recall / (precision + recall)",
            "(precision + recall) / 2",
        ),
    },
}
PREDICTIONS = {
    "near": Guess(0.72, within=0.12, ask="The share, from 0 to 1", why="It knows what and where, not exactly where."),
    "grid": Guess(0.959, within=0.03, ask="The IoU it could reach", why="The grid costs little; DeepMask loses far more."),
    "drowns": Guess(0.03, within=0.025, ask="The mask's share", why="32 of 1056 channels."),
    "frozen": Guess("no", ("yes", "no"), why="Batch norm's running mean is no parameter, and training mode moves it."),
    "where": Guess("in the narrow band", ("in the narrow band", "over the whole mask"), why="The inside was right already."),
    "silent": Guess("no mask", ("no features", "no mask"), why="Features without a mask know all edges, and not whose."),
}


def check_forward(answer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NaiveRefinementModule(features=8, channels=4, out=2)
        features, mask = torch.randn(1, 8, 3, 3), torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        when = "8 channels of features and 4 of mask, 3 x 3 cells"
        joined = module.join(torch.cat([module.reduce(features), module.top_down(mask)], 1)).clamp(min=0)
        wanted = torch.nn.functional.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)
        equal(answer(module, features, mask), wanted, when, tolerance=1e-5)


def mask_share(f, m):
    return m / (f + m)


def check_mask_share(answer):
    for f, m in ((1024, 32), (32, 32), (64, 4)):
        equal(answer(f, m), m / (f + m), f"{f} channels of features and {m} of mask")


def encodings(k, grid, n):
    return [(k >> i, grid << i) for i in range(n + 1)]


def check_encodings(answer):
    equal(answer(32, 6, 4), [(32, 6), (16, 12), (8, 24), (4, 48), (2, 96)], "k = 32, grid 6, four modules")
    equal(answer(16, 10, 2), [(16, 10), (8, 20), (4, 40)], "k = 16, grid 10, two modules")


def doubled_row(row):
    ends = [row[0], *row, row[-1]]
    out = []
    for before, x, after in zip(ends, row, ends[2:], strict=False):
        out += [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
    return out


def check_doubled_row(answer):
    for row in ([0.0, 1.0], [1.0, 3.0, 2.0], [5.0]):
        x = torch.tensor(row)[None, None]
        wanted = torch.nn.functional.interpolate(x, scale_factor=2, mode="linear", align_corners=False)[0, 0]
        equal(answer(row), wanted, f"the row {row}")


def outline_f(found, true, d):
    def share(a, b):
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= d * d for v, u in b) for y, x in a) / len(a)

    precision, recall = share(found, true), share(true, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def check_outline_f(answer):
    line = [(0, x) for x in range(4)]
    equal(answer(line, line, 0), 1.0, "the same outline twice")
    equal(answer([(3, x) for x in range(4)], line, 2), 0.0, "outlines 3 px apart at a tolerance of 2")
    equal(answer(line + [(9, 9)] * 4, line, 1), 2 / 3, "half of what was found is far off")
    equal(answer([(1, 1)], [(0, 0)], 1), 0.0, "neighbours on a diagonal at a tolerance of 1")
