"""RoI minibatches against a slow reference: what each RoI is, which may be drawn, and what becomes of odd data."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseg_lite.data.mix import Mix
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.rois import RoiSampler, assign, draw
from fairseg_lite.data.scenes import SceneCache, Subset
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import normalise
from fairseg_lite.training.detector import USUAL_STD, delta_statistics
from tests.data.test_patches import Boxes as Rectangles

HEADS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)


def proposals(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), torch.linspace(1, 0, len(rows)))


def jittered(scene, g, copies=20, spread=0.25):
    """Boxes around each object, moved and stretched, and some anywhere."""
    h, w = scene.image.shape[:2]
    rows = []
    for box in scene.boxes:
        side = np.tile(box[2:] - box[:2], 2)
        rows += list(box + g.normal(0, spread, (copies, 4)) * side)
    corner = g.uniform(0, [w - 9, h - 9], (copies, 2))
    rows += list(np.concatenate([corner, corner + g.uniform(8, 60, (copies, 2))], 1))
    return Boxes(torch.tensor(np.array(rows), dtype=torch.float32), torch.zeros(len(rows)))


def around(data, **options):
    g = np.random.default_rng(0)
    return {data[i].image_id: jittered(data[i], g, **options) for i in range(len(data))}


# --- the reference: one RoI after the other, in plain numbers


def slow_iou(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    common = wide * high
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow_assign(scene, boxes):
    """[(box, IoU, label, object's box)] of every RoI that may be drawn, objects first, and why others may not."""
    h, w = scene.image.shape[:2]
    solid = [i for i, b in enumerate(scene.boxes.tolist()) if b[2] > b[0] and b[3] > b[1]]
    objects = [(scene.boxes[i].tolist(), int(scene.labels[i])) for i in solid if not scene.crowd[i]]
    crowds = [scene.boxes[i].tolist() for i in solid if scene.crowd[i]]
    rois, dropped = [box for box, _ in objects], {}
    for x1, y1, x2, y2 in boxes.tolist():
        inside = [min(max(x1, 0), w), min(max(y1, 0), h), min(max(x2, 0), w), min(max(y2, 0), h)]
        area = (inside[2] - inside[0]) * (inside[3] - inside[1])
        why = None
        if x2 <= x1 or y2 <= y1:
            why = "no area"
        elif area <= 0:
            why = "outside"
        else:
            for c in crowds:
                wide, high = min(inside[2], c[2]) - max(inside[0], c[0]), min(inside[3], c[3]) - max(inside[1], c[1])
                if wide > 0 and high > 0 and wide * high / area > 0.7:
                    why = "in a crowd"
        if why is None:
            rois.append(inside)
        else:
            dropped[why] = dropped.get(why, 0) + 1
    rows = []
    for roi in rois:
        best = max(((slow_iou(roi, box), -i) for i, (box, _) in enumerate(objects)), default=(0.0, None))
        if best[1] is None:
            rows.append((roi, 0.0, -1, roi))
        else:
            rows.append((roi, best[0], objects[-best[1]][1], objects[-best[1]][0]))
    return rows, dropped


def slow_deltas(roi, box):
    w, h = roi[2] - roi[0], roi[3] - roi[1]
    dx = ((box[0] + box[2]) / 2 - (roi[0] + roi[2]) / 2) / w
    dy = ((box[1] + box[3]) / 2 - (roi[1] + roi[3]) / 2) / h
    return [dx, dy, math.log((box[2] - box[0]) / w), math.log((box[3] - box[1]) / h)]


def check_assigned(scene, boxes):
    got, (rows, dropped) = assign(scene, boxes), slow_assign(scene, boxes)
    assert dict(got.dropped) == dropped
    assert len(got.boxes) == len(rows)
    for k, (roi, iou, label, truth) in enumerate(rows):
        np.testing.assert_allclose(got.boxes[k], roi, atol=1e-4)
        assert abs(got.ious[k] - iou) < 1e-5
        if iou > 0.01 or label < 0:  # of several that do not overlap at all, any will do
            assert got.labels[k] == label
            np.testing.assert_allclose(got.truth[k], truth, atol=1e-4)


def test_assignment_is_the_references():
    data, g = ShapesDataset(8, seed=3), np.random.default_rng(1)
    for i in range(8):
        check_assigned(data[i], jittered(data[i], g, spread=0.5).boxes)


coordinate = st.integers(-30, 130)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(*[st.integers(0, 80)] * 2, *[st.integers(0, 40)] * 2, st.integers(0, 1), st.booleans()), max_size=4),
    st.lists(st.tuples(*[coordinate] * 4), max_size=12),
)
def test_assignment_of_anything(objects, rows):
    scene = Rectangles((100, 110, [(x, y, x + w, y + h, label, crowd) for x, y, w, h, label, crowd in objects]))[0]
    check_assigned(scene, torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


def test_crowds_take_what_lies_in_them_and_nothing_else():
    scene = Rectangles((100, 100, [(0, 0, 50, 100, 0, True), (60, 0, 90, 30, 1, False)]))[0]
    inside, edge_in, edge_out, far = (5, 5, 40, 40), (15, 0, 64, 50), (16, 0, 66, 50), (60, 0, 90, 28)
    got = assign(scene, proposals(inside, edge_in, edge_out, far).boxes)
    assert got.boxes.tolist() == [[60, 0, 90, 30], list(edge_out), list(far)], "35 of 49 px are more than .7, 34 of 50 are not"
    assert got.dropped == {"in a crowd": 2}
    assert got.labels.tolist()[0] == 1


# --- drawing


@settings(max_examples=200)
@given(
    st.lists(st.floats(0, 1), max_size=40), st.integers(1, 30), st.floats(0, 1), st.sampled_from([0.0, 0.1]), st.integers(0, 9)
)
def test_what_is_drawn(ious, count, fraction, background, seed):
    ious = np.array(ious)
    at = draw(ious, np.random.default_rng(seed), count=count, fg_fraction=fraction, background=background, cut=0.5)
    fg = sum(1 for v in ious if v >= 0.5)
    middle = sum(1 for v in ious if background <= v < 0.5)
    low = sum(1 for v in ious if v < background)
    want_fg = min(fg, round(count * fraction))
    want_middle = min(middle, count - want_fg)
    want_low = min(low, count - want_fg - want_middle)
    assert len(set(at.tolist())) == len(at) == want_fg + want_middle + want_low
    got = ious[at]
    assert [(got >= 0.5).sum(), ((got >= background) & (got < 0.5)).sum(), (got < background).sum()] == [
        want_fg, want_middle, want_low,
    ]  # fmt: skip
    assert (got[:want_fg] >= 0.5).all(), "foreground first"


def test_every_roi_comes_up_as_often_as_the_others():
    ious = np.array([0.9] * 8 + [0.3] * 8)
    counts = np.zeros(16)
    for seed in range(400):
        counts[draw(ious, np.random.default_rng(seed), count=8, fg_fraction=0.5, background=0.1, cut=0.5)] += 1
    assert counts.sum() == 3200
    assert (abs(counts - 200) < 45).all()  # 4.5 deviations of a binomial of 400 with 1/2


# --- batches


def rows_of(batch, picture):
    return (batch.rois[:, 0] == picture).nonzero().flatten().tolist()


def test_a_batch_against_the_reference():
    data = ShapesDataset(4, seed=3)
    boxes = around(data)
    sampler = RoiSampler(data, boxes, thresholds=HEADS, images=2, rois=32, flip=False)
    seen = 0
    for step in range(4):
        batch = sampler.batch(step)
        assert len(batch) == 2 and batch.rois.shape == (batch.labels.shape[1], 5) and batch.labels.shape[0] == 6
        for b, index in enumerate(sampler.pictures(step)):
            scene = data[index]
            assert torch.equal(batch.images[b], normalise(scene.image))
            known, _ = slow_assign(scene, boxes[scene.image_id].boxes)
            rows = rows_of(batch, b)
            assert len(rows) == 32 and len({tuple(batch.rois[k].tolist()) for k in rows}) == 32
            assert sum(batch.ious[k] >= 0.5 for k in rows) == 8
            for k in rows:
                roi, iou, label, truth = min(known, key=lambda r: np.abs(np.array(r[0]) - batch.rois[k, 1:].numpy()).sum())
                np.testing.assert_allclose(batch.rois[k, 1:], roi, atol=1e-4)
                assert abs(batch.ious[k] - iou) < 1e-5
                assert iou >= 0.1
                assert batch.labels[:, k].tolist() == [label + 1 if iou >= u else 0 for u in HEADS]
                np.testing.assert_allclose(batch.targets[k], slow_deltas(roi, truth) if iou >= 0.5 else [0] * 4, atol=1e-4)
                seen += iou >= 0.5
    assert seen == 64


def test_heads_differ_only_where_the_iou_lies_between_their_thresholds():
    data = ShapesDataset(6, seed=3)
    labels = RoiSampler(data, around(data), thresholds=HEADS, images=6, rois=64).batch(0).labels
    positives = (labels > 0).sum(1).tolist()
    assert positives == sorted(positives, reverse=True) and positives[0] > positives[-1] > 0
    for a, b in zip(labels[:-1], labels[1:], strict=True):
        assert ((b == a) | (b == 0)).all()


def test_untied_heads_as_the_official_code_trains_them():
    data = ShapesDataset(6, seed=3)
    boxes = around(data, copies=60)
    sampler = RoiSampler(data, boxes, thresholds=HEADS, images=2, rois=64, untied=True)
    cuts, heads = [], []
    for step in range(80):
        batch = sampler.batch(step)
        (head,) = (batch.labels >= 0).all(1).nonzero().flatten().tolist()
        assert (batch.labels[torch.arange(6) != head] == -1).all(), "one head learns"
        heads.append(head)
        own = batch.labels[head] > 0
        lowest, highest = batch.ious[own].min().item(), batch.ious[~own].max().item()
        assert highest < lowest, "one threshold parts foreground from background"
        cuts += [u for u in HEADS if highest < u <= lowest + 1e-6][:1]
        assert (batch.targets[~own] == 0).all()
    assert set(heads) == set(range(6))
    assert len(set(cuts)) >= 5
    pairs = {(h, c) for h, c in zip(heads, cuts, strict=False)}
    assert len(pairs) > 12, "a head has no threshold of its own"


def test_a_mirrored_picture_has_mirrored_boxes_and_targets():
    data = ShapesDataset(1, seed=5)
    boxes = around(data)
    plain, either = (RoiSampler(data, boxes, images=1, rois=10_000, flip=f) for f in (False, True))
    scene = data[0]
    kinds = set()
    for step in range(12):
        a, b = plain.batch(step), either.batch(step)
        assert len(a.rois) == len(b.rois)
        mirrored = not torch.equal(a.images, b.images)
        kinds.add(mirrored)
        if mirrored:
            assert torch.equal(a.images.flip(3), b.images)
        back = b.rois[:, 1:].clone()
        if mirrored:
            back[:, [0, 2]] = 192 - b.rois[:, [3, 1]]
        where = (a.rois[:, None, 1:] - back).abs().sum(2).min(0)
        assert where.values.max() < 1e-3
        sign = torch.tensor([-1.0 if mirrored else 1.0, 1, 1, 1])
        torch.testing.assert_close(a.targets[where.indices], b.targets * sign, atol=1e-4, rtol=1e-4)
        assert torch.equal(a.labels[:, where.indices], b.labels)
    assert kinds == {True, False} and scene.image.shape[1] == 192


def test_multi_scale_resizes_pictures_and_boxes_alike():
    data = Rectangles((100, 150, [(30, 20, 90, 80, 1, False)]))
    boxes = {0: proposals((30, 20, 90, 80), (31, 20, 90, 80))}
    sampler = RoiSampler(data, boxes, images=1, short_side=(50, 120), max_side=165, flip=False)
    sides = set()
    for step in range(60):
        batch = sampler.batch(step)
        h, w = batch.images.shape[2:]
        sides.add(h)
        assert 50 <= h <= 110 and abs(w - 1.5 * h) <= 1, "the longer side stops at 165"
        exact = torch.tensor([30 * w / 150, 20 * h / 100, 90 * w / 150, 80 * h / 100])
        assert (batch.rois[:, 1:] - exact).abs().sum(1).min() < 1e-3
        assert (batch.ious >= 0.5).all()
        assert batch.targets.abs().max() < 0.02, "deltas know no scale"
    assert len(sides) > 20 and max(sides) == 110
    assert RoiSampler(data, boxes, images=1, max_side=75).batch(0).images.shape[2:] == (50, 75)


def test_pictures_of_unlike_sizes_are_padded_with_the_mean_colour():
    data = Rectangles((60, 90, [(5, 5, 40, 40, 0, False)]), (80, 50, [(5, 5, 40, 70, 1, False)]))
    sampler = RoiSampler(data, {0: proposals(), 1: proposals()}, images=2, flip=False)
    batch = sampler.batch(0)
    assert batch.images.shape == (2, 3, 80, 90)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for b, index in enumerate(sampler.pictures(0)):
        h, w = data[index].image.shape[:2]
        assert torch.equal(batch.images[b, :, :h, :w], normalise(data[index].image))
        assert not batch.images[b, :, h:].any() and not batch.images[b, :, :, w:].any()
        assert batch.rois[rows_of(batch, b)].tolist() == [[b, *data[index].boxes[0].tolist()]]


def test_colour_shakes_pictures_and_nothing_else():
    data = ShapesDataset(2, seed=3)
    boxes = around(data)
    plain, shaken = (RoiSampler(data, boxes, images=1, flip=False, colour=c).batch(0) for c in (0.0, 0.4))
    difference = (plain.images - shaken.images).abs()
    assert 0.05 < difference.mean() < 1.5
    assert all(torch.equal(getattr(plain, f), getattr(shaken, f)) for f in ("rois", "labels", "targets", "ious"))


def same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("images", "rois", "labels", "targets", "ious"))


