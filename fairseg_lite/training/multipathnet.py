"""The third stage: MultiPathNet on the proposals of the first two.

    boxes = load_boxes("proposals.json")
    train_multipathnet(dataset, boxes, recipe=MULTIPATHNET_RECIPES["shapes"], out="runs/named")

Every step takes a few pictures and some dozens of RoIs of each (`data/rois.py`); the trunk sees each picture once.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fairseg_lite.data.results import Boxes
from fairseg_lite.data.rois import RoiBatch, RoiSampler, delta_statistics
from fairseg_lite.data.scenes import SceneDataset, cached, described
from fairseg_lite.errors import InputError
from fairseg_lite.models.checkpoints import load_tensors, save_model
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.losses import multipath_loss
from fairseg_lite.models.multipathnet import MODELS, MultiPathNet
from fairseg_lite.training.fit import FitConfig, History, fit

CACHE = 512 * 2**20  # bytes of decoded pictures


@dataclass(frozen=True)
class MultiPathRecipe:
    """One way to train MultiPathNet. The paper's value stands behind each field."""

    model: str = "multipathnet_tiny"  # a name of `models.multipathnet.MODELS`
    options: dict = field(default_factory=dict)  # of that function, such as {"foveal": False}; categories are the data's
    images: int = 4  # pictures in a step; paper: 4, official default: 2
    rois: int = 64  # of each picture; paper: 64
    fg_fraction: float = 0.25  # share of foreground; official code: 16 of 64
    background: float = 0.1  # lowest IoU of background; official code: .1
    top: int | None = None  # best proposals of a picture that are used; paper: 1000
    flip: bool = True  # official code: half of the pictures
    short_side: tuple[int, int] | None = None  # px, drawn from this range; official code: 800, no range
    max_side: int = 1000  # px; official code: 1000
    colour: float = 0.0  # shake of brightness, contrast and saturation; paper: none
    untied: bool = False  # official code: one random head a step, with a random threshold
    box_weight: float = 1.0  # lambda
    statistics: int = 1000  # pictures over which box deltas are normalised; official code: 1000
    fit: FitConfig = field(default_factory=FitConfig)


