"""Solutions of lesson 02, and for each a mistake that is easily made: the checks must tell them apart."""

import torch


def cells(patch, context):
    return (patch + context) // 16, patch // 16


def wrong_cells(patch, context):
    return patch // 16, (patch - context) // 16  # the context lies around the patch, not in it


def largest_rank(inputs, outputs):
    return (inputs * outputs - 1) // (inputs + outputs)  # rank * (inputs + outputs) < inputs * outputs


def wrong_largest_rank(inputs, outputs):
    return inputs * outputs // (inputs + outputs)  # equal is not fewer


def receptive_field(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * step
        step *= stride
    return field


def wrong_receptive_field(layers):
    field, step = 1, 1
    for kernel, stride in layers:
        step *= stride  # one layer too early: a layer's own stride does not widen its own view
        field += (kernel - 1) * step
    return field


def enlarge(row, factor):
    at = (torch.arange(len(row) * factor) + 0.5) / factor - 0.5
    at = at.clamp(0, len(row) - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(row) - 1)
    far = at - low
    return row[low] * (1 - far) + row[high] * far


def wrong_enlarge(row, factor):
    at = torch.linspace(0, len(row) - 1, len(row) * factor)  # aligned corners: the first and last pixels keep their places
    low = at.floor().long().clamp(max=len(row) - 2)
    far = at - low
    return row[low] * (1 - far) + row[low + 1] * far
