"""Masks of a network on the patches it would see in training, centred and unjittered: what patch measures look at."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from fairseg_lite.data.patches import PatchSpec, evaluation_patches
from fairseg_lite.data.scenes import SceneDataset
from fairseg_lite.errors import InputError
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask


def patch_spec(model: DeepMask | SharpMask) -> PatchSpec:
    """The patches a network is trained on."""
    return PatchSpec(
        patch_size=model.patch_size, context=model.context, object_size=model.object_size, target_size=model.target_size
    )


def trained_padding(model: DeepMask | SharpMask) -> str:
    """How a checkpoint was trained to see beyond the picture: "symmetric" (also where it does not say) or "mean".

    Args:
        model: with a `header` if it was loaded (`load_model`). The `deepmask` inside a SharpMask has none of its own.
    Example:
        >>> from fairseg_lite.models.deepmask import deepmask_tiny
        >>> trained_padding(deepmask_tiny())
        'symmetric'

    Lesson: 03.
    """
    return getattr(model, "header", {}).get("recipe", {}).get("padding", "symmetric")


@torch.inference_mode()
def patch_masks(
    model: DeepMask | SharpMask,
    dataset: SceneDataset,
    *,
    threshold: float = 0.5,
    padding: str | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true masks at the patch's full resolution P, batch by batch, of every usable instance.

    Args:
        model: in evaluation mode.
        dataset: held-out scenes.
        threshold: mask probability above which a pixel belongs to the object.
        padding: of patches beyond the picture, "symmetric" or "mean"; None takes `trained_padding`.
        limit: at most so many instances (for a quick look; a measure of all is the honest one).
        progress: show a bar.
    Yields:
        (B, P, P) bool predicted and (B, P, P) bool true, on the model's device.
    Raises:
        InputError: no usable instance, or a limit below 1.
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
    side, cut = spec.patch_size, torch.logit(torch.tensor(threshold)).item()
    batches = evaluation_patches(dataset, spec, padding=padding or trained_padding(model))
    for batch in tqdm(batches, disable=not progress, desc="patches", unit="batch", delay=2):
        batch = batch.to(device)
        masks = F.interpolate(model(batch.images).masks[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0] > cut
        rest = None if limit is None else limit - count
        yield masks[:rest], batch.masks[:rest]
        count += len(masks)
        if limit is not None and count >= limit:
            break
    if not count:
        raise InputError(f"no object to measure: the picture of each of {len(dataset.instances)} instances is damaged")
