"""The first two stages: DeepMask on patches, then a SharpMask on top of a DeepMask that stays as it is.

    train_deepmask(dataset, recipe=RECIPES["deepmask"]["photos"], out="runs/photos", trunk_weights="ResNet50_Weights.DEFAULT")
    deepmask = load_model("runs/photos/model.safetensors", kind="DeepMask")
    train_sharpmask(dataset, deepmask=deepmask, recipe=RECIPES["sharpmask"]["photos"], out="runs/sharp")

The paper trains in two stages, too, and found that end-to-end training added little (SharpMask section 3.2): two are faster,
and one network gives both kinds of masks. The third stage is in `detector`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairseg_lite.data.patches import PatchBatch, PatchSampler
from fairseg_lite.data.scenes import SceneDataset, described
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.patches import patch_spec
from fairseg_lite.models.checkpoints import MODELS, load_tensors, save_model
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.losses import deepmask_loss
from fairseg_lite.models.network import Network, seeded
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.training.fit import History, fit
from fairseg_lite.training.recipes import MultiPathRecipe, Recipe
from fairseg_lite.training.shards import first_of, highest, rank_and_world

# once a run has begun
SETTLED = ("model", "options", "freeze", "end_to_end", "statistics", "fit.optimizer", "fit.ema", "fit.shards")
FREE = ("fit", "fit.steps", "fit.warmup", "fit.log_every", "fit.save_every", "fit.workers", "cache")  # change nothing learnt
SHOWN = 12  # categories in a sentence


def loss_of(recipe: Recipe) -> Callable[[nn.Module, PatchBatch, int], dict[str, Tensor]]:
    """The step function for `fit`: the joint loss, or one branch at a time when the recipe alternates.

    A SharpMask whose DeepMask is frozen has the mask loss alone: its scores cannot change.
    """

    def step_loss(model: nn.Module, batch: PatchBatch, step: int) -> dict[str, Tensor]:
        only = (None, "mask", "score")[(1 + step % 2) if recipe.alternate else 0]
        if getattr(model, "frozen", False):
            only = "mask"
        output = model(batch.images)
        loss = deepmask_loss(output, batch.masks, batch.labels, score_weight=recipe.score_weight, only=only)
        return {"loss": loss.total, "mask": loss.mask, "score": loss.score}

    return step_loss


def train_deepmask(
    dataset: SceneDataset, *, recipe: Recipe, model: DeepMask | None = None, trunk_weights: str | Path | None = None, **run: Any
) -> tuple[DeepMask, History]:
    """Train DeepMask on any dataset of scenes.

    Args:
        dataset: scenes with masks (`ShapesDataset`, `CocoDataset`, `Mix`).
        model: a network to go on with; otherwise the recipe's is built.
        trunk_weights: ImageNet weights for a fresh network (`load_trunk_weights`). recipe, run: as for `trained`.
    Returns: The network in evaluation mode, and its history.
    Raises: InputError, as `trained`.
    Source: DeepMask, Joint Learning. Lesson: 03.
    """
    model = model or begun(recipe, run.get("out"), run.get("resume", False), data=described(dataset), **named(dataset))
    if model is None:
        extra = {} if trunk_weights is None else {"trunk_weights": trunk_weights}
        with seeded(recipe.fit.seed):
            model = MODELS[recipe.model](**recipe.options, **extra)
    model.trunk.freeze(recipe.freeze)
    return model, trained(model, dataset, recipe, **run)


def train_sharpmask(
    dataset: SceneDataset, *, recipe: Recipe, deepmask: DeepMask | None = None, model: SharpMask | None = None, **run: Any
) -> tuple[SharpMask, History]:
    """Train the refinement of a DeepMask.

    Args:
        dataset, model, run: as for `train_deepmask`. recipe: with `end_to_end` the DeepMask is trained, too.
        deepmask: a trained one, from `load_model`; it becomes part of the result. None where a run goes on: it comes with it.
    Returns: The network in evaluation mode, and its history.
    Raises: InputError, as `trained`; or a DeepMask that is not the one the recipe's network is built on.
    Source: SharpMask section 3.2. Lesson: 06.
    """
    if recipe.end_to_end and not recipe.negatives:
        raise InputError("end_to_end without negatives: the score would learn to say yes always; set negatives above 0")
    model = model or begun(recipe, run.get("out"), run.get("resume", False), data=described(dataset), **named(dataset))
    if model is None:
        base = recipe.model.replace("sharpmask", "deepmask")
        held = deepmask.record.model if isinstance(deepmask, DeepMask) else type(deepmask).__name__
        if held != base:
            raise InputError(
                f"recipe trains {recipe.model}, which is built on a {base}; this is a {held}: choose the other's recipe"
            )
        with seeded(recipe.fit.seed):
            model = MODELS[recipe.model](deepmask=deepmask, **recipe.options)
    model.freeze(not recipe.end_to_end)
    if recipe.end_to_end:
        model.trunk.freeze(recipe.freeze)
    return model, trained(model, dataset, recipe, **run)


def trained(
    model: DeepMask | SharpMask, dataset: SceneDataset, recipe: Recipe, *, out: str | Path | None = None,
    about: dict | None = None, device: torch.device | str = "cpu", resume: bool | str = False, progress: bool = True,
    sampler: type[PatchSampler] = PatchSampler,
) -> History:  # fmt: skip
    """Train a network that is built on patches.

    Args:
        model: changed in place. recipe: the run's numbers.
        out: folder for `state.safetensors`, `log.jsonl` and, when done, `model.safetensors`.
        about: what else the network's record is to remember. device: where to train.
        resume: go on from `out`, with the recipe and data that the run began with; "changed": with another's numbers, as far as
            a run can. progress: show a bar.
        sampler: what draws the patches; its `rules` must be the recipe's.
    Raises: InputError, the sampler follows other rules or finds no usable object; or from `fit` and the disk.
    """
    if sampler.rules != recipe.rules:
        raise InputError(f"the recipe's rules are {recipe.rules!r}, but {sampler.__name__} follows {sampler.rules!r}")
    names = ("positives", "negatives", "balance", "padding", "jitter", "min_area", "min_side", "colour", "turn", "paste")
    samples = sampler(
        dataset,
        patch_spec(model),
        seed=recipe.fit.seed,
        cache=recipe.cache * 2**20,
        pixels=model.record.pixels,
        **{name: getattr(recipe, name) for name in names},
    )
    model.record = replace(
        model.record, data=described(dataset), padding=recipe.padding, recipe=asdict(recipe), about=about or {}
    )
    where: dict[str, Any] = {"out": out, "resume": resume, "progress": progress}
    return finished(model.to(device), samples, loss_of(recipe), recipe, names=named(dataset), **where)


def named(dataset: SceneDataset) -> dict[str, tuple]:
    """The categories of a data set, by which patches are drawn and objects named; a run goes on with those it began with."""
    return {"categories": tuple(dataset.categories), "category_ids": tuple(int(k) for k in dataset.category_ids)}


def finished(
    model: Network, samples: Any, step_loss: Callable, recipe: Recipe | MultiPathRecipe, *, out, names: dict, **how: Any
) -> History:
    """`fit`, and `model.safetensors` once a run has come to its end; the network is in evaluation mode then."""
    header = {**model.record.header(), **names}
    history = fit(model.train(), samples, step_loss, recipe.fit, out=out, header=header, **how)
    model.eval()
    if hasattr(samples, "left_out"):
        highest(samples.left_out)  # each process has counted in its own pictures
    if dropped := getattr(samples, "dropped", None):  # proposals that were left out, and why
        model.record = replace(model.record, about={**model.record.about, "dropped": dict(dropped)})
    if out is not None and history.finished and rank_and_world()[0] == 0:
        save_model(Path(out) / "model.safetensors", model)
    return history


def begun(recipe: Recipe | MultiPathRecipe, out: str | Path | None, resume: bool | str, *, data: str, **record: tuple) -> Any:
    """The network that a run in a folder began with, before its weights are loaded; None where no run is to go on.

    Args:
        recipe, out, resume: as for `trained`. data: the training data in words, as in the record.
        record: what else must be the same, such as categories.
    Raises: InputError, it began with something else: with numbers that are `SETTLED` then; unless resume is "changed" with any
        but the `FREE` ones.
    """
    state = Path(out or "") / "state.safetensors"
    header = first_of(lambda: load_tensors(state)[1] if resume and out is not None and state.exists() else None)
    if header is None:
        return None
    before = {**header, **_flat(header.get("recipe", {}))}
    now = _flat(json.loads(json.dumps({**record, **asdict(recipe), "data": data})))  # tuples become lists, as they come back
    for name, wanted in now.items():
        settled = name in SETTLED or name in record
        if before.get(name) == [] and name in record:  # a run of an earlier version did not keep them
            continue
        if name in before and before[name] != wanted and (settled or (resume is True and name not in FREE)):
            a, b = _listed(before[name], wanted) if name in record else (repr(before[name]), repr(wanted))
            advice = (
                "that is settled when a run begins" if settled else 'resume="changed" (a command\'s --resume) takes other numbers'
            )
            raise InputError(
                f"{str(out)!r} holds a run that began with {name} {a}, and now it is {b}; {advice}: leave it as it was, "
                "or choose another folder"
            )
    return MODELS[recipe.model](**header["kwargs"])


def _listed(a: Sequence, b: Sequence) -> tuple[str, str]:
    """Two lists for people; long ones from their first difference on."""
    first = next(i for i, (x, y) in enumerate(zip_longest(a, b)) if x != y) if max(len(a), len(b)) > SHOWN else 0
    shown = ([*map(str, part[first : first + SHOWN])] + ["..."] * (len(part) > first + SHOWN) for part in (a, b))
    one, other = (", ".join(["..."] * bool(first) + part) or "none" for part in shown)
    return one, other


def _flat(recipe: dict) -> dict:
    return recipe | {f"fit.{k}": v for k, v in recipe.get("fit", {}).items()}
