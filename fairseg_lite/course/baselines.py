"""Proposals without learning, to see what learning is worth: windows on a grid, and regions merged by colour.

N proposals, H x W pixels. The second is in the manner of selective search (Uijlings et al. 2013, sections 3.1 and 3.2):
an over-segmentation (Felzenszwalb and Huttenlocher 2004), then the two most similar neighbours become one, again and
again, and every region on the way is a proposal. We keep its similarities of colour and size, and one colour space.
"""

import heapq
import itertools
from typing import NamedTuple

import numpy as np
import torch

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import xyxy_to_xywh
from fairseg_lite.geometry.masks import mask_to_box, rle_encode

BINS = 16  # of a region's histogram, for each colour channel
SMALLEST = 20  # pixels of a first region


class Regions(NamedTuple):
    """Proposals of one picture, the best first."""

    masks: np.ndarray  # (N, H, W) bool
    scores: np.ndarray  # (N,) float64

    def to_coco(self, image_id: int) -> list[dict]:
        """COCO result dicts, as `average_recall` takes them; bbox is xywh in pixels."""
        boxes = xyxy_to_xywh(mask_to_box(torch.from_numpy(self.masks))).tolist()
        rows = zip(self.scores.tolist(), rle_encode(self.masks), boxes, strict=True)
        same = {"image_id": image_id, "category_id": 1}
        return [{**same, "score": score, "segmentation": rle, "bbox": box} for score, rle, box in rows]


def sliding_boxes(height: int, width: int, count: int, seed: int = 0) -> Regions:
    """Windows of a regular pyramid: level by level smaller by sqrt(2), half a window apart, in three shapes.

    Args:
        height, width: of the picture, in pixels.
        count: number of windows; fewer come back only when none of 4 px or more is left.
        seed: order of the windows of one level, so that also a part of a level covers the picture.
    Returns: Regions, the level of the largest windows first.
    Raises: InputError, a size or count below 1.
    Example:
        >>> sorted(sliding_boxes(64, 64, 7).masks.sum((1, 2)).tolist())  # one of 64 x 64 px and its halves
        [2048, 2048, 2048, 2048, 2048, 2048, 4096]

    Source: ours. Lesson: 05.
    """
    if min(height, width, count) < 1:
        raise InputError(f"picture is {height} x {width} px and count {count}; all must be at least 1")
    g = np.random.default_rng(seed)
    windows: list[tuple[slice, slice]] = []
    for level in itertools.count():
        side = min(height, width) / 2 ** (level / 2)
        if len(windows) >= count or (side < 4 and windows):
            break
        shapes = ((side, side), (side, side / 2), (side / 2, side))
        places = [(y, x) for h, w in shapes for y in _places(height, h) for x in _places(width, w)]
        windows += [places[i] for i in g.permutation(len(places))]
    masks = np.zeros((min(count, len(windows)), height, width), bool)
    for mask, (y, x) in zip(masks, windows, strict=False):
        mask[y, x] = True
    return Regions(masks, np.linspace(1, 0, len(masks), endpoint=False))


