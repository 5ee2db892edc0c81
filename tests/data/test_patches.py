"""Training patches: centred where they must be, far where they must be, the same at every resume, never for ever."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseg_lite.data import patches, scenes
from fairseg_lite.data.patches import (
    PatchSampler,
    PatchSpec,
    Window,
    canonical,
    crop_image,
    crop_mask,
    evaluation_patches,
    is_negative,
    usable_rows,
)
from fairseg_lite.data.photos import photographs
from fairseg_lite.data.scenes import Scene, tabulate
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.geometry.masks import rle_decode
from fairseg_lite.geometry.pixels import normalise, symmetric_pad
from fairseg_lite.official.patches import OfficialSampler

TINY = PatchSpec(patch_size=96, context=32, object_size=55, target_size=96)
PAPER = PatchSpec(patch_size=224, context=0, object_size=128, target_size=56)


class Boxes:
    """Scenes of rectangles: a list of (height, width, [(x1, y1, x2, y2, label, crowd), ...])."""

    categories, category_ids = ("a", "b"), (1, 2)

    def __init__(self, *scenes):
        self.scenes = []
        for key, (h, w, objects) in enumerate(scenes):
            masks = np.zeros((len(objects), h, w), bool)
            for mask, (x1, y1, x2, y2, *_) in zip(masks, objects, strict=True):
                mask[y1:y2, x1:x2] = True
            image = np.random.default_rng(key).integers(0, 256, (h, w, 3), dtype=np.uint8)
            labels = np.array([o[4] for o in objects], np.int64)
            crowd = np.array([o[5] for o in objects], bool)
            self.scenes.append(Scene(image, masks, labels, crowd, key, f"{key}.png", np.arange(len(objects))))
        self.instances = tabulate(self.scenes)

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def one(x1, y1, x2, y2, h=200, w=240):
    return Boxes((h, w, [(x1, y1, x2, y2, 0, False)]))


def drawn(sampler, steps=1):
    """(scene, window, instance or None) of every patch of some batches."""
    log, cut = [], sampler._cut

    def spy(scene, window, mask):
        log.append((scene, window, next((i for i, m in enumerate(scene.masks) if m is mask or np.array_equal(m, mask)), None)))
        return cut(scene, window, mask)

    sampler._cut = spy
    for step in range(steps):
        sampler.batch(step)
    return log


# --- cutting


def slow_resample(values: np.ndarray, start: float, step: float, size: int, axis: int, outside: bool) -> np.ndarray:
    """Along one axis: the triangle filter as wide as an output pixel (at least one pixel), pixel by pixel."""
    values, n = np.moveaxis(values.astype(float), axis, 0), values.shape[axis]
    out, reach = [], max(step, 1.0)
    for i in range(size):
        centre = start + (i + 0.5) * step
        weights = {
            j: max(0.0, 1 - abs(j + 0.5 - centre) / reach) for j in range(int(centre - reach) - 2, int(centre + reach) + 3)
        }
        known = {j: v for j, v in weights.items() if 0 <= j < n}
        total = sum((weights if outside else known).values())
        out.append(sum((v * values[j] for j, v in known.items()), np.zeros(values.shape[1:])) / (total or 1))
    return np.moveaxis(np.array(out), 0, axis)


def slow_crop(values, window, side, size, outside=False):
    step = side / size
    rows = slow_resample(values, window.y - side / 2, step, size, 0, outside)
    out = slow_resample(rows, window.x - side / 2, step, size, 1, outside)
    return out[:, ::-1] if window.flip else out


def test_a_window_of_scale_one_is_a_plain_crop():
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_image(image, Window(30, 25, 1), 40, 40), image[5:45, 10:50])
    np.testing.assert_array_equal(crop_image(image, Window(30, 25, 1, True), 40, 40), image[5:45, 10:50][:, ::-1])


@pytest.mark.parametrize("x, y", [(5, 8), (66, 57), (30, 1), (35, 30)])
@pytest.mark.parametrize("flip", [False, True])
def test_the_border_is_mirrored_or_filled(x, y, flip):
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    side, window = 100, Window(x, y, 1, flip)
    left, top = side // 2 - x, side // 2 - y
    wide = symmetric_pad(torch.from_numpy(image).movedim(-1, 0), left, x + 50 - 70, top, y + 50 - 60)
    expected = wide.movedim(0, -1).numpy()
    np.testing.assert_array_equal(crop_image(image, window, side, side), expected[:, ::-1] if flip else expected)
    grey = crop_image(image, window, side, side, "mean")
    known = crop_mask(np.ones((60, 70), bool), window, side, side)
    np.testing.assert_array_equal(grey[known], (expected[:, ::-1] if flip else expected)[known])
    assert known.sum() < side * side
    filled = normalise(grey.copy()).numpy()[:, ~known]
    assert np.abs(filled).max() < 0.02  # ImageNet's mean, after normalisation


@pytest.mark.parametrize("scale", [0.3, 0.77, 1.0, 1.9, 4.3])
def test_resampling_against_a_loop(scale):
    g = np.random.default_rng(1)
    image, mask = g.integers(0, 256, (150, 170, 3), dtype=np.uint8), np.zeros((150, 170), bool)
    mask[40:110, 60:90] = True
    mask[60:80, 70:85] = False
    window, size = Window(81.3, 72.9, scale, scale > 1), 40
    np.testing.assert_allclose(
        crop_image(image, window, size / scale, size), slow_crop(image, window, size / scale, size), atol=1.6
    )
    share = slow_crop(mask, window, size / scale, size, outside=True)
    sure = abs(share - 0.5) > 0.02
    np.testing.assert_array_equal(crop_mask(mask, window, size / scale, size)[sure], (share > 0.5)[sure])


def test_what_lies_outside_the_picture_belongs_to_no_object():
    mask = np.ones((20, 20), bool)
    patch = crop_mask(mask, Window(0, 10, 1), 40, 40)
    assert patch[10:30, 20:].all()
    assert patch.sum() == 400
    assert not crop_mask(mask, Window(500, 500, 1), 40, 40).any()


@settings(max_examples=80)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.floats(0, 1), st.floats(0, 1), st.floats(-7, 7), st.booleans(), st.sampled_from(["mean", "symmetric"]),
)  # fmt: skip
def test_any_window_around_a_point_of_any_picture(shape, x, y, octaves, flip, padding):
    image = np.full((*shape, 3), 77, np.uint8)
    scale = 2**octaves
    window = Window(x * shape[1], y * shape[0], scale, flip)
    patch = crop_image(image, window, 24 / scale, 24, padding)
    assert patch.shape == (24, 24, 3)
    assert (patch == 77).all() if padding == "symmetric" else (patch == 77).any()
    assert crop_mask(image[..., 0] > 0, Window(x * shape[1], y * shape[0], scale, flip), 24 / scale, 24).shape == (
        24,
        24,
    )


# --- positives


@pytest.mark.parametrize("box", [(40, 50, 95, 80), (40, 50, 60, 105), (10, 20, 139, 50), (100, 100, 109, 106)])
def test_a_canonical_positive_is_centred_and_of_one_size(box):
    data, (x1, y1, x2, y2) = one(*box), box
    batch = PatchSampler(data, TINY, positives=1, negatives=0, jitter=False, min_area=0).batch(0)
    window = Window((x1 + x2) / 2, (y1 + y2) / 2, 55 / max(x2 - x1, y2 - y1))
    assert canonical(np.array(box), TINY) == window
    expected = slow_crop(data[0].image, window, 128 / window.scale, 128)
    at = (np.arange(128) + 0.5 - 64) / window.scale  # centres of patch pixels, from the window's, in picture pixels
    x_in, y_in = (
        np.flatnonzero((c + at > 1 / window.scale) & (c + at < n - 1 / window.scale))
        for c, n in ((window.x, 240), (window.y, 200))
    )
    difference = (batch.images[0] - normalise((expected + 0.5).astype(np.uint8))).numpy()[:, y_in][:, :, x_in]
    assert np.abs(difference).max() < 2.5 / 255 / 0.22
    assert len(x_in) * len(y_in) > 5000
    rows, cols = (np.flatnonzero(batch.masks[0].any(a).numpy()) for a in (1, 0))
    assert max(len(rows), len(cols)) in (54, 55, 56)
    assert abs(rows[0] + rows[-1] + 1 - 96) <= 1
    assert abs(cols[0] + cols[-1] + 1 - 96) <= 1
    assert batch.masks[0, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].float().mean() > 0.97  # corners are rounded


def test_jitter_keeps_its_limits_and_reaches_them():
    data = ShapesDataset(6, seed=8)
    sampler = PatchSampler(data, TINY, positives=60, negatives=0)
    move, octaves, flips = [], [], []
    for scene, window, instance in drawn(sampler, steps=8):
        home = canonical(scene.boxes[instance], TINY)
        move.append(np.array([window.x - home.x, window.y - home.y]) * window.scale)
        octaves.append(np.log2(window.scale / home.scale))
        flips.append(window.flip)
    move, octaves = np.array(move), np.array(octaves)
    limit = 16 * 96 / 224
    assert 0.95 * limit < abs(move).max() <= limit * (1 + 1e-9)
    assert 0.24 < abs(octaves).max() <= 0.25
    assert abs(move.mean(0)).max() < 0.1 * limit
    assert abs(octaves.mean()) < 0.03
    assert 0.4 < np.mean(flips) < 0.6


def test_a_mirrored_positive_is_the_mirror_of_the_other():
    data = ShapesDataset(1)
    scene = data[0]
    a = canonical(scene.boxes[0], TINY)
    b = Window(a.x, a.y, a.scale, True)
    for cut, what in ((crop_image, scene.image), (crop_mask, scene.masks[0])):
        np.testing.assert_array_equal(cut(what, a, 96 / a.scale, 96)[:, ::-1], cut(what, b, 96 / a.scale, 96))


def test_context_widens_the_view_and_changes_nothing_within():
    data = ShapesDataset(5)
    with_, without = (PatchSpec(96, context, 55, 96) for context in (32, 0))
    a, b = (PatchSampler(data, spec, positives=8, negatives=4, seed=2).batch(0) for spec in (with_, without))
    assert a.images.shape[-1] == 128
    assert b.images.shape[-1] == 96
    assert torch.equal(a.masks, b.masks)
    middle = a.images[:, :, 16:-16, 16:-16] - b.images
    assert (middle.abs() < 1.5 / 255 / 0.22).float().mean() > 0.97  # but for pixels at the mirrored border


def test_class_balance():
    rare = [(100, 100, [(10, 10, 40, 40, 0, False)])]
    data = Boxes(*rare, *[(100, 100, [(10, 10, 40, 40, 1, False), (50, 50, 90, 90, 1, False)])] * 10)
    share = {}
    for balance in ("class", "uniform"):
        sampler = PatchSampler(data, TINY, positives=500, negatives=0, balance=balance)
        share[balance] = (sampler.batch(0).categories == 0).float().mean().item()
    assert 0.42 < share["class"] < 0.58
    assert 0.01 < share["uniform"] < 0.1  # 1 of 21


def test_crowds_and_tiny_objects_are_no_positives():
    objects = [
        (0, 0, 80, 80, 0, True),
        (5, 5, 14, 14, 0, False),
        (20, 20, 24, 60, 0, False),
        (50, 50, 60, 60, 1, False),
    ]
    data = Boxes((100, 100, objects))
    sampler = PatchSampler(data, TINY, positives=40, negatives=0)
    assert {instance for _, _, instance in drawn(sampler)} == {3}
    assert usable_rows(data, min_area=0, min_side=0).tolist() == [1, 2, 3]
    assert usable_rows(data, min_area=82, min_side=0).tolist() == [2, 3]
    assert usable_rows(data, min_area=0, min_side=4.5).tolist() == [1, 3]


# --- negatives


def far_by_definition(window: Window, box, spec: PatchSpec) -> bool:
    """Put the object into the patch: is its centre 32/224 off, or its longer side half or twice the canonical one?"""
    x1, y1, x2, y2 = (float(v) for v in box)
    off = max(abs((x1 + x2) / 2 - window.x), abs((y1 + y2) / 2 - window.y)) * window.scale
    longer = max(x2 - x1, y2 - y1) * window.scale
    slack = 1e-9
    away = off >= spec.patch_size * 32 / 224 * (1 - slack)
    return away or longer >= 2 * spec.object_size * (1 - slack) or longer <= spec.object_size / 2 * (1 + slack)


@pytest.mark.parametrize("spec", [TINY, PAPER])
@pytest.mark.parametrize("hard", [0.0, 0.5, 1.0])
def test_every_negative_is_far_from_every_canonical_positive(spec, hard, monkeypatch):
    monkeypatch.setattr(patches, "HARD", hard)
    sampler = PatchSampler(ShapesDataset(20, seed=6), spec, positives=0, negatives=60)
    log = drawn(sampler, steps=3)
    assert len(log) == 180
    near = []
    for scene, window, instance in log:
        assert instance is None
        assert all(far_by_definition(window, box, spec) for box in scene.boxes)
        near.append(
            min(max(abs(window.x - (b[0] + b[2]) / 2), abs(window.y - (b[1] + b[3]) / 2)) * window.scale for b in scene.boxes)
        )
    if hard == 1:  # just beyond the limit is where the score must learn to say no
        assert np.mean(np.array(near) < 2 * 32 / 224 * spec.patch_size) > 0.9


@settings(max_examples=100)
@given(
    st.lists(st.tuples(*[st.integers(0, 90)] * 2, *[st.integers(1, 90)] * 2), min_size=1, max_size=4),
    st.floats(-50, 150), st.floats(-50, 150), st.floats(-4, 4),
)  # fmt: skip
def test_is_negative_is_the_definition(objects, x, y, octaves):
    boxes = [(x1, y1, x1 + w, y1 + h) for x1, y1, w, h in objects]
    window = Window(x, y, 2**octaves)
    expected = all(far_by_definition(window, b, PAPER) for b in boxes)
    assert is_negative(window, [canonical(np.array(b), PAPER) for b in boxes], PAPER) == expected


def test_the_limits_themselves_are_far():
    home = canonical(np.array((0, 0, 128, 128)), PAPER)
    for window, far in (
        (Window(64, 64, 1), False),
        (Window(64 + 31.9, 64 - 31.9, 1), False),
        (Window(64 + 32, 64, 1), True),
        (Window(64, 64 - 32, 1), True),
        (Window(64, 64, 1.99), False),
        (Window(64, 64, 2), True),
        (Window(64, 64, 0.5), True),
        (Window(64 + 20, 64, 1.6), True),  # 20 px of the picture are 32 of the patch
    ):
        assert is_negative(window, [home], PAPER) == far, window


def test_negatives_keep_out_of_crowds_and_away_from_tiny_objects():
    tiny = [(100, 60, 104, 64, 1, False)]
    data = Boxes((120, 160, [(0, 0, 60, 120, 0, True), (70, 70, 100, 110, 0, False), *tiny]))
    sampler = PatchSampler(data, TINY, positives=0, negatives=300)
    for scene, window, _ in drawn(sampler):
        assert not (0 <= window.x < 60 and 0 <= window.y < 120)
        assert all(far_by_definition(window, box, TINY) for box in scene.boxes[1:])


def test_pictures_without_objects_give_negatives():
    data = Boxes((100, 100, [(0, 0, 100, 100, 0, False)]), (90, 90, []))
    assert any(len(scene.masks) == 0 for scene, *_ in drawn(PatchSampler(data, TINY, positives=0, negatives=50)))


# --- batches


def test_a_batch_is_what_it_says():
    batch = PatchSampler(ShapesDataset(5), TINY, positives=5, negatives=3).batch(4)
    assert len(batch) == 8
    assert batch.images.shape == (8, 3, 128, 128)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.masks.shape == (8, 96, 96)
    assert batch.masks.dtype == torch.bool
    assert batch.labels.tolist() == [1] * 5 + [-1] * 3
    assert batch.masks[:5].flatten(1).any(1).all()
    assert not batch.masks[5:].any()
    assert (batch.categories[:5] >= 0).all()
    assert batch.categories[5:].tolist() == [-1] * 3
    moved = batch.to("cpu")
    assert torch.equal(moved.images, batch.images)


def same(a, b) -> bool:
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("images", "masks", "labels", "categories"))


@pytest.mark.parametrize("sampler", [PatchSampler, OfficialSampler])
def test_a_batch_is_a_function_of_seed_and_step(sampler):
    def fresh(**kwargs):
        return sampler(ShapesDataset(8), TINY, positives=4, negatives=4, **kwargs)

    first = fresh(seed=3)
    batches = [first.batch(step) for step in range(4)]
    for step in (3, 0, 2):  # another process, another order, no cache
        assert same(fresh(seed=3, cache=0).batch(step), batches[step])
    assert not same(batches[0], batches[1])
    assert not same(fresh(seed=4).batch(0), batches[0])


def test_evaluation_patches_are_every_usable_object_once():
    data = ShapesDataset(6, seed=2)
    rows = usable_rows(data)
    batches = list(evaluation_patches(data, TINY, batch_size=7))
    assert [len(b) for b in batches[:-1]] == [7] * (len(batches) - 1)
    labels = torch.cat([b.categories for b in batches])
    assert labels.tolist() == data.instances.label[rows].tolist()
    masks = torch.cat([b.masks for b in batches])
    assert masks.shape[1:] == (96, 96)
    for k in (0, 5, len(rows) - 1):
        row = rows[k]
        window = canonical(data.instances.box[row], TINY)
        mask = data[data.instances.image[row]].masks[data.instances.instance[row]]
        np.testing.assert_array_equal(masks[k], crop_mask(mask, window, 96 / window.scale, 96))


# --- unlucky data


@pytest.mark.parametrize("h, w", [(1, 1), (1, 30), (30, 1), (7, 5)])
@pytest.mark.parametrize("padding", ["symmetric", "mean"])
def test_pictures_smaller_than_a_patch(h, w, padding):
    data = Boxes((h, w, [(0, 0, w, h, 0, False)]))
    sampler = PatchSampler(data, TINY, positives=5, negatives=5, min_area=0, min_side=0, padding=padding)
    batch = sampler.batch(0)
    assert batch.images.isfinite().all()
    assert batch.masks[:5].flatten(1).any(1).all()


def test_objects_of_a_damaged_picture_are_passed_over():
    """`CocoDataset(on_fault="skip")` gives a grey picture with empty masks where decoding fails half-way."""
    data = Boxes(*[(90, 90, [(20, 20, 60, 60, k, False)]) for k in (0, 1)])

    def damage(k: int) -> None:  # its box stays as the file says
        data.scenes[k].masks[:] = False
        vars(data.scenes[k]).pop("rles", None)

    damage(0)
    assert set(PatchSampler(data, TINY, positives=9, negatives=0, balance="uniform").batch(0).categories.tolist()) == {1}
    assert [len(b) for b in evaluation_patches(data, TINY)] == [1]
    damage(1)
    with pytest.raises(ValueError, match="every picture drawn is damaged"):
        PatchSampler(data, TINY, positives=9, negatives=0).batch(0)


def test_evaluation_pads_as_it_is_told():
    data = one(0, 80, 60, 120)
    mirrored, grey = (next(evaluation_patches(data, TINY, padding=p)).images for p in ("symmetric", "mean"))
    assert grey[..., :20].abs().max() < 0.02 < mirrored[..., :20].abs().max() and torch.equal(grey[..., 64:], mirrored[..., 64:])


def test_a_mask_is_decoded_once_for_a_patch(monkeypatch):
    calls = []
    monkeypatch.setattr(scenes, "rle_decode", lambda rle: calls.append(rle) or rle_decode(rle))
    batch = PatchSampler(photographs(), PatchSpec(), positives=5, negatives=0).batch(0)
    assert batch.masks.any(2).any(1).all() and len(calls) == 5


def test_no_room_for_a_negative_is_an_error(monkeypatch):
    monkeypatch.setattr(patches, "TRIES", 20)
    data = Boxes((100, 100, [(0, 0, 100, 100, 0, True), (40, 40, 60, 60, 0, False)]))
    with pytest.raises(ValueError, match="no negative patch found in 20 pictures with 20 tries each"):
        PatchSampler(data, TINY, positives=1, negatives=1).batch(0)


CROWD, SMALL = (0, 0, 40, 40, 0, True), (0, 0, 9, 9, 1, False)


@pytest.mark.parametrize(
    "data, message",
    [
        (ShapesDataset(0), "0 instances in 0 pictures"),
        (Boxes((50, 50, [])), "0 instances in 1 pictures"),
        (Boxes((50, 50, [CROWD, SMALL])), "2 instances in 1 pictures, 1 are crowds, 1 are smaller than 100 px"),
        (Boxes((50, 50, [(0, 0, 4, 50, 0, False)])), "1 are smaller than 100 px of area or 5 px of side"),
    ],
)  # fmt: skip
def test_nothing_to_learn_from_is_an_error(data, message):
    with pytest.raises(ValueError, match=f"no object to learn from: .*{message}"):
        PatchSampler(data, TINY, positives=1, negatives=1)
    with pytest.raises(ValueError, match=message):
        next(evaluation_patches(data, TINY))


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"balance": "fair"}, "balance is 'fair'; choose one of 'class', 'uniform'"),
        ({"padding": "zeros"}, "padding is 'zeros'; choose one of 'symmetric', 'mean'"),
        ({"positives": 0, "negatives": 0}, "wanted at least one patch"),
        ({"positives": -1}, "a batch of -1 positives"),
        ({"cache": -1}, "cache limit is -1; it must be at least 0"),
    ],
)
def test_bad_options_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PatchSampler(one(40, 50, 95, 80), TINY, **{"positives": 1, "negatives": 1} | kwargs)


@pytest.mark.parametrize("kind", [PatchSampler, OfficialSampler])
def test_an_object_without_pixels_is_passed_over(kind):
    data = Boxes((90, 90, [(20, 20, 20, 60, 0, False), (30, 30, 60, 60, 1, False)]))
    sampler = kind(data, TINY, positives=10, negatives=10, min_area=0, min_side=0.5)
    for step in range(2):
        assert set(sampler.batch(step).categories[:10].tolist()) == {1}


def test_pasted_objects_hide_what_lies_below_and_stand_off_the_centre():
    scenes = ShapesDataset(12, seed=5)
    spec = PatchSpec()
    plain = PatchSampler(scenes, spec, positives=40, negatives=20, seed=1)
    pasted = PatchSampler(scenes, spec, positives=40, negatives=20, seed=1, paste=1.0)
    g = np.random.default_rng(0)
    mask = np.zeros((spec.target_size,) * 2, bool)
    mask[36:76, 36:76] = True  # the middle
    hidden = []
    for _ in range(40):
        layers, left = pasted._beside(g, [], mask)
        assert all(seen.shape == (192, 192, 1) for seen, _ in layers) and not (left & ~mask).any()
        hidden.append(1 - left.sum() / mask.sum())
    assert 0 < np.mean(hidden) < 0.3 >= max(hidden) and min(hidden) == 0
    batch = pasted.batch(0)
    assert all(torch.equal(a, b) for a, b in zip(vars(batch).values(), vars(pasted.batch(0)).values(), strict=True))
    assert not batch.masks[40:].any() and batch.masks[:40].flatten(1).any(1).all()
    assert not torch.equal(batch.images, plain.batch(0).images)
