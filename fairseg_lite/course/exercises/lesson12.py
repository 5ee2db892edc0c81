"""Lesson 12: hints, mistakes, predictions, solutions and checks, as `course.checks` describes them."""

import torch

from fairseg_lite.course.checks import Wrong, equal
from fairseg_lite.course.predictions import Guess

HEARTS = {"step_in_parts": "fairseg_lite.course.exercises.lesson12:step_in_parts"}
HINTS = {
    "step_in_parts": (
        "PyTorch adds: a second backward() does not replace the gradients of the first. So begin with none, and go backward part "
        "by part.",
        "Each part's loss, divided by how many parts there are, before backward().",
        "for part in parts: loss = loss_of(network, part) / len(parts); loss.backward(); total = total + loss.detach()",
    ),
    "days": (
        "How many patches are there in all, and how many does a day hold?",
        "A day has 86,400 seconds.",
        "steps * batch / rate are seconds",
    ),
    "own_rows": (
        "All processes have as many rows.",
        "each = batch // processes; the first process, number 0, begins at row 0.",
        "rank * each is the first row, and the next process begins where this one ends",
    ),
    "speed_up": (
        "Call the whole of one process's time 1. What is left of it with more processes?",
        "The part that each must do alone stays; the rest is divided.",
        "1 / (alone + (1 - alone) / processes)",
    ),
}
WRONG = {
    "step_in_parts": {
        "the gradients of an earlier step are still there": ("    network.zero_grad()\n", ""),
        "a step wants the mean of the parts, not their sum": (" / len(parts)", ""),
        "each part begins anew: only the last one counts": ("loss.backward()", "network.zero_grad(), loss.backward()"),
        "all parts are held in memory at once: go backward after each": lambda network, loss_of, parts: (
            network.zero_grad(),
            losses := sum(loss_of(network, part) for part in parts) / len(parts),
            losses.backward(),
        )[1].detach(),
    },
    "days": {
        "these are hours": ("86400", "3600"),
        "a step has more patches than one": ("steps * batch", "steps"),
    },
    "own_rows": {
        "the end is the first row that is not its own": ("(rank + 1) * each", "(rank + 1) * each - 1"),
        "each process takes a part, not a batch": ("batch // processes", "batch"),
    },
    "speed_up": {
        "what each must do alone does not become faster": ("alone + (1 - alone) / processes", "1 / processes"),
        "times faster, so 1 divided by what is left": lambda processes, alone: alone + (1 - alone) / processes,
    },
}
PREDICTIONS = {
    "needed": Guess(37, within=10, ask="Patches per second", why="500,000 steps of 32 patches in 5 times 86,400 seconds."),
    "knob": Guess(
        "precision",
        ("threads", "layout", "precision"),
        ask="It changes the loss by more than rounding",
        why="bfloat16 has 8 bits where float32 has 24; the other two only change who computes what, and in which order.",
    ),
    "halves": Guess(
        "halves with 8 positives each",
        ("any two halves", "halves with 8 positives each", "neither"),
        ask="The gradient of the whole batch is that of",
        why="The mask loss is a mean over positives.",
    ),
    "order": Guess(
        "from three parts on",
        ("never", "from three parts on", "always"),
        ask="The order matters",
        why="Two numbers have one sum; of three, the first two are rounded before the third comes.",
    ),
    "gate": Guess(
        "only when chosen",
        ("only when multiplied", "only when chosen", "both times"),
        ask="The host waits",
        why="How many patches are positive decides how large the result is, and the host has to know that.",
    ),
    "share": Guess(0.39, within=0.1, ask="The share of its peak", why="1.45 TFLOP per step, and .86 seconds for each step."),
}


def step_in_parts(network, loss_of, parts):
    network.zero_grad()
    total = 0.0
    for part in parts:
        loss = loss_of(network, part) / len(parts)
        loss.backward()  # adds to what is there, and lets go of what this part needed
        total = total + loss.detach()
    return total


def check_step_in_parts(answer):
    network, done = torch.nn.Linear(1, 1, bias=False), []
    network.weight.data.fill_(2.0)

    def loss_of(network, x):
        done.append("forward")
        loss = network(x).square().mean()  # of weight w: mean of (w x)^2, and its slope is mean of 2 w x^2
        loss.register_hook(lambda _: done.append("backward"))
        return loss

    parts = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0], [5.0]])]
    mean = (1 + 4 + 9 + 16 + 25) / 6
    for step in ("a first step of three parts", "a second step, on the same network"):
        loss = answer(network, loss_of, parts)
        if network.weight.grad is None:
            raise Wrong("no parameter has a gradient: is backward() missing?")
        equal(network.weight.grad.flatten(), [2 * 2 * mean], f"{step} (gradient)", tolerance=1e-4)
        equal(loss, 4 * mean, f"{step} (loss)", tolerance=1e-4)
    equal(done, ["forward", "backward"] * 6, "two steps of three parts (what was done, in order)")


def days(steps, batch, rate):
    return steps * batch / rate / 86400


def check_days(answer):
    equal(answer(86_400, 10, 10), 1, "86,400 steps of 10 patches, 10 a second")
    equal(answer(500_000, 32, 37.037037), 5, "500,000 steps of 32 patches, 37.04 a second", tolerance=1e-4)


def own_rows(batch, processes, rank):
    each = batch // processes
    return rank * each, (rank + 1) * each


def check_own_rows(answer):
    equal(answer(32, 4, 0), (0, 8), "the first of 4 processes, batch 32")
    equal(answer(32, 4, 3), (24, 32), "the last of 4 processes, batch 32")
    equal(answer(7, 1, 0), (0, 7), "one process, batch 7")


def speed_up(processes, alone):
    return 1 / (alone + (1 - alone) / processes)


def check_speed_up(answer):
    equal(answer(4, 0.0), 4, "4 processes that share everything")
    equal(answer(2, 0.1), 1 / 0.55, "2 processes, a tenth done by each alone")
    equal(answer(1, 0.3), 1, "one process")
