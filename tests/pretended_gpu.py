"""A pretended GPU: the machine has none, and still a test learns whether code would run on one, and how often it would wait.

    with pretended_gpu() as gpu:
        propose(model.to("cuda"), picture)
    print(gpu)          # calls of device operations; waits by file and line

Tensors "on the GPU" are CPU tensors whose storage carries a mark; what is computed of them is marked, too. As on a GPU

- an operation on marked and unmarked tensors raises (numbers without dimensions and indices may come from the CPU),
- `numpy()` of a marked tensor raises,
- float64 is refused, where the GPU is said to be Apple's ("mps"),
- the host waits where it asks for a value (`item`, `tolist`, a boolean index, `nonzero`, ...) or copies one way or the other,
  but not for a copy from pinned memory with `non_blocking=True`,
- convolutions round their input to the 10 bits of TF32 where `torch.backends.cudnn.allow_tf32` says so.

What this cannot tell: milliseconds, memory, and other kernels' rounding. Counted, not measured on a GPU.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo  # reads, when it is first used, functions that are replaced below
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import _FlopCounterMode

CPU = torch.device("cpu")
INDEXING = ("aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
COPIES = ("aten::copy_", "aten::_to_copy")
ASKING = {f"aten::{name}" for name in ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
          "_local_scalar_dense", "repeat_interleave", "bincount")} | {"torchvision::nms"}  # fmt: skip
CONVOLUTIONS = {"aten::conv2d": 2, "aten::convolution": 2, "aten::convolution_backward": 3}  # and how many tensors they round
FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
NEW = (Tensor.new_tensor, Tensor.new_zeros, Tensor.new_ones, Tensor.new_full, Tensor.new_empty)
OURS = Path(__file__).resolve().parents[1] / "fairseg_lite"


@dataclass
class Ledger:
    """What was done on the GPU: operations by name; and what the host waited for, by kind and place."""

    device: torch.device
    calls: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)

    def is_mine(self, device: Any) -> bool:
        device = torch.device(device)
        if device.type == self.device.type and device.index:
            raise RuntimeError("CUDA error: invalid device ordinal. There is one GPU, and it is pretended")
        return device.type == self.device.type

    def holding(self, found: Any) -> Any:
        """What is found, if this GPU can hold it."""
        wide = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in tree_leaves(found))
        if wide and self.device.type == "mps":
            raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype as MPS doesn't support it, in {_place()}")
        return found

    def wait(self, what: str) -> None:
        self.waits[f"{what} in {_place()}"] += 1

    def clear(self) -> None:
        self.calls.clear()
        self.waits.clear()

    def __str__(self) -> str:
        lines = [f"{self.calls.total()} calls, {self.waits.total()} waits"]
        return "\n".join(lines + [f"{count:6} {what}" for what, count in self.waits.most_common()])


def _place() -> str:
    """The innermost line of the library, or of whoever called torch."""
    frame, torch_at = sys._getframe(1), str(Path(torch.__file__).parent)
    other = "?"
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(str(OURS)):
            return f"{Path(name).relative_to(OURS)}:{frame.f_lineno}"
        if other == "?" and name != __file__ and not name.startswith(torch_at):
            other = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return other


def on_gpu(x: Tensor) -> bool:
    return getattr(x.untyped_storage(), "on_gpu", False)


def _mark(found: Any, where: bool = True) -> Any:
    for x in tree_leaves(found):
        if isinstance(x, Tensor):
            x.untyped_storage().on_gpu = where
    return found


def _copied(x: Tensor, up: bool) -> Tensor:
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return _mark(x.detach().clone(memory_format=torch.preserve_format), up)


class _Moved(torch.autograd.Function):
    """A copy to the other side, whose gradient comes back to this one."""

    @staticmethod
    def forward(ctx, x: Tensor, up: bool) -> Tensor:
        ctx.up = up
        return _copied(x, up)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _copied(gradient, not ctx.up), None


def tf32(x: Tensor) -> Tensor:
    """Float32 numbers with the 10 bits of mantissa that a tensor core reads.

    >>> tf32(torch.tensor([1 + 2**-10, 1 + 2**-12])).tolist()
    [1.0009765625, 1.0]
    """
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    rounded = ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)
    return torch.empty_like(x).copy_(rounded)  # in the layout that it had


class _Operations(TorchDispatchMode):
    """Below autograd: every operation with its tensors."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [on_gpu(x) for x in tensors]
        if not any(there) or name == "aten::_has_compatible_shallow_copy_type":
            return func(*args, **kwargs)
        self.ledger.calls[name] += 1
        counts = name == "aten::repeat_interleave" and (func._overloadname == "self_int" or kwargs.get("output_size"))
        if name in ASKING and not counts:  # how many there will be is known
            self.ledger.wait(name.partition("::")[2])
        if name in COPIES and len(tensors) == 2:  # into the first
            return self._copy(func, args, kwargs, tensors, there)
        if name in INDEXING:
            self._index(name, args, tensors)
        elif any(x.ndim for x, up in zip(tensors, there, strict=True) if not up):
            self._mixed(name, tensors)
        if name in CONVOLUTIONS and torch.backends.cudnn.allow_tf32:
            with _disable_current_modes():
                count = CONVOLUTIONS[name]
                args = (*(_mark(tf32(x.detach())) for x in args[:count]), *args[count:])
        return _mark(self.ledger.holding(func(*args, **kwargs)))

    def _copy(self, func, args, kwargs, tensors, there):
        if there[0] != there[1] and not (
            there[0] and _is_pinned(tensors[1]) and (kwargs.get("non_blocking") or True in args[2:])
        ):
            self.ledger.wait("copy to the GPU" if there[0] else "copy to the CPU")
        return func(*args, **kwargs)

    def _index(self, name: str, args: tuple, tensors: list[Tensor]) -> None:
        indices = [i for i in args[1] if isinstance(i, Tensor)]
        values = [x for x in args[2:] if isinstance(x, Tensor)]
        filled = len(indices) == 1 and values and values[0].ndim == 0 and not on_gpu(values[0])  # becomes `masked_fill`
        for i in indices:
            if not on_gpu(i):
                self.ledger.wait("index copied to the GPU")
            if i.dtype in (torch.bool, torch.uint8) and not filled:
                self.ledger.wait("boolean index")
        if not on_gpu(args[0]) or any(x.ndim and not on_gpu(x) for x in values):
            self._mixed(name, tensors)

    def _mixed(self, name: str, tensors: list[Tensor]) -> None:
        shown = ", ".join(f"{'cuda' if on_gpu(x) else 'cpu'} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {shown} in {_place()}")


