"""The official sampler: its logged draws replayed, and its choices without its endless loops."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fairseg_lite.data.coco import CocoDataset
from fairseg_lite.data.patches import PatchSpec
from fairseg_lite.data.scenes import SceneCache, Subset
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.geometry.masks import polygons_to_mask, rle_encode
from fairseg_lite.official import patches as official_patches
from fairseg_lite.official.patches import OfficialSampler, crop_grey, crop_polygons, polygons_of
from fairseg_lite.training.recipes import RECIPES
from fairseg_lite.training.stages import train_deepmask
from tests.data.test_patches import TINY, Boxes

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
ARRAYS = dict(np.load(ORACLE / "sampler.npz"))
CONTENT = json.loads((ORACLE / "sampler.json").read_text("utf-8"))
LOG = CONTENT["log"]
MASKS, SCORES = (sorted(k for k in LOG if k.startswith(kind)) for kind in ("mask", "score"))


class Replay:
    """The official code's draws, one by one; Lua counts from 1."""

    def __init__(self, log):
        self.log = list(log)

    def integers(self, high):
        name, value = self.log.pop(0)
        assert name in ("torch.random", "math.random")
        assert 1 <= value <= high
        return value - 1

    def uniform(self, low=0.0, high=1.0):
        name, value = self.log.pop(0)
        assert name == "torch.uniform"
        assert low <= value <= high
        return value


def official(data, spec=None, **kwargs) -> OfficialSampler:
    """A sampler of which single patches are asked for."""
    return OfficialSampler(data, spec or PatchSpec(), positives=1, negatives=0, **kwargs)


def replayed(rules, name):
    """The sample of a log entry, and the window (left, top, side) that it was cut from."""
    draws, windows, cut = Replay(LOG[name]["draws"]), [], rules._cut

    def spy(i, left, top, side, row):
        windows.append((left, top, side))
        return cut(i, left, top, side, row)

    rules._cut = spy
    if name.startswith("score"):
        i = rules.pictures[draws.integers(len(rules.pictures))]
        sample = rules._score_sample(draws, i, draws.uniform() > 0.5)
    else:
        sample = rules.mask_sample(draws)
        sample = rules.finish(draws, sample) if name == "get" else sample
    assert not draws.log  # every draw was used
    return sample, windows[0]


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """The oracle's annotations over grey pictures: enough for positions and labels."""
    root = tmp_path_factory.mktemp("oracle")
    for image in CONTENT["instances"]["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(root / image["file_name"])
    (root / "instances.json").write_text(json.dumps(CONTENT["instances"]), "utf-8")
    return CocoDataset(root)


@pytest.mark.parametrize("name", [*MASKS, "get"])
def test_logged_mask_samples(blank, name):
    (_, mask, category), (left, top, side) = replayed(official(blank, label_shift=True), name)
    entry = LOG[name]
    x, y, w, _ = entry["jitter"]
    assert abs(left - x) <= 0.5
    assert abs(top - y) <= 0.5
    assert abs(side - w) <= 0.5
    inner = side * 160 / 192  # the label's window, one pixel off
    assert entry["lblbox"] == pytest.approx([v + 1 + (side - inner) / 2 for v in (left, top)] + [inner] * 2)
    (annotation,) = [a for a in CONTENT["instances"]["annotations"] if a["id"] == entry["ann_id"]]
    assert category + 1 == annotation["category_id"]
    if f"{name}_label" in ARRAYS:
        label = np.unpackbits(ARRAYS[f"{name}_label"]).reshape(112, 112).astype(bool)
        np.testing.assert_array_equal(mask, label)


@pytest.mark.parametrize("name", SCORES)
def test_logged_score_samples(blank, name):
    sample, (left, top, side) = replayed(official(blank), name)
    x, y, octaves = LOG[name].get("pos") or LOG[name]["neg"]
    assert (sample.category >= 0) == ("pos" in LOG[name])
    assert side == math.floor(max(192 / 2**octaves, 10))
    image = blank[int(LOG[name]["draws"][0][1]) - 1].image  # the first draw is the picture
    for start, v, n in ((left, x, image.shape[1]), (top, y, image.shape[0])):
        centre = min(max(v / 2**octaves, 1), n)
        assert start + side / 2 == pytest.approx(centre - 1, abs=1.01)


def test_centres_by_scale_are_the_official_table(blank):
    rules, images = official(blank), CONTENT["instances"]["images"]
    for i, image in enumerate(images):
        ours = {k * 0.25: [[x, y] for x, y, _ in at] for k, at in rules.centres[i].items()}
        theirs = {float(k): at for k, at in LOG["bbStruct"][str(image["id"])].items()}
        assert ours.keys() == theirs.keys()
        for k in theirs:
            np.testing.assert_allclose(ours[k], theirs[k], rtol=1e-5)


def test_inputs_agree_with_the_photographs_at_hand(shared):
    data, arrays = CocoDataset(shared / "oracle/data"), np.load(shared / "oracle/data/datasampler.npz")
    names = [n for n in [*MASKS, *SCORES, "get"] if f"{n}_input" in arrays]
    assert len(names) == 12
    for name in names:
        sample, _ = replayed(official(data), name)
        np.testing.assert_allclose(sample.image.numpy(), arrays[f"{name}_input"], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["crop1", "crop2", "crop3", "crop4"])
def test_crops_beyond_the_border(name):
    left, top, side, _ = LOG[name]["box_after"]
    assert [left, top, side] == [official_patches._rounded(v) + (k < 2) for k, v in enumerate(LOG[name]["box"][:3])]
    noise = ARRAYS["crop_in"].transpose(1, 2, 0)
    np.testing.assert_allclose(crop_grey(noise, left - 1, top - 1, side, side), ARRAYS[name], rtol=0, atol=1e-6)


# --- labels


def white_object(tmp_path, segmentation):
    """A white object on black, so that the picture itself shows where the mask should be."""
    mask = polygons_to_mask([[30, 40, 110, 40, 110, 100, 70, 60, 30, 100]], 150, 160)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "1.png")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation or rle_encode(mask)}
    content = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [entry],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content), "utf-8")
    return CocoDataset(tmp_path)


