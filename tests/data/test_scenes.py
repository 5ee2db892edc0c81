"""Tables, cache and subsets of scenes: the same content, within a bound."""

from dataclasses import replace

import numpy as np
import pytest

from fairseg_lite.data.scenes import InstanceTable, Masks, Scene, SceneCache, Subset, cached, tabulate
from fairseg_lite.data.shapes import ShapesDataset

FIELDS = ("image", "masks", "labels", "crowd", "annotation_ids", "boxes", "areas")
COLUMNS = ("image", "instance", "box", "area", "label", "crowd")


def scene(masks: np.ndarray, key: int = 1) -> Scene:
    n, h, w = masks.shape
    return Scene(np.zeros((h, w, 3), np.uint8), masks, np.arange(n), np.zeros(n, bool), key, f"{key}.png", np.arange(n))


class Counting:
    """A dataset that remembers what was asked of it; scenes of several sizes, some without objects."""

    categories, category_ids = ("a", "b", "c"), (1, 2, 3)

    def __init__(self):
        g = np.random.default_rng(0)
        self.scenes = [scene(g.random((i % 3, 5 + i, 13)) < 0.4, i) for i in range(6)]
        self.asked = []

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.scenes[index]

    @property
    def instances(self):
        return tabulate(self.scenes)


def assert_same(a: Scene, b: Scene):
    assert (a.image_id, a.file_name) == (b.image_id, b.file_name)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        assert np.asarray(getattr(a, field)).dtype == getattr(b, field).dtype


def test_boxes_and_areas():
    masks = np.zeros((3, 6, 8), bool)
    masks[0, 2:5, 1:7], masks[1, 5, 7] = True, True
    s = scene(masks)
    assert s.boxes.tolist() == [[1, 2, 7, 5], [7, 5, 8, 6], [0, 0, 0, 0]]
    assert s.areas.tolist() == [18, 1, 0]


def test_the_table_tells_what_the_scenes_hold():
    data = Counting()
    table = tabulate(data.scenes)
    assert len(table) == sum(len(s.labels) for s in data.scenes) == 6
    for row in range(len(table)):
        s, k = data.scenes[table.image[row]], table.instance[row]
        assert (table.box[row] == s.boxes[k]).all()
        assert (table.area[row], table.label[row], table.crowd[row]) == (s.areas[k], s.labels[k], s.crowd[k])


def test_the_table_of_nothing_keeps_its_types():
    full, empty = tabulate(Counting().scenes), tabulate([])
    for column in COLUMNS:
        assert getattr(empty, column).dtype == getattr(full, column).dtype, column
        assert getattr(empty, column).shape == (0, *getattr(full, column).shape[1:])
    assert isinstance(empty, InstanceTable)


def cost(s: Scene) -> int:
    return s.image.nbytes + sum(len(rle["counts"]) for rle in s.rles)


@pytest.mark.parametrize("limit", [0, 1, 700, 10**6])
def test_the_cache_gives_the_same_within_its_bound(limit):
    data = Counting()
    cache, g = SceneCache(data, limit=limit), np.random.default_rng(1)
    for i in [*range(6), *g.integers(6, size=40), 2, 2]:
        for _ in range(2):
            assert_same(cache[int(i)], data.scenes[i])
        assert cache.size == sum(cost(data.scenes[k]) for k in cache._scenes) <= limit
    assert (len(cache), cache.categories, cache.category_ids) == (6, data.categories, data.category_ids)
    assert len(cache.instances) == len(data.instances)


def test_the_cache_forgets_what_was_used_least_recently():
    data = Counting()
    cache = SceneCache(data, limit=sum(cost(data.scenes[i]) for i in (0, 1, 2)))
    for i in (0, 1, 2, 0, 3):  # 3 is larger than 1: 1 and 2 must go
        cache[i]
    data.asked.clear()
    cache[0], cache[3]
    assert data.asked == []
    cache[1]
    assert data.asked == [1]


def test_a_roomy_cache_asks_once():
    data = Counting()
    cache = SceneCache(data)
    for _ in range(3):
        for i in range(6):
            cache[i]
    assert data.asked == list(range(6))


def test_a_cache_is_never_wrapped_again():
    cache = SceneCache(Counting())
    assert cached(cache) is cache
    assert isinstance(cached(Counting(), 7), SceneCache) and cached(Counting(), 7).limit == 7


def test_a_cached_scene_is_not_changed_by_its_user():
    cache = SceneCache(Counting())
    for _ in range(2):  # decoded, and kept
        assert isinstance(cache[2].masks, np.ndarray), "as the dataset gave them"
        cache[2].masks[:] = False
    assert_same(cache[2], Counting().scenes[2])


def test_a_cache_below_zero():
    with pytest.raises(ValueError, match="cache limit is -1; it must be at least 0"):
        SceneCache(Counting(), limit=-1)


@pytest.mark.parametrize("indices", [[4, 2], [], [5, 5, 0], range(6), np.array([1, 3])])
def test_a_subset_is_renumbered(indices):
    data = Counting()
    subset = Subset(data, indices)
    assert len(subset) == len(indices)
    for k, i in enumerate(indices):
        assert_same(subset[k], data.scenes[i])
    expected = tabulate([data.scenes[i] for i in indices])
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(subset.instances, column), getattr(expected, column), column)


@pytest.mark.parametrize("index", [6, -1])
def test_a_subset_of_scenes_that_are_not_there(index):
    with pytest.raises(ValueError, match=f"index {index} is outside a dataset of 6 scenes"):
        Subset(Counting(), [0, index])


def test_layers_add_up():
    data = ShapesDataset(6, seed=4)
    layered = SceneCache(Subset(data.cached(), [5, 1]))
    for _ in range(2):
        assert_same(layered[0], data[5])
    assert len(layered.instances) == len(data[5].labels) + len(data[1].labels)
    assert layered.categories == data.categories


def test_masks_that_are_decoded_one_by_one_are_the_same():
    g = np.random.default_rng(2)
    for n in (0, 1, 4):
        plain = scene(g.random((n, 7, 9)) < 0.3)
        lazy = replace(plain, masks=Masks(plain.rles, 7, 9))
        assert_same(lazy, plain)
        assert lazy.masks.shape == plain.masks.shape and len(lazy.masks) == n and lazy.rles == plain.rles
        for one, other in zip(lazy.masks, plain.masks, strict=True):
            np.testing.assert_array_equal(one, other)
        for some in (slice(0, 2), np.arange(n)[::-1], [0] * n):
            np.testing.assert_array_equal(lazy.masks[some], plain.masks[some])
    assert lazy.masks[-1].dtype == bool and lazy.boxes.dtype == np.float32
    with pytest.raises(IndexError):
        lazy.masks[4]


def test_the_cache_keeps_masks_that_are_decoded_one_by_one_as_they_are():
    data = Counting()
    data.scenes = [replace(s, masks=Masks(s.rles, *s.masks.shape[1:])) for s in data.scenes]
    cache = SceneCache(data)
    for i in [0, 5, 0, 5]:
        assert cache[i] is data.scenes[i]
    assert data.asked == [0, 5] and cache.size == sum(s.image.nbytes + s.masks.nbytes for s in (data.scenes[0], data.scenes[5]))
