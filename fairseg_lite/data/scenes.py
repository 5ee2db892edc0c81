"""What every dataset here gives: scenes. A scene is one decoded picture and the masks of its instances."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from pycocotools import mask as coco_mask

from fairseg_lite.errors import InputError, check_range
from fairseg_lite.geometry.boxes import xywh_to_xyxy
from fairseg_lite.geometry.files import short_hash
from fairseg_lite.geometry.masks import rle_decode, rle_encode


class Masks:
    """The N masks of a picture as RLE: each is decoded when it is asked for, so that hundreds take no memory.

    Args: rles, compressed; height, width: of the picture, in pixels.
    Example:
        >>> masks = Masks(rle_encode(np.eye(3, dtype=bool)[None].repeat(400, 0)), 3, 3)
        >>> masks.shape, masks[7].shape, masks[[1, 2]].shape, np.asarray(masks).shape
        ((400, 3, 3), (3, 3), (2, 3, 3), (400, 3, 3))
    """

    def __init__(self, rles: list[dict], height: int, width: int):
        self.rles, self.shape, self.nbytes = rles, (len(rles), height, width), sum(len(r["counts"]) for r in rles)

    def __len__(self) -> int:
        return len(self.rles)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(rle_decode, self.rles)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, int | np.integer):
            return rle_decode(self.rles[index])
        chosen = [rle_decode(self.rles[i]) for i in np.arange(len(self))[index]]
        return np.array(chosen, bool).reshape(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or bool, copy=False)

    def __getattr__(self, name: str) -> Any:  # any, sum, ...: of all of them, as an array has it
        if name.startswith("_") or name == "rles":
            raise AttributeError(name)
        return getattr(self[:], name)


@dataclass(frozen=True)
class Scene:
    """One picture. N instances, H x W pixels; every row belongs to one instance."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    masks: np.ndarray | Masks  # (N, H, W) bool, visible pixels
    labels: np.ndarray  # (N,) int64, index into the dataset's categories
    crowd: np.ndarray  # (N,) bool, a group annotated as one
    image_id: int
    file_name: str
    annotation_ids: np.ndarray  # (N,) int64
    given: np.ndarray | None = None  # (N, 4) float32 xyxy of instances with a box and no mask (an empty one); NaN for others

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32 xyxy, smallest around each mask, or as given; (0, 0, 0, 0) for an empty one."""
        found = coco_mask.toBbox(self.rles) if len(self.labels) else np.zeros((0, 4))
        around = xywh_to_xyxy(torch.from_numpy(found)).float().numpy()
        return around if self.given is None else np.where(np.isnan(self.given), around, self.given)

    @property
    def masked(self) -> np.ndarray:
        """(N,) bool, whether an instance has a mask: False where a box alone is given."""
        return np.ones(len(self.labels), bool) if self.given is None else np.isnan(self.given).all(1)

    @cached_property
    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask."""
        return np.array([coco_mask.area(r) for r in self.rles], np.int64)  # of a list it fails at 256

    @cached_property
    def rles(self) -> list[dict]:
        """Of each mask, compressed."""
        return self.masks.rles if isinstance(self.masks, Masks) else rle_encode(self.masks)


@dataclass(frozen=True)
class InstanceTable:
    """What a sampler must know of every instance without decoding a picture; R rows."""

    image: np.ndarray  # (R,) int64 index into the dataset
    instance: np.ndarray  # (R,) int64 row of the scene's masks
    box: np.ndarray  # (R, 4) float32 xyxy
    area: np.ndarray  # (R,) float64 pixels of the mask; of the box where there is no mask
    label: np.ndarray  # (R,) int64
    crowd: np.ndarray  # (R,) bool
    masked: np.ndarray  # (R,) bool, False: a box and no mask

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of(cls, counts: Sequence[int], *, box: Any, area: Any, label: Any, crowd: Any, masked: Any) -> "InstanceTable":
        """A table of so many instances of each picture, the columns as they come one after the other."""
        rows = [np.arange(n, dtype=np.int64) for n in counts]
        return cls(
            image=np.repeat(np.arange(len(counts), dtype=np.int64), np.array(counts, int)),
            instance=np.concatenate([np.zeros(0, np.int64), *rows]),
            box=np.array(box, np.float32).reshape(-1, 4),
            area=np.array(area, np.float64),
            label=np.array(label, np.int64),
            crowd=np.array(crowd, bool),
            masked=np.array(masked, bool),
        )


class SceneDataset(Protocol):
    """Scenes by index; `instances` may take a while the first time."""

    categories: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Scene: ...
    @property
    def instances(self) -> InstanceTable: ...


def tabulate(scenes: Sequence[Scene]) -> InstanceTable:
    """The table of scenes that are decoded already.

    Args: scenes in the dataset's order. Returns: InstanceTable, possibly of no rows.
    """
    names = {"box": "boxes", "area": "areas", "label": "labels", "crowd": "crowd", "masked": "masked"}
    columns = {column: [row for s in scenes for row in getattr(s, name)] for column, name in names.items()}
    return InstanceTable.of([len(s.labels) for s in scenes], **columns)