@pytest.mark.parametrize("untied", [False, True])
def test_a_batch_is_a_function_of_seed_and_step(untied):
    data = ShapesDataset(5, seed=3)
    boxes = around(data)

    def fresh(**kwargs):
        return RoiSampler(data, boxes, thresholds=HEADS, rois=16, short_side=(100, 192), untied=untied, **kwargs)

    first = fresh(seed=3)
    batches = [first.batch(step) for step in range(5)]
    for step in (4, 0, 2):
        assert same(fresh(seed=3).batch(step), batches[step])
    assert not same(batches[0], batches[1])
    assert not same(fresh(seed=4).batch(0), batches[0])
    assert same(batches[0].to("cpu"), batches[0])


def test_every_picture_once_in_a_round():
    data = ShapesDataset(7, seed=3)
    sampler = RoiSampler(data, {i: proposals() for i in (1, 2, 4, 5, 7)}, images=2)
    order = [i for step in range(10) for i in sampler.pictures(step)]
    assert len(sampler) == 5
    rounds = [order[k : k + 5] for k in range(0, 20, 5)]
    assert all(sorted(r) == [0, 1, 3, 4, 6] for r in rounds) and len({tuple(r) for r in rounds}) > 1


def test_a_subset_and_a_cache_know_their_pictures():
    data = ShapesDataset(9, seed=3)
    some = Subset(data, [8, 2])
    assert RoiSampler(some, {9: proposals()}).indices == [0]
    cache = SceneCache(some)
    sampler = RoiSampler(cache, {3: proposals()}, images=1)
    assert sampler.dataset is cache and sampler.indices == [1]
    assert sampler.batch(0).rois.shape[0] == len(data[2].boxes)


