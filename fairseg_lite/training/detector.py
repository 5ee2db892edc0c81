"""The third stage: MultiPathNet on the proposals of the first two.

    boxes = make_proposals(load_model("shapes-sharp"), dataset, "proposals.json")
    train_multipathnet(dataset, boxes, recipe=RECIPES["multipathnet"]["shapes"], out="runs/named")

Every step takes a few pictures and some dozens of RoIs of each (`data/rois.py`); the trunk sees each picture once.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fairseg_lite.data.results import Boxes, load_boxes, made_of, save_boxes
from fairseg_lite.data.rois import RoiBatch, RoiSampler, assign, pictures_of
from fairseg_lite.data.scenes import SceneDataset, cached, described, image_ids, picture_key
from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.geometry.boxes import encode_boxes
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.checkpoints import MODELS, model_key
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.losses import multipath_loss, searched
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.network import seeded
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.training.fit import History
from fairseg_lite.training.recipes import MultiPathRecipe
from fairseg_lite.training.shards import collected, dealt, first_of, rank_and_world
from fairseg_lite.training.stages import begun, finished, named

SAVE_EVERY = 100  # pictures
USUAL_STD = (0.1, 0.1, 0.2, 0.2)  # of box deltas, where the data cannot tell (Fast R-CNN's constants)


def make_proposals(
    model: DeepMask | SharpMask, dataset: SceneDataset, path: str | Path, *, pictures: int | None = None, top_k: int = 200,
    dtype: torch.dtype | None = None, progress: bool = True,
) -> dict[int, Boxes]:  # fmt: skip
    """Boxes of a network's best masks, for the first pictures of a data set.

    Args:
        model: finds the objects. dataset: scenes.
        path: JSON file they are kept in, with hashes of the network and of every picture. Pictures that are in it already are
            not looked at again, so a call that was interrupted goes on; after a change of the network (its weights or record)
            or of top_k all, and after a change of pictures those, are made anew, which is said on stderr.
        pictures: look at so many of the first; None: at all. top_k: proposals of each at most.
        dtype: to compute in; default the model's. progress: show a bar when it takes more than 2 s.
    Returns: Boxes by picture id, those of this data set's first pictures only.
    Raises: InputError, no proposal in any picture, or a file that is damaged or cannot be written.
    Lesson: 08.
    """
    path, ids = Path(path), image_ids(dataset)[:pictures]
    made = {"network": model_key(model), "top_k": top_k}
    bar = tqdm(ids, desc="looking for changes", unit="picture", disable=not progress, delay=2, leave=False)
    keys = {key: picture_key(dataset, i) for i, key in enumerate(bar)}
    found, looked = first_of(lambda: _kept(path, made, keys))
    missing = [i for i, key in enumerate(ids) if key not in looked]
    fast, (rank, world) = prepare(model, dtype=dtype) if missing else model, rank_and_world()
    bar = tqdm(total=len(missing), desc="proposals", unit="picture", disable=not progress or rank > 0, delay=2)
    for start in range(0, len(missing), SAVE_EVERY * world):
        own: list[tuple[int, Boxes]] = []
        try:
            for i in dealt(missing[start : start + SAVE_EVERY * world]):
                masks = propose(fast, dataset[i].image, top_k=top_k)
                own.append((ids[i], Boxes(masks.boxes, masks.scores)))
                bar.update(world)
        finally:
            new = collected(own)
            looked |= {key: keys[key] for key, _ in new}
            found |= {key: boxes for key, boxes in new if len(boxes.boxes)}
            if new and found:
                save_boxes(path, found, {**made, "pictures": looked})
    bar.close()

    def kept() -> dict[int, Boxes]:
        if not found:
            raise InputError(f"{type(model).__name__} found nothing in {len(ids)} pictures; train it longer, or take another")
        there = load_boxes(path)  # as rounded in the file: the same at every call
        return {key: there[key] for key in ids if key in there}

    return first_of(kept)


def _kept(path: Path, made: dict, keys: Mapping[int, str]) -> tuple[dict[int, Boxes], dict[int, str]]:
    """Boxes in a file that are still right, and the keys of the pictures that were looked at for them; says what is not."""
    if not path.exists():
        return {}, {}
    before = made_of(path)
    if any(before.get(k) != v for k, v in made.items()):
        print(f"{path}: proposals of another network, or of another number, are there; they are made anew", file=sys.stderr)
        return {}, {}
    looked = {int(k): v for k, v in before["pictures"].items()}
    changed = {k for k, v in looked.items() if keys.get(k, v) != v}
    if changed:
        print(f"{path}: {len(changed)} pictures are not what they were; their proposals are made anew", file=sys.stderr)
    return {k: v for k, v in load_boxes(path).items() if k not in changed}, {k: v for k, v in looked.items() if k not in changed}


def delta_statistics(
    dataset: SceneDataset, boxes: Mapping[int, Boxes], images: int = 1000, *, threshold: float = 0.5, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the box deltas of foreground RoIs, over pictures that have proposals.

    Args:
        dataset, boxes: as for `RoiSampler`.
        images: pictures to look at, as far apart as they can be.
        threshold: IoU from which a RoI is foreground.
        progress: show a bar when it takes more than 2 s.
    Returns: (4,) and (4,) float32, of dx, dy, dw, dh. Where all deltas are the same, the deviation is Fast R-CNN's constant.
    Raises: InputError, no object in these pictures, so nothing to learn; or as `RoiSampler`.
    Source: official `data.lua` (there the first 1000 pictures). Lesson: 08.
    """
    indices = pictures_of(dataset, boxes)
    indices = indices[:: -(-len(indices) // images)]
    deltas = [torch.zeros(0, 4)]
    for index in tqdm(indices, desc="box statistics", unit="picture", disable=not progress, delay=2, leave=False):
        scene = dataset[index]
        found = assign(scene, boxes[scene.image_id].boxes)
        fg = found.ious >= threshold
        deltas.append(encode_boxes(found.boxes[fg], found.truth[fg]))
    all_deltas = torch.cat(deltas).double()
    if len(all_deltas) == 0:
        raise InputError(f"no object to learn from in the {len(indices)} pictures looked at; use pictures with annotations")
    mean, std = all_deltas.mean(0).float(), all_deltas.std(0, correction=0).float()
    return mean, torch.where(std > 1e-3, std, torch.tensor(USUAL_STD))


def multipath_step(recipe: MultiPathRecipe) -> Callable[[MultiPathNet, RoiBatch, int], dict[str, Tensor]]:
    """The step function for `fit`: box targets are normalised by the network's own mean and deviation."""

    def step_loss(model: MultiPathNet, batch: RoiBatch, step: int) -> dict[str, Tensor]:
        output = model(batch.images, batch.rois)
        targets = (batch.targets - model.delta_mean) / model.delta_std
        output = searched(output, batch.labels, batch.known)
        loss = multipath_loss(output, batch.labels, targets, box_weight=recipe.box_weight)
        return {"loss": loss.total, "classes": loss.classes, "boxes": loss.boxes}

    return step_loss


def build_multipathnet(
    recipe: MultiPathRecipe, num_classes: int, *, trunk_from: DeepMask | None = None, trunk_weights: str | Path | None = None
) -> MultiPathNet:
    """A fresh network of a recipe.

    Args:
        recipe: its model and options count, and the seed of its fit. num_classes: categories, the background not counted.
        trunk_from: a DeepMask whose trunk it begins with (tiny, lite0). trunk_weights: ImageNet weights (all but tiny).
    Raises: InputError, an unknown model, or weights it has no use for.
    """
    check_choice("model", recipe.model, [name for name in MODELS if name.startswith("multipathnet")])
    given, takes = {"trunk_from": trunk_from, "trunk_weights": trunk_weights}, signature(MODELS[recipe.model]).parameters
    for what in given:
        if given[what] is not None and what not in takes:
            instead = "trunk_weights" if what == "trunk_from" else "trunk_from"
            raise InputError(f"{recipe.model} takes no {what}; give {instead}, or choose another model")
    kwargs = {"num_classes": num_classes, **recipe.options, **{k: v for k, v in given.items() if v is not None}}
    if recipe.model == "multipathnet_tiny":  # a trunk that begins with random numbers needs batch norm
        kwargs = {"norm": "batch" if trunk_from is None else "frozen", **kwargs}
    with seeded(recipe.fit.seed):
        return MODELS[recipe.model](**kwargs)


def renamed(model: MultiPathNet, categories: Sequence[str], **options: Any) -> MultiPathNet:
    """A network for other categories, with the weights of one: what it knew by the same name it still knows.

    Args:
        model: a trained one. categories: the new ones, K.
        options: of its kind, where they shall be others and the weights stay of their shapes, such as frozen.
    Returns: A network of the same kind. A new name begins as background, one logit lower; its boxes as the mean of the old.
    Raises: InputError, its record does not say how it was built, or options that ask for other weights.
    """
    old = list(model.record.categories)
    with seeded(0):  # no number of it stays, and the caller's random numbers are not moved
        fresh = MODELS[model.record.model](**{**model.record.kwargs, **options, "num_classes": len(categories)})
    state, mine = model.state_dict(), fresh.state_dict()
    if {k: v.shape[1:] for k, v in state.items()} != {k: v.shape[1:] for k, v in mine.items()}:
        raise InputError(f"options {options} make another network than the one to go on with; leave out those that do, or --from")
    for key, value in state.items():
        if key.startswith(("classes.", "boxes.")):
            known, begin = (t.unflatten(0, (n + 1, -1)) for t, n in ((value, len(old)), (mine[key], len(categories))))
            other = known[1:].mean(0) if key.startswith("boxes.") else known[0] - float(key.endswith("bias"))
            value = by_name(known, other.expand_as(begin), old, categories).flatten(0, 1)
        mine[key] = value
    fresh.load_state_dict(mine)
    return fresh


def by_name(known: Tensor, begin: Tensor, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """The rows of a classifier for other categories: of a name that was known its own, of another what it begins with.
    Args: known: (1 + len(old), ...), the background's row first. begin: (1 + len(new), ...). Lesson: 13.
    Example:
        >>> by_name(torch.tensor([1, 2, 3]), torch.tensor([0, 8, 9]), ["cat", "dog"], ["dog", "fox"]).tolist()
        [1, 3, 9]
    """
    rows = begin.clone()
    rows[0] = known[0]  # the background is known, too
    for row, name in enumerate(new, 1):
        rows[row] = known[1 + list(old).index(name)] if name in old else begin[row]
    return rows


def train_multipathnet(
    dataset: SceneDataset, boxes: Mapping[int, Boxes], *, recipe: MultiPathRecipe, model: MultiPathNet | None = None,
    out: str | Path | None = None, trunk_from: DeepMask | None = None, trunk_weights: str | Path | None = None,
    proposals: str = "", about: dict | None = None, device: torch.device | str = "cpu", resume: bool | str = False,
    progress: bool = True,
) -> tuple[MultiPathNet, History]:  # fmt: skip
    """Train MultiPathNet on any data set and any proposals.

    Args:
        dataset: scenes; of their masks only the boxes are used.
        boxes: proposals by picture id (`load_boxes`, `make_proposals`); pictures that are not in it are not used.
        model: a network to go on with, `renamed` to the data's categories; otherwise the recipe's is built.
        proposals: what made the boxes, for the record: a shipped network's name, a checkpoint or a file of results.
        trunk_from, trunk_weights: as for `build_multipathnet`. recipe, out, about, device, resume, progress: as for `trained`.
    Returns: The network in evaluation mode, and its history. Its record's `about["dropped"]` says how many proposals of the
        pictures seen were left out, and why.
    Raises: InputError, no category, no object, proposals of other pictures, or from `fit` and the disk.
    Source: MultiPath section 4.1. Lesson: 08.
    """
    if not dataset.categories:
        raise InputError("the data set has no category; MultiPathNet needs at least one to name")
    categories: dict[str, Any] = named(dataset)
    fresh = model and renamed(model, dataset.categories, **recipe.options)
    model = begun(recipe, out, resume, data=described(dataset), **categories) or fresh
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
    where: dict[str, Any] = {"out": out, "resume": resume, "progress": progress}
    return model, finished(model, sampler, multipath_step(recipe), recipe, names=categories, **where)
