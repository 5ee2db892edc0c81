"""`python -m fairseg_lite.bench --gpu-report`: the numbers that a GPU is wanted for, in one run of some minutes.

Prepared on machines without one, where calls and waits are counted (tests/inference/test_calls.py) and nothing is measured.
Weights are random; the fastest run of some counts, after one that warms up. `--tiny` runs anywhere, to see that it works.
"""

import argparse
import json
from collections.abc import Iterator

import torch

from fairseg_lite.bench import DTYPES, Settings, settings, time_scene, time_training
from fairseg_lite.training.shards import best_device, wants_bf16

MODELS = ("deepmask_resnet50", "sharpmask_resnet50", "multipathnet_resnet18", "multipathnet_resnet50")
TINY = ("deepmask_tiny", "sharpmask_tiny", "multipathnet_tiny")
PROPOSALS = 200  # named in a picture
BATCHES = 32, 128, 256  # patches in a training step
BARS = {"sharpmask": "<= 25 ms", "multipathnet": "<= 25 ms", "training": ">= 8,000/s from 128 patches on"}


def rows(device: torch.device, *, tiny: bool) -> Iterator[dict]:
    """What is measured, one after the other: {"what", "type", "value", "unit", "stages"}."""
    types = [name for name in DTYPES if name == "fp32" or wants_bf16("auto", device)]
    for name in TINY if tiny else MODELS:
        named = name.startswith("multipathnet")
        s = settings(quick=tiny, model=name, **({} if tiny else {"repeat": 10, **({"top_k": PROPOSALS} if named else {})}))
        for dtype in types:
            found = time_scene(s, DTYPES[dtype], device)
            stages = {stage: 1e3 * part["seconds"] for stage, part in found["stages"].items()}
            what = f"{name}, {s.width}x{s.height}, {s.top_k} proposals"
            yield {"what": what, "type": dtype, "value": 1e3 * found["total"], "unit": "ms a picture", "stages": stages}
    for batch in (4,) if tiny else BATCHES:
        s = settings(quick=True, batch=batch) if tiny else Settings(batch=batch, repeat=10)
        for dtype in types:
            rate = time_training(s, dtype, device)["patches_per_second"]
            what = f"training {s.model}, {batch} patches a step"
            yield {"what": what, "type": dtype, "value": rate, "unit": "patches/s", "stages": {}}


def line(row: dict) -> str:
    """A row for people, with the bar that it is to pass, and its slowest stages."""
    bar = next((f"bar {words}" for kind, words in BARS.items() if row["what"].startswith(kind)), "")
    slowest = sorted(row["stages"].items(), key=lambda item: -item[1])[:3]
    told = ", ".join(f"{stage} {ms:.1f}" for stage, ms in slowest)
    return f"{row['what']:52} {row['type']:5}{row['value']:10.1f} {row['unit']:13} {bar:36} {told}".rstrip()


def main(argv: list[str] | None = None) -> int:
    """Measure, and print each row as it comes; the exit code.

    Raises: SystemExit, no job was asked for, or words that are unknown.
    """
    p = argparse.ArgumentParser(prog="python -m fairseg_lite.bench", description=__doc__, epilog="Stages: `fairseg-lite bench`.")
    p.add_argument("--gpu-report", action="store_true", required=True, help="time of the networks and of training, on a GPU")
    p.add_argument("--device", default="auto", metavar="D", help="default: the first of cuda, mps and cpu that is here")
    p.add_argument("--tiny", action="store_true", help="small networks, one run each")
    p.add_argument("--json", metavar="FILE", help="write all numbers as JSON")
    a = p.parse_args(argv)
    device = best_device() if a.device == "auto" else torch.device(a.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    tf32 = f", TF32 convolutions {torch.backends.cudnn.allow_tf32}" if device.type == "cuda" else ""
    print(f"{where}, torch {torch.__version__}{tf32}")
    found = []
    for row in rows(device, tiny=a.tiny):
        found.append(row)
        print(line(row), flush=True)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump({"device": where, "torch": torch.__version__, "rows": found}, f, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