def origin(dataset: SceneDataset) -> tuple[Any, Sequence[int]]:
    """The data set below all caches and subsets, and which of its scenes are in this one."""
    if not isinstance(dataset, SceneCache | Subset):
        return dataset, range(len(dataset))
    inner, places = origin(dataset.dataset)
    return inner, [places[i] for i in dataset.indices] if isinstance(dataset, Subset) else places


def image_ids(dataset: SceneDataset) -> list[int]:
    """The id of each scene's picture, in the dataset's order, without decoding where the dataset can tell.

    Args: dataset; one of another kind may have an attribute `image_ids`, else every scene is decoded.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> image_ids(Subset(ShapesDataset(9), [4, 0]))
        [5, 1]
    """
    inner, places = origin(dataset)
    known = getattr(inner, "image_ids", None) or {i: inner[i].image_id for i in set(places)}
    return [known[i] for i in places]


def picture_key(dataset: SceneDataset, index: int) -> str:
    """A short text that is another where a picture is: a hash of its file and size, or of its pixels.

    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> data = ShapesDataset(9)
        >>> picture_key(Subset(data, [4]), 0) == picture_key(data.cached(), 4) != picture_key(data, 5)
        True
    """
    inner, places = origin(dataset)
    if hasattr(inner, "picture_key"):
        return inner.picture_key(places[index])
    return short_hash(dataset[index].image.tobytes())


def content_key(dataset: SceneDataset) -> str:
    """A short text that is another where pictures or annotations are: of all ids, categories, boxes, areas and labels."""
    table = dataset.instances
    columns = (getattr(table, f).tobytes() for f in ("image", "box", "area", "label", "crowd"))
    return short_hash(dataset.categories, dataset.category_ids, image_ids(dataset), *columns)


def described(dataset: SceneDataset) -> str:
    """What a network's record says of its training data: the kind of data set and how many pictures it has."""
    return f"{type(origin(dataset)[0]).__name__}, {len(dataset)} pictures"


class SceneCache:
    """A dataset that remembers decoded scenes, least recently used first out, within a bound in bytes.

    Args: dataset, any SceneDataset; limit, bytes of pictures and of masks as RLE. Raises: InputError, a limit below zero.
    """

    def __init__(self, dataset: SceneDataset, *, limit: int = 512 * 2**20):
        check_range("cache limit", limit, 0, None)
        self.dataset, self.limit, self.size = dataset, limit, 0
        self.categories, self.category_ids = dataset.categories, dataset.category_ids
        self._scenes: OrderedDict[int, tuple[Scene, bool]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def instances(self) -> InstanceTable:
        return self.dataset.instances

    def __getitem__(self, index: int) -> Scene:
        if index in self._scenes:
            self._scenes.move_to_end(index)
            scene, array = self._scenes[index]
            return replace(scene, masks=scene.masks[:]) if array else scene
        scene = self.dataset[index]
        array = not isinstance(scene.masks, Masks)
        kept = replace(scene, masks=Masks(scene.rles, *scene.image.shape[:2])) if array else scene
        self._scenes[index] = kept, array
        self.size += kept.image.nbytes + kept.masks.nbytes
        while self.size > self.limit:
            _, (old, _) = self._scenes.popitem(last=False)
            self.size -= old.image.nbytes + old.masks.nbytes
        return scene


def cached(dataset: SceneDataset, limit: int = 512 * 2**20) -> SceneCache:
    """The dataset behind a `SceneCache` of so many bytes; one that is a cache stays as it is, so that nothing is kept twice."""
    return dataset if isinstance(dataset, SceneCache) else SceneCache(dataset, limit=limit)


def share(what: str, count: int, shards: int) -> int:
    """How many of a batch's things are in each of its equal parts.

    Raises: InputError, they do not go into so many.
    Example:
        >>> share("positives", 48, 4)
        12
    """
    if count % shards:
        raise InputError(f"{what} is {count} and shards {shards}, equal parts of a batch; {what} must be a multiple of it")
    return count // shards


class Subset:
    """Some scenes of a dataset, renumbered from 0.

    Args: dataset, and the indices to keep. Raises: InputError for an index outside the dataset.
    """

    def __init__(self, dataset: SceneDataset, indices: Sequence[int]):
        self.indices = [int(i) for i in indices]
        bad = [i for i in self.indices if not 0 <= i < len(dataset)]
        if bad:
            raise InputError(f"index {bad[0]} is outside a dataset of {len(dataset)} scenes")
        self.dataset, self.categories, self.category_ids = dataset, dataset.categories, dataset.category_ids

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Scene:
        return self.dataset[self.indices[index]]

    @cached_property
    def instances(self) -> InstanceTable:
        table = self.dataset.instances
        rows = [np.flatnonzero(table.image == i) for i in self.indices]
        at = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
        columns = {f: getattr(table, f)[at] for f in ("box", "area", "label", "crowd", "masked")}
        return InstanceTable.of([len(r) for r in rows], **columns)