def test_a_batch_fetches_each_scene_once():
    class Watched(Rectangles):
        asked = []

        def __getitem__(self, index):
            self.asked.append(index)
            return super().__getitem__(index)

    data = Watched((90, 90, [(5, 5, 40, 40, 0, False)]), (80, 80, [(5, 5, 40, 40, 0, False)]))
    sampler = RoiSampler(SceneCache(data, limit=0), {k: proposals((1, 1, 9, 9)) for k in (0, 1)}, images=2)
    data.asked.clear()
    sampler.batch(0)
    assert sorted(data.asked) == [0, 1]


def test_only_the_best_proposals_are_used():
    data = Rectangles((90, 90, [(5, 5, 40, 40, 0, False)]))
    boxes = {0: proposals((50, 50, 60, 60), (60, 60, 70, 70), (1, 1, 9, 9))}
    found = RoiSampler(data, boxes, images=1, top=2, flip=False).batch(0).rois[:, 1:]
    assert sorted(found.tolist()) == [[5, 5, 40, 40], [50, 50, 60, 60], [60, 60, 70, 70]]


# --- odd data


def test_a_picture_without_objects_gives_background_only():
    data = Rectangles((80, 80, []), (80, 80, [(5, 5, 40, 40, 0, False)]))
    batch = RoiSampler(data, {0: proposals((1, 1, 30, 30), (9, 9, 60, 60))}, thresholds=HEADS, images=1).batch(0)
    assert batch.labels.shape == (6, 2) and not batch.labels.any()
    assert not batch.targets.any() and not batch.ious.any()


