"""The third stage: what a run keeps, how it goes on, what it refuses; and that the network learns."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from fairseg_lite.data.results import Boxes, load_boxes
from fairseg_lite.data.rois import RoiSampler, delta_statistics
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.models.checkpoints import load_model, load_tensors
from fairseg_lite.models.multipathnet import MODELS, MultiPathNet
from fairseg_lite.training import detector as proposing
from fairseg_lite.training.detector import build_multipathnet, multipath_step, train_multipathnet
from fairseg_lite.training.recipes import RECIPES, MultiPathRecipe
from tests.data.test_patches import Boxes as Rectangles
from tests.data.test_rois import around, proposals

RECIPES = RECIPES["multipathnet"]
LESSON = RECIPES["lesson"]
SMALL = {"foveal": False, "skip": False, "integral": 2, "width": 16}


def quick(recipe=LESSON, steps=2, **changes):
    fit = replace(recipe.fit, steps=steps, warmup=0, precision="fp32", log_every=1, save_every=1)
    return replace(recipe, **{"options": SMALL, "images": 1, "rois": 16, **changes}, fit=fit)


@pytest.fixture(scope="module")
def scenes():
    return ShapesDataset(4, seed=0)


@pytest.fixture(scope="module")
def boxes(scenes):
    return around(scenes, copies=5)


def test_a_run_can_be_loaded_and_knows_its_categories(scenes, boxes, tmp_path):
    start = load_model("shapes")
    model, history = train_multipathnet(
        scenes, boxes, recipe=quick(), out=tmp_path / "run", trunk_from=start, progress=False
    )  # fmt: skip
    assert history.finished and history["step"] == [1, 2]
    assert history["loss"] == pytest.approx([c + b for c, b in zip(history["classes"], history["boxes"], strict=True)])
    back = load_model(tmp_path / "run/model.safetensors", kind="MultiPathNet")
    assert isinstance(back, MultiPathNet) and not back.training
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())
    assert back.record.categories == scenes.categories and back.record.category_ids == tuple(range(1, 10))
    assert back.thresholds == (0.5, 0.55) and back.num_classes == 9
    mean, std = delta_statistics(scenes, boxes)
    assert torch.equal(back.delta_mean, mean) and torch.equal(back.delta_std, std) and (std > 0.02).all()
    with pytest.raises(ValueError, match="holds a multipathnet_tiny, wanted a DeepMask"):
        load_model(tmp_path / "run/model.safetensors", kind="DeepMask")
    with pytest.raises(ValueError, match="wanted a MultiPathNet .*make one with train multipathnet"):
        load_model("shapes", kind="MultiPathNet")


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(scenes, boxes, tmp_path):
    def run(out, steps, **more):
        recipe = quick(steps=4)
        recipe = replace(recipe, fit=replace(recipe.fit, schedule="constant", steps=steps))
        return train_multipathnet(scenes, boxes, recipe=recipe, out=tmp_path / out, progress=False, **more)[1]

    whole = run("whole", 4, trunk_from=load_model("shapes"))
    run("parts", 2, trunk_from=load_model("shapes"))
    parts = run("parts", 4, resume=True)  # the trunk comes with the run
    assert parts["loss"] == whole["loss"]
    a, b = (load_tensors(tmp_path / f"{name}/model.safetensors")[0] for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ValueError, match="holds a run already"):
        run("parts", 5)
    other = Rectangles(*[(64, 64, [(5, 5, 40, 40, 0, False)])] * 9)
    with pytest.raises(ValueError, match="began with categories 'square', and now it is"):
        train_multipathnet(other, {0: proposals()}, recipe=quick(), out=tmp_path / "parts", resume=True, progress=False)


def test_the_loss_falls(scenes, boxes):
    recipe = quick(steps=30, images=2, rois=32)
    _, history = train_multipathnet(scenes, boxes, recipe=recipe, trunk_from=load_model("shapes"), progress=False)
    first, last = (sum(history["loss"][k] for k in part) / 5 for part in (range(5), range(-5, 0)))
    assert last < 0.75 * first


def test_box_targets_are_normalised_for_the_loss(scenes, boxes):
    model = build_multipathnet(quick(), 9)
    sampler = RoiSampler(scenes, boxes, thresholds=model.thresholds, images=1)
    batch = sampler.batch(0)
    loss = multipath_step(quick())(model, batch, 0)["boxes"]
    model.delta_mean += 1.0  # another origin: other targets
    assert not torch.isclose(multipath_step(quick())(model, batch, 0)["boxes"], loss, rtol=0.05)
    model.delta_mean -= 1.0
    exact = (batch.targets - model.delta_mean) / model.delta_std

    def perfect(images, rois):
        logits = torch.full((2, len(rois), 10), 0.0)
        return type(model(images, rois[:1]))(logits, exact[:, None].expand(-1, 10, -1))

    model_like = type("Fake", (), {"__call__": lambda self, i, r: perfect(i, r)})()
    model_like.delta_mean, model_like.delta_std = model.delta_mean, model.delta_std
    assert multipath_step(quick())(model_like, batch, 0)["boxes"].item() == 0


@pytest.mark.parametrize(
    "data, found",
    [
        (Rectangles((64, 64, [])), {0: proposals((1, 1, 20, 20))}),  # background only
        (Rectangles((64, 64, [])), {0: proposals()}),  # nothing at all
        (Rectangles((64, 64, [(5, 5, 40, 40, 1, False)])), {0: proposals()}),  # foreground only
    ],
)
@pytest.mark.parametrize("untied", [False, True])
def test_odd_batches_have_finite_losses(data, found, untied):
    model = build_multipathnet(quick(), 2)
    recipe = quick(untied=untied)
    batch = RoiSampler(data, found, thresholds=model.thresholds, images=2, untied=untied).batch(0)
    losses = multipath_step(recipe)(model.train(), batch, 0)
    losses["loss"].backward()
    assert all(math.isfinite(v.item()) for v in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if not (batch.labels > 0).any():
        assert losses["boxes"].item() == 0


def test_pictures_without_objects_among_others(tmp_path):
    """One category whose id is 17, a picture without objects, one without proposals, boxes outside."""
    data = Rectangles((64, 64, [(5, 5, 40, 40, 0, False)]), (64, 80, []), (50, 64, [(9, 9, 30, 30, 0, False)]))
    data.categories, data.category_ids = ("thing",), (17,)
    found = {0: proposals((7, 7, 41, 41), (70, 1, 90, 9)), 1: proposals((1, 1, 30, 30)), 2: proposals()}
    model, history = train_multipathnet(
        data, found, recipe=quick(steps=4, images=3), out=tmp_path, progress=False
    )  # fmt: skip
    assert history.finished and all(math.isfinite(v) for v in history["loss"])
    back = load_model(tmp_path / "model.safetensors")
    assert (back.num_classes, back.record.category_ids, back.record.about["dropped"]) == (1, (17,), {"outside": 1})
    assert model.record.about["dropped"] == {"outside": 1}


def test_what_cannot_be_trained_is_refused(scenes, boxes):
    def run(data=scenes, found=boxes, recipe=None, **more):
        train_multipathnet(data, found, recipe=recipe or quick(), progress=False, **more)

    with pytest.raises(ValueError, match="no object to learn from in the 1 pictures"):
        run(Rectangles((64, 64, [])), {0: proposals((1, 1, 20, 20))})
    empty = Rectangles((64, 64, []))
    empty.categories, empty.category_ids = (), ()
    with pytest.raises(ValueError, match="has no category"):
        run(empty, {0: proposals()})
    with pytest.raises(ValueError, match="are of no picture"):
        run(found={99: proposals()})
    with pytest.raises(ValueError, match="model is 'resnet'; choose one of"):
        run(recipe=quick(model="resnet"))
    with pytest.raises(ValueError, match="multipathnet_tiny takes no trunk_weights"):
        run(trunk_weights="x")
    with pytest.raises(ValueError, match="multipathnet_vgg16 takes no trunk_from"):
        run(recipe=quick(model="multipathnet_vgg16"), trunk_from=load_model("shapes"))


def test_recipes_name_networks_and_official_numbers():
    assert {r.model for r in RECIPES.values()} <= set(MODELS)
    official, paper = RECIPES["official"], RECIPES["paper"]
    assert official.untied and not paper.untied
    assert (paper.images, paper.rois, paper.top, paper.fit.weight_decay) == (4, 64, 1000, 0)
    assert round(paper.rois * paper.fg_fraction) == 16
    assert MultiPathRecipe(**asdict(paper) | {"fit": paper.fit}) == paper


# --- proposals


class Finder:
    """Stands for a network: counts the pictures it looked at."""

    def __init__(self, monkeypatch, stop_at=None):
        self.looked, self.stop_at = [], stop_at
        monkeypatch.setattr(proposing, "prepare", lambda model, dtype=None: model)
        monkeypatch.setattr(proposing, "propose", self.propose)

    def propose(self, model, image, top_k):
        if len(self.looked) == self.stop_at:
            raise KeyboardInterrupt
        self.looked.append(int(image.sum()))
        n = 0 if len(self.looked) == 2 else 2
        return Found(torch.tensor([[1.0, 2, 30.26, 40], [5, 5, 9, 9]])[:n], torch.tensor([0.9, 0.4])[:n])


class Found(Boxes):
    """As long as it has boxes, like `Proposals`."""

    def __len__(self):
        return self[0].shape[0]


def test_proposals_are_made_once_and_gone_on_with(monkeypatch, tmp_path, scenes):
    path = tmp_path / "p.json"
    finder = Finder(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        proposing.make_proposals(None, scenes, path, progress=False)
    assert sorted(load_boxes(path)) == [1, 3], "kept; nothing was found in the second picture"
    finder = Finder(monkeypatch)
    found = proposing.make_proposals(None, scenes, path, progress=False)
    assert len(finder.looked) == 2 and sorted(found) == [1, 2, 3], "the second and the fourth; nothing in the fourth"
    again = proposing.make_proposals(None, scenes, path, pictures=1, progress=False)
    assert sorted(again) == [1] and again[1].boxes[0].tolist() == pytest.approx([1, 2, 30.3, 40], abs=1e-4)


def test_real_proposals_of_a_real_network(tmp_path):
    data = ShapesDataset(1)
    found = proposing.make_proposals(load_model("shapes"), data, tmp_path / "p.json", top_k=20, progress=False)
    assert len(found[1].boxes) == 20 and (found[1].scores[:-1] >= found[1].scores[1:]).all()
