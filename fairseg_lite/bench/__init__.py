"""Floor 4: where the time goes, measured on the code that users run, against what the machine can do.

`run(settings())` times one picture through `propose` stage by stage, a training step through `fit`, and the peak memory of a
process that does nothing else. The ceiling is a large matrix product in the same type: no stage of convolutions and linear layers
beats its arithmetic at that rate. Weights and picture are random: the time of every stage but the last does not depend on them.
For a MultiPathNet the picture has boxes anywhere instead of proposals and comes in the paper's size, 800 px or at most 1000;
"rois" looks at each of them, "nms" has nothing to do: random weights are sure of nothing.
"""

import math
import multiprocessing
import platform
import sys
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fairseg_lite.data.patches import PatchSampler
from fairseg_lite.data.results import Boxes
from fairseg_lite.data.shapes import ShapesDataset
from fairseg_lite.errors import check_choice, check_range
from fairseg_lite.evaluation.patches import patch_spec
from fairseg_lite.inference.detect import detect
from fairseg_lite.inference.propose import prepare, propose
from fairseg_lite.models.checkpoints import MODELS
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.multipathnet import MultiPathNet
from fairseg_lite.models.network import seeded
from fairseg_lite.training.fit import fit
from fairseg_lite.training.recipes import FitConfig, Recipe
from fairseg_lite.training.shards import bf16_is_faster, synchronize
from fairseg_lite.training.stages import loss_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CATEGORIES, SIZE = 80, {"short_side": 800, "max_side": 1000}  # COCO's, and the paper's size of a picture, px


@dataclass(frozen=True)
class Settings:
    """One benchmark. The defaults: a picture of the usual size with the second paper's network."""

    model: str = "deepmask_resnet50"  # a name of MODELS
    width: int = 640  # px
    height: int = 480  # px
    scales: int = 7  # sqrt(2) apart, the largest 2^.5 at a 160-px patch
    top_k: int = 500  # proposals; 1,000 for a MultiPathNet
    repeat: int = 3  # runs after a first one that is not counted; the fastest total counts
    batch: int = 32  # patches in a training step
    ceiling: int = 2048  # side of the matrices

    def __post_init__(self) -> None:
        check_choice("model", self.model, MODELS)
        for name, value in asdict(self).items():
            if isinstance(value, int):
                check_range(name, value, 1, None)


QUICK = Settings(model="deepmask_tiny", width=160, height=120, scales=2, top_k=20, repeat=1, batch=4, ceiling=256)


def settings(*, quick: bool = False, **changes: object) -> Settings:
    """Those of `QUICK` or the defaults, with changes; a MultiPathNet looks at 1,000 proposals."""
    if str(changes.get("model")).startswith("multipathnet") and not quick:
        changes = {"top_k": 1000, **changes}
    return replace(QUICK if quick else Settings(), **changes)


class Stopwatch:
    """What `propose(timer=...)` calls around each stage: adds up seconds, and FLOPs when given a counter."""

    def __init__(self, device: torch.device, counter: FlopCounterMode | None = None):
        self.device, self.counter = device, counter
        self.seconds: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        flops, start = self._now()
        yield
        after, end = self._now()
        self.seconds[stage] += end - start
        self.flops[stage] += after - flops

    def _now(self) -> tuple[int, float]:
        synchronize(self.device)
        return self.counter.get_total_flops() if self.counter else 0, time.perf_counter()