def _is_pinned(x: Tensor) -> bool:
    return getattr(x.untyped_storage(), "pinned", False)


class _Functions(TorchFunctionMode):
    """Above autograd: what names a device, moves a tensor or asks where it is."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger
        self.asked = {
            Tensor.device.__get__: lambda x: ledger.device if on_gpu(x) else CPU,
            Tensor.is_cuda.__get__: lambda x: on_gpu(x) and ledger.device.type == "cuda",
            Tensor.is_mps.__get__: lambda x: on_gpu(x) and ledger.device.type == "mps",
            Tensor.is_cpu.__get__: lambda x: not on_gpu(x),
            Tensor.is_pinned: _is_pinned,
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self.asked:
            return self.asked[func](args[0])
        if func in (Tensor.numpy, Tensor.__array__) and on_gpu(args[0]):
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy in {_place()}")
        if func is Tensor.tolist and on_gpu(args[0]):
            self.ledger.wait("tolist")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._to(func, args, kwargs)
        if func is torch.nn.functional.one_hot and on_gpu(args[0]):  # makes its zeros in C++, where no mode is asked
            with _disable_current_modes():
                return _mark(func(*args, **kwargs))
        if func is Tensor.pin_memory:
            copy = _copied(args[0], False)
            copy.untyped_storage().pinned = True
            return copy
        return self._made(func, args, kwargs)

    def _made(self, func, args, kwargs):
        """A tensor made of nothing, of numbers or of another; or any other function."""
        named = kwargs.get("device")
        up = self.ledger.is_mine(named) if named is not None else func in NEW and on_gpu(args[0])
        if named is None and not up:
            return func(*args, **kwargs)
        if up and kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if func in FROM_DATA and up:
            data = args[1] if func is Tensor.new_tensor else args[0]
            if isinstance(data, Tensor):
                return self._moved(func(*args, **{**kwargs, "device": CPU}), up, kwargs)
            self.ledger.wait("numbers to the GPU")
        found = func(*args, **{**kwargs, "device": CPU if up else named})
        return _mark(self.ledger.holding(found) if up else found, up)

    def _to(self, func, args, kwargs):
        x, target, flags = args[0], kwargs.pop("device", None), ["non_blocking", "copy"]
        if func is not Tensor.to:
            target, args = torch.device("cuda") if func is Tensor.cuda else CPU, args[:1]
        for a in [*args[1:], *([kwargs.pop("other")] if "other" in kwargs else [])]:
            if isinstance(a, Tensor):
                target, kwargs["dtype"] = self.ledger.device if on_gpu(a) else CPU, a.dtype
            elif isinstance(a, bool):
                kwargs[flags.pop(0)] = a
            elif isinstance(a, torch.dtype):
                kwargs["dtype"] = a
            elif a is not None:
                target = a
        here = Tensor.to(x, **kwargs) if kwargs else x
        return here if target is None else self._moved(here, self.ledger.is_mine(target), kwargs, _is_pinned(x))

    def _moved(self, x: Tensor, up: bool, how: dict, pinned: bool = False) -> Tensor:
        if up == on_gpu(x):
            return x
        if not (up and how.get("non_blocking") and pinned):
            self.ledger.wait("copy to the GPU" if up else "copy to the CPU")
        if up:
            self.ledger.holding(x)
        if not x.requires_grad:
            return _copied(x, up)
        return _Moved.apply(x, up) if torch.is_grad_enabled() else _copied(x, up).requires_grad_(x.is_leaf)


@contextmanager
def pretended_gpu(kind: str = "cuda") -> Iterator[Ledger]:
    """A device "cuda" or "mps" is there, in this thread, until the end of the `with`; gives what is counted meanwhile."""
    ledger, autocast, fork = Ledger(torch.device(kind, 0)), torch.autocast, torch.random.fork_rng
    parse, count = torch._C._nn._parse_to, _FlopCounterMode.__torch_dispatch__
    group = clip_grad._group_tensors_by_device_and_dtype

    class Autocast(autocast):
        @wraps(autocast.__init__)
        def __init__(self, device_type: str, *args: Any, **kwargs: Any):
            super().__init__("cpu" if device_type == kind else device_type, *args, **kwargs)

    def parsed(*args: Any, **kwargs: Any) -> tuple:  # of `Module.to`, which does not ask the modes where a tensor is
        args = (args[0].device, args[0].dtype, *args[1:]) if args and isinstance(args[0], Tensor) else args
        return parse(*args, **kwargs)

    def counted(mode: Any, func: Any, *args: Any) -> Any:  # FLOPs: takes functions apart whose Python parts ask for a device
        python = torch._C.DispatchKey.CompositeImplicitAutograd in func.py_kernels
        with _Functions(ledger) if python else nullcontext():
            return count(mode, func, *args)

    here = (ledger.device, None)  # an optimiser that learns that there is one would ask its driver

    def grouped(*args: Any) -> dict:  # tensors by device, which C++ does not know
        return {
            (ledger.device if any(map(on_gpu, ts[0][:1])) else key[0], key[1]): (ts, i) for key, (ts, i) in group(*args).items()
        }

    def synchronize(*_: Any) -> None:
        ledger.wait("synchronize")

    there: dict[Any, dict[str, Any]] = {
        torch: {"autocast": Autocast},
        torch._C._nn: {"_parse_to": parsed},
        clip_grad: {"_group_tensors_by_device_and_dtype": grouped},
        _FlopCounterMode: {"__torch_dispatch__": counted},
        torch.random: {"fork_rng": lambda devices=None, *a, **k: fork([], *a, **k)},
        torch.accelerator: {
            "is_available": lambda: True, "synchronize": synchronize,
            "current_accelerator": lambda check_available=0: here[check_available],
        },
        torch.backends.mps: {"is_available": lambda: kind == "mps"},
        torch.cuda: {
            "is_available": lambda: kind == "cuda", "is_bf16_supported": lambda *a, **k: True, "device_count": lambda: 1,
            "get_device_name": lambda *a: "pretended GPU", "synchronize": synchronize,
            "max_memory_allocated": lambda *a: 0, "reset_peak_memory_stats": lambda *a: None,
        },
    }  # fmt: skip
    with ExitStack() as stack:
        for module, names in there.items():
            stack.enter_context(patch.multiple(module, **names))
        stack.enter_context(_Functions(ledger))
        stack.enter_context(_Operations(ledger))
        yield ledger