def _places(length: int, side: float) -> list[slice]:
    """Windows that cover a length, at most half a window apart."""
    size = max(1, round(side))
    number = 1 - (2 * (size - length) // size)
    return [slice(round(start), round(start) + size) for start in np.linspace(0, length - size, number).tolist()]


def segment_proposals(image: np.ndarray, count: int, *, scale: float = 60.0) -> Regions:
    """Regions of like colour, and what they become as like neighbours merge.

    A region's score is how long it lived, the similarity at which it came minus that at which it went into another,
    times the root of its size: what came early and then resists is likely an object, and specks are likely none.

    Args:
        image: (H, W, 3) uint8 RGB.
        count: number of proposals; fewer come back when there are fewer regions.
        scale: the larger, the larger the first regions, in units of colour distance times pixels.
    Returns: Regions, all different, each connected (4 neighbours).
    Raises: InputError, no such picture, or a count below 1.
    Example:
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> image[10:30, 5:25] = 200, 30, 30
        >>> sorted(segment_proposals(image, 9).masks.sum((1, 2)).tolist())  # square, ground, both
        [400, 1200, 1600]

    Source: selective search (Uijlings et al. 2013), with a score of ours. Lesson: 05.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(f"image is {image.dtype} of shape {image.shape}; wanted (H, W, 3) uint8 with at least one pixel")
    if count < 1:
        raise InputError(f"count is {count}; wanted at least 1 proposal")
    labels = _oversegment(image, scale)
    parts, scores = _merge(labels, image)
    best = np.argsort(-scores, kind="stable")[:count]
    return Regions(np.stack([np.isin(labels, parts[i]) for i in best]), scores[best])


def _neighbours(at: np.ndarray) -> np.ndarray:
    """(2, E): the values of at (H, W) on both sides of every border between two pixels."""
    return np.stack([np.append(at[:, :-1], at[:-1]), np.append(at[:, 1:], at[1:])])


def _oversegment(image: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) int64 labels 0, 1, ...: pixels join from the most alike on, while their distance is within what both sides
    allow, which is the largest distance inside so far plus scale / size."""
    h, w = image.shape[:2]
    pixels = image.reshape(-1, 3).astype(np.float32)
    edges = _neighbours(np.arange(h * w).reshape(h, w))
    distance = np.linalg.norm(pixels[edges[0]] - pixels[edges[1]], axis=1)
    order = np.argsort(distance, kind="stable")
    edges, distance = edges[:, order].tolist(), distance[order].tolist()
    parent, size, allowed = list(range(h * w)), [1] * (h * w), [scale] * (h * w)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for tidy in (False, True):  # the second time only what is too small
        for i, j, d in zip(*edges, distance, strict=True):
            i, j = root(i), root(j)
            joins = min(size[i], size[j]) < SMALLEST if tidy else d <= min(allowed[i], allowed[j])
            if i != j and joins:
                parent[j] = i
                size[i] += size[j]
                allowed[i] = d + scale / size[i]
    return np.unique([root(i) for i in range(h * w)], return_inverse=True)[1].reshape(h, w)


def _merge(labels: np.ndarray, image: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    """The labels that every region consists of, first regions first, and the regions' scores."""
    n = int(labels.max()) + 1
    parts = [[i] for i in range(n)]
    size = np.ones(2 * n - 1)  # room for the regions to come
    size[:n] = np.bincount(labels.ravel())
    bins = (labels[..., None] * 3 + np.arange(3)) * BINS + image // (256 // BINS)
    colours = np.zeros((2 * n - 1, 3 * BINS))  # shares of a region's pixels
    colours[:n] = np.bincount(bins.ravel(), minlength=n * 3 * BINS).reshape(n, -1) / size[:n, None]
    beside: list[set[int]] = [set() for _ in range(n)]
    borders = _neighbours(labels)
    for i, j in np.unique(borders[:, borders[0] != borders[1]], axis=1).T.tolist():
        beside[i].add(j)
        beside[j].add(i)

    def similarities(i: int, others: list[int]) -> list[float]:  # 0..2: common part of the histograms, small ones first
        colour = np.minimum(colours[i], colours[others]).sum(1) / 3
        return (colour + 1 - (size[i] + size[others]) / labels.size).tolist()

    heap = []
    for i in range(n):
        later = [j for j in beside[i] if i < j]
        heap += [(-s, i, j) for s, j in zip(similarities(i, later), later, strict=True)]
    heapq.heapify(heap)
    came, went = [2.0] * n, {}
    while heap:
        s, i, j = heapq.heappop(heap)
        if i in went or j in went:
            continue
        new = len(parts)
        went[i] = went[j] = -s
        came.append(-s)
        parts.append(parts[i] + parts[j])
        size[new] = size[i] + size[j]
        colours[new] = (size[i] * colours[i] + size[j] * colours[j]) / size[new]
        beside.append((beside[i] | beside[j]) - {i, j})
        for k in beside[new]:
            beside[k].difference_update((i, j))
            beside[k].add(new)
        near = sorted(beside[new])
        for s, k in zip(similarities(new, near), near, strict=True):
            heapq.heappush(heap, (-s, k, new))
    lived = np.array([s - went.get(i, s) for i, s in enumerate(came)])  # 0 for the whole picture, the last of all
    return parts, lived * np.sqrt(size)