def fastest(work: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Seconds of the best of some runs, after one that warms up."""

    def once() -> None:
        with Stopwatch(device)("work"):
            work()

    return min(timeit.repeat(once, number=1, repeat=repeat + 1))


def ceiling(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """FLOP/s of a matrix product of `side` x `side` in the type of convolutions: on CUDA that is TF32 where fp32 is asked for.

    Example:
        >>> ceiling(torch.float32, torch.device("cpu"), 64) > 0
        True
    """
    with seeded(0):
        a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
    exact = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        return 2 * side**3 / fastest(lambda: a @ b, device, 5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = exact


def build(s: Settings, device: torch.device) -> tuple[DeepMask | MultiPathNet, np.ndarray, list[float]]:
    """The network with random weights of a fixed seed, a picture of noise that has some structure, and the scales."""
    detector = s.model.startswith("multipathnet")
    with seeded(0):
        model = MODELS[s.model](**({"num_classes": CATEGORIES} if detector else {})).eval().to(device)
    g = np.random.default_rng(0)
    coarse = g.integers(0, 256, (s.height // 16 + 1, s.width // 16 + 1, 3), dtype=np.uint8)
    image = np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1)[: s.height, : s.width])
    if detector:
        return model, image, []
    top = 0.5 + math.log2(model.patch_size / 160)
    return model, image, [2 ** (top - 0.5 * i) for i in reversed(range(s.scales))]


def job(s: Settings, dtype: torch.dtype, device: torch.device) -> Callable[..., int]:
    """What a user does with one picture, ready to be called (with a timer); gives the number of proposals."""
    model, image, scales = build(s, device)
    if not isinstance(model, MultiPathNet):
        fast = prepare(model, dtype=dtype)  # once for all pictures, as `fairseg-lite propose` does
        return lambda timer=nullcontext: len(propose(fast, image, scales=scales, top_k=s.top_k, timer=timer))
    g, whole = torch.Generator().manual_seed(0), torch.tensor([s.width, s.height])
    sides = 16 * (whole / 16).clamp(min=1) ** torch.rand(s.top_k, 2, generator=g)
    corner = torch.rand(s.top_k, 2, generator=g) * (whole - sides).clamp(min=0)
    boxes = Boxes(torch.cat([corner, corner + sides], 1), torch.rand(s.top_k, generator=g))
    size = {} if s.model.endswith("tiny") else SIZE
    names = prepare(model, dtype=dtype)

    def look(timer=nullcontext) -> int:
        detect(names, image, boxes, masks=None, timer=timer, **size)
        return s.top_k

    return look


def time_scene(s: Settings, dtype: torch.dtype, device: torch.device) -> dict:
    """One picture, stage by stage: {"stages": {name: {"seconds", "gflop"}}, "total": seconds, "proposals": n}."""
    work = job(s, dtype, device)

    def once() -> tuple[float, dict[str, float]]:
        watch, whole = Stopwatch(device), Stopwatch(device)
        with whole("total"):
            work(timer=watch)
        return whole.seconds["total"], watch.seconds

    with FlopCounterMode(display=False) as counter:
        proposals = work(timer=(counted := Stopwatch(device, counter)))  # also the run that warms up
    total, seconds = min((once() for _ in range(s.repeat)), key=lambda run: run[0])
    stages = {k: {"seconds": v, "gflop": counted.flops[k] / 1e9} for k, v in seconds.items()}
    return {"stages": stages, "total": total, "proposals": proposals}


def time_training(s: Settings, name: str, device: torch.device) -> dict:
    """Steps of `fit` on a batch that is ready, and `forward` alone: seconds per step, patches per second of both."""
    model, *_ = build(s, device)
    negatives = s.batch // 4
    sampler = PatchSampler(ShapesDataset(20), patch_spec(model), positives=s.batch - negatives, negatives=negatives)
    patches = sampler.batch(0)
    images = patches.images.to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
        best = fastest(lambda: model(images), device, s.repeat)
    config = FitConfig(steps=s.repeat + 1, log_every=1, precision=name)
    history = fit(model.train(), SimpleNamespace(batch=lambda step: patches), loss_of(Recipe()), config, progress=False)
    rate = max(history["rate"][1:])  # the first step warms up
    return {"step_seconds": s.batch / rate, "patches_per_second": rate, "forward_patches_per_second": s.batch / best}


def _peak(s: Settings, name: str, device: torch.device, threads: int) -> dict:
    """In a process of its own: bytes after the imports, and the most while one picture went through."""
    torch.set_num_threads(threads)
    work = job(s, DTYPES[name], device)
    before, _ = high_water(), work()
    gpu = {"device": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}
    return {"before": before, "peak": high_water(), **gpu}


def high_water() -> int:
    """Bytes: the most memory this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent too, on Linux
        lines = status.read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memory(s: Settings, name: str, device: torch.device) -> dict:
    """{"before": bytes, "peak": bytes}, and "device" on a GPU, of a fresh process that proposes for one picture."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, s, name, device, torch.get_num_threads()).result()


def run(s: Settings, *, dtypes: Sequence[str] = tuple(DTYPES), device: torch.device | str = "cpu") -> dict:
    """Measure everything in each type; a type that this machine only emulates is skipped, and says so.

    Returns: What JSON can hold: settings, machine, and for each type ceiling, stages, training and memory, or "skipped".
    Raises: InputError, an unknown type.
    """
    device = torch.device(device)
    machine = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system(),
               "processor": platform.machine(), "threads": torch.get_num_threads(), "device": str(device),
               "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
               **({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})}  # fmt: skip
    result: dict = {"settings": asdict(s), "machine": machine, "dtypes": {}}
    for name in dtypes:
        check_choice("dtype", name, DTYPES)
        detector = s.model.startswith("multipathnet")
        if name == "bf16" and not bf16_is_faster(device):
            result["dtypes"][name] = {"skipped": "no faster than fp32 here: this machine has no unit for bfloat16"}
            continue
        result["dtypes"][name] = {
            "ceiling": ceiling(DTYPES[name], device, s.ceiling),
            "scene": time_scene(s, DTYPES[name], device),
            **({} if detector else {"training": time_training(s, name, device)}),
            "memory": peak_memory(s, name, device),
        }
    return result


def report(result: dict) -> str:
    """The numbers of `run` for people."""
    s, machine = result["settings"], result["machine"]
    scales = "" if s["model"].startswith("multipathnet") else f"{s['scales']} scales, "
    lines = [
        f"{s['model']}, {s['width']}x{s['height']}, {scales}{s['top_k']} proposals; "
        f"{machine.get('gpu', machine['processor'])}, {machine['threads']} threads, torch {machine['torch']}"
    ]
    for name, part in result["dtypes"].items():
        lines += ["", f"{name}: skipped, {part['skipped']}"] if "skipped" in part else ["", *_measured(name, part, s, machine)]
    return "\n".join(lines)


def _measured(name: str, part: dict, s: dict, machine: dict) -> Iterator[str]:
    """Lines about one type."""
    scene, top, memory = part["scene"], part["ceiling"], part["memory"]
    tf32 = " in TF32" if name == "fp32" and machine.get("tf32") else ""
    yield f"{name}: ceiling {top / 1e9:.0f} GFLOP/s (matrix product of {s['ceiling']}{tf32})"
    yield f"  {'stage':12}{'seconds':>9}{'share':>8}{'GFLOP':>9}{'GFLOP/s':>9}{'of ceiling':>12}"
    rows = {k: (v["seconds"], v["gflop"]) for k, v in scene["stages"].items()}
    rows["other"] = scene["total"] - sum(seconds for seconds, _ in rows.values()), 0.0
    rows["total"] = scene["total"], sum(gflop for _, gflop in rows.values())
    for stage, (seconds, gflop) in rows.items():
        rate = gflop / seconds if gflop else 0
        work = f"{gflop:9.2f}{rate:9.1f}{rate * 1e9 / top:12.1%}" if gflop else ""
        yield f"  {stage:12}{seconds:9.3f}{seconds / scene['total']:8.1%}{work}"
    if t := part.get("training"):
        yield (
            f"  training step of {s['batch']} patches {t['step_seconds']:.2f} s ({1 / t['step_seconds']:.2f} steps/s, "
            f"{t['patches_per_second']:.1f} patches/s); forward alone {t['forward_patches_per_second']:.1f} patches/s"
        )
    else:
        yield f"  RoI stage {1e3 * rows['rois'][0] / scene['proposals']:.2f} ms a proposal"
    peak, before, gpu = (memory.get(k, 0) / 2**20 for k in ("peak", "before", "device"))
    yield f"  peak memory {peak:.0f} MiB, {before:.0f} before the picture" + (f", GPU {gpu:.0f} MiB" if gpu else "")
