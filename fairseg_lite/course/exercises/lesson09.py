"""Lesson 09: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import torch

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess
from fairseg_lite.models.roi_pooling import Mix

HEARTS = {"forward": "fairseg_lite.models.roi_pooling:Mix.forward"}
HINTS = {
    "forward": (
        "Turn the order round first: conv5 comes first in official weights.",
        "With self.normalise every grid gets the length self.scale (_of_length); else conv5 stays, conv4 is multiplied by "
        "1/30, conv3 by 1/200.",
        "return self.conv(torch.cat(levels, 1))",
    ),
    "factor_to_see": (
        "From the centre of the box, how many half-widths is the point away? How many half-heights?",
        "The region has to reach in both directions.",
        "max(across, down)",
    ),
    "share_inside": (
        "Corners of the region: centre minus and plus half its sides.",
        "Cut them to the picture: x to 0 .. width, y to 0 .. height.",
        "The share is the product of both sides' shares: ((high - low) / (2 * half)).prod(1)",
    ),
    "per_cell": (
        "The length of a cell is the norm over dim 1, with keepdim=True.",
        "A cell of zeros must not be divided by 0: clamp the norm from below.",
        "length * x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)",
    ),
}
WRONG = {
    "forward": {
        "conv5 comes first": ("list(reversed(pooled))", "list(pooled)"),
        "each grid gets one length": ("[_of_length(self.scale, x) for x in levels]", "levels"),
        "without normalising, finer levels are multiplied by 1/30 and 1/200": ("(1, 1 / 30, 1 / 200)", "(1, 1, 1)"),
    },
    "factor_to_see": {
        "half a side reaches from the centre to the edge": ("((x2 - x1) / 2)", "(x2 - x1)"),
        "the region must reach in both directions": ("max(across, down)", "min(across, down)"),
    },
    "share_inside": {
        "x is across, so it is cut at the width": ("torch.tensor([width, height])", "torch.tensor([height, width])"),
        "a share of the region, not of the picture": ("/ (2 * half)", "/ torch.tensor([width, height])"),
    },
    "per_cell": {
        "each cell has its own length: this takes the whole grid's": (
            "x.norm(dim=1, keepdim=True).clamp(min=1e-10)",
            "x.flatten(1).norm(dim=1)[:, None, None, None]",
        ),
        "a cell of zeros is divided by zero": (".clamp(min=1e-10)", ""),
    },
}
PREDICTIONS = {
    "area": Guess(16, why="4 times as wide and 4 times as high."),
    "beyond": Guess(0.83, within=0.12, ask="The share of objects", why="A region of 4x reaches 2 box widths beyond the centre."),
    "width": Guess("2x", ("1x", "1.5x", "2x", "4x"), ask="Best at", why="There all marks are seen, and are still large enough."),
    "narrow": Guess(
        0.51, within=0.12, ask="The share below two cells of stride 16", why="Half of our objects are narrower than 32 px."
    ),
    "constant": Guess(48, within=6, ask="Multiply by", why="The square root of how many numbers there are: 64 x 36."),
    "size": Guess(
        "almost 3 times", ("1.1 times", "almost 3 times", "20 times"), ask="The parameters", why="Five towers instead of one."
    ),
}


def check_forward(answer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pooled = [torch.randn(2, 3, 4, 4), 3 * torch.randn(2, 3, 4, 4)]
        both = {kind: Mix([3, 3], 5, normalise=kind, scale=10.0) for kind in (True, False)}
    with torch.no_grad():
        for kind, mix in both.items():
            when = f"two levels of 3 channels, {'normalised' if kind else 'not normalised'}"
            lengths = [x.flatten(1).norm(dim=1)[:, None, None, None] for x in pooled]
            fine, deep = (10 * x / n for x, n in zip(pooled, lengths, strict=True)) if kind else (pooled[0] / 30, pooled[1])
            equal(answer(mix, pooled), mix.conv(torch.cat([deep, fine], 1)), when, tolerance=1e-4)


def factor_to_see(box, x, y):
    x1, y1, x2, y2 = box
    across = abs(x - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = abs(y - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return max(across, down)


def check_factor_to_see(answer):
    equal(answer((10, 10, 20, 14), 25, 12), 2.0, "a point two half-widths from the centre")
    equal(answer((10, 10, 20, 14), 15, 20), 4.0, "a point four half-heights below the centre")
    equal(answer((0, 0, 8, 8), 4, 4), 0.0, "the centre")
    equal(answer((0, 0, 10, 20), 8, 25), 1.5, "a point outside below, inside to the side")


def share_inside(boxes, factor, height, width):
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, factor * (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = (centre - half).clamp(min=0), torch.minimum(centre + half, torch.tensor([width, height]))
    return ((high - low) / (2 * half)).prod(1)


def check_share_inside(answer):
    boxes = torch.tensor([[40.0, 40, 60, 60], [0, 40, 20, 60], [0, 0, 10, 10]])
    equal(answer(boxes, 1.0, 100, 100), [1, 1, 1], "the boxes themselves")
    equal(answer(boxes, 2.0, 100, 100), [1, 0.75, 0.5625], "regions of 2x in the middle, at an edge, in a corner")
    equal(answer(boxes, 4.0, 80, 120), [0.875, 0.546875, 0.390625], "regions of 4x in a picture 80 px high, 120 px wide")


def per_cell(length, x):
    return length * x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)


def check_per_cell(answer):
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).repeat(2, 1, 2, 2)
    x[0, :, 0, 0] = 0
    equal(answer(10.0, x), 2 * x, "cells of (3, 4) and one of (0, 0), length 10")
    g = torch.Generator().manual_seed(0)
    big = answer(2.0, torch.rand(4, 8, 6, 6, generator=g))
    equal(big.square().sum(1), torch.full((4, 6, 6), 4.0), "random grids, length 2: squares of each cell", tolerance=1e-4)
