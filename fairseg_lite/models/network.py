"""What every network carries besides its layers: how it wants its pictures, and a record of where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fairseg_lite.geometry.pixels import IMAGENET, Pixels, normalise

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
    categories: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    data: str = ""  # what it was trained on
    proposals: str = ""  # of a MultiPathNet: the network (a shipped name or a file) or the results it was trained on
    recipe: dict = field(default_factory=dict)  # the run's numbers
    about: dict = field(default_factory=dict)  # command, results, the file it was imported from; for people

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "Record":
        """The record in a checkpoint's header. Files of version 0.1.0 say padding and sizes in their recipe alone.

        Raises:
            TypeError, InputError: a header with values that are none.
        """
        recipe, known = header.get("recipe", {}), {f.name for f in fields(cls)}
        short = recipe.get("short_side")
        found = {
            "padding": recipe.get("padding", "symmetric"),
            "short_side": None if short is None else sum(short) // 2,
            "max_side": recipe.get("max_side"),
            **{k: v for k, v in header.items() if k in known},
            "pixels": Pixels(**header.get("pixels", {})),
            "about": {**{k: v for k, v in header.items() if k not in known}, **header.get("about", {})},
        }
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})

    def header(self) -> dict:
        """What JSON can hold of it; `of` reads it back."""
        return asdict(self)


class Network(nn.Module):
    """A network with its record; what DeepMask, SharpMask and MultiPathNet have in common."""

    record: Record

    def __init__(self) -> None:
        super().__init__()
        self.record = Record()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def normalise(self, images: np.ndarray | Tensor) -> Tensor:
        """Pictures (..., H, W, 3) uint8 RGB as this network wants them: (..., 3, H, W) float32 on its device."""
        x = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images
        return normalise(torch.as_tensor(x).to(self.device), self.record.pixels)


P, N = ParamSpec("P"), TypeVar("N", bound=Network)


def recorded(build: Callable[P, N]) -> Callable[P, N]:
    """A building function whose networks remember its name and options; of a network among the options, that one's."""

    @wraps(build)
    def built(*args: P.args, **kwargs: P.kwargs) -> N:
        model = build(*args, **kwargs)
        options = {k: v.record.kwargs if isinstance(v, Network) else v for k, v in kwargs.items() if k not in BEGINNINGS}
        model.record = replace(model.record, model=build.__name__, kwargs=options)
        return model

    return built