def test_a_picture_without_proposals_gives_its_objects():
    data = Rectangles((80, 80, [(5, 5, 40, 40, 0, False), (50, 50, 70, 70, 1, False), (0, 0, 0, 0, 1, False)]))
    batch = RoiSampler(data, {0: proposals()}, images=1, flip=False, fg_fraction=1.0).batch(0)
    assert sorted(batch.rois[:, 1:].tolist()) == [[5, 5, 40, 40], [50, 50, 70, 70]]
    assert sorted(batch.labels[0].tolist()) == [1, 2]


def test_nothing_at_all_gives_an_empty_batch():
    batch = RoiSampler(Rectangles((80, 80, [])), {0: proposals()}, thresholds=HEADS, images=2).batch(0)
    assert batch.rois.shape == (0, 5) and batch.labels.shape == (6, 0) and batch.targets.shape == (0, 4)
    assert batch.images.shape == (2, 3, 80, 80)


def test_rois_outside_or_without_area_are_left_out_and_counted():
    data = Rectangles((80, 100, [(5, 5, 40, 40, 0, False)]))
    rows = [(7, 7, 7, 20), (30, 20, 25, 40), (100, 3, 120, 30), (-9, -9, 0, 50), (-9, 60, 20, 99)]
    sampler = RoiSampler(data, {0: proposals(*rows)}, images=1, flip=False)
    batch = sampler.batch(0)
    assert sorted(batch.rois[:, 1:].tolist()) == [[0, 60, 20, 80], [5, 5, 40, 40]]
    sampler.batch(1)
    assert sampler.dropped == {"no area": 2, "outside": 2}, "each picture counts once"


