"""Answers to lesson 07, each with a plausible mistake that its check must refuse."""

import torch
import torch.nn.functional as F


def windows_of_a_cell(patch, stride):
    return (patch // stride) ** 2


def wrong_windows_of_a_cell(patch, stride):
    return patch // stride  # along one side only


def sum_of_parts(maps, weight):
    parts = weight.split([x.shape[1] for x in maps], dim=1)
    return sum(F.conv2d(x, w) for x, w in zip(maps, parts, strict=True))


def wrong_sum_of_parts(maps, weight):
    parts = weight.split([x.shape[1] for x in maps], dim=1)
    return sum(torch.relu(F.conv2d(x, w)) for x, w in zip(maps, parts, strict=True))  # a ReLU does not split


def speed_up(seconds, stage, factor):
    total = sum(seconds.values())
    return total / (total - seconds[stage] + seconds[stage] / factor)


def wrong_speed_up(seconds, stage, factor):
    return 1 + (factor - 1) * seconds[stage] / sum(seconds.values())  # forgets that what is left grows in share


def worth_a_look(networks):
    def beaten(one):
        return any(s <= one[0] and r >= one[1] and (s, r) != one for s, r in networks.values())

    return {name for name, one in networks.items() if not beaten(one)}


def wrong_worth_a_look(networks):
    return {
        name for name, (s, r) in networks.items() if not any(t <= s and q >= r for n, (t, q) in networks.items() if n != name)
    }  # two that are equal beat each other
