"""What is found in a picture: proposals, which have masks, and how they are reranked; detections, which have names.

N proposals or detections, H x W pixels of the picture.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairseg_lite.data.results import read_results
from fairseg_lite.data.scenes import Masks
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.boxes import xywh_to_xyxy, xyxy_to_xywh
from fairseg_lite.geometry.masks import mask_iou, paste_masks

FIRM, NEW = 2.0, 6.0  # how much firmness counts beside a score, and a repeat against it
WORTH = 0.16, -2.2  # a * worth + b: logit of how often an IoU is above .5 (best 100 of every third picture of coco228)
OVERLAP_SIDE, OVERLAP_MASK = 112, 40  # px of the picture and of a window's mask, by which repeats are told


@dataclass(frozen=True)
class Proposals:
    """Masks of one picture, best first; masks are kept as RLE and decoded on demand."""

    rle: list[dict]  # N compressed COCO RLEs of H x W px
    boxes: Tensor  # (N, 4) float32 xyxy in pixels, smallest around each mask
    scores: Tensor  # (N,) float32, probability that the window holds a centred object; of a reranked one, see `reranked`
    scales: Tensor  # (N,) float32, of the pyramid level it was found at
    positions: Tensor  # (N, 2) int64, (row, column) of the window in that level
    size: tuple[int, int]  # (H, W)

    def __len__(self) -> int:
        return len(self.rle)

    def __getitem__(self, which: slice | Tensor) -> "Proposals":
        """Some of them, by a slice or a tensor of indices."""
        index = torch.arange(len(self))[which].reshape(-1)
        rle, scales, positions = [self.rle[i] for i in index.tolist()], self.scales[index], self.positions[index]
        return Proposals(rle, self.boxes[index], self.scores[index], scales, positions, self.size)

    def masks(self) -> Tensor:
        """(N, H, W) bool: N * H * W bytes, so take a slice of large pictures first."""
        return torch.from_numpy(Masks(self.rle, *self.size)[:])

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict]:
        """COCO results, one dict a proposal, with "scale" and "position" besides what COCO reads.

        Example:
            >>> empty = torch.zeros(0)
            >>> Proposals([], empty.view(0, 4), empty, empty, empty.view(0, 2).long(), (5, 5)).to_coco(7)
            []
        """
        rows = zip(self.rle, xyxy_to_xywh(self.boxes), self.scores, self.scales, self.positions, strict=True)
        return [
            {
                "image_id": image_id, "category_id": category_id, "segmentation": r, "score": score.item(),
                "bbox": box.tolist(), "scale": round(scale.item(), 6), "position": place.tolist(),
            } for r, box, score, scale, place in rows
        ]  # fmt: skip

    @classmethod
    def from_coco(cls, results: Iterable[dict]) -> "Proposals":
        """The proposals of one picture from its COCO results, best first.

        Raises: InputError, no result, results of several pictures, or a result without mask or score.
        """
        rows = sorted(results, key=lambda r: -r.get("score", math.inf))
        if len({r.get("image_id") for r in rows}) != 1:
            raise InputError(f"{len(rows)} results of {len({r.get('image_id') for r in rows})} pictures; wanted those of one")
        for key in ("segmentation", "score", "bbox"):
            if any(key not in r for r in rows):
                advice = "proposals need mask and score (for boxes alone --masks refined draws masks)"
                raise InputError(f"a result of picture {rows[0]['image_id']} has no {key!r}; {advice}")
        sizes = {tuple(r["segmentation"]["size"]) for r in rows}
        if len(sizes) != 1:
            raise InputError(f"masks of picture {rows[0]['image_id']} have sizes {sorted(sizes)}; wanted all of one")
        # other programs' results may have fields of these names with another meaning
        ours = all(type(r.get("scale", 1.0)) is float and np.shape(r.get("position", (0, 0))) == (2,) for r in rows)
        return cls(
            [r["segmentation"] for r in rows],
            xywh_to_xyxy(torch.tensor([r["bbox"] for r in rows], dtype=torch.float32)),
            torch.tensor([r["score"] for r in rows], dtype=torch.float32),
            torch.tensor([r.get("scale", 1.0) if ours else 1.0 for r in rows], dtype=torch.float32),
            torch.tensor([r.get("position", (-1, -1)) if ours else (-1, -1) for r in rows]),
            sizes.pop(),
        )


def reranked(scores: Tensor, logits: Tensor, boxes: Tensor, size: Sequence[int], cut: float, top_k: int) -> tuple[Tensor, Tensor]:
    """Order proposals by score and mask: firm masks first, those later that repeat what is listed already.

    A mask is firm that stays the same when it is cut a logit higher or lower. A proposal's worth is
    `score + FIRM * logit(firmness) - NEW * u^2`, u being its largest IoU with a mask listed before it.

    Args:
        scores: (N,) logits. logits: (N, M, M) of the masks, boxes: (N, 4) of their windows, xyxy px of a picture of size (H, W).
        cut: logit from which a pixel counts. top_k: list at most so many.
    Returns: (K,) int64, which ones, best first; (K,) float32, logit of how often such a mask outlines an annotated object.
    Source: ours, measured in docs/results.md. Firmness: Segment Anything's stability score (Kirillov et al. 2023); the listing:
        maximal marginal relevance (Carbonell and Goldstein 1998).
    """
    inner, outer = ((logits > cut + d).sum((1, 2)) for d in (1.0, -1.0))
    firm = torch.logit(inner / outer.clamp(min=1), eps=0.01)
    shrink = OVERLAP_SIDE / max(size)
    height, width = (max(round(n * shrink), 1) for n in size)
    small = paste_masks(F.adaptive_avg_pool2d(logits, min(OVERLAP_MASK, logits.shape[1])), boxes * shrink, height, width, cut)
    overlap = torch.cat([mask_iou(small, small), firm[:, None]], 1).cpu().numpy()  # at once: a device is waited for
    worth, seen, listed = scores.numpy() + FIRM * overlap[:, -1], np.zeros(len(scores)), []
    for _ in range(min(top_k, len(scores))):
        now = worth - NEW * seen**2
        best = int(now.argmax())
        listed.append((best, now[best]))
        seen, worth[best] = np.maximum(seen, overlap[best, :-1]), -np.inf
    order, value = zip(*listed, strict=True)
    return torch.tensor(order), torch.tensor(value, dtype=torch.float32) * WORTH[0] + WORTH[1]


def load_results(path: str | Path, images: Iterable[dict] = ()) -> dict[int, Proposals]:
    """Proposals by picture id from a COCO result file.

    Args: as `read_results`.
    Raises: InputError, as `read_results`, or a result without mask or score.
    """
    by_picture: dict[int, list[dict]] = {}
    for row in read_results(path, images):
        by_picture.setdefault(row["image_id"], []).append(row)
    try:
        return {i: Proposals.from_coco(by_picture[i]) for i in sorted(by_picture)}
    except InputError as error:
        raise InputError(f"results {str(path)!r}: {error}") from error


@dataclass(frozen=True)
class Detections:
    """Named objects of one picture, best first."""

    boxes: Tensor  # (N, 4) float32 xyxy in pixels
    labels: Tensor  # (N,) int64, index into the categories
    scores: Tensor  # (N,) float32, probability of the category
    rle: list[dict] | None  # N compressed COCO RLEs of H x W px; None: without masks
    size: tuple[int, int]  # (H, W)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: slice | Tensor) -> "Detections":
        """Some of them, by a slice or a tensor of indices or bools."""
        index = torch.arange(len(self))[which].reshape(-1)
        rle = None if self.rle is None else [self.rle[i] for i in index.tolist()]
        return Detections(self.boxes[index], self.labels[index], self.scores[index], rle, self.size)

    @classmethod
    def none(cls, size: tuple[int, int], *, masks: bool) -> "Detections":
        """Of a picture (H, W) in which nothing is found."""
        empty = torch.zeros(0)
        return cls(empty.view(0, 4), empty.long(), empty, [] if masks else None, size)

    def masks(self) -> Tensor:
        """(N, H, W) bool. ValueError without masks."""
        if self.rle is None:
            raise InputError("these detections have boxes only; detect with masks='proposal' or 'refined'")
        return torch.from_numpy(Masks(self.rle, *self.size)[:])

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """COCO results, one dict a detection, as `COCO.loadRes` reads them.

        The box is the network's, not the smallest around the mask. Given both, `loadRes` takes the area of the *box* for the
        size classes of masks; `evaluate_detections` does not.

        Args: image_id: of the picture. category_ids: the data set's id for each label, gaps and any order allowed.
        Raises: InputError, a label without an id.
        Example:
            >>> one = Detections(torch.tensor([[1.0, 2, 4, 8]]), torch.tensor([1]), torch.tensor([0.5]), None, (9, 9))
            >>> one.to_coco(7, category_ids=(90, 3))
            [{'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]

        Source: COCO's result format. Lesson: 08.
        """
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(category_ids):
            there = f"there are {len(category_ids)} category ids; is the network another data set's?"
            raise InputError(f"labels reach from {int(self.labels.min())} to {int(self.labels.max())}, but {there}")
        ids = [int(category_ids[label]) for label in self.labels.tolist()]
        boxes = xyxy_to_xywh(self.boxes.double()).tolist()  # in double: the way back gives the same float32
        masks: Sequence[dict | None] = [None] * len(self) if self.rle is None else self.rle
        rows = zip(ids, boxes, self.scores.tolist(), masks, strict=True)
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score} | ({"segmentation": r} if r else {})
            for category, box, score, r in rows
        ]
