"""Answers to lesson 04, each with a plausible mistake that its check must refuse."""

import math


def window_box(row, column, s, P):
    x, y = 16 * column - P / 2, 16 * row - P / 2
    return x / s, y / s, (x + P) / s, (y + P) / s


def wrong_window_box(row, column, s, P):
    x, y = 16 * column / s - P / 2, 16 * row / s - P / 2  # the border is in pixels of the level
    return x, y, x + P / s, y + P / s


def cell(i, width):
    return i // width, i % width


def wrong_cell(i, width):
    return i // width, i % width + 1


def suits(size, scales, object_size):
    return min(scales, key=lambda s: abs(math.log(s * size / object_size)))


def wrong_suits(size, scales, object_size):
    return min(scales, key=lambda s: abs(s * size - object_size))  # differences, not ratios


def kept(iou, limit):
    stay = []
    for i in range(len(iou)):
        if all(iou[i][j] <= limit for j in stay):
            stay.append(i)
    return stay


def wrong_kept(iou, limit):
    return [i for i in range(len(iou)) if all(iou[i][j] <= limit for j in range(i))]  # also against dropped ones
