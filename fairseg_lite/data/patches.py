"""DeepMask's training patches, as the first paper defines them (section 3.3; all lengths at its 224-px patch).

    canonical positive: the object's box is centred and its longer side is exactly 128 px
    positive:           a canonical one moved by up to +-16 px, scaled by 2^(+-1/4), mirrored or not; label +1
    negative:           at least 32 px or a factor 2 away from *every* canonical positive of the picture; label -1

Lengths scale with the patch: at P = 160 the object is 92 px, the jitter 11.4 px. Around it comes context: picture
where there is some, beyond it the mirrored picture (`padding="symmetric"`) or ImageNet's mean colour (`"mean"`).

A batch is a pure function of (seed, step): a run can resume anywhere, and workers need no state.
Where patches lie and how they are cut out: `windows.py`. The official sampler differs: `official/patches.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseg_lite.data.mix import Mix
from fairseg_lite.data.scenes import Scene, SceneDataset, cached, share
from fairseg_lite.data.windows import (
    FAR,
    JITTER,
    PatchSpec,
    Piece,
    Window,
    canonical,
    crop_image,
    crop_mask,
    cut_out,
    is_negative,
    piece_of,
    recoloured,
    rows_by_image,
    turned,
    usable_rows,
)
from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.geometry.pixels import IMAGENET, Pixels, normalise, sent

TRIES = 100  # windows drawn for a negative before another picture is taken; after as many pictures it is an error
HARD = 0.5  # share of negatives drawn near an object, just beyond the limit in place or scale; the rest anywhere


@dataclass(frozen=True)
class PatchBatch:
    """B patches: the positives first."""

    images: Tensor  # (B, 3, P + context, P + context) float32, normalised
    masks: Tensor  # (B, T, T) bool; empty for negatives
    labels: Tensor  # (B,) float32, +1 or -1
    categories: Tensor  # (B,) int64 index of the object's category, -1 for negatives

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "PatchBatch":
        return PatchBatch(*(sent(x, device) for x in vars(self).values()))


@dataclass(frozen=True)
class Drawn:
    """A batch that is drawn and not yet cut: with pictures instead of patches."""

    layers: Any  # of each patch (where it is seen, its `Piece`), the lowest first; or the images (B, 3, P + context, P + context)
    rest: tuple[Tensor, Tensor, Tensor]  # masks, labels, categories
    size: int  # P + context
    padding: str
    pixels: Pixels
    colour: np.ndarray | None  # as `recoloured` wants it
    turn: np.ndarray | None  # as `turned`

    def __len__(self) -> int:
        return len(self.layers)

    def to(self, device: torch.device | str) -> PatchBatch:
        """The patches, cut, coloured and turned there."""
        masks, labels, categories = (sent(x, device) for x in self.rest)
        if isinstance(self.layers, Tensor):
            images = sent(self.layers, device)
        else:
            cut = iter(cut_out([piece for patch in self.layers for _, piece in patch], self.size, self.padding, device))
            patches = []
            for patch in self.layers:
                image = next(cut)
                for seen, _ in patch[1:]:
                    image = torch.where(sent(torch.from_numpy(seen), device), next(cut), image)
                patches.append(image)
            images = normalise(torch.stack(patches), self.pixels)
        if self.colour is not None:
            images = recoloured(images, self.colour)
        if self.turn is not None:
            images, masks = turned(images, masks, self.turn)
        return PatchBatch(images, masks, labels, categories)


class PatchSampler:
    """Batches of patches from any dataset of scenes. Attributes: rules, what a `Recipe` calls these choices.

    Args:
        dataset: scenes; wrapped in a `SceneCache` of `cache` bytes, unless it is one. Of a `Mix` a set is drawn first, by its
            weight, then a category and an instance in it; where a set annotates not every object, negatives lie near those.
        spec: sizes.
        positives, negatives: patches of each kind in a batch.
        seed: batches depend on (seed, step) alone.
        balance: "class" draws a category, then one of its instances; "uniform" draws an instance.
        padding: "symmetric" or "mean".
        jitter: move, scale and mirror positives.
        min_area, min_side: px; smaller objects are no positives (official code: 100 and 5), but forbid negatives.
        colour: shake brightness, contrast and saturation of each patch by up to this share; the papers do not.
        turn: turn each patch by up to so many degrees; the papers do not.
        paste: share of patches with another object off their centre, and of positives on another ground (Ghiasi et al. 2021).
        cache: bytes of decoded pictures to keep.
        pixels: how the network wants its pictures.
    Raises: InputError, nothing can be drawn, with the count of instances each limit excluded; or an unknown option.
    Source: DeepMask, Implementation Details; balance and limits: official `DataSampler.lua`. Lesson: 01.
    """

    rules = "paper"

    def __init__(
        self, dataset: SceneDataset, spec: PatchSpec, *, positives: int, negatives: int, seed: int = 0,
        balance: str = "class", padding: str = "symmetric", jitter: bool = True, min_area: float = 100, min_side: float = 5,
        colour: float = 0.0, turn: float = 0.0, paste: float = 0.0, cache: int = 512 * 2**20, pixels: Pixels = IMAGENET,
    ):  # fmt: skip
        check_choice("balance", balance, ("class", "uniform"))
        check_choice("padding", padding, ("symmetric", "mean"))
        if positives < 0 or negatives < 0 or positives + negatives == 0:
            raise InputError(f"a batch of {positives} positives and {negatives} negatives; wanted at least one patch")
        self.dataset = cached(dataset, cache)
        self.spec, self.positives, self.negatives, self.seed = spec, positives, negatives, seed
        self.balance, self.padding, self.jitter = balance, padding, jitter
        self.colour, self.turn, self.paste, self.pixels = colour, turn, paste, pixels
        self.table = dataset.instances
        self.rows = usable_rows(dataset, min_area=min_area, min_side=min_side)
        self.mix = dataset if isinstance(dataset, Mix) else Mix([dataset])
        own = np.split(self.rows, np.searchsorted(self.table.image[self.rows], self.mix.starts[1:-1]))
        labels = [self.table.label[rows] for rows in own]
        self.by_class = [[rows[of == k] for k in np.unique(of)] for rows, of in zip(own, labels, strict=True)]  # of each set
        if balance == "uniform":
            self.by_class = [[rows] if len(rows) else [] for rows in own]
        self.by_image = rows_by_image(self.table, len(dataset))

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> PatchBatch:
        """Batch number `step`, or one of its equal parts: positives first."""
        return self.drawn(step, shard, shards).to("cpu")

    def drawn(self, step: int, shard: int = 0, shards: int = 1) -> Drawn:
        """The same before the patches are cut, which then happens where `to` says."""
        g = np.random.default_rng((self.seed, step, shard, shards) if shards > 1 else (self.seed, step))
        counts = share("positives", self.positives, shards), share("negatives", self.negatives, shards)
        layers, shapes, categories = self._drawn(g, step, counts)
        colour = g.uniform(-self.colour, self.colour, (3, len(layers))) if self.colour else None
        turn = g.uniform(-self.turn, self.turn, len(layers)) if self.turn else None
        labels = torch.tensor([1.0] * counts[0] + [-1.0] * counts[1])
        rest = torch.from_numpy(np.stack(shapes)), labels, torch.tensor(categories)
        return Drawn(layers, rest, self.spec.patch_size + self.spec.context, self.padding, self.pixels, colour, turn)

    def _drawn(self, g: np.random.Generator, step: int, counts: tuple[int, int]) -> tuple[Any, Sequence, Sequence]:
        """The patches of a batch: their layers, or normalised pictures; masks; categories."""
        patches: list[Any] = [self._positive(g) for _ in range(counts[0])]
        patches += [
            (*self._beside(g, patch, mask), label) for patch, mask, label in (self._negative(g) for _ in range(counts[1]))
        ]
        layers, masks, categories = zip(*patches, strict=True)
        return layers, masks, categories

    def _object(self, g: np.random.Generator) -> tuple[Scene, int, np.ndarray]:
        """An object to show: its scene, its row in the table and its mask."""
        for _ in range(TRIES):
            groups = self.by_class[self._set(g)]
            if not groups:
                continue  # a set without an object: it gives negatives
            rows = groups[g.integers(len(groups))] if len(groups) > 1 or self.balance == "class" else groups[0]
            row = rows[g.integers(len(rows))]
            scene = self.dataset[int(self.table.image[row])]
            mask = scene.masks[int(self.table.instance[row])]
            if mask.any():
                return scene, int(row), mask
        raise InputError(f"no positive patch found in {TRIES} tries: every picture drawn is damaged; check the data")

    def _positive(self, g: np.random.Generator) -> tuple[list, np.ndarray, int]:
        scene, row, whole = self._object(g)
        window = canonical(self.table.box[row], self.spec)
        if self.jitter:
            scale = window.scale * 2 ** g.uniform(-0.25, 0.25)
            dx, dy = g.uniform(-JITTER, JITTER, 2) * self.spec.patch_size / scale
            window = Window(window.x + dx, window.y + dy, scale, bool(g.integers(2)))
        piece, mask = self._cut(scene, window, whole)
        layers: list = [(None, piece)]
        if self.paste and g.random() < self.paste:
            layers = [*self._negative(g)[0], (self._on_patch(whole, window), piece)]
        layers, mask = self._beside(g, layers, mask)
        return layers, mask, int(self.table.label[row])

    def _beside(self, g: np.random.Generator, layers: list, mask: np.ndarray) -> tuple[list, np.ndarray]:
        """The patch, sometimes with another object pasted off its centre: a negative, too, by its distance."""
        if not self.paste or g.random() >= self.paste:
            return layers, mask
        scene, row, whole = self._object(g)
        home = canonical(self.table.box[row], self.spec)
        scale = home.scale * 2 ** g.uniform(-1, 0.5)
        away = g.uniform(FAR, 0.5, 2) * g.choice((-1, 1), 2) * self.spec.patch_size / scale
        window = Window(home.x + away[0], home.y + away[1], scale, bool(g.integers(2)))
        other, hidden = self._cut(scene, window, whole)
        if (mask & hidden).sum() > 0.3 * mask.sum():
            return layers, mask  # too little of the patch's own object would be left
        return [*layers, (self._on_patch(whole, window), other)], mask & ~hidden

    def _on_patch(self, mask: np.ndarray, window: Window) -> np.ndarray:
        """An object's mask on the patch with its context, one for all colours: (P + context, P + context, 1) bool."""
        full = self.spec.patch_size + self.spec.context
        return np.ascontiguousarray(crop_mask(mask, window, full / window.scale, full))[..., None]

    def _negative(self, g: np.random.Generator) -> tuple[list, np.ndarray, int]:
        for _ in range(TRIES):
            start, end = self.mix.starts[(n := self._set(g)) :][:2]
            i = int(start + g.integers(end - start))
            scene = self.dataset[i]
            rows = self.by_image[i]
            crowd = self.table.crowd[rows]
            objects = [canonical(b, self.spec) for b in self.table.box[rows[~crowd]]]
            crowds = self.table.box[rows[crowd]]
            if not (self.mix.complete[n] or objects):
                continue  # nothing is known of this picture
            for _ in range(TRIES):
                window = self._far_window(g, scene.image.shape, objects, HARD if self.mix.complete[n] else 1.0)
                inside = any(x1 <= window.x < x2 and y1 <= window.y < y2 for x1, y1, x2, y2 in crowds)
                if not inside and is_negative(window, objects, self.spec):
                    piece, mask = self._cut(scene, window, None)
                    return [(None, piece)], mask, -1
        raise InputError(
            f"no negative patch found in {TRIES} pictures with {TRIES} tries each: windows at least "
            f"{FAR * self.spec.patch_size:.0f} px or a factor 2 away from every object, their centre in no crowd; "
            "use pictures with more background"
        )

    def _set(self, g: np.random.Generator) -> int:
        return int(g.choice(len(self.mix.shares), p=self.mix.shares)) if len(self.mix.sets) > 1 else 0

    def _far_window(self, g: np.random.Generator, shape: tuple[int, ...], objects: list[Window], hard: float) -> Window:
        flip = bool(g.integers(2))
        if objects and g.random() < hard:
            o = objects[g.integers(len(objects))]
            octaves = g.choice((-1, 1)) * g.uniform(1, 1.5) if g.random() < 0.5 else g.uniform(-0.25, 0.25)
            scale = o.scale * 2**octaves
            reach = 2 * FAR * self.spec.patch_size / scale
            return Window(o.x + g.uniform(-reach, reach), o.y + g.uniform(-reach, reach), scale, flip)
        h, w = shape[:2]
        longest, shortest = max(h, w), min(12, h, w)  # canonical sizes from 12 px to the whole picture
        size = longest * (shortest / longest) ** g.random()
        return Window(g.uniform(0, w), g.uniform(0, h), self.spec.object_size / size, flip)

    def _cut(self, scene: Scene, window: Window, mask: np.ndarray | None) -> tuple[Piece, np.ndarray]:
        s = self.spec
        full = s.patch_size + s.context
        piece = piece_of(scene.image, window, full / window.scale, full)
        if mask is None:
            return piece, np.zeros((s.target_size, s.target_size), bool)
        return piece, crop_mask(mask, window, s.patch_size / window.scale, s.target_size)


