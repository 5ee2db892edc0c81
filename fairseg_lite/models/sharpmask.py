"""SharpMask: DeepMask's mask, refined step by step with the trunk's own earlier features.

    trunk taps:     F1 (stride 16)    F2 (stride 8)    F3 (stride 4)    F4 (stride 2)
                         |                 |                |                |
    512 numbers -> M1 -> R1 --> M2 (2G) -> R2 --> M3 (4G) -> R3 --> M4 (8G) -> R4 --> 3x3 convolution -> P x P logits

Each R is a `RefinementModule` (models/refinement.py). What it does to F alone is computed once, on all of a picture (`dense`);
what it does to M is computed for chosen windows (`masks_at`). The DeepMask stays whole inside: coarse masks and scores are its.

Shapes: B batch, C channels, P patch side, G = P/16, h x w windows, N chosen windows.
Official names: km = ks = k, `refs` first, refinements and last. Differs from the official code: a fresh refinement begins with
the coarse mask instead of random weights (`SharpMask._begin_coarse`); and see models/refinement.py.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.models.deepmask import DeepMask, DeepMaskOutput, DenseFeatures, deepmask_resnet50, deepmask_tiny, deepmask_vgg_a
from fairseg_lite.models.network import Network, Record, Timer, Trunk, recorded
from fairseg_lite.models.refinement import RefinementModule, conv3x3, doubled_conv
from fairseg_lite.models.trunks import STRIDE

NOISE = 0.3  # share of the usual random weights that a fresh refinement keeps beside the coarse mask
REFINE_BYTES = 2**26  # of feature maps that windows may fill while they are refined together; 16 times that on a device


class SharpMask(Network):
    """A DeepMask whose mask is refined; the DeepMask is kept whole, coarse masks and scores included.

    Args:
        deepmask: a trained one, with the low-rank mask head.
        k: channels of the first mask encoding; official names km, ks.
        schedule: "halving": k, k/2, k/4, ... channels (the paper's choice); "constant": k everywhere.
        paths: "both", or an ablation: "skip" (features are added to an unchanged mask), "deconvolution" (no features).
        upsample, padding: as in `RefinementModule`.
    Raises: InputError, options that do not fit each other, or a DeepMask without a vector per window (mask_head="full").
    Example:
        >>> model = sharpmask_tiny().eval()
        >>> masks, scores = model(torch.zeros(2, 3, 128, 128))
        >>> masks.shape, scores.shape
        (torch.Size([2, 96, 96]), torch.Size([2]))

    Source: SharpMask section 3; official `SharpMask.lua`. Lesson: 06.
    """

    stride = STRIDE

    def __init__(
        self, deepmask: DeepMask, *, k: int = 32, schedule: str = "halving", paths: str = "both", upsample: str = "bilinear",
        padding: str = "symmetric",
    ):  # fmt: skip
        super().__init__()
        check_choice("schedule", schedule, ("halving", "constant"))
        if k < 1 or (schedule == "halving" and k % 16):
            raise InputError(f"k is {k}; halved four times it must stay whole: take a multiple of 16, or schedule='constant'")
        if deepmask.mask_head == "full":
            raise InputError("mask_head is 'full'; refinement begins with the vector of a DeepMask with mask_head='low_rank'")
        if deepmask.stride != STRIDE:
            raise InputError(f"the trunk's stride is {deepmask.stride}; four refinements lead back from {STRIDE}: poolings=4")
        self.deepmask, self.record = deepmask, Record(pixels=deepmask.record.pixels, rerank=deepmask.record.rerank)
        self.patch_size = self.mask_size = self.target_size = deepmask.patch_size
        self.context, self.object_size = deepmask.context, deepmask.object_size
        self.grid, self.scales = deepmask.grid, deepmask.scales
        widths = [k >> (i if schedule == "halving" else 0) for i in range(5)]
        self.first = nn.Linear(deepmask.embed.out_channels, k * self.grid**2)
        self.refinements: Any = nn.ModuleList(
            RefinementModule(features=c, channels=n, out=out, upsample=upsample, padding=padding, paths=paths)
            for c, n, out in zip(reversed(deepmask.trunk.channels), widths, widths[1:], strict=False)
        )
        self.last: Any = conv3x3(widths[-1], 1, padding)
        # floats that a window fills: its lateral features, and six maps of the largest step (in, padded, out, copies)
        cells = [self.grid**2 << 2 * i for i in range(4)]
        maps = [4 * n * c for n, c in zip(widths[1:4], cells, strict=False)]
        maps.append(max(widths[4], 4) * cells[3])  # `doubled_conv` makes four outputs of each cell
        self.window_size = sum(n * c for n, c in zip(widths[1:], cells, strict=True)) + 6 * max(maps)
        self._begin_coarse()
        self.freeze()

    @torch.no_grad()
    def _begin_coarse(self) -> None:
        """Begin as the DeepMask inside: M1 holds its coarse mask, averaged to G x G, and every module hands that on.

        Channel 0 carries the mask, channel 1 its negative (after a ReLU, both together are the whole), the rest little noise.
        From random weights the last module, of two channels, often has none that is above zero anywhere, and learns nothing.
        """
        for module in self.refinements:
            if module.top_down is not None:
                for conv in (module.top_down[0], module.top_down[2]):
                    conv.weight.mul_(NOISE).add_(nn.init.dirac_(torch.empty_like(conv.weight)))
                    conv.bias.zero_()
            if module.lateral is not None:
                module.lateral[4].weight.mul_(NOISE)
                module.lateral[4].bias.zero_()
        coarse, side = self.deepmask.mask, self.deepmask.mask_size
        affine = torch.cat([coarse.weight, coarse.bias[:, None]], 1)  # (M M, E + 1): the mask is linear in the vector
        affine = F.adaptive_avg_pool2d(affine.T.unflatten(1, (side, side)), self.grid).flatten(1).T  # (G G, E + 1)
        self.last.weight.mul_(NOISE)
        self.last.bias.zero_()
        for i in range(min(self.last.in_channels, 2)):
            sign, rows = 1 - 2 * i, slice(i * self.grid**2, (i + 1) * self.grid**2)
            self.first.weight[rows], self.first.bias[rows] = sign * affine[:, :-1], sign * affine[:, -1]
            self.last.weight[0, i, 1, 1] += sign

    @property
    def trunk(self) -> Trunk:
        return self.deepmask.trunk

    def freeze(self, frozen: bool = True) -> "SharpMask":
        """Train the refinement alone (the default, the paper's second stage), or with False everything."""
        self.frozen = frozen
        self.deepmask.requires_grad_(not frozen)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "SharpMask":
        """As for every module, but that a frozen DeepMask stays in evaluation mode."""
        super().train(mode)
        self.deepmask.train(mode and not self.frozen)
        return self

    def forward(self, patches: Tensor) -> DeepMaskOutput:
        """One sharp mask (B, P, P) and one score (B,), logits, for each patch; given and refused as by `DeepMask`."""
        self.deepmask.check(patches)
        taps = self.trunk.taps(patches)
        for i, x in enumerate(taps):
            border = (self.context // 2) >> (i + 1)  # 8, 4, 2 and 1 cells of 32 px of context
            taps[i] = x[:, :, border : x.shape[2] - border, border : x.shape[3] - border]
        dense = self.heads(taps)
        index = torch.arange(patches.shape[0], device=patches.device)
        zero = torch.zeros_like(index)
        return DeepMaskOutput(self.masks_at(dense, index, zero, zero), dense.scores[:, 0, 0])

    def dense(self, images: Tensor, *, timer: Timer = nullcontext) -> DenseFeatures:
        """All windows of a picture at once, and the lateral features of each refinement; as `DeepMask.dense`."""
        if min(images.shape[-2:]) < self.patch_size:
            raise InputError(f"picture of {tuple(images.shape[-2:])} px; pad it to at least the patch of {self.patch_size} px")
        with timer("trunk"):
            taps = self.trunk.taps(images)
        return self.heads(taps, timer)

    def heads(self, taps: list[Tensor], timer: Timer = nullcontext) -> DenseFeatures:
        """What follows the trunk: `taps` are its features at strides 2, 4, 8 and 16."""
        dense = self.deepmask.heads(taps[-1], timer)
        with timer("lateral"):
            pairs = zip(self.refinements, reversed(taps), strict=True)
            return self.joined(dense, [r.lateral(x) for r, x in pairs if r.lateral is not None])

    def joined(self, dense: DenseFeatures, laterals: list[Tensor]) -> DenseFeatures:
        """Add lateral features, filled up with zeros where an odd picture left them short of the last window (official)."""
        rows, columns = (n + self.grid - 1 for n in dense.scores.shape[1:])
        full = []
        for i, x in enumerate(laterals):
            short = (rows << i) - x.shape[2], (columns << i) - x.shape[3]
            full.append(F.pad(x, (0, short[1], 0, short[0])) if short != (0, 0) else x)
        return dense._replace(laterals=tuple(full))

    def masks_at(self, dense: DenseFeatures, batch: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Sharp masks of chosen windows only, (N, P, P) logits, so many at a time that their feature maps fill REFINE_BYTES.

        Windows are given as for `DeepMask.masks_at`; `deepmask.masks_at` gives the coarse masks of the same.
        """
        room = REFINE_BYTES * (1 if dense.scores.is_cpu else 16)
        step = max(1, room // (self.window_size * dense.scores.element_size()))
        if torch.compiler.is_compiling():  # how many windows there will be is not known
            return self._refined(dense, batch, rows, cols)
        parts = zip(batch.split(step), rows.split(step), cols.split(step), strict=True)
        return torch.cat([self._refined(dense, *part) for part in parts])

    def _refined(self, dense: DenseFeatures, batch: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        x = self.first(self.deepmask.vectors_at(dense, batch, rows, cols))
        x = x.unflatten(1, (-1, self.grid, self.grid))  # M1: (N, k, G, G)
        for i, module in enumerate(self.refinements):
            lateral = None
            if dense.laterals:
                side, cell = self.grid << i, 1 << i  # of a window in this map, and of its steps
                windows = dense.laterals[i].unfold(2, side, cell).unfold(3, side, cell)  # a view: (B, c, h, w, side, side)
                lateral = windows[batch, :, rows, cols]  # (N, c, side, side)
            x = module.merge(lateral, x, double=module is not self.refinements[-1])  # (N, c', 2 side, 2 side)
        return doubled_conv(x, self.last, module.upsample)[:, 0]  # (N, P, P)


def over(base: Callable[..., DeepMask]) -> Callable[..., SharpMask]:
    """The function that builds a DeepMask of one kind with refinement."""

    def build(*, deepmask: DeepMask | dict | None = None, **refinement: Any) -> SharpMask:
        """A DeepMask of this kind with refinement.

        Args: deepmask: a trained one; or options for a fresh one. refinement: options of `SharpMask`.
        Source: SharpMask section 3; official `SharpMask.lua`. Lesson: 06.
        """
        return SharpMask(deepmask if isinstance(deepmask, DeepMask) else base(**(deepmask or {})), **refinement)

    build.__name__ = build.__qualname__ = base.__name__.replace("deepmask", "sharpmask")
    return recorded(build)


sharpmask_tiny = over(deepmask_tiny)  # ours, for a laptop: 96 x 96 masks
sharpmask_resnet50 = over(deepmask_resnet50)  # paper 2's and the official code's: 160 x 160 masks, 2.75 M of refinement
sharpmask_vgg_a = over(deepmask_vgg_a)  # paper 1's with refinement: 224 x 224 masks

BUILDERS = (sharpmask_tiny, sharpmask_resnet50, sharpmask_vgg_a)
MODELS: dict[str, Callable[..., SharpMask]] = {build.__name__: build for build in BUILDERS}
