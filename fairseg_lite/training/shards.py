"""A step in equal parts, by one process or by many: `torchrun --nproc-per-node 2 -m fairseg_lite.cli train ...`

The parts of a batch (`FitConfig.shards`) are drawn, and dropout is seeded, by step and part; a step takes the mean of their
gradients, summed in their order. So it does not matter which process computes which part: the network is the same to the last
bit where each process has one, and to rounding else. `DistributedDataParallel` brings the gradients together; batch norm's
running statistics begin each part alike, and become their mean. The first process alone writes. First: which device, which type.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, reduce
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from fairseg_lite.errors import InputError, check_choice
from fairseg_lite.training.recipes import PRECISIONS, FitConfig


def best_device() -> torch.device:
    """The first of "cuda", "mps" and "cpu" that is here."""
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


@cache
def bf16_is_faster(device: torch.device | str = "cpu") -> bool:
    """Whether bfloat16 pays off on a device; no random number of the caller's is drawn.

    A CUDA device says whether it has units for it. Elsewhere a 3x3 convolution is measured in both types, a fifth of a second:
    some processors have such units (AMX), others emulate the type many times slower. True from 1.2 times faster on.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    shapes = (8, 64, 56, 56), (64, 64, 3, 3)
    x, w = (torch.ones(shape, device=device).to(memory_format=torch.channels_last) for shape in shapes)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):  # in turns: what else the machine does meanwhile hits both
        for dtype in best:
            a, b, start = x.to(dtype), w.to(dtype), time.perf_counter()
            F.conv2d(a, b, padding=1).sum().item()  # waits for the device
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] > 1.2 * best[torch.bfloat16]


def wants_bf16(precision: str, device: torch.device | str) -> bool:
    """What "fp32", "bf16" or "auto" (`bf16_is_faster`) comes to on a device; InputError for another word."""
    check_choice("precision", precision, PRECISIONS)
    return precision == "bf16" or (precision == "auto" and bf16_is_faster(device))


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that was asked of it: before a clock is read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


T = TypeVar("T")
_NONE = object()


def rank_and_world() -> tuple[int, int]:
    """Which process this is, of how many.

    Raises: InputError, there are many, and they do not know of each other: each would do all the work alone.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    if (world := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise InputError(f"WORLD_SIZE is {world}, but this process has not joined the others; train within `joined(device)`")
    return 0, 1


@contextmanager
def joined(device: torch.device | str) -> Iterator[torch.device]:
    """Among the processes that `torchrun` started; nothing where it started one, or none.

    Args: device: "cuda" becomes each process's own GPU.
    Yields: The device of this process.
    Raises: InputError, a device that processes cannot share, or more processes than GPUs; or one that others wait for has ended.
    Source: `torchrun` (WORLD_SIZE, LOCAL_RANK); gloo on CPUs, NCCL on GPUs.
    """
    device, world, local = torch.device(device), int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if world == 1 or dist.is_initialized():
        yield device
        return
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise InputError(f"{world} processes and device {str(device)!r}; wanted cpu, or cuda, of which each takes its own")
    if device.type == "cuda":
        if local >= (there := torch.cuda.device_count()):
            raise InputError(f"process {local} of this machine has no GPU: {there} are here; start {there} with --nproc-per-node")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    store, rank, _ = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":  # one machine's store outlives a restart, and with it the addresses of the dead
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "peer" in str(error):
            raise InputError(
                f"process {dist.get_rank()} of {world} waited for one that has ended; that one's error is the one to mend"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def first_of(work: Callable[[], T]) -> T:
    """What the first process gets by doing this; every one gets it, or its error."""
    rank, world = rank_and_world()
    if world == 1:
        return work()
    got: list[Any] = [None, None]
    if rank == 0:
        try:
            got[0] = work()
        except InputError as error:
            got[1] = error
    dist.broadcast_object_list(got)
    if got[1] is not None:
        raise got[1]
    return got[0]


def any_of(here: bool) -> bool:
    """Whether it is so in any process."""
    return bool(highest(torch.tensor(int(here))))


def highest(table: Tensor) -> Tensor:
    """The largest value of each place over all processes, in place; on the CPU."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(table, dist.ReduceOp.MAX)
    return table


def dealt(items: Sequence[T]) -> Sequence[T]:
    """Those of some items that are this process's to do."""
    rank, world = rank_and_world()
    return items[rank::world]


def collected(own: list[T]) -> list[T]:
    """What every process made of the items `dealt` to it, in the items' order; the first process gets it, others nothing."""
    rank, world = rank_and_world()
    if world == 1:
        return own
    parts: list[Any] = [None] * world
    dist.gather_object(own, parts if rank == 0 else None)
    rows = zip_longest(*parts, fillvalue=_NONE) if rank == 0 else ()
    return [item for row in rows for item in row if item is not _NONE]


