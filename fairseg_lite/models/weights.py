"""ImageNet weights for trunks, and for the layers behind them: torchvision's by name, or a local file."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_weight

from fairseg_lite.errors import InputError

Weights = str | Path | None  # where ImageNet weights come from, as in `load_trunk_weights`
READABLE = (".safetensors", ".pth", ".pt", ".pth.tar")


def load_trunk_weights(
    trunk: nn.Module, source: Weights, *, towers: Iterable[nn.Module] = (), names: Mapping[str, str] | None = None
) -> None:
    """Load ImageNet weights into a trunk by name, and into towers behind it; what belongs to other layers is left aside.

    Args:
        trunk: `ResNetTrunk`, `VGGTrunk` or `LiteTrunk`, changed in place.
        source: a torchvision name such as "ResNet50_Weights.IMAGENET1K_V2" (downloaded on first use), or a local
            `.safetensors` or `.pth` file with torchvision's parameter names. None: nothing is loaded.
        towers: begin with what the source has of them, if it has any of it.
        names: of those weights: prefix in the source -> prefix in a tower.
    Raises:
        InputError: the file is missing, unreadable, or lacks a tensor of the trunk or has it in another shape.
    Example:
        >>> load_trunk_weights(nn.Conv2d(3, 8, 3), "nowhere.pth")
        Traceback (most recent call last):
        InputError: trunk weights 'nowhere.pth': no such file, and no torchvision name like 'ResNet50_Weights.DEFAULT'

    Lesson: 02.
    """
    if source is None:
        return
    weights = read_weights(source)
    copy_weights(trunk, weights, source)
    own = {new + k.removeprefix(old): v for old, new in (names or {}).items() for k, v in weights.items() if k.startswith(old)}
    for tower in towers if own else ():
        copy_weights(tower, own, source)


def copy_weights(module: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Copy what a module needs out of a table of weights by name; the rest of the table is left aside.

    Args:
        module: changed in place.
        weights: name -> tensor of any float dtype, the names being the module's.
        source: where they come from, for the errors.
    Raises:
        InputError: a tensor of the module is not in the table, or has another shape there.
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
            raise InputError(
                f"trunk weights {str(source)!r}: {k} has shape {tuple(weights[k].shape)}, the trunk wants {tuple(v.shape)}"
            )
    module.load_state_dict({k: weights.get(k, v).to(v.dtype) for k, v in wanted.items()})


def read_weights(source: str | Path) -> Mapping[str, Tensor]:
    """Name -> tensor of a torchvision name or a file.

    Args:
        source: as in `load_trunk_weights`.
    Raises:
        InputError: the file is missing or unreadable, or the download failed.
    """
    path, what = Path(source), f"trunk weights {str(source)!r}"
    if not path.is_file():
        try:
            return get_weight(str(source)).get_state_dict(progress=True)
        except (ValueError, KeyError, AttributeError):
            raise InputError(f"{what}: no such file, and no torchvision name like 'ResNet50_Weights.DEFAULT'") from None
        except OSError as error:
            raise InputError(f"{what}: download failed ({error}); try again, or give a file") from error
    if not path.name.lower().endswith(READABLE):
        torch7 = path.suffix.lower() == ".t7"
        advice = (
            "`fairseg-lite import` makes a checkpoint of a .t7"
            if torch7
            else "extract an archive, or name the file for what it is"
        )
        raise InputError(f"{what}: wanted a file {', '.join(READABLE)}; {advice}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)  # a training script's checkpoint
    except Exception as error:  # each reader has its own exceptions for a damaged file
        raise InputError(f"{what}: not a readable {path.suffix} file ({str(error).splitlines()[0]})") from error
    if not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"{what}: holds {', '.join(map(str, list(found)[:3]))}; wanted a table of tensors by name")
    return found
