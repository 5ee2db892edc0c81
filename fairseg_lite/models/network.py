"""What every network carries besides its layers, how it wants its pictures and where it comes from; and what every trunk can."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_weight

from fairseg_lite.errors import InputError
from fairseg_lite.geometry.pixels import IMAGENET, Pixels, normalise, sent

Timer = Callable[[str], AbstractContextManager]  # given a stage's name, the context that it runs in (`bench`)
BEGINNINGS = ("trunk_weights", "trunk_from")  # options that say which weights a network begins with, not what it is


@dataclass(frozen=True)
class Record:
    """All that a checkpoint says of a network besides its weights; its JSON header. Sizes of patches follow from kwargs."""

    model: str = ""  # the function that builds it, a name of `checkpoints.MODELS`; "": built by hand
    kwargs: dict = field(default_factory=dict)  # of that function
    pixels: Pixels = IMAGENET
    padding: str = "symmetric"  # what its training patches showed beyond a picture's edge: it mirrored, or "mean" grey
    short_side: int | None = None  # px of the pictures it was trained on (of a range the middle); None: as they came
    max_side: int | None = None
    rerank: bool = False  # whether `propose` orders by more than the score
    categories: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    data: str = ""  # what it was trained on
    proposals: str = ""  # of a MultiPathNet: the network (a shipped name or a file) or the results it was trained on
    recipe: dict = field(default_factory=dict)  # the run's numbers
    about: dict = field(default_factory=dict)  # command, results, the file it was imported from; for people

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "Record":
        """The record in a checkpoint's header. Files of version 0.1.0 say padding and sizes in their recipe alone.

        Raises: TypeError, InputError: a header with values that are none.
        """
        recipe, known = header.get("recipe", {}), {f.name for f in fields(cls)}
        short = recipe.get("short_side")
        found: dict[str, Any] = {
            "padding": recipe.get("padding", "symmetric"),
            "short_side": None if short is None else sum(short) // 2,
            "max_side": recipe.get("max_side"),
            **{k: v for k, v in header.items() if k in known},
            "pixels": Pixels(**header.get("pixels", {})),
            "about": {**{k: v for k, v in header.items() if k not in known}, **header.get("about", {})},
        }
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        return cls(**values)

    def header(self) -> dict:
        """What JSON can hold of it; `of` reads it back."""
        return asdict(self)


class Network(nn.Module):
    """A network with its record; what DeepMask, SharpMask and MultiPathNet have in common."""

    record: Record
    exact: tuple[str, ...] = ()  # parts that compute in float32 whatever the rest does

    def __init__(self) -> None:
        super().__init__()
        self.record = Record()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def normalise(self, images: np.ndarray | Tensor) -> Tensor:
        """Pictures (..., H, W, 3) uint8 RGB as this network wants them: (..., 3, H, W) float32 on its device."""
        x = np.require(images, requirements=["C", "W"]) if isinstance(images, np.ndarray) else images
        return normalise(sent(torch.as_tensor(x), self.device), self.record.pixels)


class Trunk(nn.Module):
    """What all trunks share: a chain of stages, of which the first can be frozen."""

    out_channels: int  # of the last stage, for each
    stride: int  # pixels between its cells
    channels: tuple[int, ...]  # of `taps`
    level_channels: tuple[int, ...]  # of `levels`
    level_strides: tuple[int, ...]
    frozen = 0  # stages that are not trained

    @property
    def parts(self) -> Sequence[nn.Module]:
        """The modules of each stage, the stem first."""
        raise NotImplementedError

    def taps(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8 and 16: what SharpMask's skip connections look at (official `skpos`)."""
        raise NotImplementedError

    def levels(self, x: Tensor) -> list[Tensor]:
        """Features at strides 4, 8 and 16, finest first: MultiPathNet's conv3, conv4, conv5, by their strides."""
        return self.taps(x)[1:]

    def begin(self, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
        """Random weights of convolutions by He et al. 2015, biases 0."""
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode=mode, nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def freeze(self, count: int) -> "Trunk":
        """Fix the first stages (1: the stem, 2: and the next, ...): no gradients, and no new batch-norm statistics.

        Raises: InputError, the trunk has fewer stages.
        Example:
            >>> from fairseg_lite.models.trunks import ResNetTrunk
            >>> trunk = ResNetTrunk(depths=(1, 1, 1), norm="batch").freeze(2).train()
            >>> trunk.bn1.training, trunk.layer2[0].bn1.training
            (False, True)
        """
        if not 0 <= count <= len(self.parts):
            raise InputError(f"freeze is {count}; this trunk has {len(self.parts)} stages")
        for part in self.parts[:count]:
            part.requires_grad_(False)
        self.frozen = count
        return self.train(self.training)

    def train(self, mode: bool = True) -> "Trunk":
        super().train(mode)
        for part in self.parts[: self.frozen]:
            part.eval()
        return self


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed, on the CPU, where weights begin; the caller's own go on afterwards as if nothing had been drawn.

    Example:
        >>> with seeded(1):
        ...     first = torch.rand(1)
        >>> before = torch.random.get_rng_state()
        >>> with seeded(1):
        ...     torch.equal(torch.rand(1), first)
        True
        >>> torch.equal(torch.random.get_rng_state(), before)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _said(options: Mapping[str, Any]) -> str:
    plain = (f"{k} = {v}" for k, v in options.items() if isinstance(v, int | float | str | tuple | list))
    return ", ".join(plain) or "its defaults"


P = ParamSpec("P")
N = TypeVar("N", bound=Network)


def recorded(build: Callable[P, N]) -> Callable[P, N]:
    """A building function whose networks remember its name and options; of a network among the options, that one's."""

    @wraps(build)
    def built(*args: P.args, **kwargs: P.kwargs) -> N:
        try:
            model = build(*args, **kwargs)
        except (RuntimeError, ArithmeticError, LookupError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{build.__name__} cannot be built with {_said(kwargs)}: {str(error).splitlines()[0]}") from error
        if empty := [name for name, p in model.named_parameters() if not p.numel()]:
            raise InputError(f"{build.__name__} with {_said(kwargs)} has a layer without weights, {empty[0]}: sizes begin at 1")
        options = {k: v.record.kwargs if isinstance(v, Network) else v for k, v in kwargs.items() if k not in BEGINNINGS}
        model.record = replace(model.record, model=build.__name__, kwargs=options)
        return model

    return built


@cache
def fuses(dtype: torch.dtype) -> bool:
    """Whether oneDNN is here, on a processor with the units it wants for a type."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    short = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return known and "AVX" in torch.backends.cpu.get_cpu_capability() and (dtype == torch.float32 or short)


T = TypeVar("T", bound=nn.Module)
Weights = str | Path | None  # where ImageNet weights come from, as in `load_trunk_weights`
READABLE = (".safetensors", ".pth", ".pt", ".pth.tar")


def load_trunk_weights(
    trunk: T, source: Weights, *, towers: Iterable[nn.Module] = (), names: Mapping[str, str] | None = None
) -> T:
    """Load ImageNet weights into a trunk by name, and into towers behind it; what belongs to other layers is left aside.

    Args:
        trunk: `ResNetTrunk`, `VGGTrunk` or `LiteTrunk`, changed in place.
        source: a torchvision name such as "ResNet50_Weights.IMAGENET1K_V2" (downloaded on first use), or a local
            `.safetensors` or `.pth` file with torchvision's parameter names. None: nothing is loaded.
        towers: begin with what the source has of them, if it has any of it.
        names: of those weights: prefix in the source -> prefix in a tower.
    Returns: The trunk.
    Raises: InputError, the file is missing, unreadable, or lacks a tensor of the trunk or has it in another shape.
    Example:
        >>> load_trunk_weights(nn.Conv2d(3, 8, 3), "nowhere.pth")
        Traceback (most recent call last):
        InputError: trunk weights 'nowhere.pth': no such file, and no torchvision name like 'ResNet50_Weights.DEFAULT'

    Lesson: 02.
    """
    if source is None:
        return trunk
    weights = read_weights(source)
    copy_weights(trunk, weights, source)
    own = {new + k.removeprefix(old): v for old, new in (names or {}).items() for k, v in weights.items() if k.startswith(old)}
    for tower in towers if own else ():
        copy_weights(tower, own, source)
    return trunk


def copy_weights(module: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Copy what a module needs out of a table of weights by name; the rest of the table is left aside.

    Args:
        module: changed in place. weights: name -> tensor of any float dtype, the names being the module's.
        source: where they come from, for the errors.
    Raises: InputError, a tensor of the module is not in the table, or has another shape there.
    """
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in weights and not k.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"trunk weights {str(source)!r}: {len(missing)} of {len(wanted)} tensors are missing, first {missing[0]!r}; "
            f"the names must be torchvision's for a {type(module).__name__}"
        )
    for k, v in wanted.items():
        if k in weights and weights[k].shape != v.shape:
            held = f"{k} has shape {tuple(weights[k].shape)}"
            raise InputError(f"trunk weights {str(source)!r}: {held}, the trunk wants {tuple(v.shape)}")
    module.load_state_dict({k: weights.get(k, v).to(v.dtype) for k, v in wanted.items()})


def read_weights(source: str | Path) -> Mapping[str, Tensor]:
    """Name -> tensor of a source as in `load_trunk_weights`; InputError when it is missing or unreadable, or not downloaded."""
    path, what = Path(source), f"trunk weights {str(source)!r}"
    if not path.is_file():
        try:
            return get_weight(str(source)).get_state_dict(progress=True)
        except (ValueError, KeyError, AttributeError):
            raise InputError(f"{what}: no such file, and no torchvision name like 'ResNet50_Weights.DEFAULT'") from None
        except OSError as error:
            raise InputError(f"{what}: download failed ({error}); try again, or give a file") from error
    if not path.name.lower().endswith(READABLE):
        advice = "extract an archive, or name the file for what it is"
        if path.suffix.lower() == ".t7":
            advice = "`fairseg-lite import` makes a checkpoint of a .t7"
        raise InputError(f"{what}: wanted a file {', '.join(READABLE)}; {advice}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)  # a training script's checkpoint
    except Exception as error:  # each reader has its own exceptions for a damaged file
        advice = "it holds tensors alone where torch.save(model.state_dict(), FILE) wrote it"
        raise InputError(f"{what}: not a readable {path.suffix} file ({str(error).splitlines()[0]}); {advice}") from error
    if not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"{what}: holds {', '.join(map(str, list(found)[:3]))}; wanted a table of tensors by name")
    return found
