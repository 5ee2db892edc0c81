"""Masks of a network on the patches it would see in training, centred and unjittered, and how good they are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from fairseg_lite.data.patches import PatchSampler, PatchSpec, evaluation_patches
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask


def patch_spec(model: DeepMask | SharpMask) -> PatchSpec:
    """The patches a network is trained on."""
    return PatchSpec(
        patch_size=model.patch_size, context=model.context, object_size=model.object_size, target_size=model.target_size
    )


@torch.inference_mode()
def patch_masks(
    model: DeepMask | SharpMask, dataset: SceneDataset, *, padding: str | None = None, limit: int | None = None,
    progress: bool = True, min_area: float = 100, min_side: float = 5,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Predicted and true masks at the patch's full resolution P, batch by batch, of every usable instance.

    Args:
        model, dataset: in evaluation mode; held-out scenes.
        padding: of patches beyond the picture, "symmetric" or "mean"; None takes the trained.
        limit: at most so many instances (for a quick look; a measure of all is the honest one).
        progress: show a bar. min_area, min_side: px; smaller objects are left out.
    Yields: (B, P, P) bool predicted (a probability above one half) and (B, P, P) bool true, on the model's device.
    Raises: InputError, no usable instance, or a limit below 1.
    Example:
        >>> from fairseg_lite.data.shapes import ShapesDataset
        >>> from fairseg_lite.models.deepmask import deepmask_tiny
        >>> predicted, truth = next(patch_masks(deepmask_tiny().eval(), ShapesDataset(1), limit=2, progress=False))
        >>> predicted.shape == truth.shape == (2, 96, 96)
        True

    Lesson: 03.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; measure at least 1 instance, or None for all")
    device, spec, count = next(model.parameters()).device, patch_spec(model), 0
    size = spec.patch_size, spec.patch_size
    options: dict[str, Any] = {"padding": padding or model.record.padding, "pixels": model.record.pixels}
    batches = evaluation_patches(dataset, spec, min_area=min_area, min_side=min_side, **options)
    for batch in tqdm(batches, disable=not progress, desc="patches", unit="batch", delay=2):
        batch = batch.to(device)
        masks = F.interpolate(model(batch.images).masks[:, None], size, mode="bilinear", align_corners=False)[:, 0] > 0
        rest = None if limit is None else limit - count
        yield masks[:rest], batch.masks[:rest]
        count += len(masks)
        if limit is not None and count >= limit:
            break
    if not count:
        raise InputError(f"no object to measure: the picture of each of {len(dataset.instances)} instances is damaged")


@dataclass(frozen=True)
class PatchReport:
    """How good masks and scores are on centred patches, over every usable instance of a dataset."""

    instances: int
    mean_iou: float
    median_iou: float
    rate_50: float  # share of instances with IoU above .50
    rate_70: float
    rate_85: float
    score_accuracy: float  # on as many positives as negatives
    ious: list[float] = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.instances} instances: mean IoU {self.mean_iou:.3f}, median {self.median_iou:.3f}, "
            f"IoU > .5 {self.rate_50:.3f}, > .7 {self.rate_70:.3f}, > .85 {self.rate_85:.3f}, "
            f"score accuracy {self.score_accuracy:.3f}"
        )


@torch.inference_mode()
def patch_report(
    model: DeepMask | SharpMask, dataset: SceneDataset, *, limit: int | None = None, min_area: float = 100,
    min_side: float = 5, progress: bool = True,
) -> PatchReport:  # fmt: skip
    """Mask IoU at the patch's full resolution, on centred unjittered patches of every usable instance.

    Args: as in `patch_masks`; padding is the trained. Raises: InputError, no usable instance. Lesson: 03.
    """
    device, ious = next(model.parameters()).device, []
    least: Any = {"min_area": min_area, "min_side": min_side}
    for masks, truth in patch_masks(model, dataset, limit=limit, progress=progress, **least):
        inter = (masks & truth).sum((1, 2)).float()
        ious += (inter / (masks | truth).sum((1, 2)).clamp(min=1)).tolist()
    value = torch.tensor(ious)
    right = []
    sampler = PatchSampler(
        dataset, patch_spec(model), positives=32, negatives=32, seed=1, jitter=False, balance="uniform",
        padding=model.record.padding, pixels=model.record.pixels, **least,
    )  # fmt: skip
    for step in range(max(1, min(16, len(ious) // 32))):
        batch = sampler.batch(step).to(device)
        scores = getattr(model, "deepmask", model)(batch.images).scores  # a SharpMask's scores are its DeepMask's
        right.append(((scores > 0) == (batch.labels > 0)).float().mean())
    r50, r70, r85 = ((value > t).float().mean().item() for t in (0.5, 0.7, 0.85))
    accuracy = torch.stack(right).mean().item()
    return PatchReport(len(ious), value.mean().item(), value.median().item(), r50, r70, r85, accuracy, ious)
