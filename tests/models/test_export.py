"""`torch.export`: networks leave Python, for pictures of any size and any number of patches or windows."""

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from fairseg_lite.inference.propose import prepare
from fairseg_lite.models.deepmask import deepmask_resnet50, deepmask_tiny
from fairseg_lite.models.mobile import deepmask_lite0
from fairseg_lite.models.sharpmask import sharpmask_tiny


class Call(nn.Module):
    """A method of a network as a module, which is what `export` takes."""

    def __init__(self, model, method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *args):
        return getattr(self.model, self.method)(*args)


def tensors(found):
    return [x for x in torch.utils._pytree.tree_leaves(found) if x is not None]


def same(exported, call, *args):
    # prepared networks join calls where no export looks on, and round elsewhere
    for a, b in zip(tensors(exported.module()(*args)), tensors(call(*args)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


NETWORKS = {
    "tiny": deepmask_tiny,
    "branches": lambda: deepmask_tiny(head="branches"),
    "prepared": lambda: prepare(deepmask_tiny()),
    "lite0": lambda: prepare(deepmask_lite0()),
    "resnet": lambda: deepmask_resnet50(padding="symmetric", trunk={"depths": (1, 1, 1)}),
    "sharp prepared": lambda: prepare(sharpmask_tiny()),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_picture_of_any_size(build):
    torch.manual_seed(0)
    model = build().eval()
    call, least = Call(model, "dense"), model.patch_size // 16 + 1  # cells: a canvas is a multiple of the stride
    size = {2: 16 * Dim("rows", min=least + 1, max=500), 3: 16 * Dim("columns", min=least + 1, max=500)}
    with torch.no_grad():
        exported = export(call, (torch.randn(1, 3, 16 * least + 48, 16 * least + 80),), dynamic_shapes=((size,),))
        for rows, columns in ((least + 1, least + 9), (least + 4, least + 2)):
            same(exported, call, torch.randn(1, 3, 16 * rows, 16 * columns))


@pytest.mark.parametrize("build", [deepmask_tiny, sharpmask_tiny])
def test_any_number_of_patches_and_of_windows(build):
    torch.manual_seed(0)
    model = build().eval()
    patches, call = Call(model, "forward"), Call(model, "masks_at")
    with torch.no_grad():
        exported = export(patches, (torch.randn(2, 3, 128, 128),), dynamic_shapes=(({0: Dim("patches", min=2, max=99)},),))
        same(exported, patches, torch.randn(5, 3, 128, 128))
        dense, at = model.dense(torch.randn(1, 3, 192, 208)), torch.tensor([[0, 0, 0], [1, 2, 3], [0, 4, 6]])
        shapes = (torch.utils._pytree.tree_map(lambda _: None, dense), *[{0: Dim("windows", min=2, max=999)}] * 3)
        exported = export(call, (dense, *at), dynamic_shapes=(shapes,))
        same(exported, call, dense, *torch.tensor([[0, 0], [5, 0], [1, 7]]))
        assert torch.equal(model.masks_at(dense, *at), call(dense, *at)), "and nothing that stood for numbers is left behind"
