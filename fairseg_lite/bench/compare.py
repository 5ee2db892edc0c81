"""Time beside other time: what else one could run on a picture, in turns with ours; and how time grows with what is asked.

`peers` times whole pictures, from pixels to masks. Turn by turn every program runs once, so that what else the machine does hits
all alike; a ratio is taken within a turn. torchvision's detectors have random weights, with which they look at 1,000 regions and
draw 100 masks, the most they do; ours, with the weights of the library, draw as many masks as they find objects, 100 at most.
foolwood/deepmask-pytorch, "the port", runs as it comes, with random weights, where a folder holds it: it is no package.
`scale` makes one thing larger and leaves the rest. Growth 1 means: twice as much takes twice as long.
"""

import math
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torchvision.models import detection, resnet50

from fairseg_lite.bench import DTYPES, Stopwatch, fastest, job, settings
from fairseg_lite.data.photos import photographs
from fairseg_lite.errors import InputError
from fairseg_lite.evaluation.precision import evaluate_detections
from fairseg_lite.inference.detect import PROPOSALS, detect
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.checkpoints import Device, load_model
from fairseg_lite.models.network import seeded

MASK, FASTER = "Mask R-CNN R50-FPN", "Faster R-CNN R50-FPN"
SIZE = 640, 480  # px, width and height, of the photograph
MEGAPIXELS, PROPOSED, ANNOTATED = (0.3, 1.0, 3.0, 10.0, 20.0), (10, 30, 100, 300, 1000), (1, 10, 100, 1000, 10_000)
OBJECTS = 5  # in each annotated picture


def photograph(width: int, height: int) -> np.ndarray:
    """One of the library's photographs, in another size: (height, width, 3) uint8."""
    return np.array(Image.fromarray(photographs()[11].image).resize((width, height), Image.Resampling.BICUBIC))


def port(folder: str, image: np.ndarray, device: torch.device, *, quick: bool) -> Callable[[], object]:
    """DeepMask of a checkout of deepmask-pytorch, with the scales and proposals of `bench`; InputError, it does not run here."""
    s, here = settings(quick=quick, model="deepmask_resnet50"), patch.object(sys, "path", [folder, *sys.path])
    scales = [2 ** ((1 - i) / 2) for i in reversed(range(s.scales))]
    try:
        with here, seeded(0), patch("torchvision.models.resnet50", lambda **_: resnet50(weights=None)):  # else it downloads them
            model = import_module("models").DeepMask().eval().to(device)
            infer = import_module("tools.InferDeepMask").Infer(model, nps=s.top_k, scales=scales, device=device, timer=False)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--peers {folder}: no checkout of deepmask-pytorch that runs here: {error}") from error
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].div(255).to(device)

    def run() -> object:
        infer.forward(tensor)
        with patch("numpy.float", float, create=True):  # which numpy 1.24 has dropped
            return infer.getTopProps(0.2, *image.shape[:2])

    return run


def programs(types: list[str], device: torch.device, folder: str, *, quick: bool) -> dict[tuple[str, str], Callable]:
    """What is run on one picture, by its name and type."""
    image = photograph(*((96, 80) if quick else SIZE))
    found: dict[tuple[str, str], Callable[[], object]] = {}
    tensor = torch.from_numpy(image).permute(2, 0, 1).div(255).to(device)
    options = {"weights": None, "weights_backbone": None, **({"min_size": 64} if quick else {})}
    for name, build in ((MASK, detection.maskrcnn_resnet50_fpn), (FASTER, detection.fasterrcnn_resnet50_fpn)):
        with seeded(0):
            peer = build(**options).eval().to(device)
        found[name, "fp32"] = lambda peer=peer: torch.inference_mode()(peer)([tensor])
    if folder:
        found["deepmask-pytorch, ResNet-50", "fp32"] = port(folder, image, device, quick=quick)
    kinds = ("deepmask_tiny", "sharpmask_tiny") if quick else ("deepmask_resnet50", "sharpmask_resnet50")
    name = "shapes-multipath" if quick else "photos-multipath"
    for word in types:
        for kind in kinds:
            found[kind, word] = job(settings(quick=quick, model=kind), DTYPES[word], device)
        names = prepare(load_model(name, device=device), dtype=DTYPES[word])
        finder = prepare(load_model(names.record.proposals, device=device), dtype=DTYPES[word])

        def whole(names=names, finder=finder) -> object:
            return detect(names, image, propose(finder, image, top_k=PROPOSALS), proposer=finder, masks="refined")

        found["detect, the library's networks", word] = whole
    return found


