"""Answers to lesson 08, each with a plausible mistake that its check must refuse."""

import math

from torchvision.ops import nms


def decoded(box, deltas):
    x1, y1, x2, y2 = box
    dx, dy, dw, dh = deltas
    width, height = x2 - x1, y2 - y1
    x, y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
    half = width * math.exp(dw) / 2, height * math.exp(dh) / 2
    return x - half[0], y - half[1], x + half[0], y + half[1]


def wrong_decoded(box, deltas):
    x1, y1, x2, y2 = box
    dx, dy, dw, dh = deltas
    width, height = x2 - x1, y2 - y1
    x, y = x1 + dx * width, y1 + dy * height  # moves the corner, not the centre
    return x, y, x + width * math.exp(dw), y + height * math.exp(dh)


def nms_by_class(boxes, scores, labels, overlap):
    apart = (boxes.max() - boxes.min() + 1) * labels[:, None]
    return nms(boxes + apart, scores, overlap)


def wrong_nms_by_class(boxes, scores, labels, overlap):
    return nms(boxes + labels[:, None], scores, overlap)  # a pixel apart is not apart


def eleven_points(hits, objects):
    found, curve = 0, []
    for rank, hit in enumerate(hits, 1):
        found += hit
        curve.append((found / objects, found / rank))
    return sum(max((p for r, p in curve if r >= wanted / 10 - 1e-9), default=0) for wanted in range(11)) / 11


def wrong_eleven_points(hits, objects):
    found, total = 0, 0
    for rank, hit in enumerate(hits, 1):
        found += hit
        total += hit * found / rank
    return total / objects  # the mean over hits, another AP still
