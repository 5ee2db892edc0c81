"""Named recipes, data alone: what to train with which numbers, and where each number comes from.

    RECIPES["deepmask"]["photos"].fit.lr

A recipe holds a run's choices; the network, the sampler and the loop know nothing of it. `stages` and `detector` train by it.
Nothing here needs torch, so that a command line can offer the names and fields at once.
"""

from dataclasses import dataclass, field

from fairseg_lite.errors import InputError, check_choice, check_range

PRECISIONS = ("fp32", "bf16", "auto")


@dataclass(frozen=True)
class FitConfig:
    """One run. The paper's DeepMask: sgd, lr 1e-3, momentum 0.9, weight decay 5e-5, batch 32, no clipping."""

    steps: int = 1000  # optimiser steps
    lr: float = 1e-3  # highest learning rate
    optimizer: str = "adamw"  # or "sgd"
    momentum: float = 0.9  # sgd only
    weight_decay: float = 1e-2  # on weights, never on biases and norms
    schedule: str = "cosine"  # "cosine" to zero, "constant", "step", or "wsd": constant, then down to zero
    decay: float = 0.2  # share of the steps in which "wsd" goes down; until then a run can be lengthened (Hu et al. 2024)
    milestones: tuple[int, ...] = ()  # steps at which "step" changes the rate
    factors: tuple[float, ...] = ()  # of lr from each milestone on
    warmup: int = 0  # steps of linear increase from lr / warmup
    clip: float | None = None  # largest gradient norm
    ema: float = 0.0  # weights averaged over time: what is left of the average after a step; 0 for none; papers: none
    precision: str = "fp32"  # "fp32", "bf16" autocast, or "auto": bf16 where it measures faster
    channels_last: bool = True  # memory layout of weights and images
    lr_scale: dict[str, float] = field(default_factory=dict)  # factor by parameter-name prefix, e.g. {"trunk.": 0.1}
    log_every: int = 10  # steps
    save_every: int = 200  # steps
    workers: int = 0  # processes that prepare batches
    seed: int = 0
    shards: int = 1  # equal parts of a batch, whose mean gradient makes a step; processes share them out

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, ("adamw", "sgd"))
        check_choice("schedule", self.schedule, ("cosine", "constant", "step", "wsd"))
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("steps", "log_every", "save_every", "shards"):
            check_range(name, getattr(self, name), 1, None)
        for name in ("momentum", "weight_decay", "warmup", "clip", "workers"):
            check_range(name, getattr(self, name), 0, None)
        if not self.lr > 0:
            raise InputError(f"lr is {self.lr}; it must be above 0")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is {self.ema}; it is the share of the average that a step leaves, from 0 to below 1")
        if len(self.milestones) != len(self.factors):
            raise InputError(f"{len(self.milestones)} milestones and {len(self.factors)} factors; wanted one for each")


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
    min_area: float = 100  # px of mask, and the next px of box: smaller objects are no positives; official code: 100 and 5
    min_side: float = 5
    max_side: int | None = None  # px: larger pictures are reduced to it, as `propose` does (1024); papers: COCO's are smaller
    jitter: bool = True  # paper: +-16 px and 2^(+-1/4) at the 224-px scale, flip
    colour: float = 0.0  # shake of brightness, contrast and saturation; papers: none
    turn: float = 0.0  # degrees, either way; papers: none
    paste: float = 0.0  # share of patches with an object of another picture; papers: none
    freeze: int = 0  # trunk stages (stem, layer1, ...) that keep their weights
    score_weight: float = 1 / 32  # lambda
    alternate: bool = False  # paper: back-propagation alternates between the branches
    end_to_end: bool = False  # SharpMask: train the DeepMask in it, too; paper: it added little
    cache: int = 512  # MiB of decoded pictures to keep
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        for name, high in {"colour": 1, "turn": 180, "paste": 1, "freeze": None, "score_weight": 1, "cache": None}.items():
            check_range(name, getattr(self, name), 0, high)
        for name, low in {"min_area": 0, "min_side": 0, "max_side": 32, "positives": 0, "negatives": 0}.items():
            check_range(name, getattr(self, name), low, None)


@dataclass(frozen=True)
class MultiPathRecipe:
    """One way to train MultiPathNet. The paper's value stands behind each field."""

    model: str = "multipathnet_tiny"  # a name of `checkpoints.MODELS`
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
    cache: int = 512  # MiB of decoded pictures to keep
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        for name, low, high in (("colour", 0, 1), ("box_weight", 0, None), ("cache", 0, None), ("top", 1, None)):
            check_range(name, getattr(self, name), low, high)
        check_range("statistics", self.statistics, 1, None)


