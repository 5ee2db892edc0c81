"""Lesson 03: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import math

import numpy as np
import torch

from fairseg_lite.course.checks import equal
from fairseg_lite.course.predictions import Guess

HEARTS = {"mask_loss": "fairseg_lite.models.losses:mask_loss"}
HINTS = {
    "mask_loss": (
        "Four lines: enlarge the logits to the side of the masks; turn True and False into +1 and -1; the loss of every "
        "pixel, and "
        "its mean for each patch; the mean over positive patches.",
        "F.softplus(-sign * logits).mean(dim=(1, 2)) is a number for each patch. labels > 0 is the gate.",
        "(per_patch * positive).sum() / positive.sum().clamp(min=1)",
    ),
    "pixel_loss": (
        "It is the formula of step 1, with math.log and math.exp.",
        "A right answer has m * f above 0 and costs little.",
        "math.log(1 + math.exp(...))",
    ),
    "gated_mean": (
        "Keep the losses whose label is above 0.",
        "Divide by how many you kept.",
        "sum(kept) / len(kept) if kept else 0.0",
    ),
    "learning_rate": (
        "Three factors: peak, the rise, half a cosine.",
        "The rise is (step + 1) / warmup, but never above 1.",
        "0.5 * (1 + math.cos(math.pi * step / steps)) is 1 at the start and 0 at the end",
    ),
    "jitter_px": ("The jitter is a share of the patch, whatever its side.", "The share is 16 of 224.", "16 * P / ..."),
}
WRONG = {
    "mask_loss": {
        "negative patches count, too: where is the gate?": ("positive = labels > 0", "positive = labels < 9"),
        "the sign is turned: what is right must cost little": ("F.softplus(-sign * logits)", "F.softplus(sign * logits)"),
        "the mean is over positive patches, so divide by their number": ("positive.sum().clamp(min=1)", "len(labels)"),
        "the sum is divided by 0 where no patch is positive": (".clamp(min=1)", ""),
    },
    "pixel_loss": {
        "the sign is turned: what is right must cost little": ("-m * f", "m * f"),
        "the 1 in the logarithm is missing": ("1 + math.exp", "math.exp"),
    },
    "gated_mean": {
        "the mean is over positives: divide by their number": (
            "sum(kept) / len(kept) if kept else 0.0",
            "sum(kept) / len(labels)",
        ),
        "negatives count, too": (" if label > 0]", "]"),
    },
    "learning_rate": {
        "there is no warm-up": ("min(1, (step + 1) / warmup) * ", ""),
        "steps count from 0, but the first one is a step already": ("(step + 1) / warmup", "step / warmup"),
    },
    "jitter_px": {"16 px are of a patch of 224": lambda P: 16, "a smaller patch has a smaller jitter": lambda P: 16 * 224 / P},
}
PREDICTIONS = {
    "unsure": Guess(0.693, within=0.02, why="log(1 + 1) = log 2."),
    "flipped": Guess(
        "neither changes", ("both change", "only the loss", "neither changes"), why="The gate multiplies that patch by 0."
    ),
    "by_heart": Guess(
        "below a tenth", ("to about a half", "to about a tenth", "below a tenth"), why="Eight patches are few for 2 M weights."
    ),
    "trunk": Guess(0.153, within=0.06, ask="Ahead by, with the shipped trunk", why="It has learned about these shapes already."),
}


def check_mask_loss(answer):
    f, on, both = torch.full((2, 2, 2), 3.0), torch.ones(2, 4, 4, dtype=torch.bool), torch.tensor([1.0, 1.0])
    f[1], cheap, dear = -3.0, np.log1p(np.exp(-3)), np.log1p(np.exp(3))
    equal(answer(f[:1] * 0, on[:1], both[:1]), np.log(2), "one patch of zeros, 2 x 2 logits for 4 x 4 pixels")
    equal(answer(f[:1], on[:1], both[:1]), cheap, "a patch that is all object, logits 3")
    equal(answer(f[:1], ~on[:1], both[:1]), dear, "a patch without a pixel of the object, logits 3")
    equal(answer(f, on, both), (cheap + dear) / 2, "two positive patches, logits 3 and -3")
    equal(answer(f, on, torch.tensor([1.0, -1.0])), cheap, "the same, the second patch negative")
    equal(answer(f, on, -both), 0, "negative patches only")


def pixel_loss(m, f):
    return math.log(1 + math.exp(-m * f))


def check_pixel_loss(answer):
    for m, f in ((1, 0.0), (1, 3.0), (-1, 3.0), (-1, -0.5)):
        equal(answer(m, f), np.log1p(np.exp(-m * f)), f"m = {m}, f = {f}")


def gated_mean(per_patch, labels):
    kept = [loss for loss, label in zip(per_patch, labels, strict=True) if label > 0]
    return sum(kept) / len(kept) if kept else 0.0


def check_gated_mean(answer):
    cases = (([1.0, 2.0, 6.0], [1, -1, 1], 3.5), ([5.0, 7.0], [-1, -1], 0.0), ([4.0], [1], 4.0))
    for losses_, labels_, wanted in cases:
        equal(answer(losses_, labels_), wanted, f"losses {losses_} with labels {labels_}")


def learning_rate(step, steps, peak, warmup):
    return peak * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def check_learning_rate(answer):
    for step in (0, 4, 9, 50, 99):
        wanted = 0.1 * min(1, (step + 1) / 10) * 0.5 * (1 + np.cos(np.pi * step / 100))
        equal(answer(step, 100, 0.1, 10), wanted, f"step {step} of 100, peak 0.1, warm-up 10")


def jitter_px(P):
    return 16 * P / 224


def check_jitter_px(answer):
    for side in (224, 160, 96):
        equal(answer(side), 16 * side / 224, f"P = {side}")
