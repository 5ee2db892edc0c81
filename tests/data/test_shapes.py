"""Generated scenes: the same bits everywhere, and as hard as they promise."""

import hashlib

import numpy as np
import pytest

from fairseg_lite.data import shapes
from fairseg_lite.data.shapes import CATEGORIES, ShapesDataset


@pytest.fixture(scope="module")
def scenes():
    data = ShapesDataset(150, seed=5)
    return [data[i] for i in range(len(data))]


def digest(scene) -> str:
    parts = (scene.image, np.packbits(scene.masks), scene.labels.astype("<i8"), scene.annotation_ids.astype("<i8"))
    return hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()[:16]


@pytest.mark.parametrize(
    "seed, size, index, expected",
    [
        (0, 192, 0, "2a1de9e697ea0e35"),
        (0, 192, 999, "25197ea16944d651"),
        (1, 192, 17, "32f9ee3572754d14"),
        (7, (90, 130), 3, "68f30689a06c202f"),
    ],
)
def test_the_same_on_every_machine(seed, size, index, expected):
    """A new digest is a new data set: checkpoints and every number of the course would have to be made again."""
    assert digest(ShapesDataset(1000, seed=seed, size=size)[index]) == expected


def test_a_scene_depends_on_seed_index_and_size_alone():
    first = digest(ShapesDataset(8, seed=2)[7])
    longer = ShapesDataset(100, seed=2)
    _ = longer[3]  # what was drawn before leaves no trace
    assert digest(longer[7]) == first
    others = [ShapesDataset(8, seed=3)[7], ShapesDataset(8, seed=2)[6], ShapesDataset(8, seed=2, size=(192, 193))[7]]
    assert len({first, *map(digest, others)}) == 4


@pytest.mark.parametrize("size", [64, (64, 200), (300, 90)])
def test_any_size_is_a_sound_scene(size):
    h, w = (size, size) if isinstance(size, int) else size
    for i in range(8):
        check(ShapesDataset(8, size=size)[i], h, w)


def check(scene, h, w):
    assert scene.image.shape == (h, w, 3)
    assert scene.image.dtype == np.uint8
    assert scene.masks.shape[1:] == (h, w)
    assert scene.masks.dtype == bool
    assert 2 <= len(scene.masks) <= 10
    assert len(scene.masks) == len(scene.labels) == len(scene.crowd) == len(set(scene.annotation_ids))
    assert scene.masks.sum(0).max() <= 1  # a pixel belongs to the topmost object alone
    assert (scene.areas > 0).all()
    assert not scene.crowd.any()


def test_every_scene_is_sound(scenes):
    for scene in scenes:
        check(scene, 192, 192)


def test_categories_are_many_and_even(scenes):
    counts = np.bincount(np.concatenate([s.labels for s in scenes]), minlength=len(CATEGORIES))
    assert len(CATEGORIES) >= 8
    assert counts.min() > 0.4 * counts.mean()


def test_sizes_span_twelve_pixels_to_two_thirds(scenes):
    sides = np.concatenate([(s.boxes[:, 2:] - s.boxes[:, :2]).max(1) for s in scenes])
    assert np.quantile(sides, 0.05) < 16
    assert 110 < sides.max() <= 192 * 2 / 3 + 2
    assert all(((sides >= low) & (sides < high)).mean() > 0.1 for low, high in ((0, 20), (20, 40), (40, 80), (80, 130)))


def test_numbers_of_objects_vary(scenes):
    counts = {len(s.labels) for s in scenes}
    assert {2, 5, 9} <= counts


def test_objects_hide_each_other(scenes):
    """A coin or sun is a disc, pi/4 of its box; where it covers less, away from the border, something lies on it."""
    covered = []
    for s in scenes:
        for label, area, (x1, y1, x2, y2) in zip(s.labels, s.areas, s.boxes, strict=True):
            if CATEGORIES[label] in ("coin", "sun") and min(x1, y1) > 0 and max(x2, y2) < 192 and x2 - x1 > 20:
                covered.append(area / (np.pi / 4 * max(x2 - x1, y2 - y1) ** 2))
    covered = np.array(covered)
    assert len(covered) > 50
    assert 0.05 < (covered < 0.9).mean() < 0.6  # hidden in part
    assert (covered > 0.95).mean() > 0.3  # whole
    assert covered.max() < 1.1