def peers(types: list[str], device: Device = "cpu", *, folder: str = "", turns: int = 5, quick: bool = False) -> list[dict]:
    """Seconds of each program in each turn: [{"what", "type", "seconds"}]; torchvision's Mask R-CNN comes first.

    folder: with deepmask-pytorch, which runs, too.
    """
    work = programs(types, torch.device(device), folder, quick=quick)
    rows = [{"what": what, "type": word, "seconds": []} for what, word in work]
    for turn in range(turns + 1):
        for row, run in zip(rows, work.values(), strict=True):
            watch = Stopwatch(torch.device(device))
            with watch("once"):
                run()
            if turn:  # the first one warms up
                row["seconds"].append(watch.seconds["once"])
    return rows


def peers_report(rows: list[dict]) -> str:
    """A line for each program: its median time, and the ratio to Mask R-CNN's with the least and the most of all turns."""
    first = rows[0]["seconds"]
    lines = [f"{'one picture':34}{'type':6}{'seconds':>9}   times {MASK}, median (least to most of {len(first)} turns)"]
    for row in rows:
        ratio = [a / b for a, b in zip(row["seconds"], first, strict=True)]
        told = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
        lines.append(f"{row['what']:34}{row['type']:6}{statistics.median(row['seconds']):9.2f}   {told}")
    return "\n".join(lines)


def annotated(pictures: int) -> tuple[dict, list[dict]]:
    """Pictures with objects that have boxes alone, as a COCO dict, and results that lie beside half of them."""
    g = np.random.default_rng(0)
    images = [{"id": i + 1, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in range(pictures)]
    objects, results = [], []
    for i, (x, y, off) in enumerate(g.integers(0, 300, (pictures * OBJECTS, 3)).tolist()):
        same = {"image_id": i // OBJECTS + 1, "category_id": 1 + i % 3}
        objects.append({**same, "id": i + 1, "bbox": [x, y, 60, 60], "area": 3600, "iscrowd": 0, "segmentation": []})
        results.append({**same, "bbox": [x + off % 50, y, 60, 60], "score": off / 300})
    categories = [{"id": k, "name": str(k)} for k in (1, 2, 3)]
    return {"images": images, "annotations": objects, "categories": categories}, results


def scale(repeat: int = 3) -> Iterator[dict]:
    """Rows {"what", "n", "seconds", "why"} of the library's networks in float32: the fastest of some runs, as n grows.

    Nothing should grow faster than n itself; `why` says what is expected below that.
    """
    finder, names = prepare(load_model("photos-sharp")), prepare(load_model("photos-multipath"))

    def timed(what: str, n: float, why: str, work: Callable[[], object]) -> dict:
        return {"what": what, "n": n, "seconds": fastest(work, torch.device("cpu"), repeat), "why": why}

    for n in MEGAPIXELS:
        image = photograph(*(round(side * math.sqrt(n * 1e6 / 12)) for side in (4, 3)))
        work = partial(propose, finder, image, top_k=100)
        yield timed("megapixels, 100 proposals", n, "less: networks see 1,024 px at most", work)
    image = photograph(*SIZE)
    boxes = propose(finder, image, top_k=max(PROPOSED))
    for n in PROPOSED:
        yield timed("proposals made", n, "less: windows are scored once", partial(propose, finder, image, top_k=n))
    for n in PROPOSED:
        yield timed("proposals named", n, "less, then 1: features once", partial(detect, names, image, boxes[:n], masks=None))
    for n in ANNOTATED:
        yield timed("annotated pictures judged", n, "1", partial(evaluate_detections, *annotated(n), "bbox"))


def growth(rows: list[dict]) -> list[float | None]:
    """How each row's time grew since the row before, as a power of n; None for the first of a kind."""
    pairs = zip([None, *rows], rows, strict=False)
    return [
        math.log(b["seconds"] / a["seconds"]) / math.log(b["n"] / a["n"]) if a and a["what"] == b["what"] else None
        for a, b in pairs
    ]


def scale_report(rows: list[dict]) -> str:
    """The rows for people."""
    lines = [f"{'what':28}{'n':>9}{'seconds':>10}{'growth':>9}   expected: at most 1"]
    for row, power in zip(rows, growth(rows), strict=True):
        grew = "" if power is None else f"{power:.2f}"
        lines.append(f"{row['what']:28}{row['n']:9g}{row['seconds']:10.3f}{grew:>9}   {row['why']}")
    return "\n".join(lines)
