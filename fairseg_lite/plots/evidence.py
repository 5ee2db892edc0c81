"""Figures of `evaluate`: which pictures went best and worst, and what edges look like from near."""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from pycocotools import mask as coco_mask

from fairseg_lite.data.patches import evaluation_patches, usable_rows
from fairseg_lite.data.scenes import SceneDataset, Subset
from fairseg_lite.evaluation.patches import patch_spec
from fairseg_lite.geometry.masks import rle_decode
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.plots.pictures import grid, hits, to_pixels


def extremes(data: SceneDataset, truth: dict, results: list[dict], count: int = 3) -> Figure:
    """The pictures whose objects were found best, at the median and worst: the best of 100 proposals for each object."""
    objects, found = {}, {}
    for a in truth["annotations"]:
        if not a["iscrowd"]:
            objects.setdefault(a["image_id"], []).append(a["segmentation"])
    for r in results:  # best first, picture by picture
        if len(found.setdefault(r["image_id"], [])) < 100:
            found[r["image_id"]].append(r["segmentation"])
    ranked = []
    for i, entry in enumerate(truth["images"]):
        rles, proposals = objects.get(entry["id"], []), found.get(entry["id"], [])
        if rles and proposals:
            iou = coco_mask.iou(proposals, rles, [0] * len(rles))
            ranked.append((iou.max(0).mean(), i, rles, [proposals[k] for k in iou.argmax(0)]))
        elif rles:
            ranked.append((0.0, i, rles, []))
    ranked.sort(key=lambda row: -row[0])
    count = max(min(count, len(ranked) // 3), 1)  # no picture twice, where there are three
    middle = (len(ranked) - count) // 2
    parts = {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}
    pictures, titles = [], []
    for word, rows in parts.items():
        for value, i, rles, best in rows:
            image = data[i].image
            shown, drawn = (np.any([np.zeros(image.shape[:2], bool), *map(rle_decode, part)], axis=0) for part in (rles, best))
            pictures.append(hits(image, shown, drawn))
            titles.append(f"{word}: mean IoU {value:.2f}")
    legend = "the best of 100 masks for each object: green found, orange missed, blue too much"
    return grid(pictures, titles, columns=count, side=4, title=legend)


@torch.inference_mode()
def edges_of(model: DeepMask | SharpMask, data: SceneDataset, count: int = 8) -> Figure:
    """Objects of pictures evenly spread over the data, close up where the coarse mask is most wrong.

    One row of pictures and one for each kind of mask: DeepMask's and, where the network has them, SharpMask's.
    """
    pictures = sorted({int(i) for i in data.instances.image[usable_rows(data)]})
    some = [pictures[i * len(pictures) // count] for i in range(min(count, len(pictures)))]
    device, spec = next(model.parameters()).device, patch_spec(model)
    side, half, near = spec.patch_size, spec.context // 2, spec.patch_size // 2  # near: pixels of a close-up
    rows: list[list[np.ndarray]] = []
    stages = {"DeepMask": getattr(model, "deepmask", model)} | ({"SharpMask": model} if isinstance(model, SharpMask) else {})
    for i in some:
        batch = next(iter(evaluation_patches(Subset(data, [i]), spec, padding=model.record.padding, batch_size=1)))
        image = to_pixels(batch.images)[0][half : half + side, half : half + side]
        truth = batch.masks[0].bool()
        masks = []
        for network in stages.values():
            logits = network(batch.images.to(device)).masks[:, None].float()
            masks.append(F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[0, 0].cpu() > 0)
        wrong = F.avg_pool2d((masks[0] != truth)[None, None].float(), near, stride=4)[0, 0]
        y, x = (4 * n for n in divmod(int(wrong.argmax()), wrong.shape[1]))
        cut = slice(y, y + near), slice(x, x + near)
        rows.append([image[cut], *(hits(image, truth.numpy(), m.numpy())[cut] for m in masks)])
    shown = [row[k] for k in range(1 + len(stages)) for row in rows]
    legend = f"as they are, {' and '.join(stages)}: green found, orange missed, blue too much"
    return grid(shown, columns=len(rows), side=1.8, title=legend)
