"""What faults of the official code cost: the numbers of fairseg_lite/official/DIFFERENCES.md.

python -m tests.official.differences shapes:16 shapes              the neighbour's mask, AR right and official
python -m tests.official.differences shapes:16 shapes-sharp        and up-sampling by copying
python -m tests.official.differences FOLDER MODEL.safetensors 30   on the first 30 pictures of a COCO-format folder
"""

import sys
from collections.abc import Sequence
from unittest.mock import patch

import torch

from fairseg_lite.cli.inputs import open_dataset
from fairseg_lite.data.coco import to_coco
from fairseg_lite.evaluation.recall import average_recall
from fairseg_lite.inference import propose as proposals
from fairseg_lite.models.checkpoints import load_model
from fairseg_lite.models.sharpmask import SharpMask
from tests.official.inference import top_scores


class First:
    """The first scenes of a data set."""

    def __init__(self, dataset, count: int | None):
        self.dataset, self.count = dataset, min(count or len(dataset), len(dataset))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.dataset[index]

    def __getattr__(self, name: str):
        return getattr(self.dataset, name)


def official_windows(levels, top_k):
    """`best_windows` with the official pairing: the score of one window, the mask of its neighbour up and to the right."""
    rows = top_scores(levels, min(top_k, levels[-1].dense.scores.numel()))
    return torch.logit(rows[:, 0]), *(rows[:, i].long() - 1 for i in (1, 2, 3))


def neighbours_mask(data, model, limits: Sequence[int]) -> dict[str, dict[str, dict[int, float]]]:
    """AR of masks ("segm") and boxes ("bbox") with the window's own mask and with the neighbour's."""
    truth, found = to_coco(data), {}
    for name, windows in (("right", proposals.best_windows), ("official", official_windows)):
        with patch.object(proposals, "best_windows", windows):
            found[name] = _recall(data, model, truth, limits)
    return found


def nearest(data, model: SharpMask, limits: Sequence[int]) -> dict[str, dict[int, float]]:
    """As `neighbours_mask`, with refinement that doubles by copying, as the official code's; the model is changed."""
    for module in model.refinements:
        module.upsample = "nearest"
    return _recall(data, model, to_coco(data), limits)


def _recall(data, model, truth: dict, limits: Sequence[int]) -> dict[str, dict[int, float]]:
    results = []
    for i in range(len(data)):
        scene = data[i]
        results += proposals.propose(model, scene.image, top_k=max(limits)).to_coco(scene.image_id)
    return {kind: average_recall(truth, results, iou_type=kind, limits=limits).ar for kind in ("segm", "bbox")}


def main(name: str, checkpoint: str, count: str = "0") -> None:
    data = First(open_dataset(name, held_out=True), int(count))
    limits = (10, 100, 1000)
    model = load_model(checkpoint)
    found = neighbours_mask(data, model, limits)
    if isinstance(model, SharpMask):
        found["nearest"] = nearest(data, model, limits)
    objects = len(to_coco(data)["annotations"])
    print(f"{len(data)} pictures, {objects} objects; AR@{' / '.join(map(str, limits))}")
    for how, kinds in found.items():
        print(f"{how:9s}" + "   ".join(f"{kind} " + " / ".join(f"{ar[k]:.3f}" for k in limits) for kind, ar in kinds.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
