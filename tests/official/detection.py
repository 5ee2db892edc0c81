"""Detection as the official MultiPathNet does it: to compare with it, not to use (that is `inference/detect.py`).

What differs, and where it comes from (`ImageDetect.lua`, `Tester_FRCNN.lua`):
- the resized picture's sides are cut to whole pixels, and the scale of the boxes is the one before that;
- boxes grow without a limit (`decode_boxes` stops at 62 times the side);
- corrected boxes are clamped to 1 .. width, counted from 1, which cuts off the last pixel's far side;
- overlaps count one pixel more (tests/official/boxes.py), and no score is too low;
- iterative localisation follows the most probable class, background too, and does not clamp what later rounds give.
Several scales at once fail in the official code; here as there one is used.
"""

import torch
from torch import Tensor

from fairseg_lite.errors import InputError
from fairseg_lite.models.multipathnet import MultiPathNet, probabilities
from tests.official.boxes import keep_top_k, official_decode, official_nms, official_vote, select_boxes
from tests.official.resample import image_scale

BGR_MEAN = (102.9801, 115.9465, 122.7717)  # of 0 .. 255: VGG, "RossTransformer"
RGB_MEAN, RGB_STD = (0.48462227599918, 0.45624044862054, 0.40588363755159), (0.22889466674951, 0.22446679341259, 0.22495548344775)


def official_picture(image: Tensor, transform: str, short_side: int, max_side: int) -> tuple[Tensor, float]:
    """The network's input and the scale of boxes.

    Args:
        image: (3, H, W) RGB in [0, 1].
        transform: "ross" (VGG: BGR, 0 .. 255 less a mean) or "imagenet" (ResNet: mean and deviation of RGB).
        short_side, max_side: in pixels; the short side is brought to the first unless the long one would pass the second.
    Returns:
        ((1, 3, h, w), scale).
    Raises:
        InputError: another shape, or an unknown transform.
    Source: official `ImageDetect.lua` `getImages`, `ImageTransformer.lua`. Lesson: none.
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise InputError(f"picture is {image.dtype} {tuple(image.shape)}; wanted float (3, H, W) in [0, 1]")
    if transform == "ross":
        image = image.flip(0) * 255 - image.new_tensor(BGR_MEAN)[:, None, None]
    elif transform == "imagenet":
        image = (image - image.new_tensor(RGB_MEAN)[:, None, None]) / image.new_tensor(RGB_STD)[:, None, None]
    else:
        raise InputError(f"transform is {transform!r}; choose 'ross' or 'imagenet'")
    sides = image.shape[1:]
    scale = short_side / min(sides)
    if round(scale * max(sides)) > max_side:
        scale = max_side / max(sides)
    return image_scale(image, *(int(side * scale) for side in sides))[None], scale


@torch.inference_mode()
def detect_official(
    model: MultiPathNet,
    image: Tensor,
    boxes: Tensor,
    *,
    transform: str,
    short_side: int = 600,
    max_side: int = 1000,
    nms: float = 0.3,
    vote: float | None = None,
    top: int | None = 100,
    iterations: int = 1,
) -> list[Tensor]:
    """Scored boxes of each category with the official code's arithmetic.

    Args:
        model: in evaluation mode.
        image, transform, short_side, max_side: as for `official_picture`.
        boxes: (N, 4) proposals, xyxy in pixels of the picture.
        nms: IoU above which the worse box of a category goes.
        vote: IoU for box voting, or None without.
        top: detections a picture; None keeps all.
        iterations: how often boxes are corrected; the candidates of all rounds are pooled.
    Returns:
        For each category (M, 5): xyxy in pixels, score; the best first.
    Raises:
        InputError: as `official_picture` and `MultiPathNet.classify`.
    Source: official `ImageDetect:detect`, `Tester:testOne`. Lesson: none.
    """
    picture, scale = official_picture(image, transform, short_side, max_side)
    levels = model.features(picture)
    scores, found = [], []
    for i in range(iterations):
        p, corrected = official_outputs(model, levels, boxes, scale)
        if i == 0:
            height, width = image.shape[1:]
            corrected = torch.minimum(corrected.clamp(min=0), corrected.new_tensor([width, height] * 2) - 1)
        scores.append(p)
        found.append(corrected)
        boxes = select_boxes(p, corrected)
    p, corrected = torch.cat(scores), torch.cat(found)  # (N, K+1), (N, K+1, 4)
    detections = []
    for k in range(1, model.num_classes + 1):
        candidates = torch.cat([corrected[:, k], p[:, k, None]], 1)
        kept = candidates[official_nms(candidates, nms)]
        detections.append(kept if vote is None else official_vote(kept, candidates, threshold=vote))
    return detections if top is None else keep_top_k(detections, top)


def official_outputs(model: MultiPathNet, levels: list[Tensor], boxes: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Probabilities (N, K+1) and corrected boxes (N, K+1, 4) in pixels of the picture, of boxes (N, 4) there."""
    output = model.classify(levels, torch.cat([boxes.new_zeros(len(boxes), 1), boxes * scale], 1))
    return probabilities(output), official_decode(boxes, output.deltas * model.delta_std + model.delta_mean)