def test_one_category():
    data = Rectangles((80, 80, [(5, 5, 40, 40, 0, False)]))
    data.categories, data.category_ids = ("thing",), (17,)
    batch = RoiSampler(data, {0: proposals((50, 50, 70, 70))}, images=1).batch(0)
    assert sorted(batch.labels[0].tolist()) == [0, 1]


def test_proposals_for_the_wrong_pictures():
    data = Rectangles(*[(50, 50, [(5, 5, 40, 40, 0, False)])] * 3)
    boxes = {k: proposals((1, 1, 9, 9)) for k in (0, 1, 70, 80)}
    for use in (RoiSampler, delta_statistics):
        with pytest.raises(ValueError, match=r"proposals for 2 of 4 pictures \(the first has id 70\) .* 3 .* ids from 0 to 2"):
            use(data, boxes)
        with pytest.raises(ValueError, match="it has no picture"):
            use(Rectangles(), boxes)
        with pytest.raises(ValueError, match="no proposals for any picture"):
            use(data, {})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_boxes_that_are_not_finite(value):
    data = Rectangles((50, 50, [(5, 5, 40, 40, 0, False)]))
    with pytest.raises(ValueError, match="proposals of picture 0: shape .*, 1 numbers not finite"):
        RoiSampler(data, {0: proposals((1, 1, 9, 9), (1, value, 9, 9))})