def test_some_shapes_have_holes(scenes):
    """Seen from the middle of its box, a solid object is at hand; a ring or frame is all around."""
    holes = dict.fromkeys(CATEGORIES, False)
    for s in scenes:
        for label, mask, (x1, y1, x2, y2) in zip(s.labels, s.masks, s.boxes.astype(int), strict=True):
            x, y = (x1 + x2) // 2, (y1 + y2) // 2
            around = mask[y, x1:x].any() and mask[y, x:x2].any() and mask[y1:y, x].any() and mask[y:y2, x].any()
            holes[CATEGORIES[label]] |= around and not mask[y - 1 : y + 1, x - 1 : x + 1].any()
    assert holes["ring"]
    assert holes["frame"]


def test_some_objects_have_almost_the_grounds_colour(scenes):
    """Mean colour of an object against that of a frame of 6 px around its box."""
    contrast = []
    for s in scenes:
        free = ~s.masks.any(0)
        for mask, (x1, y1, x2, y2) in zip(s.masks, s.boxes.astype(int), strict=True):
            near = np.zeros_like(free)
            near[max(y1 - 6, 0) : y2 + 6, max(x1 - 6, 0) : x2 + 6] = True
            if (near & free).sum() > 50:
                contrast.append(np.abs(s.image[mask].mean(0) - s.image[near & free].mean(0)).mean())
    assert np.quantile(contrast, 0.2) < 20
    assert np.quantile(contrast, 0.8) > 40


def test_coin_and_sun_differ_outside_their_box_alone(monkeypatch):
    """Repaint every coin as a sun: nothing within the box may change, something around it must."""
    coin, sun, layout = CATEGORIES.index("coin"), CATEGORIES.index("sun"), shapes._layout
    data, differ = ShapesDataset(60, seed=1), []
    before = [data[i] for i in range(60)]

    def as_suns(g, h, w):
        return [o | shapes._masks(o | {"label": sun}, h, w) if o["label"] == coin else o for o in layout(g, h, w)]

    monkeypatch.setattr(shapes, "_layout", as_suns)
    for i, scene in enumerate(before):
        changed = (data[i].image != scene.image).any(-1)
        np.testing.assert_array_equal(data[i].masks, scene.masks)
        if (scene.labels == coin).sum() == 1:
            x1, y1, x2, y2 = scene.boxes[scene.labels == coin][0].astype(int)
            assert not changed[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].any()  # the lens spreads by one pixel
            differ.append(changed.any())
        elif coin not in scene.labels:
            assert not changed.any()
    assert len(differ) > 10
    assert all(differ)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"length": -1}, "length is -1 and seed 0; neither may be negative"),
        ({"length": 1, "seed": -2}, "seed -2"),
        ({"length": 1, "size": 63}, "size is 63 x 63 px; shapes of 12 px need at least 64 px a side"),
        ({"length": 1, "size": (192, 10)}, "size is 192 x 10 px"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ShapesDataset(**kwargs)


@pytest.mark.parametrize("index", [3, -1])
def test_a_scene_that_is_not_there(index):
    with pytest.raises(IndexError, match=f"scene {index} of 3"):
        ShapesDataset(3)[index]


def test_iteration_ends():
    assert len(list(ShapesDataset(3))) == 3
    assert len(ShapesDataset(0).instances) == 0


def test_a_scene_drawn_finer_is_the_same_scene(scenes):
    data = ShapesDataset(150, seed=5)
    for i, coarse in enumerate(scenes[:20]):
        fine = data.drawn(i, 2)
        assert fine.image.shape == (384, 384, 3) and np.array_equal(fine.labels, coarse.labels)
        assert not (fine.masks.sum(0) > 1).any(), "no pixel belongs to two objects"
        large = coarse.masks.repeat(2, 1).repeat(2, 2)
        iou = (large & fine.masks).sum((1, 2)) / (large | fine.masks).sum((1, 2))
        assert iou.min() > 0.7 and iou.mean() > 0.9
        shrunk = fine.image.reshape(192, 2, 192, 2, 3).mean((1, 3))
        assert np.abs(shrunk - coarse.image).mean() < 6
    with pytest.raises(IndexError, match="scene -1 of"):
        data.drawn(-1, 2)
