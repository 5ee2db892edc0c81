"""The third stage: what a run keeps, how it goes on, what it refuses; and that the network learns."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image

from fairseg_lite.data.coco import CocoDataset, write_coco_folder
from fairseg_lite.data.results import Boxes, load_boxes, save_boxes
from fairseg_lite.data.rois import RoiSampler
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models.checkpoints import MODELS, load_model, load_tensors
from fairseg_lite.models.losses import multipath_loss, searched
from fairseg_lite.models.multipathnet import MultiPathNet, MultiPathOutput, multipathnet_tiny
from fairseg_lite.training import detector as proposing
from fairseg_lite.training.detector import build_multipathnet, delta_statistics, multipath_step, renamed, train_multipathnet
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
    for change, said in (
        ({"rois": 24}, "with rois 16, and now it is 24; resume=.changed. .* takes other numbers: leave it as it was, or choose"),
        (
            {"options": {**SMALL, "width": 24}},
            "with options .*'width': 16.*, and now it is .*; that is settled when a run begins",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            train_multipathnet(
                scenes, boxes, recipe=quick(**change), out=tmp_path / "parts", resume=True, progress=False
            )  # fmt: skip
    few = {k: v for k, v in boxes.items() if k < 4}
    with pytest.raises(ValueError, match="with data 'ShapesDataset, 4 pictures', and now it is 'ShapesDataset, 3 pictures'"):
        train_multipathnet(ShapesDataset(3), few, recipe=quick(), out=tmp_path / "parts", resume=True, progress=False)
    again = replace(quick(rois=24), fit=replace(quick().fit, steps=5))
    assert train_multipathnet(scenes, boxes, recipe=again, out=tmp_path / "parts", resume="changed", progress=False)[1].finished
    other = Rectangles(*[(64, 64, [(5, 5, 40, 40, 0, False)])] * 9)
    with pytest.raises(ValueError, match="began with categories square, triangle, .*, and now it is a, b; that is settled"):
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


def test_background_is_compared_with_what_was_looked_for_and_an_object_with_all_names():
    output = MultiPathOutput(torch.randn(2, 3, 5), torch.zeros(3, 5, 4))
    labels, targets = torch.tensor([[0, 2, 0], [0, 0, 3]]), torch.zeros(3, 4)
    known = torch.tensor([[True, True, False, False, True]] * 3)
    loss = multipath_loss(searched(output, labels, known), labels, targets)
    wanted = 0.0
    for u in range(2):
        for n in range(3):
            seen = known[n] if labels[u, n] == 0 else torch.ones(5, dtype=torch.bool)
            wanted += -(output.logits[u, n].exp() / output.logits[u, n].exp()[seen].sum())[labels[u, n]].log() / 6
    assert torch.isclose(loss.classes, wanted)
    everything = multipath_loss(searched(output, labels, torch.ones(3, 5, dtype=torch.bool)), labels, targets)
    assert everything == multipath_loss(output, labels, targets)
    assert loss.classes < everything.classes


def test_other_names_keep_what_is_known():
    model = multipathnet_tiny(num_classes=2)
    model.record = replace(model.record, categories=("cat", "dog"))
    fresh = renamed(model, ("owl", "dog", "cat"))
    rois, images = torch.tensor([[0, 4.0, 4, 60, 70]]), torch.rand(1, 3, 96, 96)
    before, after = model.eval()(images, rois), fresh.eval()(images, rois)
    assert torch.allclose(after.logits[..., [0, 3, 2]], before.logits) and not torch.equal(
        after.logits[..., 1], before.logits[..., 1]
    )
    assert torch.allclose(after.deltas[:, [0, 3, 2]], before.deltas)
    assert torch.allclose(after.logits[..., 1], before.logits[..., 0] - 1), "a new name is as silent as the background, and less"
    assert torch.allclose(after.deltas[:, 1], before.deltas[:, 1:].mean(1), atol=1e-6)


def test_going_on_may_train_other_stages_and_no_other_network():
    model = multipathnet_tiny(num_classes=2)
    model.record = replace(model.record, categories=("cat", "dog"))
    held = [sum(not p.requires_grad for p in renamed(model, ("cat",), frozen=n).trunk.parameters()) for n in (0, 2)]
    assert held[0] == 0 < held[1]
    for options in ({"integral": False}, {"foveal": False}, {"skip": False}, {"width": 64}):
        with pytest.raises(InputError, match="make another network"):
            renamed(model, ("cat",), **options)


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
    path, model = tmp_path / "p.json", load_model("shapes")
    finder = Finder(monkeypatch, stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        proposing.make_proposals(model, scenes, path, progress=False)
    assert sorted(load_boxes(path)) == [1, 3], "kept; nothing was found in the second picture"
    finder = Finder(monkeypatch)
    found = proposing.make_proposals(model, scenes, path, progress=False)
    assert len(finder.looked) == 1 and sorted(found) == [1, 3, 4], "the fourth alone: the second was looked at"
    again = proposing.make_proposals(model, scenes, path, pictures=1, progress=False)
    assert sorted(again) == [1] and again[1].boxes[0].tolist() == pytest.approx([1, 2, 30.3, 40], abs=1e-4)
    assert len(finder.looked) == 1 and sorted(load_boxes(path)) == [1, 3, 4], "others are kept"


def test_proposals_are_of_their_network_and_their_pictures(monkeypatch, tmp_path, capsys):
    path, model, data = tmp_path / "p.json", load_model("shapes"), tmp_path / "data"
    write_coco_folder(ShapesDataset(3, seed=5), data, progress=False)

    def looked(model, **options):
        finder = Finder(monkeypatch)
        finder.looked += [0, 0]  # something is found in every picture
        proposing.make_proposals(model, CocoDataset(data), path, progress=False, **options)
        return len(finder.looked) - 2, capsys.readouterr().err

    assert looked(model) == (3, "") and looked(model) == (0, "")
    named = looked(model, top_k=7)
    assert (
        named[0] == 3 and "p.json: proposals of another network, or of another number, are there; they are made anew" in named[1]
    )
    assert looked(model, top_k=7) == (0, "")
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert looked(model, top_k=7)[0] == 3 and looked(model, top_k=7) == (0, "")
    model.record = replace(model.record, pixels=replace(model.record.pixels, order="BGR"))
    assert looked(model, top_k=7)[0] == 3
    pictures = sorted((data / "images").iterdir())
    Image.open(pictures[1]).rotate(180).save(pictures[1])
    changed = looked(model, top_k=7)
    assert changed[0] == 1 and "p.json: 1 pictures are not what they were; their proposals are made anew" in changed[1]
    content = json.loads((data / "instances.json").read_text("utf-8"))
    for image in content["images"]:
        image["file_name"] = pictures[2 - pictures.index(data / "images" / image["file_name"])].name
    (data / "instances.json").write_text(json.dumps(content), "utf-8")
    assert looked(model, top_k=7)[0] == 2, "the first and the third changed places"
    save_boxes(path, load_boxes(path))
    assert looked(model, top_k=7)[0] == 3, "a file that does not say what it was made of"


def test_real_proposals_of_a_real_network(tmp_path):
    data = ShapesDataset(1)
    found = proposing.make_proposals(load_model("shapes"), data, tmp_path / "p.json", top_k=20, progress=False)
    assert len(found[1].boxes) == 20 and (found[1].scores[:-1] >= found[1].scores[1:]).all()