def evaluation_patches(
    dataset: SceneDataset, spec: PatchSpec, *, padding: str = "symmetric", batch_size: int = 64, pixels: Pixels = IMAGENET,
    min_area: float = 100, min_side: float = 5,
) -> Iterator[PatchBatch]:  # fmt: skip
    """Canonical positives of every usable instance, once each; masks at the patch's own resolution (P x P).

    Args:
        dataset: scenes, taken in order.
        spec: sizes; target_size is not used.
        padding: "symmetric" or "mean", as in training.
        batch_size: patches in a batch.
        pixels: how the network wants its pictures.
        min_area, min_side: px; smaller objects are left out.
    Yields: PatchBatch of positives.
    Raises: InputError, no usable instance.
    """
    rows = usable_rows(dataset, min_area=min_area, min_side=min_side)
    table, full = dataset.instances, spec.patch_size + spec.context
    cache = cached(dataset, 64 * 2**20)
    for start in range(0, len(rows), batch_size):
        images, masks, part = [], [], []
        for row in rows[start : start + batch_size]:
            scene, window = cache[int(table.image[row])], canonical(table.box[row], spec)
            mask = scene.masks[table.instance[row]]
            if not mask.any():
                continue  # its picture is damaged
            part.append(row)
            images.append(crop_image(scene.image, window, full / window.scale, full, padding))
            masks.append(crop_mask(mask, window, spec.patch_size / window.scale, spec.patch_size))
        if part:
            labels, categories = torch.ones(len(part)), torch.from_numpy(table.label[part])
            yield PatchBatch(normalise(np.stack(images), pixels), torch.from_numpy(np.stack(masks)), labels, categories)
