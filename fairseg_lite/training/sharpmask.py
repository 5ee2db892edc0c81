"""The second stage: refinement on top of a trained DeepMask that stays as it is.

    deepmask = load_model("runs/photos/model.safetensors", kind="DeepMask")
    train_sharpmask(dataset, deepmask=deepmask, recipe=SHARPMASK_RECIPES["photos"], out="runs/sharp")

The paper trains in two stages, too, and found that end-to-end training added little (SharpMask section 3.2): two are faster,
and one network gives both kinds of masks.
"""

from pathlib import Path

import torch

from fairseg_lite.data.patches import PatchSampler
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import MODELS, SharpMask
from fairseg_lite.training.fit import FitConfig, History
from fairseg_lite.training.recipes import Recipe, run_recipe

SHARPMASK_RECIPES: dict[str, Recipe] = {
    # ours: the checkpoint that comes with the library; a frozen score asks for no negatives. Paper: k = 32, and more helped
    "shapes": Recipe(
        model="sharpmask_tiny",
        options={"k": 64},
        positives=48,
        negatives=0,
        fit=FitConfig(steps=4000, lr=4e-3, weight_decay=0.05, warmup=100, clip=5.0, precision="auto", save_every=100),
    ),
    # ours: a lesson's few minutes
    "lesson": Recipe(
        model="sharpmask_tiny",
        positives=24,
        negatives=0,
        fit=FitConfig(steps=600, lr=2e-3, weight_decay=0.05, warmup=60, clip=5.0, precision="auto"),
    ),
    # ours: photographs, on a DeepMask of the recipe of the same name
    "photos": Recipe(
        model="sharpmask_resnet50",
        positives=24,
        negatives=0,
        padding="mean",
        colour=0.4,
        turn=20.0,
        fit=FitConfig(steps=1500, lr=1e-3, weight_decay=0.1, warmup=100, clip=5.0, precision="auto", save_every=100),
    ),
    # SharpMask section 3.2: lr 1e-3; the rest as DeepMask's. Official train.lua: epochs of 4000 batches of 32, meant to halve
    # the rate at epoch 51 and to take 1e-4 from 81, plain SGD; its rate never advances (TrainerSharpMask.lua)
    "official": Recipe(
        model="sharpmask_resnet50",
        positives=32,
        negatives=0,
        rules="official",
        fit=FitConfig(
            steps=1_200_000, lr=1e-3, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="step",
            milestones=(200_000, 320_000), factors=(0.5, 0.1), save_every=4000,
        ),
    ),
}  # fmt: skip


def train_sharpmask(
    dataset: SceneDataset,
    *,
    recipe: Recipe,
    deepmask: DeepMask,
    out: str | Path | None = None,
    refinement: dict | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    progress: bool = True,
    sampler: type[PatchSampler] = PatchSampler,
) -> tuple[SharpMask, History]:
    """Train the refinement of a DeepMask.

    Args:
        dataset: scenes with masks, as for `train_deepmask`.
        recipe: the run's numbers; with `end_to_end` the DeepMask is trained, too.
        deepmask: a trained one, from `load_model`; it becomes part of the result.
        out: folder for `state.safetensors`, `log.jsonl` and, when done, `model.safetensors`.
        refinement: options of `SharpMask`, such as {"k": 16}.
        device: where to train.
        resume: go on from `out`.
        progress: show a bar.
        sampler: as for `train_deepmask`.
    Returns:
        The network in evaluation mode, and its history.
    Raises:
        InputError: as `train_deepmask`; or a DeepMask that is not the one the recipe's network is built on.
    Source: SharpMask section 3.2. Lesson: 06.
    """
    base = recipe.model.replace("sharpmask", "deepmask")
    if not isinstance(deepmask, DeepMask) or deepmask.record.model != base:
        held = deepmask.record.model if isinstance(deepmask, DeepMask) else type(deepmask).__name__
        raise InputError(f"recipe trains {recipe.model}, which is built on a {base}; this is a {held}: choose the other's recipe")
    if recipe.end_to_end and not recipe.negatives:
        raise InputError("end_to_end without negatives: the score would learn to say yes always; set negatives above 0")
    torch.manual_seed(recipe.fit.seed)
    model = MODELS[recipe.model](deepmask=deepmask, **{**recipe.options, **(refinement or {})})
    model.freeze(not recipe.end_to_end).to(device)
    history = run_recipe(model, dataset, recipe, sampler=sampler, out=out, resume=resume, progress=progress)
    return model, history
