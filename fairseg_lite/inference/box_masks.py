"""Masks for boxes: DeepMask or SharpMask looks once more, at the patch in whose middle a box lies at the canonical scale.

A proposal's mask belongs to the window it was found in; the detector then moved and resized its box. In training the networks
saw the object centred and its longer side at a fixed length: that is the patch cut here.
"""

import numpy as np
import torch
from torch import Tensor

from fairseg_lite.data.patches import PatchSpec, canonical, crop_image
from fairseg_lite.errors import InputError
from fairseg_lite.inference.propose import logit, paste_rle
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask

BATCH = 64  # patches that go through the network together


@torch.inference_mode()
def masks_in_boxes(
    model: DeepMask | SharpMask, image: np.ndarray, boxes: Tensor, *, threshold: float = 0.5, padding: str | None = None
) -> list[dict]:
    """The mask of the object in each box, which may reach a little beyond the box.

    Args:
        model: in evaluation mode; one from `prepare` is faster.
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels.
        threshold: mask probability above which a pixel belongs to the object.
        padding: what patches see beyond the picture, "symmetric" or "mean"; None takes what the checkpoint was trained with.
    Returns:
        N compressed RLEs of H x W px; the mask can be empty.
    Raises:
        InputError: a box without area or with a corner that is no number, or a threshold that is no probability.
    Example:
        >>> from fairseg_lite.models.deepmask import deepmask_tiny
        >>> rle = masks_in_boxes(deepmask_tiny().eval(), np.zeros((30, 40, 3), np.uint8), torch.tensor([[5.0, 5, 20, 15]]))
        >>> rle[0]["size"]
        [30, 40]

    Source: ours; of the paper's masks nothing is known. Lesson: 11.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    if not bool((boxes.isfinite().all(1) & (sides > 0).all(1)).all()):
        raise InputError(f"{len(boxes)} boxes, some without an area or with a corner that is no number; leave those out")
    spec = PatchSpec(model.patch_size, model.context, model.object_size, model.target_size)
    full, weight = spec.patch_size + spec.context, next(model.parameters())
    padding = padding or model.record.padding
    cut = logit(threshold)
    windows = [canonical(box, spec) for box in boxes.tolist()]
    places = [[w.x, w.y, spec.patch_size / w.scale] for w in windows]  # what the mask covers: the patch without context
    x, y, side = torch.tensor(places, device=weight.device).reshape(-1, 3).T
    squares = torch.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], 1)
    rle: list[dict] = []
    for start in range(0, len(windows), BATCH):
        patches = np.stack([crop_image(image, w, full / w.scale, full, padding) for w in windows[start : start + BATCH]])
        logits = model(model.normalise(patches).to(weight.dtype)).masks.float()
        rle += paste_rle(logits, squares[start : start + BATCH], image.shape[0], image.shape[1], cut)[0]
    return rle