POLYGON = [[30, 40, 110, 40, 110, 100, 70, 60, 30, 100]]


@pytest.mark.parametrize("segmentation", [POLYGON, None], ids=["polygon", "RLE"])
def test_labels_lie_on_the_object_unless_the_fault_is_copied(tmp_path, segmentation):
    data, spec = white_object(tmp_path, segmentation), PatchSpec(160, 32, 92, 160)
    iou = {}
    for shift in (False, True):
        rules, g, ious = official(data, spec, label_shift=shift), np.random.default_rng(0), []
        for _ in range(10):
            image, mask, _ = rules.mask_sample(g)
            seen = image[0, 16:-16, 16:-16].numpy() > 0.5
            ious.append((mask & seen).sum() / (mask | seen).sum())
        iou[shift] = np.mean(ious)
    assert iou[False] > 0.95 > iou[True] + 0.01


def test_polygons_and_pixels_give_nearly_the_same_label(tmp_path):
    """A window at the picture's own scale: the label is the mask itself."""
    mask = polygons_to_mask(POLYGON, 150, 160)
    np.testing.assert_array_equal(crop_polygons(POLYGON, (150, 160), 10, 20, 112, 112), mask[20:132, 10:122])


@pytest.mark.parametrize("left, top", [(-50, -30), (20, 10), (100, 90), (-300, 400)])
@pytest.mark.parametrize(
    "polygon", [[-40, -40, 300, -40, 300, 300, -40, 300], [2, 2, 9, 2, 9, 9], [1e6, 1e6, 2e6, 1e6, 2e6, 2e6]]
)
def test_polygons_beyond_window_and_picture(left, top, polygon):
    whole = np.zeros((800, 800), bool)  # the picture of 60 x 50 px, with room around it
    whole[400:460, 400:450] = polygons_to_mask([polygon], 60, 50)
    expected = np.zeros((40, 40), bool)
    if left > -300:
        expected = whole[400 + top : 440 + top, 400 + left : 440 + left]
    np.testing.assert_array_equal(crop_polygons([polygon], (60, 50), left, top, 40, 40), expected)


def test_polygons_are_found_through_every_layer(blank):
    layered = SceneCache(Subset(Subset(blank, [3, 1]), [1]))
    assert polygons_of(layered, 0, 2) == blank.pictures[1].annotations[2].segmentation
    assert polygons_of(SceneCache(ShapesDataset(2)), 1, 0) is None


# --- choices, and their ends


class Counting:
    """A generator that counts its draws."""

    def __init__(self, seed=0):
        self.g, self.count = np.random.default_rng(seed), 0

    def integers(self, high):
        self.count += 1
        return self.g.integers(high)

    def uniform(self, low=0.0, high=1.0):
        self.count += 1
        return self.g.uniform(low, high)


def windows(rules, draw, n):
    log, cut = [], rules._cut
    rules._cut = lambda *args: log.append(args) or cut(*args)
    g = Counting()
    for _ in range(n):
        draw(g)
    rules._cut = cut
    return log


