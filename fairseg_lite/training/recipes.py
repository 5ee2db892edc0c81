"""Named recipes: what to train with which numbers, and where each number comes from.

    train_deepmask(dataset, recipe=RECIPES["photos"], out="runs/photos", trunk_weights="ResNet50_Weights.IMAGENET1K_V2")

A recipe holds a run's choices; the network, the sampler and the loop know nothing of it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fairseg_lite.data.patches import PatchBatch, PatchSampler
from fairseg_lite.data.scenes import SceneDataset, described
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.patches import patch_spec
from fairseg_lite.models.checkpoints import save_model
from fairseg_lite.models.deepmask import MODELS, DeepMask
from fairseg_lite.models.losses import deepmask_loss
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.training.fit import FitConfig, History, fit


@dataclass(frozen=True)
class Recipe:
    """One way to train DeepMask or SharpMask. The paper's value stands behind each field."""

    model: str = "deepmask_tiny"  # a name of `checkpoints.MODELS`
    options: dict = field(default_factory=dict)  # of that function, such as {"k": 64} of a SharpMask
    positives: int = 24  # patches in a batch; paper: 32 in all, equal numbers for the score
    negatives: int = 8
    rules: str = "paper"  # `rules` of the sampler; "official" is that of official/patches.py
    balance: str = "class"  # "class": category first (official code), or "uniform"
    padding: str = "symmetric"  # beyond the picture: it mirrored, or "mean" grey, which whole-picture inference shows
    jitter: bool = True  # paper: +-16 px and 2^(+-1/4) at the 224-px scale, flip
    colour: float = 0.0  # shake of brightness, contrast and saturation; papers: none
    turn: float = 0.0  # degrees, either way; papers: none
    freeze: int = 0  # trunk stages (stem, layer1, ...) that keep their weights
    score_weight: float = 1 / 32  # lambda
    alternate: bool = False  # paper: back-propagation alternates between the branches
    end_to_end: bool = False  # SharpMask: train the DeepMask in it, too; paper: it added little
    cache: int = 512  # MiB of decoded pictures to keep
    fit: FitConfig = field(default_factory=FitConfig)


RECIPES: dict[str, Recipe] = {
    # ours: the checkpoint that comes with the library
    "shapes": Recipe(
        positives=48,
        negatives=16,
        fit=FitConfig(steps=3000, lr=2e-3, weight_decay=0.05, warmup=100, clip=5.0, precision="auto", save_every=100),
    ),
    # ours: a lesson's four minutes
    "lesson": Recipe(
        positives=24,
        negatives=8,
        fit=FitConfig(steps=800, lr=2e-3, weight_decay=0.05, warmup=80, clip=5.0, precision="auto"),
    ),
    # ours: photographs within an hour on two cores, from an ImageNet trunk
    "photos": Recipe(
        model="deepmask_resnet50",
        padding="mean",
        freeze=2,
        colour=0.4,
        turn=20.0,
        fit=FitConfig(
            steps=2000, lr=1e-3, weight_decay=0.1, warmup=100, clip=5.0, precision="auto", lr_scale={"trunk.": 0.2},
            save_every=100,
        ),
    ),
    # ours: several sets of photographs, a small trunk; a run can be lengthened while the rate is constant
    "mixed": Recipe(
        model="deepmask_lite0",
        positives=22,
        negatives=10,
        padding="mean",
        freeze=3,
        colour=0.4,
        turn=15.0,
        cache=3000,
        fit=FitConfig(
            steps=6000, lr=1e-3, weight_decay=0.1, warmup=100, clip=5.0, precision="auto", lr_scale={"trunk.": 0.2},
            schedule="wsd", decay=0.25, ema=0.999, save_every=200, log_every=20,
        ),
    ),
    # DeepMask section 3.3: SGD, batch 32, lr 0.001, momentum 0.9, weight decay 0.00005
    "paper": Recipe(
        model="deepmask_vgg_a",
        positives=16,
        negatives=16,
        alternate=True,
        fit=FitConfig(steps=500_000, lr=1e-3, optimizer="sgd", weight_decay=5e-5, schedule="constant", save_every=4000),
    ),
    # official train.lua: epochs of 4000 batches, weight decay 5e-4, lr 1e-3, x0.5 at epoch 51, 1e-4 from 121, 300 epochs
    "official": Recipe(
        model="deepmask_resnet50",
        positives=16,
        negatives=16,
        rules="official",
        alternate=True,
        fit=FitConfig(
            steps=1_200_000, lr=1e-3, optimizer="sgd", weight_decay=5e-4, schedule="step", milestones=(200_000, 480_000),
            factors=(0.5, 0.1), save_every=4000,
        ),
    ),
}  # fmt: skip


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
    dataset: SceneDataset,
    *,
    recipe: Recipe,
    out: str | Path | None = None,
    model: DeepMask | None = None,
    model_kwargs: dict | None = None,
    trunk_weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    progress: bool = True,
    sampler: type[PatchSampler] = PatchSampler,
) -> tuple[DeepMask, History]:
    """Train DeepMask on any dataset of scenes.

    Args:
        dataset: scenes with masks (`ShapesDataset`, `CocoDataset`).
        recipe: the run's numbers.
        out: folder for `state.safetensors`, `log.jsonl` and, when done, `model.safetensors`.
        model: a network to go on with; otherwise the recipe's is built with model_kwargs.
        trunk_weights: ImageNet weights for a fresh network (`load_trunk_weights`).
        device: where to train.
        resume: go on from `out`.
        progress: show a bar.
        sampler: what draws the patches; its `rules` must be the recipe's.
    Returns:
        The network in evaluation mode, and its history.
    Raises:
        InputError: a sampler of other rules; from the sampler (no usable object), `fit` (loss not finite) or the disk.
    Source: DeepMask section 3.3. Lesson: 03.
    """
    if model is None:
        torch.manual_seed(recipe.fit.seed)
        extra = {} if trunk_weights is None else {"trunk_weights": trunk_weights}
        model = MODELS[recipe.model](**{**recipe.options, **(model_kwargs or {}), **extra})
    model.trunk.freeze(recipe.freeze)
    history = run_recipe(
        model.to(device), dataset, recipe, sampler=sampler, out=out, resume=resume, progress=progress
    )  # fmt: skip
    return model, history


def run_recipe(
    model: DeepMask | SharpMask,
    dataset: SceneDataset,
    recipe: Recipe,
    *,
    sampler: type[PatchSampler],
    out: str | Path | None,
    resume: bool,
    progress: bool,
) -> History:
    """Train a network that is built and on its device; arguments as for `train_deepmask`."""
    if sampler.rules != recipe.rules:
        raise InputError(
            f"the recipe's rules are {recipe.rules!r}, but {sampler.__name__} follows {sampler.rules!r}; give another sampler"
        )
    samples = sampler(
        dataset,
        patch_spec(model),
        positives=recipe.positives,
        negatives=recipe.negatives,
        seed=recipe.fit.seed,
        balance=recipe.balance,
        padding=recipe.padding,
        jitter=recipe.jitter,
        colour=recipe.colour,
        turn=recipe.turn,
        cache=recipe.cache * 2**20,
        pixels=model.record.pixels,
    )
    about = {"data": described(dataset), "recipe": asdict(recipe), "about": {}}
    model.record = replace(model.record, padding=recipe.padding, **about)
    header = model.record.header()
    history = fit(model.train(), samples, loss_of(recipe), recipe.fit, out=out, header=header, resume=resume, progress=progress)
    model.eval()
    if out is not None and history.finished:
        save_model(Path(out) / "model.safetensors", model)
    return history
