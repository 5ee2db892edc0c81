"""Answers to lesson 11, each with a plausible mistake that its check must refuse."""

import numpy as np
from torchvision.ops import box_iou


def times(flip, crops, iterations, networks):
    return (1 + flip) * (1 + crops) * iterations * networks


def wrong_times(flip, crops, iterations, networks):
    return flip + crops + iterations + networks - 1  # every copy is mirrored, too


def one_name(boxes, scores, overlap):
    left, kept = scores.argsort(descending=True), []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][box_iou(boxes[left[:1]], boxes[left[1:]])[0] <= overlap]
    return kept


def wrong_one_name(boxes, scores, overlap):
    order = scores.argsort(descending=True)
    iou = box_iou(boxes[order], boxes[order]).triu(1)
    return order[iou.amax(0) <= overlap].tolist()  # what was dropped already still drops others


def calibration(scores, hits, edges):
    scores, hits, shares = np.asarray(scores), np.asarray(hits, float), []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (scores >= low) & (scores < high)
        shares.append(hits[inside].mean() if inside.any() else np.nan)
    return shares


def wrong_calibration(scores, hits, edges):
    scores, hits = np.asarray(scores), np.asarray(hits, bool)
    total = max(hits.sum(), 1)
    return [(hits & (scores >= a) & (scores < b)).sum() / total for a, b in zip(edges, edges[1:], strict=False)]
