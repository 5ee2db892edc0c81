"""A network that leaves Python: the best windows of a picture, as one program for `torch.export` or ONNX.

One picture at one scale goes in. A pyramid is that program at several sizes of the picture, and the best of all its scores.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from fairseg_lite.errors import InputError, check_range
from fairseg_lite.geometry.files import whole
from fairseg_lite.geometry.pixels import on_device
from fairseg_lite.inference.propose import on_canvas, prepare
from fairseg_lite.models.deepmask import DeepMask
from fairseg_lite.models.sharpmask import SharpMask
from fairseg_lite.models.trunks import STRIDE

CELLS = 2, 256  # of 16 px: the sides that a picture may have
NAMES = ("masks", "boxes", "scores")


class Windows(nn.Module):
    """A picture -> its best windows.

    Example:
        >>> from fairseg_lite.models.deepmask import deepmask_tiny
        >>> masks, boxes, scores = Windows(deepmask_tiny().eval(), top_k=5)(torch.zeros(64, 96, 3, dtype=torch.uint8))
        >>> masks.shape, boxes.shape, scores.shape
        (torch.Size([5, 24, 24]), torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(self, model: DeepMask | SharpMask, top_k: int):
        super().__init__()
        self.model, self.top_k = model, top_k

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of the best `top_k` windows, where they lie, and their scores, best first.

        Args: picture: (H, W, 3) uint8 RGB; H and W are multiples of 16, which grey at the right and below makes of any.
        Returns:
            masks (N, M, M), the probability that a pixel of a window belongs to the object; boxes (N, 4) of the windows, xyxy in
            pixels, may reach beyond the picture; scores (N,), the probability of an object, 0 where there are fewer windows.
        """
        model = self.model
        dense = model.dense(on_canvas(model.normalise(picture), model.patch_size, model.record.pixels))
        flat = dense.scores.flatten()
        scores, at = F.pad(flat, (0, self.top_k), value=-torch.inf).topk(self.top_k)
        at = at.clamp(max=flat.shape[0] - 1)
        rows = at // dense.scores.shape[2]
        cols = at - rows * dense.scores.shape[2]
        masks = model.masks_at(dense, torch.zeros_like(rows), rows, cols)
        corners = torch.stack([cols, rows], 1) * model.stride - model.patch_size / 2
        return masks.sigmoid(), torch.cat([corners, corners + model.patch_size], 1), scores.sigmoid()


def export(model: DeepMask | SharpMask, path: str | Path, *, top_k: int = 100) -> None:
    """Write `Windows` of a network, for pictures of any size.

    Args:
        model: on the CPU; its weights go along. top_k: windows that come out.
        path: ends in `.pt2`, which `torch.export.load` reads, or in `.onnx`.
    Raises: InputError, another ending, packages for ONNX that are not here, or no number of windows.
    """
    check_range("top_k", top_k, 1, None)
    path = Path(path)
    if path.suffix not in (".pt2", ".onnx"):
        raise InputError(f"--out is {str(path)!r}; the name ends in .pt2 (for torch.export.load) or .onnx")
    if path.suffix == ".onnx":
        try:
            for package in ("onnx", "onnxscript"):  # which torch.onnx wants
                import_module(package)
        except ImportError as error:
            raise InputError(f"ONNX needs packages that are not here: pip install 'fairseg-lite[onnx]' ({error})") from error
    windows, picture = Windows(prepare(model), top_k), torch.zeros(4 * STRIDE, 5 * STRIDE, 3, dtype=torch.uint8)
    on_device(model.record.pixels, picture.device)  # kept from here on: what stands for it in a trace is not to be
    sides = {i: STRIDE * Dim(name, min=CELLS[0], max=CELLS[1]) for i, name in enumerate(("rows", "columns"))}
    with torch.no_grad():
        program = torch.export.export(windows.eval(), (picture,), dynamic_shapes=(sides,))
        if path.suffix == ".pt2":
            with whole(path) as part:
                torch.export.save(program, part)
            return
        translated: Any = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["picture"], output_names=NAMES)
    with whole(path) as part:
        translated.save(part, external_data=False)