MULTIPATHNET_RECIPES: dict[str, MultiPathRecipe] = {
    # ours: the checkpoint that comes with the library; many pictures of few RoIs each, since RoIs of a picture are much alike,
    # and enlarged, since objects of 12 px are but three cells of conv3
    "shapes": MultiPathRecipe(
        images=8,
        rois=24,
        fg_fraction=0.33,
        background=0.0,
        short_side=(256, 416),
        fit=FitConfig(steps=3000, lr=2e-3, weight_decay=0.05, warmup=100, clip=5.0, precision="auto", save_every=100),
    ),
    # ours: a lesson's few minutes
    "lesson": MultiPathRecipe(
        images=8,
        rois=24,
        background=0.0,
        fit=FitConfig(steps=500, lr=1e-3, weight_decay=0.05, warmup=50, clip=5.0, precision="auto"),
    ),
    # ours: photographs within an hour on two cores, from an ImageNet trunk whose first stages stay as they are
    "photos": MultiPathRecipe(
        model="multipathnet_resnet50",
        options={"head": "linear", "pooling": "align"},  # conv5 for each RoI and region would cost a day
        rois=24,  # those of a picture with one or two objects are much alike
        background=0.0,
        short_side=(224, 384),
        max_side=512,
        colour=0.4,
        fit=FitConfig(
            steps=2000, lr=5e-4, weight_decay=0.05, warmup=100, clip=5.0, precision="auto", lr_scale={"trunk.": 0.2},
            save_every=100,
        ),
    ),
    # MultiPath section 4.1 [papers 3.3]: 4 pictures of 64 proposals, of the 1000 best; no weight decay. Rate, momentum and
    # schedule are the official script's: the paper's own were not found
    "paper": MultiPathRecipe(
        model="multipathnet_vgg16",
        top=1000,
        short_side=(800, 800),
        fit=FitConfig(
            steps=320_000, lr=1e-3, optimizer="sgd", momentum=0.9, weight_decay=0.0, schedule="step", milestones=(280_000,),
            factors=(0.1,), save_every=4000,
        ),
    ),
    # official script [papers 3.3, 4.13, 4.14]: the same numbers; its heads are not tied to their thresholds, and its trunk
    # stays as it was, all of it
    "official": MultiPathRecipe(
        model="multipathnet_vgg16",
        options={"frozen": 5},
        top=1000,
        short_side=(800, 800),
        untied=True,
        fit=FitConfig(
            steps=320_000, lr=1e-3, optimizer="sgd", momentum=0.9, weight_decay=0.0, schedule="step", milestones=(280_000,),
            factors=(0.1,), save_every=4000,
        ),
    ),
}  # fmt: skip


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
        recipe: its model and options count, and the seed of its fit.
        num_classes: categories, the background not counted.
        trunk_from: a tiny DeepMask to begin from (tiny only).
        trunk_weights: ImageNet weights (all but tiny).
    Raises:
        InputError: an unknown model, or weights it has no use for.
    """
    if recipe.model not in MODELS:
        raise InputError(f"model {recipe.model!r} is unknown; choose one of {', '.join(MODELS)}")
    tiny = recipe.model == "multipathnet_tiny"
    if (trunk_weights if tiny else trunk_from) is not None:
        what, instead = ("trunk_weights", "trunk_from") if tiny else ("trunk_from", "trunk_weights")
        raise InputError(f"{recipe.model} takes no {what}; give {instead}, or choose another model")
    kwargs = {"num_classes": num_classes, **recipe.options}
    start: dict = {} if trunk_weights is None else {"trunk_weights": trunk_weights}
    if tiny:  # a trunk that begins with random numbers needs batch norm
        kwargs = {"norm": "batch" if trunk_from is None else "frozen", **kwargs}
        start = {"trunk_from": trunk_from}
    torch.manual_seed(recipe.fit.seed)
    return MODELS[recipe.model](**kwargs, **start)


def _begun(state: Path, recipe: MultiPathRecipe, num_classes: int) -> MultiPathNet:
    """The network that an interrupted run began with, before its weights are loaded."""
    header = load_tensors(state)[1]
    kwargs = header.get("kwargs", {})
    if header.get("model") != recipe.model or kwargs.get("num_classes") != num_classes:
        raise InputError(
            f"{str(state)!r} holds a run of {header.get('model')} with {kwargs.get('num_classes')} categories, this is "
            f"{recipe.model} with {num_classes}; resume with the run's own data and recipe, or choose another folder"
        )
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
        recipe: the run's numbers.
        out: folder for `state.safetensors`, `log.jsonl` and, when done, `model.safetensors`.
        trunk_from: a DeepMask whose trunk a tiny network begins with.
        trunk_weights: ImageNet weights of the others, by torchvision's name or a file.
        proposals: what made the boxes, for the record: a shipped network's name, a checkpoint or a file of results.
        about: what else the record is to remember.
        device: where to train.
        resume: go on from `out`.
        progress: show bars.
    Returns:
        The network in evaluation mode, and its history. Its record's `about["dropped"]` says how many proposals of the pictures
        seen were left out, and why.
    Raises:
        InputError: no category, no object, proposals of other pictures, or from `fit` and the disk.
    Source: MultiPath section 4.1. Lesson: 08.
    """
    if not dataset.categories:
        raise InputError("the data set has no category; MultiPathNet needs at least one to name")
    state = None if out is None else Path(out) / "state.safetensors"
    going_on = resume and state is not None and state.exists()
    if going_on:
        model = _begun(state, recipe, len(dataset.categories))
    else:
        model = build_multipathnet(recipe, len(dataset.categories), trunk_from=trunk_from, trunk_weights=trunk_weights)
    scenes = cached(dataset, CACHE)
    sampler = RoiSampler(
        scenes,
        boxes,
        thresholds=model.thresholds,
        seed=recipe.fit.seed,
        **{k: getattr(recipe, k) for k in (
            "images", "rois", "fg_fraction", "background", "top", "flip", "short_side", "max_side", "colour", "untied",
        )},
        pixels=model.record.pixels,
    )  # fmt: skip
    if not going_on:
        mean, std = delta_statistics(scenes, boxes, recipe.statistics, threshold=model.thresholds[0], progress=progress)
        model.delta_mean.copy_(mean)
        model.delta_std.copy_(std)
    model.record = replace(
        model.record,
        short_side=None if recipe.short_side is None else sum(recipe.short_side) // 2,
        max_side=recipe.max_side,
        categories=tuple(dataset.categories),
        category_ids=tuple(int(k) for k in dataset.category_ids),
        data=described(dataset),
        proposals=proposals,
        recipe=asdict(recipe),
        about=about or {},
    )
    history = fit(
        model.to(device).train(),
        sampler,
        multipath_step(recipe),
        recipe.fit,
        out=out,
        header=model.record.header(),
        resume=resume,
        progress=progress,
    )
    model.eval()
    model.record = replace(model.record, about={**model.record.about, "dropped": dict(sampler.dropped)})
    if out is not None and history.finished:
        save_model(Path(out) / "model.safetensors", model)
    return model, history
