"""Lesson 01: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import numpy as np

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess
from fairseg_lite.data.patches import PatchSpec, Window

HEARTS = {"is_negative": "fairseg_lite.data.patches:is_negative"}
HINTS = {
    "is_negative": (
        "Ask one object first: is the window far from it in x, or in y, or in scale? One of the three is enough.",
        "Far in place: FAR * spec.patch_size pixels of the *patch*; divided by window.scale they are pixels of the picture. "
        "Far in scale: |log2(window.scale / o.scale)| of 1 or more.",
        "return all(... or ... or ... for o in objects)",
    ),
    "window_side": (
        "In the patch the object has object_size of patch_size pixels.",
        "The window is larger than the object by the same ratio as the patch is.",
        "longest * patch_size / object_size",
    ),
    "rle_area": (
        "Which counts are runs of ones?",
        "The first count is of zeros, the second of ones, and so on.",
        "sum(counts[1::2])",
    ),
    "coco_iou": (
        "First the sides of what both share: the smaller right end minus the larger left end, and the same for y.",
        "Boxes that do not touch give a negative side: take 0 for each side, before you multiply.",
        "both / (area of a + area of b - both)",
    ),
    "rle_text": (
        "Two loops: one over the counts, and for each number one over its groups of five bits.",
        "bits = value & 31, then value >>= 5. There is more unless what is left is 0 (and bits < 16) or -1 (and bits >= 16).",
        "chr(48 + bits + 32 * more); the difference is taken from the fourth number on, so for i > 2",
    ),
}
WRONG = {
    "is_negative": {
        "a negative is far from every object, not from one": ("return all(", "return any("),
        "32 px are of the patch: how many is that in the picture?": ("spec.patch_size / window.scale", "spec.patch_size"),
        "far in one direction is far enough": (">= far or abs(window.y", ">= far and abs(window.y"),
    },
    "window_side": {
        "the window is larger than the object, not smaller": ("patch_size / object_size", "object_size / patch_size"),
        "it holds for every patch, not only for 224 and 128 px": ("patch_size / object_size", "224 / 128"),
    },
    "rle_area": {
        "these are the zeros: the code begins with them": ("counts[1::2]", "counts[::2]"),
        "this adds up all runs, which gives the size of the picture": ("counts[1::2]", "counts"),
    },
    "coco_iou": {
        "two negative sides make a positive area": ("max(width, 0) * max(height, 0)", "width * height"),
        "what both share is in both areas: take it away once": (" - both)", ")"),
    },
    "rle_text": {
        "the third number is written as it is": ("if i > 2", "if i > 1"),
        "32 is added where more follow": (" + 32 * more", ""),
    },
}
PREDICTIONS = {
    "share": Guess(0.56, within=0.12, why="Nearly half of an average box is something else."),
    "shortest": Guess(
        "upright bars",
        ("disc", "upright bars", "level bars", "noise"),
        ask="The shortest code",
        why="Runs go down the columns, as the bars do.",
    ),
    "slip": Guess(0.6, within=0.02, ask="The IoU of the square of side 16", why="12 shared columns, 20 in the union."),
    "masks": Guess(
        0.0, within=0.03, ask="The IoU of the two masks", why="A mask holds visible pixels only, and a pixel shows one object."
    ),
    "negatives": Guess(95, within=10, ask="Negatives, per cent", why="Windows are wrong in place or in scale nearly always."),
    "off_centre": Guess(34, within=10, ask="Per cent", why="Rings, frames, crescents, and slivers of what is hidden."),
}


def check_is_negative(answer):
    spec, one, two = PatchSpec(patch_size=224, context=0, object_size=128, target_size=112), [Window(0, 0, 1)], []
    two = [*one, Window(60, 0, 1)]
    for window, objects, wanted, when in (
        (Window(0, 0, 1), one, False, "a window on the only object"),
        (Window(31, 0, 1), one, False, "a window 31 px beside it"),
        (Window(32, 0, 1), one, True, "a window 32 px beside it"),
        (Window(0, 0, 2), one, True, "a window of twice its scale"),
        (Window(22, 0, 1.5), one, True, "a window of 1.5 times its scale, 22 px of the picture and 33 of the patch away"),
        (Window(60, 0, 1), two, False, "a window on the second of two objects"),
        (Window(-40, 0, 1), two, True, "a window far from both of two objects"),
    ):
        equal(bool(answer(window, objects, spec)), wanted, when)


def window_side(longest, patch_size=224, object_size=128):
    return longest * patch_size / object_size


def check_window_side(answer):
    equal(answer(128), 224, "an object of 128 px")
    equal(answer(32), 56, "an object of 32 px")
    equal(answer(92, 160, 92), 160, "an object of 92 px in a patch of 160")


def rle_area(counts):
    return sum(counts[1::2])


def check_rle_area(answer):
    from fairseg_lite.geometry.masks import rle_counts, rle_encode

    equal(answer([2, 1, 1, 2]), 3, "counts 2, 1, 1, 2")
    equal(answer([0, 5]), 5, "a full picture")
    for seed in range(5):
        mask = np.random.default_rng(seed).random((7, 9)) < 0.3
        equal(answer(rle_counts(rle_encode(mask)).tolist()), mask.sum(), f"a random mask of {mask.sum()} px")


def coco_iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def check_coco_iou(answer):
    equal(answer([0, 0, 4, 4], [0, 0, 4, 4]), 1, "equal boxes")
    equal(answer([10, 10, 4, 2], [12, 10, 4, 2]), 1 / 3, "boxes that share half")
    equal(answer([0, 0, 4, 4], [10, 10, 5, 5]), 0, "boxes far apart in both directions")


def rle_text(counts):
    text = ""
    for i, value in enumerate(counts):
        if i > 2:
            value -= counts[i - 2]
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def check_rle_text(answer):
    from fairseg_lite.geometry.masks import rle_counts, rle_encode

    equal(answer([2, 1, 1, 2]), "2111", "counts 2, 1, 1, 2")
    equal(answer([0, 20]), "0d0", "counts 0, 20: 20 has its sixteen-bit set, so it takes two characters")
    for seed in range(5):
        code = rle_encode(np.random.default_rng(seed).random((40, 30)) < 0.02)
        equal(answer(rle_counts(code).tolist()), code["counts"], f"the random mask of seed {seed}")
