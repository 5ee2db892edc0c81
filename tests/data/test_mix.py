"""Several sets in one training: drawn by weight, joined by name, and silent about what a set was not searched for."""

import numpy as np
import pytest

from fairseg_lite.data.mix import Mix
from fairseg_lite.data.patches import FAR, PatchSampler, PatchSpec
from fairseg_lite.data.scenes import Scene, image_ids, tabulate
from fairseg_lite.errors import InputError

SPEC = PatchSpec(patch_size=96, context=32, object_size=55, target_size=96)


class Set:
    """Pictures of one grey level with one square each; categories as given, drawn in turn."""

    def __init__(self, grey, count, categories=("cat",), ids=None, square=(40, 40, 60, 60), empty=0):
        self.categories, self.category_ids = tuple(categories), tuple(ids or range(1, len(categories) + 1))
        self.scenes = []
        for key in range(count + empty):
            x1, y1, x2, y2 = square
            masks = np.zeros((int(key < count), 200, 240), bool)
            masks[:, y1:y2, x1:x2] = True
            labels, crowd = np.full(len(masks), key % len(categories)), np.zeros(len(masks), bool)
            image = np.full((200, 240, 3), grey, np.uint8)
            self.scenes.append(Scene(image, masks, labels, crowd, key + 5, f"{key}.png", np.arange(len(masks))))
        self.instances = tabulate(self.scenes)

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def windows(sampler, steps):
    """(set, window, whether of an object) of every patch drawn."""
    found, cut = [], sampler._cut

    def spy(scene, window, instance):
        found.append((sampler.mix.set_of(scene.image_id - 1), window, instance is not None))
        return cut(scene, window, instance)

    sampler._cut = spy
    for step in range(steps):
        sampler.batch(step)
    return found


def test_categories_are_joined_by_name_and_pictures_numbered_anew():
    mix = Mix([Set(10, 3, ("cat", "dog")), Set(20, 2, ("dog", "cow"))])
    assert mix.categories == ("cat", "dog", "cow") and mix.category_ids == (1, 2, 3)
    assert [mix[i].image_id for i in range(5)] == image_ids(mix) == [1, 2, 3, 4, 5]
    names = [mix.categories[label] for i in range(5) for label in mix[i].labels]
    assert names == [mix.categories[label] for label in mix.instances.label] == ["cat", "dog", "cat", "dog", "cow"]
    assert mix.instances.image.tolist() == [0, 1, 2, 3, 4] and mix.shares.tolist() == [0.6, 0.4]


def test_ids_are_kept_where_the_sets_agree():
    assert Mix([Set(0, 1, ("cat",), [17]), Set(0, 1, ("cat", "dog"), [17, 18])]).category_ids == (17, 18)
    assert Mix([Set(0, 1, ("cat",), [17]), Set(0, 1, ("dog",), [17])]).category_ids == (1, 2)
    assert Mix([Set(0, 1, ("cat",), [17]), Set(0, 1, ("cat",), [18])]).category_ids == (1,)


def test_sets_are_drawn_by_weight_then_by_category():
    rare = Set(20, 10, ("dog",) * 1 + ("cow",))
    sampler = PatchSampler(Mix([Set(10, 50), rare], weights=[1, 3]), SPEC, positives=40, negatives=40)
    found = windows(sampler, 10)
    for positive in (True, False):
        share = np.mean([n for n, _, of_object in found if of_object == positive])
        assert abs(share - 0.75) < 0.08, share


def test_where_not_all_is_annotated_negatives_lie_near_known_objects():
    part = Set(20, 3, square=(100, 100, 120, 120), empty=5)
    sampler = PatchSampler(Mix([Set(10, 3), part], weights=[1, 1], exhaustive=["all", ()]), SPEC, positives=1, negatives=60)
    negatives = [(n, w) for n, w, of_object in windows(sampler, 8) if not of_object]
    reach = [max(abs(w.x - 110), abs(w.y - 110)) * w.scale / SPEC.patch_size / FAR for n, w in negatives if n == 1]
    assert len(reach) > 100 and max(reach) <= 2 + 1e-6
    whole = [max(abs(w.x - 50), abs(w.y - 50)) * w.scale / SPEC.patch_size / FAR for n, w in negatives if n == 0]
    assert max(whole) > 3, "a set that annotates everything gives negatives from anywhere"


def test_one_set_in_a_mix_gives_the_batches_of_the_set():
    data = Set(10, 4, ("cat", "dog"))
    alone, mixed = (PatchSampler(d, SPEC, positives=3, negatives=3).batch(5) for d in (data, Mix([data])))
    assert (alone.images == mixed.images).all() and (alone.masks == mixed.masks).all()


@pytest.mark.parametrize(
    "sets, options, words",
    [
        ([], {}, "0 data sets"),
        ([Set(0, 1)], {"weights": [1, 2]}, "2 weights"),
        ([Set(0, 1), Set(0, 0)], {}, "data set 2 holds no picture"),
        ([Set(0, 1)], {"weights": [0]}, "must be above 0"),
        (
            [Set(0, 1)],
            {"exhaustive": [["cat", "bat"]]},
            "claims to annotate 'bat' exhaustively, .* it has cat",
        ),
        ([Set(0, 1), Set(0, 1, ("Cat",))], {}, "'cat' and 'Cat'; write it alike"),
        ([Set(0, 1, ("t shirt",)), Set(0, 1, ("tshirt",))], {}, "write it alike"),
    ],
)
def test_what_does_not_fit_together_is_named(sets, options, words):
    with pytest.raises(InputError, match=words):
        Mix(sets, **options)
