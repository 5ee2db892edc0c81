"""Scenes made by hand, and a loop that matches proposals with objects as COCO's judge should."""

import numpy as np
import pytest

from fairseg_lite.data.scenes import Scene, tabulate
from fairseg_lite.evaluation.recall import average_recall
from fairseg_lite.geometry.masks import rle_decode, rle_encode

THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


class Scenes:
    """A dataset of scenes made by hand; two categories, the first with a high id."""

    categories, category_ids = ("thing", "other"), (90, 7)

    def __init__(self, *pictures, crowd=None):
        self.scenes = [scene(i, masks, (crowd or {}).get(i, ())) for i, masks in enumerate(pictures)]
        self.instances = tabulate(self.scenes)

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def scene(i, masks, crowd):
    masks, n = np.asarray(masks, bool), len(masks)
    flags = np.isin(np.arange(n), crowd)
    ids = np.arange(n) + 10 * i  # the first is 0, which COCOeval reads as "not matched"
    return Scene(np.zeros((*masks.shape[1:], 3), np.uint8), masks, np.arange(n) % 2, flags, i + 5, f"{i}.png", ids)


def rectangle(x, y, w, h, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[y : y + h, x : x + w] = True
    return mask


def result(image_id, mask, score):
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [cols[0], rows[0], cols[-1] + 1 - cols[0], rows[-1] + 1 - rows[0]] if len(rows) else [0, 0, 0, 0]
    return {"image_id": image_id, "category_id": 90, "segmentation": rle_encode(mask), "bbox": box, "score": score}


def overlaps(truth, crowd, proposals):
    """IoU of truths with proposals; with a crowd, the share of the proposal that lies on it."""
    table = np.zeros((len(truth), len(proposals)))
    for i, t in enumerate(truth):
        for j, p in enumerate(proposals):
            total = p.sum() if crowd[i] else (t | p).sum()
            table[i, j] = (t & p).sum() / total if total else 0
    return table


def recall_by_hand(pictures, threshold, limit):
    """Share of objects found.

    pictures: one (overlaps of truths with proposals in order of score, which truths are ignored, which are crowds).
    Every proposal takes the best truth that is still free; only when it can have none, one that is ignored, where it
    does neither good nor harm.
    """
    found = objects = 0
    for table, ignored, crowd in pictures:
        objects += sum(not i for i in ignored)
        free = [True] * len(ignored)
        for j in range(min(limit, table.shape[1])):
            for kind in (False, True):
                able = [i for i in range(len(ignored)) if ignored[i] == kind and free[i] and table[i, j] >= threshold]
                if able:
                    best = max(reversed(able), key=lambda i: table[i, j])  # of equals the last, as COCOeval
                    free[best] = bool(crowd[best])  # a crowd holds any number
                    found += not kind
                    break
    return found / objects if objects else None


def check_by_hand(dataset, results, limits, iou_type="segm"):
    """Every number of the report equals the loop's."""
    report = average_recall(dataset, results, iou_type=iou_type, limits=limits)
    tables = []
    for i in range(len(dataset)):
        s = dataset[i]
        mine = sorted((r for r in results if r["image_id"] == s.image_id), key=lambda r: -r["score"])  # stable
        proposals = [rle_decode(r["segmentation"]) for r in mine]
        truths = list(s.masks)
        if iou_type == "bbox":  # as pictures of the boxes
            shape = s.image.shape[:2]
            proposals = [rectangle(*map(int, r["bbox"]), size=shape) for r in mine]
            truths = [rectangle(*map(int, (x1, y1, x2 - x1, y2 - y1)), size=shape) for x1, y1, x2, y2 in s.boxes]
        tables.append((overlaps(truths, s.crowd, proposals).reshape(len(truths), len(mine)), s.crowd, s.areas))

    def by_hand(threshold, limit, low, high):
        pictures = [(t, crowd | (areas < low) | (areas > high), crowd) for t, crowd, areas in tables]
        return recall_by_hand(pictures, threshold, limit)

    def mean(values):
        return None if None in values else pytest.approx(np.mean(values), abs=1e-12)

    assert report.iou_type == iou_type and report.pictures == len(dataset)
    assert report.instances == sum(int((~crowd).sum()) for _, crowd, _ in tables)
    for k in limits:
        whole = [by_hand(t, k, 0, 1e10) for t in THRESHOLDS]
        assert list(report.by_threshold[k]) == THRESHOLDS
        assert list(report.by_threshold[k].values()) == pytest.approx(whole, abs=1e-12)
        assert report.ar[k] == mean(whole)
        for name, (low, high) in SIZES.items():
            assert report.by_area[k][name] == mean([by_hand(t, k, low, high) for t in THRESHOLDS]), (k, name)
    return report


A, B = rectangle(2, 2, 20, 10), rectangle(30, 20, 20, 15)