# ours, all of them: AdamW, a short warm-up, clipped gradients, bf16 where it is faster; the lists below say what differs
OURS: dict = {"weight_decay": 0.05, "warmup": 100, "clip": 5.0, "precision": "auto", "save_every": 100}
PHOTOS: dict = {**OURS, "weight_decay": 0.1, "lr_scale": {"trunk.": 0.2}}  # the trunk has learnt from ImageNet
# photographs are few and large; inference shows grey beyond them, and reduces them
SHAKEN: dict = {"padding": "mean", "colour": 0.4, "turn": 20.0, "max_side": 1024}

# can be lengthened while the rate is constant
LONG: dict = {**PHOTOS, "save_every": 200, "log_every": 20, "schedule": "wsd", "ema": 0.998}
# minutes on two cores
FEW: dict = {**OURS, "steps": 300, "lr": 3e-4, "weight_decay": 0.1, "warmup": 20, "ema": 0.98}
LITE: dict = {
    "model": "multipathnet_lite0", "rois": 32, "background": 0.0, "short_side": (256, 448), "max_side": 640, "colour": 0.4,
}  # fmt: skip

DEEPMASK = {
    # ours: the checkpoint that comes with the library
    "shapes": Recipe(positives=48, negatives=16, fit=FitConfig(steps=3000, lr=2e-3, **OURS)),
    # ours: a lesson's four minutes
    "lesson": Recipe(positives=24, negatives=8, fit=FitConfig(steps=800, lr=2e-3, **{**OURS, "warmup": 80, "save_every": 200})),
    # ours: photographs within an hour on two cores, from an ImageNet trunk
    "photos": Recipe(model="deepmask_resnet50", freeze=2, **SHAKEN, fit=FitConfig(steps=2000, lr=1e-3, **PHOTOS)),
    # ours: several sets of photographs, a small trunk
    "mixed": Recipe(
        model="deepmask_lite0", positives=22, negatives=10, freeze=3, **{**SHAKEN, "turn": 15.0}, cache=3000,
        fit=FitConfig(steps=6000, lr=1e-3, decay=0.25, **{**LONG, "ema": 0.999}),
    ),
    # ours: a few pictures of your own, from the network for photographs, whose trunk stays as it is
    "few": Recipe(model="deepmask_lite0", positives=22, negatives=10, freeze=5, **SHAKEN, paste=0.3, fit=FitConfig(**FEW)),
    # DeepMask, Implementation Details: SGD, batch 32, lr 0.001, momentum 0.9, weight decay 0.00005
    "paper": Recipe(
        model="deepmask_vgg_a", positives=16, negatives=16, alternate=True,
        fit=FitConfig(steps=500_000, lr=1e-3, optimizer="sgd", weight_decay=5e-5, schedule="constant", save_every=4000),
    ),
    # official train.lua: epochs of 4000 batches, weight decay 5e-4, lr 1e-3, x0.5 at epoch 51, 1e-4 from 121, 300 epochs
    "official": Recipe(
        model="deepmask_resnet50", positives=16, negatives=16, rules="official", alternate=True,
        fit=FitConfig(
            steps=1_200_000, lr=1e-3, optimizer="sgd", weight_decay=5e-4, schedule="step", milestones=(200_000, 480_000),
            factors=(0.5, 0.1), save_every=4000,
        ),
    ),
}  # fmt: skip

