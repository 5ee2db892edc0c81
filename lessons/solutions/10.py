"""Answers to lesson 10, each with a plausible mistake that its check must refuse."""

import torch


def score_of(iou, n):
    return sum(iou >= 0.5 + 0.05 * i for i in range(n)) / n


def wrong_score_of(iou, n):
    return sum(iou > 0.5 + 0.05 * i for i in range(n)) / n  # a box exactly at a threshold is right


def untied_labels(ious, classes, heads, head, u):
    table = torch.full((heads, len(ious)), -1)
    table[head] = torch.where(ious >= u, classes, 0)
    return table


def wrong_untied_labels(ious, classes, heads, head, u):
    table = torch.zeros(heads, len(ious), dtype=torch.long)  # teaches all other heads that everything is background
    table[head] = torch.where(ious >= u, classes, 0)
    return table


def agreed(p):
    return p.cummin(0).values


def wrong_agreed(p):
    return p.sort(0, descending=True).values  # gives one classifier's answer to another
