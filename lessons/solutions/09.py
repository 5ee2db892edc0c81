"""Answers to lesson 09, each with a plausible mistake that its check must refuse."""

import torch


def factor_to_see(box, x, y):
    x1, y1, x2, y2 = box
    across = abs(x - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = abs(y - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return max(across, down)


def wrong_factor_to_see(box, x, y):
    x1, y1, x2, y2 = box
    return max(abs(x - (x1 + x2) / 2) / (x2 - x1), abs(y - (y1 + y2) / 2) / (y2 - y1))  # whole sides, not half ones


def share_inside(boxes, factor, height, width):
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, factor * (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = (centre - half).clamp(min=0), torch.minimum(centre + half, torch.tensor([width, height]))
    return ((high - low) / (2 * half)).prod(1)


def wrong_share_inside(boxes, factor, height, width):
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, factor * (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = (centre - half).clamp(min=0), torch.minimum(centre + half, torch.tensor([height, width]))  # x is across
    return ((high - low) / (2 * half)).prod(1)


def per_cell(length, x):
    return length * x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)


def wrong_per_cell(length, x):
    return length * x / x.flatten(1).norm(dim=1)[:, None, None, None]  # the whole grid: the paper's, not ParseNet's