SHARPMASK = {  # a frozen score asks for no negatives
    # ours: the checkpoint that comes with the library. Paper: k = 32, and more helped
    "shapes": Recipe(
        model="sharpmask_tiny", options={"k": 64}, positives=48, negatives=0, fit=FitConfig(steps=4000, lr=4e-3, **OURS)
    ),
    # ours: a lesson's few minutes
    "lesson": Recipe(
        model="sharpmask_tiny", positives=24, negatives=0,
        fit=FitConfig(steps=600, lr=2e-3, **{**OURS, "warmup": 60, "save_every": 200}),
    ),
    # ours: photographs, on a DeepMask of the recipe of the same name
    "photos": Recipe(
        model="sharpmask_resnet50", positives=24, negatives=0, **SHAKEN,
        fit=FitConfig(steps=1500, lr=1e-3, **{**OURS, "weight_decay": 0.1}),
    ),
    # ours: several sets of photographs, on a DeepMask of the recipe of the same name
    "mixed": Recipe(
        model="sharpmask_lite0", positives=24, negatives=0, **{**SHAKEN, "turn": 15.0}, cache=3000,
        fit=FitConfig(steps=3000, lr=1e-3, decay=0.4, **{**LONG, "weight_decay": 0.05}),
    ),
    # ours: a few pictures of your own, masks and scores together, on a trunk that stays as it is
    "few": Recipe(
        model="sharpmask_lite0", positives=22, negatives=10, freeze=5, end_to_end=True, **SHAKEN, paste=0.3, fit=FitConfig(**FEW)
    ),
    # SharpMask section 3.2: lr 1e-3; the rest as DeepMask's, its length among it
    "paper": Recipe(
        model="sharpmask_resnet50", positives=32, negatives=0,
        fit=FitConfig(steps=500_000, lr=1e-3, optimizer="sgd", weight_decay=5e-5, schedule="constant", save_every=4000),
    ),
    # Official train.lua: epochs of 4000 batches of 32, meant to halve
    # the rate at epoch 51 and to take 1e-4 from 81, plain SGD; its rate never advances (TrainerSharpMask.lua)
    "official": Recipe(
        model="sharpmask_resnet50", positives=32, negatives=0, rules="official",
        fit=FitConfig(
            steps=1_200_000, lr=1e-3, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="step",
            milestones=(200_000, 320_000), factors=(0.5, 0.1), save_every=4000,
        ),
    ),
}  # fmt: skip

# rate, momentum and schedule of the official script [papers 3.3]; the paper's own were not found
SCRIPT = FitConfig(
    steps=320_000, lr=1e-3, optimizer="sgd", momentum=0.9, weight_decay=0.0, schedule="step", milestones=(280_000,),
    factors=(0.1,), save_every=4000,
)  # fmt: skip
MULTIPATHNET = {
    # ours: the checkpoint that comes with the library; many pictures of few RoIs each, since RoIs of a picture are much alike,
    # and enlarged, since objects of 12 px are but three cells of conv3
    "shapes": MultiPathRecipe(
        images=8, rois=24, fg_fraction=0.33, background=0.0, short_side=(256, 416), fit=FitConfig(steps=3000, lr=2e-3, **OURS)
    ),
    # ours: a lesson's few minutes
    "lesson": MultiPathRecipe(
        images=8, rois=24, background=0.0, fit=FitConfig(steps=500, lr=1e-3, **{**OURS, "warmup": 50, "save_every": 200})
    ),
    # ours: photographs within an hour on two cores, from an ImageNet trunk whose first stages stay as they are. RoIs of a
    # picture with one or two objects are much alike; conv5 for each RoI and region would cost a day
    "photos": MultiPathRecipe(
        model="multipathnet_resnet50", options={"head": "linear", "pooling": "align"}, rois=24, background=0.0,
        short_side=(224, 384), max_side=512, colour=0.4, fit=FitConfig(steps=2000, lr=5e-4, **{**PHOTOS, "weight_decay": 0.05}),
    ),
    # ours: several sets of photographs; the trunk's last two stages learn, too
    "mixed": MultiPathRecipe(
        **LITE, options={"frozen": 5}, cache=2000,
        fit=FitConfig(steps=2500, lr=1e-3, decay=0.3, **{**LONG, "weight_decay": 0.05}),
    ),
    # ours: a few pictures of your own
    "few": MultiPathRecipe(**LITE, options={"frozen": 7}, fit=FitConfig(**FEW)),
    # MultiPath section 4.1 [papers 3.3]: 4 pictures of 64 proposals, of the 1000 best; no weight decay
    "paper": MultiPathRecipe(model="multipathnet_vgg16", top=1000, short_side=(800, 800), fit=SCRIPT),
    # official script [papers 3.3, 4.13, 4.14]: the same numbers; its heads are not tied to their thresholds, and its trunk
    # stays as it was, all of it
    "official": MultiPathRecipe(
        model="multipathnet_vgg16", options={"frozen": 5}, top=1000, short_side=(800, 800), untied=True, fit=SCRIPT
    ),
}  # fmt: skip

RECIPES: dict[str, dict] = {"deepmask": DEEPMASK, "sharpmask": SHARPMASK, "multipathnet": MULTIPATHNET}