def test_boxes_of_another_shape():
    wrong = Boxes(torch.zeros(3, 5), torch.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3, 5\), 0 numbers not finite; wanted \(N, 4\)"):
        RoiSampler(Rectangles((50, 50, [])), {0: wrong})


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"thresholds": ()}, "thresholds are"),
        ({"thresholds": (0.6, 0.5)}, "wanted ascending"),
        ({"thresholds": (0.5, 1.1)}, "at most 1"),
        ({"thresholds": (0.0,)}, "above 0"),
        ({"images": 0}, "images is 0"),
        ({"rois": 0}, "rois is 0"),
        ({"top": 0}, "top is 0"),
        ({"fg_fraction": 1.5}, "fg_fraction is 1.5"),
        ({"background": 0.5}, "background 0.5"),
        ({"short_side": (200, 100)}, "short_side is"),
        ({"short_side": (200, 300), "max_side": 100}, "max_side 100"),
    ],
)
def test_bad_options_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RoiSampler(Rectangles((50, 50, [])), {0: proposals()}, **kwargs)


# --- several sets


def test_a_mix_draws_sets_by_weight_and_knows_what_each_was_searched_for():
    first, second = ShapesDataset(6, seed=1), ShapesDataset(6, seed=2)
    mix = Mix([first, second], weights=[1, 3], exhaustive=["all", ["star"]])
    sampler = RoiSampler(mix, around(mix), images=4, rois=16)
    drawn = np.array([sampler.pictures(step) for step in range(200)]).ravel()
    assert set(drawn) == set(range(12))
    assert 0.7 < (drawn >= 6).mean() < 0.8
    star, names = mix.categories.index("star"), len(mix.categories)
    for step in range(5):
        batch = sampler.batch(step)
        assert batch.known.shape == (len(batch.rois), names + 1)
        for b, i in enumerate(sampler.pictures(step)):
            wanted = np.ones(names + 1, bool)
            if i >= 6:
                wanted[1:] = False
                wanted[[star + 1, *(mix[i].labels + 1)]] = True
            rows = batch.known[batch.rois[:, 0] == b].numpy()
            assert len(rows) and (rows == wanted).all()


def test_a_set_without_proposals_is_named():
    mix = Mix([ShapesDataset(2, seed=1), ShapesDataset(2, seed=2)])
    with pytest.raises(InputError, match="data set 2"):
        RoiSampler(mix, {key: found for key, found in around(mix).items() if key <= 2})


# --- statistics


def test_delta_statistics_against_a_loop():
    data = ShapesDataset(8, seed=3)
    boxes = around(data)
    mean, std = delta_statistics(data, boxes, images=4)
    rows = []
    for i in range(0, 8, 2):  # as far apart as four of eight can be
        known, _ = slow_assign(data[i], boxes[i + 1].boxes)
        rows += [slow_deltas(roi, truth) for roi, iou, _, truth in known if iou >= 0.5]
    assert len(rows) > 50
    np.testing.assert_allclose(mean, np.mean(rows, 0), atol=1e-5)
    np.testing.assert_allclose(std, np.std(rows, 0), rtol=1e-4)


def test_delta_statistics_of_next_to_nothing():
    data = Rectangles((50, 50, [(5, 5, 40, 40, 0, False)]), (50, 50, []))
    mean, std = delta_statistics(data, {0: proposals()})
    assert mean.tolist() == [0] * 4 and torch.equal(std, torch.tensor(USUAL_STD))
    with pytest.raises(ValueError, match="no object to learn from in the 1 pictures"):
        delta_statistics(data, {1: proposals((1, 1, 9, 9))})
