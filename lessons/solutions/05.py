"""Solutions of lesson 05, and for each a plausible mistake that its check must refuse."""

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def average_recall_of(best_iou):
    return (np.asarray(best_iou)[:, None] >= THRESHOLDS).mean()


def wrong_average_recall_of(best_iou):  # "more than" instead of "at least"
    return (np.asarray(best_iou)[:, None] > THRESHOLDS).mean()


def recall_curve(iou, ks, threshold):
    best_so_far = np.maximum.accumulate(iou, 0)  # (K, N)
    recall = (best_so_far >= threshold).mean(1)
    return [recall[min(k, len(iou)) - 1] for k in ks]


def wrong_recall_curve(iou, ks, threshold):  # what the k-th proposal finds, instead of the first k
    recall = (iou >= threshold).mean(1)
    return [recall[min(k, len(iou)) - 1] for k in ks]


def by_size(best_iou, areas):
    ranges = ((0, 32**2), (32**2, 96**2), (96**2, np.inf))
    chosen = [(areas >= low) & (areas <= high) for low, high in ranges]
    return tuple(average_recall_of(best_iou[c]) if c.any() else None for c in chosen)


def wrong_by_size(best_iou, areas):  # an object on a border counts once
    ranges = ((0, 32**2), (32**2, 96**2), (96**2, np.inf))
    chosen = [(areas >= low) & (areas < high) for low, high in ranges]
    return tuple(average_recall_of(best_iou[c]) if c.any() else None for c in chosen)


def mask_nms(iou, limit):
    kept = []
    for i in range(len(iou)):
        if not kept or iou[i, kept].max() <= limit:
            kept.append(i)
    return kept


def wrong_mask_nms(iou, limit):  # also what was dropped drops others
    return [i for i in range(len(iou)) if i == 0 or iou[i, :i].max() <= limit]
