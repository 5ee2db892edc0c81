"""The third stage: MultiPathNet on the proposals of the first two.

    boxes = make_proposals(load_model("shapes-sharp"), dataset, "proposals.json")
    train_multipathnet(dataset, boxes, recipe=RECIPES["multipathnet"]["shapes"], out="runs/named")

Every step takes a few pictures and some dozens of RoIs of each (`data/rois.py`); the trunk sees each picture once.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fairseg_lite.data.results import Boxes, load_boxes, save_boxes
from fairseg_lite.data.rois import RoiBatch, RoiSampler, delta_statistics
from fairseg_lite.data.scenes import SceneDataset, cached, described, image_ids
from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.losses import multipath_loss
from fairseg_lite.models.multipathnet import MODELS, MultiPathNet
from fairseg_lite.models.network import seeded
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.training.fit import History
from fairseg_lite.training.recipes import MultiPathRecipe
from fairseg_lite.training.stages import begun, finished

SAVE_EVERY = 100  # pictures


def make_proposals(
    model: DeepMask | SharpMask,
    dataset: SceneDataset,
    path: str | Path,
    *,
    pictures: int | None = None,
    top_k: int = 200,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> dict[int, Boxes]:
    """Boxes of a network's best masks, for the first pictures of a data set.

    Args:
        model: finds the objects. dataset: scenes.
        path: JSON file they are kept in; pictures that are in it already are not looked at again, so a call that was
            interrupted goes on. Another network or top_k wants another file.
        pictures: look at so many of the first; None: at all. top_k: proposals of each at most.
        dtype: to compute in; default the model's. progress: show a bar when it takes more than 2 s.
    Returns:
        Boxes by picture id, those of this data set's first pictures only.
    Raises:
        InputError: no proposal in any picture, or a file that is damaged or cannot be written.
    Lesson: 08.
    """
    path, ids = Path(path), image_ids(dataset)[:pictures]
    found = load_boxes(path) if path.exists() else {}
    missing = [i for i, key in enumerate(ids) if key not in found]
    fast = prepare(model, dtype=dtype) if missing else model
    since = 0
    try:
        for i in tqdm(missing, desc="proposals", unit="picture", disable=not progress, delay=2):
            masks = propose(fast, dataset[i].image, top_k=top_k)
            if len(masks):
                found[ids[i]] = Boxes(masks.boxes, masks.scores)
                since += 1
            if since >= SAVE_EVERY:
                save_boxes(path, found)
                since = 0
    finally:
        if since:
            save_boxes(path, found)
    if not found:
        raise InputError(f"{type(model).__name__} found nothing in {len(ids)} pictures; train it longer, or take another")
    found = load_boxes(path)  # as rounded in the file: the same at every call
    return {key: found[key] for key in ids if key in found}


def multipath_step(recipe: MultiPathRecipe) -> Callable[[MultiPathNet, RoiBatch, int], dict[str, Tensor]]:
    """The step function for `fit`: box targets are normalised by the network's own mean and deviation."""

    def step_loss(model: MultiPathNet, batch: RoiBatch, step: int) -> dict[str, Tensor]:
        output = model(batch.images, batch.rois)
        targets = (batch.targets - model.delta_mean) / model.delta_std
        loss = multipath_loss(output, batch.labels, targets, box_weight=recipe.box_weight)
        return {"loss": loss.total, "classes": loss.classes, "boxes": loss.boxes}

    return step_loss


def build_multipathnet(
    recipe: MultiPathRecipe,
    num_classes: int,
    *,
    trunk_from: DeepMask | None = None,
    trunk_weights: str | Path | None = None,
) -> MultiPathNet:
    """A fresh network of a recipe.

    Args:
        recipe: its model and options count, and the seed of its fit. num_classes: categories, the background not counted.
        trunk_from: a tiny DeepMask to begin from (tiny only). trunk_weights: ImageNet weights (all but tiny).
    Raises:
        InputError: an unknown model, or weights it has no use for.
    """
    check_choice("model", recipe.model, MODELS)
    tiny = recipe.model == "multipathnet_tiny"
    if (trunk_weights if tiny else trunk_from) is not None:
        what, instead = ("trunk_weights", "trunk_from") if tiny else ("trunk_from", "trunk_weights")
        raise InputError(f"{recipe.model} takes no {what}; give {instead}, or choose another model")
    kwargs = {"num_classes": num_classes, **recipe.options}
    if tiny:  # a trunk that begins with random numbers needs batch norm
        kwargs = {"norm": "batch" if trunk_from is None else "frozen", **kwargs, "trunk_from": trunk_from}
    elif trunk_weights is not None:
        kwargs["trunk_weights"] = trunk_weights
    with seeded(recipe.fit.seed):
        return MODELS[recipe.model](**kwargs)


def train_multipathnet(
    dataset: SceneDataset,
    boxes: Mapping[int, Boxes],
    *,
    recipe: MultiPathRecipe,
    out: str | Path | None = None,
    trunk_from: DeepMask | None = None,
    trunk_weights: str | Path | None = None,
    proposals: str = "",
    about: dict | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    progress: bool = True,
) -> tuple[MultiPathNet, History]:
    """Train MultiPathNet on any data set and any proposals.

    Args:
        dataset: scenes; of their masks only the boxes are used.
        boxes: proposals by picture id (`load_boxes`, `make_proposals`); pictures that are not in it are not used.
        proposals: what made the boxes, for the record: a shipped network's name, a checkpoint or a file of results.
        trunk_from, trunk_weights: as for `build_multipathnet`. recipe, out, about, device, resume, progress: as for `trained`.
    Returns:
        The network in evaluation mode, and its history. Its record's `about["dropped"]` says how many proposals of the pictures
        seen were left out, and why.
    Raises:
        InputError: no category, no object, proposals of other pictures, or from `fit` and the disk.
    Source: MultiPath section 4.1. Lesson: 08.
    """
    if not dataset.categories:
        raise InputError("the data set has no category; MultiPathNet needs at least one to name")
    categories: dict[str, Any] = {
        "categories": tuple(dataset.categories),
        "category_ids": tuple(int(k) for k in dataset.category_ids),
    }
    model: MultiPathNet | None = begun(recipe, out, resume, **categories)
    going_on = model is not None
    model = model or build_multipathnet(recipe, len(dataset.categories), trunk_from=trunk_from, trunk_weights=trunk_weights)
    scenes = cached(dataset, recipe.cache * 2**20)
    names = ("images", "rois", "fg_fraction", "background", "top", "flip", "short_side", "max_side", "colour", "untied")
    numbers = {name: getattr(recipe, name) for name in names}
    sampler = RoiSampler(scenes, boxes, thresholds=model.thresholds, seed=recipe.fit.seed, pixels=model.record.pixels, **numbers)
    if not going_on:
        mean, std = delta_statistics(scenes, boxes, recipe.statistics, threshold=model.thresholds[0], progress=progress)
        model.delta_mean.copy_(mean)
        model.delta_std.copy_(std)
    model.record = replace(
        model.record,
        short_side=None if recipe.short_side is None else sum(recipe.short_side) // 2,
        max_side=recipe.max_side,
        data=described(dataset),
        proposals=proposals,
        recipe=asdict(recipe),
        about=about or {},
        **categories,
    )
    model.to(device)
    return model, finished(model, sampler, multipath_step(recipe), recipe, out=out, resume=resume, progress=progress)