def test_score_positives_are_centred_and_up_to_a_fifth_too_large():
    data = ShapesDataset(10, seed=3)
    rules = official(data, TINY)
    for _, left, top, side, row in windows(rules, rules.score_positive, 40):
        x1, y1, x2, y2 = data.instances.box[row]
        if side > 10:  # below, small windows are kept at 10 px
            size = max(x2 - x1, y2 - y1) * 128 / side
            assert 55 * 0.98 < size < 55 * 2**0.25 * 1.06  # the side is cut to whole pixels
        assert abs(left + side / 2 - ((x1 + x2) / 2 - 1)) < 1.01
        assert abs(top + side / 2 - ((y1 + y2) / 2 - 1)) < 1.01


def test_jittered_windows_keep_the_official_limits():
    data = ShapesDataset(10, seed=3)
    rules = official(data, TINY, balance="uniform", min_area=0, min_side=0)
    moves, octaves = [], []
    for _, left, top, side, row in windows(rules, rules.mask_sample, 200):
        x1, y1, x2, y2 = data.instances.box[row]
        if x2 - x1 > 40:
            octaves.append(math.log2(max(x2 - x1, y2 - y1) * 128 / side / 55))
            moves.append(max(abs(left + side / 2 - (x1 + x2) / 2), abs(top + side / 2 - (y1 + y2) / 2)) * 128 / side)
    assert 0.2 < max(map(abs, octaves)) < 0.27
    assert 16 * 0.6 * 0.9 < max(moves) < 16 * 0.6 + 2  # 16 px at 160 are 9.6 px at 96


def test_negatives_are_far_by_the_official_measure():
    data = ShapesDataset(10, seed=3)
    rules, points = official(data, TINY), []
    far = rules._far_point
    rules._far_point = lambda g, scales, h, w: points.append((scales, far(g, scales, h, w))) or points[-1][1]
    for _, _, _, _, row in windows(rules, rules.score_negative, 60):
        assert row is None
    assert len(points) == 60
    for scales, (k, x, y) in points:
        for other, centres in scales.items():
            if abs(other - k) <= 10:
                assert all(math.hypot(x - cx, y - cy) >= 48 * 0.6 for cx, cy, _ in centres)


def test_no_free_point_is_not_an_endless_search():
    rules = official(Boxes((40, 40, [(10, 10, 30, 30, 0, False)])))
    rules.shift, rules.centres[0] = 1e9, {k: [(0, 0, 0)] for k in range(-30, 30)}  # nothing is far enough
    g = Counting()
    assert rules.score_negative(g).category == -1
    assert g.count == 1 + 3 * official_patches.TRIES


def test_categories_of_crowds_alone_are_left_out():
    """The official code would draw such a category again and again."""
    data = Boxes((90, 90, [(0, 0, 80, 80, 0, True), (20, 20, 60, 60, 1, False)]))
    batch = OfficialSampler(data, TINY, positives=20, negatives=2).batch(0)
    assert set(batch.categories[:20].tolist()) == {1}


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no object to learn from"):
        OfficialSampler(Boxes((90, 90, [])), TINY, positives=1, negatives=1)
    with pytest.raises(ValueError, match="no object in 1 pictures; score samples are drawn around objects"):
        official(Boxes((90, 90, [(20, 20, 20, 60, 0, False)])), TINY, min_area=0, min_side=0)


@pytest.mark.parametrize("h, w", [(1, 1), (3, 40)])
def test_small_pictures(h, w):
    data = Boxes((h, w, [(0, 0, w, h, 0, False)]))
    sampler = OfficialSampler(data, TINY, positives=4, negatives=4, min_area=0, min_side=0)
    assert all(sampler.batch(step).images.isfinite().all() for step in range(4))


def test_even_steps_hold_mask_samples_and_odd_ones_score_samples():
    sampler = OfficialSampler(ShapesDataset(10, seed=3), TINY, positives=6, negatives=3)
    for step, method in ((0, "mask_sample"), (1, "score_positive")):
        calls, draw = [], getattr(sampler, method)
        setattr(sampler, method, lambda g, calls=calls, draw=draw: calls.append(1) or draw(g))
        batch = sampler.batch(step)
        assert len(calls) == 6
        assert batch.labels.tolist() == [1] * 6 + [-1] * 3
        assert batch.masks[:6].flatten(1).any(1).all()
        assert not batch.masks[6:].any()
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_the_official_recipe_trains():
    recipe = RECIPES["deepmask"]["official"]
    short = replace(recipe, model="deepmask_tiny", positives=4, negatives=4, fit=replace(recipe.fit, steps=2, log_every=1))
    _, history = train_deepmask(ShapesDataset(6), recipe=short, progress=False, sampler=OfficialSampler)
    assert history.finished
    assert len(history["loss"]) == 2
    with pytest.raises(InputError, match="the recipe's rules are 'official', but PatchSampler follows 'paper'"):
        train_deepmask(ShapesDataset(6), recipe=short, progress=False)
