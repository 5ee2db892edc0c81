"""Answers to lesson 03, each with a plausible mistake that its check must refuse."""

import math


def pixel_loss(m, f):
    return math.log(1 + math.exp(-m * f))


def wrong_pixel_loss(m, f):
    return math.log(1 + math.exp(m * f))  # the sign


def gated_mean(per_patch, labels):
    kept = [loss for loss, label in zip(per_patch, labels, strict=True) if label > 0]
    return sum(kept) / len(kept) if kept else 0.0


def wrong_gated_mean(per_patch, labels):
    return sum(loss for loss, label in zip(per_patch, labels, strict=True) if label > 0) / len(labels)  # divides by all


def learning_rate(step, steps, peak, warmup):
    return peak * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def wrong_learning_rate(step, steps, peak, warmup):
    return peak * 0.5 * (1 + math.cos(math.pi * step / steps))  # no warm-up


def jitter_px(P):
    return 16 * P / 224


def wrong_jitter_px(P):
    return 16