class Parts:
    """Losses and gradients of a step, over the parts of its batch that are this process's.

    Attributes:
        seen: samples of all processes so far.
    Args: model, loss_fn: as `fit`. config: its shards count, and its seed. bf16: whether autocast computes in bfloat16.
    Raises: InputError, parts that cannot be dealt out evenly.
    Lesson: 03.
    """

    def __init__(self, model: nn.Module, loss_fn: Callable, config: FitConfig, bf16: bool):
        (self.rank, self.world), self.config, self.bf16, self.seen = rank_and_world(), config, bf16, 0
        if config.shards % self.world:
            raise InputError(f"shards is {config.shards}, for {self.world} processes; wanted a multiple: --set fit.shards=N")
        each = config.shards // self.world
        self.own = range(self.rank * each, (self.rank + 1) * each)
        self.losses: nn.Module = _Losses(model, loss_fn)
        self.device = next(model.parameters()).device
        if self.world > 1:
            self.losses = DistributedDataParallel(self.losses, find_unused_parameters=True)
            self.losses.register_comm_hook(None, _summed if self.device.type == "cuda" else _in_order)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        running = [(m.running_mean, m.running_var, m.num_batches_tracked) for m in norms if config.shards > 1]
        self.statistics: list[Any] = [b for mean, var, _ in running for b in (mean, var)]
        self.counts: list[Any] = [count for _, _, count in running]

    def backward(self, batches: Iterator[Any], step: int) -> dict[str, Tensor]:
        """Mean losses of a step, detached; the mean gradients are in the parameters."""
        n, before, sums = self.config.shards, [b.clone() for b in (*self.statistics, *self.counts)], None
        for shard in self.own:
            for b, was in zip((*self.statistics, *self.counts), before, strict=True):
                b.copy_(was)
            batch = next(batches).to(self.device)
            torch.manual_seed((self.config.seed * 1_000_003 + step) * n + shard)  # dropout depends on step and part alone
            alone = self.world > 1 and shard != self.own[-1]
            with self.losses.no_sync() if alone else nullcontext():  # type: ignore[operator]
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    losses = self.losses(batch, step)
                (losses["loss"] / n if n > 1 else losses["loss"]).backward()
            found = [torch.stack([v.detach().float() for v in losses.values()]), *(b.clone() for b in self.statistics)]
            sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
            self.seen += len(batch) * self.world
        assert sums is not None
        if n > 1:
            sums = [total / n for total in _gathered(sums)]
            for b, mean in zip(self.statistics, sums[1:], strict=True):
                b.copy_(mean)
        return dict(zip(losses, sums[0], strict=True))


class _Losses(nn.Module):
    """The losses as a module, so that DDP sees the call; it must not wait for gradients of those that are only told."""

    def __init__(self, model: nn.Module, loss_fn: Callable):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, batch: Any, step: int) -> dict[str, Tensor]:
        return {k: v if k == "loss" else v.detach() for k, v in self.loss_fn(self.model, batch, step).items()}


def _gathered(tensors: list[Tensor]) -> list[Tensor]:
    """The sum of each tensor over all processes, in their order."""
    if (world := rank_and_world()[1]) == 1:
        return tensors
    flat = torch.cat([t.flatten() for t in tensors])
    parts = [torch.empty_like(flat) for _ in range(world)]
    dist.all_gather(parts, flat)
    sums = reduce(torch.add, parts).split([t.numel() for t in tensors])
    return [total.view(t.shape) for total, t in zip(sums, tensors, strict=True)]


def _in_order(_: None, bucket) -> torch.futures.Future[Tensor]:
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(_gathered([bucket.buffer()])[0])
    return future


def _summed(_: None, bucket) -> torch.futures.Future[Tensor]:
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])


class Batches(Dataset):
    """Every part of every step that a process computes, one after the other, as a loader with workers wants it."""

    def __init__(self, data: Any, parts: Parts):
        self.own, self.shards = parts.own, parts.config.shards
        self.batch = data.drawn if parts.device.type != "cpu" and hasattr(data, "drawn") else data.batch  # to be cut there

    def __getitem__(self, i: int) -> Any:
        step, k = divmod(i, len(self.own))
        return self.batch(step) if self.shards == 1 else self.batch(step, self.own[k], self.shards)


@contextmanager
def stop_after_step() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask the loop to finish its step and save; a second one stops at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may catch signals
        yield stop
        return
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
