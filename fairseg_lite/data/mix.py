"""Several data sets as one: sampled by set, each with its own idea of what it annotates.

    mix = Mix([coco, animals, salient], weights=[40, 15, 25], exhaustive=["all", "all", ()])

Categories are joined by name. A set is *exhaustive* for a category if every object of it in every picture is annotated; elsewhere
an object without annotation may be there, so that what is no annotated object is not known to be background (as in LVIS's
federated sets: Gupta et al. 2019, section 3). `PatchSampler` asks for that, and so does MultiPathNet's loss (`RoiBatch.known`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from fairseg_lite.data.scenes import InstanceTable, Scene, SceneDataset, picture_key
from fairseg_lite.errors import InputError


class Mix:
    """A SceneDataset of several; pictures get new ids 1, 2, ... in the order of the sets.

    Args:
        sets: data sets, at least one.
        weights: how often each is drawn, relative to the others; default: as often as it has pictures.
        exhaustive: for each set "all", or the names of the categories it annotates exhaustively; default "all".
    Raises: InputError, no set, other lengths, a weight that is not above 0, a category claimed that the set lacks, or names that
        differ between sets by case or spaces only.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> mix = Mix([ShapesDataset(3), ShapesDataset(2, seed=1)], weights=[1, 3], exhaustive=["all", ["star"]])
        >>> len(mix), mix.shares.tolist(), mix.complete, mix.searched[1].sum().item()
        (5, [0.25, 0.75], [True, False], 1)

    Attributes: categories, category_ids (the sets' own where they agree, else 1, 2, ...); shares, float (S,), the weights as
    probabilities; starts, int64 (S + 1,), the first picture of each set; complete, list of S: exhaustive for "all"; searched,
    bool (S, K): which categories a set annotates exhaustively. Lesson: 13.
    """

    def __init__(
        self, sets: Sequence[SceneDataset], *, weights: Sequence[float] | None = None,
        exhaustive: Sequence[str | Iterable[str]] | None = None,
    ):  # fmt: skip
        self.sets = list(sets)
        sizes = [len(s) for s in self.sets]
        weights, exhaustive = (sizes if weights is None else list(weights)), list(exhaustive or ["all"] * len(sizes))
        if not self.sets or not len(weights) == len(exhaustive) == len(sizes):
            given = f"{len(weights)} weights and {len(exhaustive)} lists of exhaustive categories"
            raise InputError(f"{len(sizes)} data sets with {given}; wanted at least one set, and one of each for every set")
        if empty := [i + 1 for i, size in enumerate(sizes) if not size]:
            raise InputError(f"data set {empty[0]} holds no picture; leave it out")
        if not min(weights) > 0:
            raise InputError(f"weights are {weights}; each must be above 0")
        self.categories, self.category_ids = _joined(self.sets)
        self.shares = np.array(weights, float) / sum(weights)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.labels = [np.array([self.categories.index(n) for n in s.categories], np.int64) for s in self.sets]
        self.searched = np.zeros((len(sizes), len(self.categories)), bool)
        self.complete = [names == "all" for names in exhaustive]
        for i, (one, names) in enumerate(zip(self.sets, exhaustive, strict=True)):
            names = one.categories if names == "all" else [names] if isinstance(names, str) else list(names)
            lacking = sorted(set(names) - set(one.categories))
            if lacking:
                raise InputError(
                    f"data set {i + 1} claims to annotate {lacking[0]!r} exhaustively, but has no such category; "
                    f"it has {', '.join(one.categories[:8])}{', ...' if len(one.categories) > 8 else ''}"
                )
            self.searched[i, [self.categories.index(n) for n in names]] = True

    def __len__(self) -> int:
        return int(self.starts[-1])

    def set_of(self, index: int) -> int:
        """Number of the set that a picture comes from."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        i = self.set_of(index)
        scene = self.sets[i][int(index - self.starts[i])]
        return replace(scene, labels=self.labels[i][scene.labels], image_id=int(index) + 1)

    def picture_key(self, index: int) -> str:
        """As in its own set."""
        return picture_key(self.sets[i := self.set_of(index)], int(index - self.starts[i]))

    @property
    def image_ids(self) -> list[int]:
        """Of every picture, in order."""
        return list(range(1, len(self) + 1))

    @cached_property
    def instances(self) -> InstanceTable:
        """The sets' tables one after the other."""
        tables = [s.instances for s in self.sets]
        image = [t.image + start for t, start in zip(tables, self.starts, strict=False)]
        label = [own[t.label] for t, own in zip(tables, self.labels, strict=True)]
        rest = {f: np.concatenate([getattr(t, f) for t in tables]) for f in ("instance", "box", "area", "crowd", "masked")}
        return InstanceTable(image=np.concatenate(image), label=np.concatenate(label), **rest)


def _joined(sets: Sequence[SceneDataset]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names in the order in which they appear, and their ids."""
    ids: dict[str, set[int]] = {}
    for one in sets:
        for name, key in zip(one.categories, one.category_ids, strict=True):
            ids.setdefault(name, set()).add(key)
    spellings: dict[str, str] = {}
    for name in ids:
        other = spellings.setdefault("".join(name.split()).casefold(), name)
        if other != name:
            raise InputError(f"data sets name a category {other!r} and {name!r}; write it alike in both")
    agreed = [next(iter(keys)) for keys in ids.values() if len(keys) == 1]
    unique = len(agreed) == len(ids) == len(set(agreed))
    return tuple(ids), tuple(agreed if unique else range(1, len(ids) + 1))
