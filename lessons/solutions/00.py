"""Answers to lesson 00, each with a plausible mistake that its check must refuse."""


def count_above(scores, limit):
    return sum(s > limit for s in scores)


def wrong_count_above(scores, limit):
    return sum(s >= limit for s in scores)


def share(mask):
    return mask.sum() / mask.size


def wrong_share(mask):
    return mask.sum() / len(mask)  # divides by the rows


def iou_of(a, b):
    union = (a | b).sum()
    return (a & b).sum() / union if union else 0.0


def wrong_iou_of(a, b):
    return (a & b).sum() / max(a.sum(), 1)  # divides by one of the two
