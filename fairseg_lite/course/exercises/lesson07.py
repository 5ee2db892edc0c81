"""Lesson 07: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import torch
import torch.nn.functional as F

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess
from fairseg_lite.models.refinement import NaiveRefinementModule

HEARTS = {"refactor": "fairseg_lite.models.refinement:refactor"}
HINTS = {
    "refactor": (
        "Read the sizes off the naive module's layers and make a RefinementModule of them; then move the weights.",
        "Layers that see one input alone move as they are: module.lateral[:4] has naive.reduce's, module.top_down[:2] has "
        "naive.top_down's.",
        "join.weight[:, :channels] multiplies S, the rest multiplies M; the bias goes to one of the two, the other's is zero.",
    ),
    "windows_of_a_cell": ("Along one side first: patch / stride windows.", "Both directions.", "(patch // stride) ** 2"),
    "sum_of_parts": (
        "weight.split(list of channels, dim=1) gives each map its own columns.",
        "Convolve each map with its part, and add.",
        "sum(F.conv2d(x, w) for x, w in zip(maps, parts))",
    ),
    "speed_up": (
        "The time before divided by the time after.",
        "After: all of it, without the stage, plus the stage divided by factor.",
        "total / (total - seconds[stage] + seconds[stage] / factor)",
    ),
    "worth_a_look": (
        "One function: is this network beaten by any other?",
        "Beaten: another is at least as fast and finds at least as much, and is not equal in both.",
        "any(s <= one[0] and r >= one[1] and (s, r) != one for s, r in networks.values())",
    ),
}
WRONG = {
    "refactor": {
        "the bias stands on both sides, and is added twice": (
            "module.top_down[2].bias.zero_()",
            "module.top_down[2].bias.copy_(join.bias)",
        ),
        "the bias is lost": ("module.lateral[4].bias.copy_(join.bias)", "module.lateral[4].bias.zero_()"),
        "each part takes its own columns of the joining weights": ("join.weight[:, channels:]", "join.weight[:, :channels]"),
    },
    "windows_of_a_cell": {
        "this is along one side only": (" ** 2", ""),
        "windows overlap: a cell lies in many": lambda patch, stride: 1,
    },
    "sum_of_parts": {
        "a ReLU of parts is not the ReLU of their sum": ("F.conv2d(x, w) for", "torch.relu(F.conv2d(x, w)) for"),
        "only the last map is left": (
            "sum(F.conv2d(x, w) for x, w in zip(maps, parts, strict=True))",
            "F.conv2d(maps[-1], parts[-1])",
        ),
    },
    "speed_up": {
        "what is left grows in share: divide times, do not average factors": (
            "total / (total - seconds[stage] + seconds[stage] / factor)",
            "1 + (factor - 1) * seconds[stage] / total",
        ),
        "the stage does not vanish": (" + seconds[stage] / factor", ""),
    },
    "worth_a_look": {
        "two that are equal do not beat each other": (" and (s, r) != one", " and n != 'one'"),
        "slower may be worth it, if it finds more": ("s <= one[0] and r >= one[1]", "s <= one[0]"),
    },
}
PREDICTIONS = {
    "apart": Guess(
        "by rounding alone",
        ("not at all", "by rounding alone", "by about a per cent"),
        why="Sums in another order round differently.",
    ),
    "share": Guess(70, within=12, ask="Per cent", why="The features have many more channels than the mask."),
    "anew": Guess(
        33, within=15, ask="How many times", why="A cell lies in up to 36 windows, and each window needs a margin besides."
    ),
    "larger": Guess(
        "the tiny one", ("the tiny one", "the one of the paper's size"), why="A small trunk makes everything else look large."
    ),
    "grows": Guess(
        "by about a half",
        ("by about a half", "10 times", "50 times"),
        why="Trunk, scores and lateral features are paid for once.",
    ),
    "chance": Guess(
        "one in 10", ("one in 10", "one in 20", "one in 100"), why="Of 20 ways to deal 6 runs to two variants, 2 set them apart."
    ),
}


def check_refactor(answer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        naive = NaiveRefinementModule(features=8, channels=4, out=2).double()
        torch.nn.init.constant_(naive.join.bias, 0.5)
        features, mask = torch.randn(1, 8, 3, 3).double(), torch.randn(1, 4, 3, 3).double()
        with torch.no_grad():
            equal(
                answer(naive)(features, mask), naive(features, mask), "a module with a bias of 0.5, the outputs", tolerance=1e-9
            )


def windows_of_a_cell(patch, stride):
    return (patch // stride) ** 2


def check_windows_of_a_cell(answer):
    for patch, stride, wanted in ((96, 16, 36), (160, 16, 100), (64, 8, 64)):
        equal(answer(patch, stride), wanted, f"a patch of {patch} px every {stride} px")


def sum_of_parts(maps, weight):
    parts = weight.split([x.shape[1] for x in maps], dim=1)
    return sum(F.conv2d(x, w) for x, w in zip(maps, parts, strict=True))


def check_sum_of_parts(answer):
    g = torch.Generator().manual_seed(0)
    for counts in ((3, 2), (1, 4, 2), (5,)):
        maps = [torch.randn(2, c, 6, 7, generator=g) for c in counts]
        weight = torch.randn(3, sum(counts), 3, 3, generator=g)
        wanted = torch.nn.functional.conv2d(torch.cat(maps, 1), weight)
        equal(answer(maps, weight), wanted, f"maps of {counts} channels", tolerance=1e-4)


def speed_up(seconds, stage, factor):
    total = sum(seconds.values())
    return total / (total - seconds[stage] + seconds[stage] / factor)


def check_speed_up(answer):
    seconds = {"trunk": 6.0, "masks": 3.0, "paste": 1.0}
    equal(answer(seconds, "trunk", 2), 10 / 7, "a trunk twice as fast")
    equal(answer(seconds, "paste", 1000), 10 / 9.001, "pasting a thousand times as fast")
    equal(answer(seconds, "masks", 1), 1.0, "nothing changed")


def worth_a_look(networks):
    def beaten(one):
        return any(s <= one[0] and r >= one[1] and (s, r) != one for s, r in networks.values())

    return {name for name, one in networks.items() if not beaten(one)}


def check_worth_a_look(answer):
    def sorted_names(networks):
        return sorted(answer(networks))

    equal(sorted_names({"a": (1, 0.3), "b": (2, 0.5), "c": (2, 0.4)}), ["a", "b"], "c is as slow as b and finds less")
    equal(sorted_names({"a": (1, 0.3), "b": (2, 0.3)}), ["a"], "b finds as much as a and is slower")
    equal(sorted_names({"a": (1, 0.3), "b": (1, 0.3)}), ["a", "b"], "two that are equal")
    equal(sorted_names({"a": (3, 0.6), "b": (1, 0.1), "c": (2, 0.2)}), ["a", "b", "c"], "each with its own strength")
