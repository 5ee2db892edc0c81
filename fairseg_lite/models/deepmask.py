"""DeepMask: a patch -> the mask of the object at its centre, and a score that there is one.

    patch (3, P+context, P+context) -> trunk -> features (C, G, G), G = P/16
                                                  |-- mask:  features -> 512 numbers -> M x M logits   (low rank)
                                                  '-- score: features -> one logit

How much they share is the option `head`: where along  trunk -> 1x1 convolution -> 512 numbers  they part.

    "branches"   after the trunk; the score pools 2x2 first         paper 1
    "A"          after the trunk; a 1x1 convolution for each        paper 2
    "B"          after the 1x1 convolution; 512 numbers for each    paper 2
    "C"          after the 512 numbers; also called "shared"        paper 2, and the official code

What is known of the second paper's heads: they do without the pooling (and so without interleaving), A, B and C share more and
more, and C reads both from one vector. That A and B part one layer and two layers after one another is our reading, not the
paper's figure; so with equal weights in both branches A, B and C are one function (tested). Nor do we know whether the paper's A
had a 1x1 convolution for each: its trunk study counts the 128 channels behind that layer to the trunk.

The same weights read a whole picture at once (`dense`): every linear layer is a convolution, and window (r, c) is the
patch whose top-left corner is pixel (16 r, 16 c).

Shapes: B batch, C channels, P patch side, G = P/16 features side, E = 512 embedding, M mask side, h x w windows;
16 is the trunk's stride S, and 8 in a network of three poolings.
Official names: patch_size iSz, mask_size oSz, target_size gSz, object_size objSz, trunk the same.
Differs from the official code: its score head has Threshold(0, 1e-6) while training and ReLU after; ours has ReLU always.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseg_lite.errors import InputError
from fairseg_lite.models.network import Network, Timer, Trunk, Weights, load_trunk_weights, recorded
from fairseg_lite.models.trunks import ResNetTrunk, VGGTrunk, tiny_trunk

HEADS = ("branches", "A", "B", "C")


class DeepMaskOutput(NamedTuple):
    """masks (B, M, M) logits on the patch without its context; scores (B,) logits."""

    masks: Tensor
    scores: Tensor


class DenseFeatures(NamedTuple):
    """What `DeepMask.dense` computed for every window of a picture; `DeepMask.masks_at` turns chosen windows into masks.

    features (B, F, h+G-1, w+G-1); embedding (B, E, h, w), or None where it is cheaper to compute per window;
    scores (B, h, w) logits. SharpMask adds laterals, one (B, c, (h+G-1) 2^i, (w+G-1) 2^i) for each refinement i = 0, 1, ...
    """

    features: Tensor
    embedding: Tensor | None
    scores: Tensor
    laterals: tuple[Tensor, ...] = ()


class DeepMask(Network):
    """A trunk with a mask head and a score head.

    Args:
        trunk: (B, 3, H, W) -> (B, C, H/S, W/S).
        patch_size: P, side in pixels of the patch a mask is predicted for; a multiple of the stride.
        context: pixels of real picture around the patch in training (both sides together); a multiple of two strides.
        object_size: largest side in pixels of a canonical object in the patch; default ceil(P * 128 / 224).
        mask_size: M, side of the predicted mask. target_size: of the mask that the loss compares with (M is upsampled to it);
            default P.
        head: one of `HEADS`, or "shared". "branches" needs an even G.
        mask_head: "low_rank" (F G G -> E -> M M) or "full" (F G G -> M M, DeepMaskFull; needs head="branches").
        features: F, channels after the 1x1 convolution. embedding: E, width of the low-rank bottleneck.
        score_hidden: width of the score head's last hidden layer. dropout: probability in the score head.
        scales: of the pictures that whole-picture inference looks at; default 2^-2.5 .. 2^0.5 in steps of 2^0.5 for P = 160,
            and what finds objects of the same sizes for another P.
    Raises: InputError, sizes that do not fit each other, or an unknown head.
    Example:
        >>> model = deepmask_tiny().eval()
        >>> masks, scores = model(torch.zeros(2, 3, 128, 128))
        >>> masks.shape, scores.shape
        (torch.Size([2, 24, 24]), torch.Size([2]))

    Source: DeepMask, Network Architecture, SharpMask section 4; official `DeepMask.lua`. Lesson: 02.
    """

    def __init__(
        self, *, trunk: Trunk, patch_size: int = 160, context: int = 32, object_size: int | None = None,
        mask_size: int = 56, target_size: int | None = None, head: str = "shared", mask_head: str = "low_rank",
        features: int = 128, embedding: int = 512, score_hidden: int = 1024, dropout: float = 0.5,
        scales: Sequence[float] | None = None,
    ):  # fmt: skip
        super().__init__()
        stride, grid = trunk.stride, patch_size // trunk.stride
        if patch_size <= 0 or patch_size % stride:
            raise InputError(f"patch_size is {patch_size}; it must be a positive multiple of the stride {stride}")
        if context < 0 or context % (2 * stride):
            raise InputError(f"context is {context}; it must be a multiple of {2 * stride}, the stride on both sides")
        name = "C" if head == "shared" else head
        if name not in HEADS or mask_head not in ("low_rank", "full") or (mask_head == "full" and name != "branches"):
            advice = f"choose a head of {', '.join(HEADS)} with mask_head low_rank, or branches with full"
            raise InputError(f"head is {head!r} with mask_head {mask_head!r}; {advice}")
        if name == "branches" and grid % 2:
            raise InputError(f"head is 'branches', which pools 2x2, and a patch has {grid} cells a side; take an even number")
        head = self.head = name
        self.stride, self.grid, self.patch_size, self.context, self.mask_size = stride, grid, patch_size, context, mask_size
        self.object_size = object_size or math.ceil(patch_size * 128 / 224)
        self.target_size = target_size or patch_size
        self.mask_head = mask_head
        self.scales = tuple(scales or (patch_size / 160 * 2 ** (e / 2) for e in range(-5, 2)))

        self.trunk = trunk
        self.reduce = nn.Conv2d(trunk.out_channels, features, 1)
        if mask_head == "low_rank":
            self.embed = nn.Conv2d(features, embedding, grid)  # a linear layer that can slide
        self.mask = nn.Linear(embedding if mask_head == "low_rank" else features * grid * grid, mask_size**2)
        if head == "A":
            self.score_reduce = nn.Conv2d(trunk.out_channels, features, 1)
        if head in ("A", "B"):
            self.score_embed = nn.Conv2d(features, embedding, grid)
        elif head == "branches":
            # 2x2 pooling at stride 1 and a convolution with holes of 2: for every window exactly the numbers that
            # pooling at stride 2 would give there. This is the paper's interleaving, and gives one score per mask.
            self.score_embed = nn.Conv2d(trunk.out_channels, embedding, grid // 2, dilation=2)
        out = nn.Dropout(dropout), nn.Linear(embedding, score_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(score_hidden, 1)
        self.score = nn.Sequential(*((nn.ReLU(),) if head == "branches" else ()), *out)  # paper 2's 512 numbers have no ReLU

    def forward(self, patches: Tensor) -> DeepMaskOutput:
        """One mask and one score for each patch (B, 3, P+context, P+context) float, normalised (`Network.normalise`).

        Returns: DeepMaskOutput: masks (B, M, M) and scores (B,), logits.
        Raises: InputError, the patches have another side.
        """
        self.check(patches)
        x = self.trunk(patches)  # (B, C, G + context/S, G + context/S)
        border = self.context // 2 // self.stride
        if border:
            x = x[:, :, border:-border, border:-border]  # the context has served: (B, C, G, G)
        dense = self.heads(x)
        index = torch.arange(patches.shape[0], device=patches.device)
        zero = torch.zeros_like(index)
        return DeepMaskOutput(self.masks_at(dense, index, zero, zero), dense.scores[:, 0, 0])

    def check(self, patches: Tensor) -> None:
        """InputError unless these are patches of the size that `forward` takes."""
        side = self.patch_size + self.context
        if patches.ndim != 4 or patches.shape[1:] != (3, side, side):
            takes = f"(B, 3, {side}, {side}), a patch of {self.patch_size} with {self.context} px of context"
            raise InputError(f"patches have shape {tuple(patches.shape)}; this network takes {takes}")

    def dense(self, images: Tensor, *, timer: Timer = nullcontext) -> DenseFeatures:
        """All windows of a picture at once, at the trunk's stride.

        Args:
            images: (B, 3, H, W) float, normalised, already padded; H, W >= P.
            timer: called with the name of each stage, gives the context that the stage runs in (`bench`).
        Returns: DenseFeatures with h = ceil(H/S) - G + 1 rows of windows and as many columns for W.
        Raises: InputError, the picture is smaller than a patch.
        """
        if min(images.shape[-2:]) < self.patch_size:
            raise InputError(f"picture of {tuple(images.shape[-2:])} px; pad it to at least the patch of {self.patch_size} px")
        with timer("trunk"):
            x = self.trunk(images)
        return self.heads(x, timer)

    def heads(self, x: Tensor, timer: Timer = nullcontext) -> DenseFeatures:
        """What follows the trunk, for every G x G block of its features (B, C, h+G-1, w+G-1)."""
        with timer("512-d layer"):
            features = F.relu(self.reduce(x))  # (B, F, h+G-1, w+G-1)
            if self.head == "C":
                embedding = scored = self.embed(features)  # (B, E, h, w)
            else:
                embedding, own = None, features
                if self.head == "branches":
                    own = F.max_pool2d(x, 2, stride=1)
                elif self.head == "A":
                    own = F.relu(self.score_reduce(x))
                scored = self.score_embed(own)  # (B, E, h, w)
        with timer("score head"):
            scores = self.score(scored.movedim(1, -1)).squeeze(-1)  # (B, h, w)
        return DenseFeatures(features, embedding, scores)

    def masks_at(self, dense: DenseFeatures, batch: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Masks of chosen windows only: (N, M, M) logits. batch, rows, cols: (N,) int64, which picture and which window."""
        return self.mask(self.vectors_at(dense, batch, rows, cols)).view(-1, self.mask_size, self.mask_size)

    def vectors_at(self, dense: DenseFeatures, batch: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """(N, E): what the mask layer reads of chosen windows, given as for `masks_at`; (N, F G G) with the full mask head."""
        if dense.embedding is not None:
            return dense.embedding[batch, :, rows, cols]  # (N, E)
        windows = dense.features.unfold(2, self.grid, 1).unfold(3, self.grid, 1)  # a view: (B, F, h, w, G, G)
        vectors = windows[batch, :, rows, cols].flatten(1)  # (N, F G G)
        if self.mask_head == "low_rank":
            vectors = F.linear(vectors, self.embed.weight.flatten(1), self.embed.bias)  # (N, E)
        return vectors


@recorded
def deepmask_tiny(
    *, patch_size: int = 96, poolings: int = 4, depths: Sequence[int] = (1, 2, 2), features: int = 64, head: str = "shared"
) -> DeepMask:
    """DeepMask for a laptop: 96-px patch, three small residual stages, about 2.3 M parameters.

    Args:
        patch_size: W of the second paper's study; objects in the patch, mask and scales grow and shrink with it.
        poolings: P, how often the trunk halves its input: 4 for stride 16, 3 for stride 8.
        depths: residual blocks of two 3x3 convolutions in each stage; D = 1 + 2 * their sum.
        features, head: as in `DeepMask`.
    Raises: InputError, as `DeepMask` and `ResNetTrunk`.
    Example:
        >>> sum(p.numel() for p in deepmask_tiny().parameters()) < 3_000_000
        True

    Source: ours; trunk and heads of SharpMask section 4. Lesson: 02, 07.
    """
    scales = [patch_size / 96 * 2 ** (e / 2) for e in range(-2, 5)]  # objects of 14 to 110 px: those of `ShapesDataset`
    sizes: dict[str, Any] = {"patch_size": patch_size, "mask_size": patch_size // 4, "features": features, "score_hidden": 256}
    return DeepMask(trunk=tiny_trunk(depths=depths, poolings=poolings), head=head, scales=scales, **sizes)


@recorded
def deepmask_vgg_a(*, trunk_weights: Weights = None, mask_head: str = "low_rank") -> DeepMask:
    """The first paper's network: VGG-A, 224-px patch, 512 x 14 x 14 features, two branches, 75.8 M parameters.

    Args:
        trunk_weights: None, "VGG11_Weights.IMAGENET1K_V1", or a local file (`load_trunk_weights`).
        mask_head: "low_rank", or "full" for DeepMaskFull (about 337 M parameters).
    Source: DeepMask, Network Architecture. Lesson: 02.
    """
    trunk = load_trunk_weights(VGGTrunk(), trunk_weights)
    return DeepMask(
        trunk=trunk, patch_size=224, context=0, mask_size=56, features=512, head="branches", mask_head=mask_head
    )  # fmt: skip


@recorded
def deepmask_resnet50(
    *, trunk_weights: Weights = None, padding: str = "zeros", stride_in_1x1: bool = False, head: str = "shared",
    trunk: dict | None = None, **sizes: Any,
) -> DeepMask:  # fmt: skip
    """The second paper's "DeepMask-ours", also the official code's: ResNet-50 to conv4, 160-px patch, head C, 17.3 M.

    Args:
        trunk_weights: None, "ResNet50_Weights.IMAGENET1K_V2", or a local file (`load_trunk_weights`).
        padding: "zeros" or "symmetric" (official).
        stride_in_1x1: True for weights of the original ResNet; torchvision's and FAIR's want False.
        head: as in `DeepMask`.
        trunk: further options of `ResNetTrunk`, and sizes: of `DeepMask`; the form of an official file (official/networks.py).
    Source: SharpMask sections 4-5; official `DeepMask.lua`. Lesson: 02.
    """
    resnet = ResNetTrunk(padding=padding, stride_in_1x1=stride_in_1x1, **(trunk or {}))
    return DeepMask(trunk=load_trunk_weights(resnet, trunk_weights), head=head, **{"target_size": 112, **sizes})


BUILDERS = (deepmask_tiny, deepmask_vgg_a, deepmask_resnet50)
MODELS: dict[str, Callable[..., DeepMask]] = {build.__name__: build for build in BUILDERS}
