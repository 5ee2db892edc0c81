"""Lesson 02: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import torch
import torch.nn.functional as F

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess
from fairseg_lite.models.deepmask import deepmask_tiny

HEARTS = {"forward": "fairseg_lite.models.trunks:Basic.forward"}
HINTS = {
    "forward": (
        "The change first: self.conv1, self.bn1, a ReLU, self.conv2, self.bn2. Then the sum, then the last ReLU.",
        "The input is added as it is where self.downsample is None, else as self.downsample(x).",
        "return F.relu(y + (x if self.downsample is None else self.downsample(x)))",
    ),
    "cells": (
        "The trunk sees patch and context together.",
        "The heads see the cells of the patch alone.",
        "((patch + context) // 16, ...)",
    ),
    "largest_rank": (
        "Two layers have rank * (inputs + outputs) weights, the full one inputs * outputs.",
        "Fewer means fewer: with an equal number the rank is too large already.",
        "(inputs * outputs - 1) // (inputs + outputs)",
    ),
    "receptive_field": (
        "Keep two numbers: the field so far (1 at first) and the product of the strides so far (1 at first).",
        "A layer adds (kernel - 1) times the product *before* it; only then its own stride counts.",
        "field += (kernel - 1) * step; step *= stride",
    ),
    "enlarge": (
        "Compute all places at once: at = (torch.arange(...) + 0.5) / factor - 0.5, clamped to the row.",
        "low = at.floor().long(), and high is the next pixel, clamped too; far = at - low is the weight of high.",
        "row[low] * (1 - far) + row[high] * far",
    ),
}
WRONG = {
    "forward": {
        "the input is not added": ("y + (x if self.downsample is None else self.downsample(x))", "y"),
        "the last ReLU comes after the sum": ("F.relu(y + (x if", "(F.relu(y) + (x if"),
        "there is no ReLU before the sum: a change may be negative": (
            "self.bn2(self.conv2(y))",
            "F.relu(self.bn2(self.conv2(y)))",
        ),
    },
    "cells": {
        "the context lies around the patch, not in it": (
            "(patch + context) // 16, patch // 16",
            "patch // 16, (patch - context) // 16",
        ),
        "the heads read the patch's own cells": (", patch // 16", ", (patch + context) // 16"),
    },
    "largest_rank": {
        "equally many is not fewer": (" - 1)", ")"),
        "both layers have rank times as many weights": ("(inputs + outputs)", "inputs"),
    },
    "receptive_field": {
        "a layer's own stride does not widen its own view": (
            "        field += (kernel - 1) * step\n        step *= stride",
            "        step *= stride\n        field += (kernel - 1) * step",
        ),
        "a step behind strided layers is several pixels long": ("(kernel - 1) * step", "kernel - 1"),
    },
    "enlarge": {
        "corners are aligned here; pixels have their middles at a half": (
            "(torch.arange(len(row) * factor) + 0.5) / factor - 0.5",
            "torch.linspace(0, len(row) - 1, len(row) * factor)",
        ),
        "repeated pixels are not weighted means": ("row[low] * (1 - far) + row[high] * far", "row.repeat_interleave(factor)"),
    },
}
PREDICTIONS = {
    "colour": Guess(
        "worse",
        ("better", "worse"),
        why="Textures have two colours, camouflage has the ground's, rings have a hole in the middle.",
    ),
    "cells": Guess(8, ask="Cells along each side", why="128 px halved four times; six of them belong to the patch."),
    "weights": Guess(314.7, within=20, ask="Millions of weights", why="100,352 inputs times 3,136 outputs."),
    "rank": Guess(512, why="A product has at most the rank of its narrow side."),
    "numbers": Guess("about 50", ("about 5", "about 50", "about 500"), why="Masks are regular: few patterns make most of them."),
    "random": Guess(
        "worse",
        ("better", "worse"),
        ask="The random network",
        why="Its masks are noise; the disc at least knows where objects are.",
    ),
}


def check_forward(answer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        halves, keeps = deepmask_tiny().eval().trunk.layer2[:2]
        x, y = torch.randn(1, 32, 8, 8), torch.randn(1, 64, 4, 4)
    with torch.no_grad():
        for b, z, kind in ((halves, x, "with"), (keeps, y, "without")):
            change = b.bn2(b.conv2(b.bn1(b.conv1(z)).clamp(min=0)))
            wanted = (change + (b.downsample(z) if b.downsample else z)).clamp(min=0)
            equal(answer(b, z), wanted, f"a block {kind} downsample", tolerance=1e-4)


def cells(patch, context):
    return (patch + context) // 16, patch // 16


def check_cells(answer):
    equal(answer(96, 32), (8, 6), "96 px with 32 px of context")
    equal(answer(160, 32), (12, 10), "160 px with 32 px of context")
    equal(answer(224, 0), (14, 14), "224 px without context")


def largest_rank(inputs, outputs):
    return (inputs * outputs - 1) // (inputs + outputs)  # rank * (inputs + outputs) < inputs * outputs


def check_largest_rank(answer):
    equal(answer(2304, 576), 460, "the tiny network: 512 is more than that")
    equal(answer(100352, 3136), 3040, "VGG-A")
    equal(answer(4, 4), 1, "4 inputs and 4 outputs, where rank 2 has exactly as many weights as the full layer")


def receptive_field(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step *= stride
    return field


def check_receptive_field(answer):
    conv, pool = (3, 1), (2, 2)
    vgg_a = [conv, pool, conv, pool, conv, conv, pool, conv, conv, pool, conv, conv]
    equal(answer([(3, 1), (3, 1)]), 5, "two 3x3 convolutions")
    equal(answer([(3, 2), (3, 1)]), 7, "a 3x3 convolution of stride 2, then one of stride 1")
    equal(answer(vgg_a), 134, "VGG-A, measured in step 1")


def enlarge(row, factor):
    at = (torch.arange(len(row) * factor) + 0.5) / factor - 0.5
    at = at.clamp(0, len(row) - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(row) - 1)
    far = at - low
    return row[low] * (1 - far) + row[high] * far


def check_enlarge(answer):
    for row, factor in (([0.0, 1.0], 2), ([3.0, -1.0, 4.0, 1.0, -5.0], 4), ([2.0, 7.0, 1.0], 3)):
        wanted = F.interpolate(torch.tensor([[row]]), scale_factor=factor, mode="linear")[0, 0]
        equal(answer(torch.tensor(row), factor), wanted, f"{row}, {factor} times", tolerance=1e-4)
