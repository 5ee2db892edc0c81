"""The pretended GPU refuses what a real one refuses, and counts what a real one would wait for."""

import numpy as np
import pytest
import torch
from torch import nn

from fairseg_lite.geometry.masks import rle_encode
from tests.pretended_gpu import pretended_gpu, tf32


@pytest.fixture
def gpu():
    with pretended_gpu() as ledger:
        yield ledger


def up(*shape):
    return torch.ones(*shape).to("cuda")


def test_tensors_know_where_they_are(gpu):
    made = [torch.zeros(3, device="cuda"), up(3), up(3) + 1, up(3)[1:], torch.ones(3).cuda(), up(3).new_zeros(2)]
    made += [torch.as_tensor(np.ones(3, np.float32), device="cuda"), torch.zeros_like(up(3)), up(3).to(torch.float16)]
    for x in made:
        assert x.is_cuda and not x.is_cpu and x.device == torch.device("cuda:0")
    here = torch.ones(3)
    there = [here, here + 1, up(3).cpu(), up(3).to("cpu"), torch.zeros_like(up(3), device="cpu"), here.new_zeros(2)]
    torch.as_tensor(here, device="cuda")
    assert not any(x.is_cuda for x in there) and {x.device.type for x in there} == {"cpu"}


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: up(3) + torch.ones(3),
        lambda: torch.ones(3).add_(up(3)),
        lambda: torch.cat([up(3), torch.ones(3)]),
        lambda: nn.Linear(3, 2).to("cuda")(torch.ones(1, 3)),
        lambda: nn.functional.conv2d(up(1, 1, 3, 3), torch.ones(1, 1, 3, 3)),
        lambda: torch.ones(3)[up(1).long()],
        lambda: up(3).index_put_((up(1).long(),), torch.ones(1)),
        lambda: torch.where(up(3) > 0, up(3), torch.ones(3)),
        lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
        lambda: torch.zeros(2, device="cuda:1"),
        lambda: up(3).numpy(),
        lambda: np.asarray(up(3)),
    ],
)  # fmt: skip
def test_what_no_gpu_does_raises(gpu, mixed):
    with pytest.raises((RuntimeError, TypeError), match="same device|generator|ordinal|convert cuda:0"):
        mixed()


@pytest.mark.parametrize(
    "asks, waits",
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x[0]), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.unique(), 1),
        (lambda x: x[torch.tensor([0, 1])], 1),
        (lambda x: torch.tensor([1.0, 2], device="cuda"), 1),
        (lambda x: x.new_tensor([1.0, 2]), 1),
        (lambda x: x.copy_(torch.zeros(4)), 1),
        (lambda x: torch.cuda.synchronize(), 1),
        (lambda x: torch.accelerator.synchronize(x.device), 1),
        (lambda x: x[x > 9].fill_(0), 1),
        (lambda x: torch.zeros(4).to("cuda", non_blocking=True), 1),
        (lambda x: torch.zeros(4).pin_memory().to("cuda"), 1),
        (lambda x: torch.zeros(4).pin_memory().to("cuda", non_blocking=True), 0),
        (lambda x: x.clone().masked_fill_(x > 1, 0), 0),
        (lambda x: x.clone().__setitem__(x > 1, 0.0), 0),
        (lambda x: (x.topk(2), x.sort(), x * 2 + torch.tensor(2.0), x[1:], x.view(2, 2) @ x.view(2, 2)), 0),
        (lambda x: torch.arange(4, device="cuda") + x.new_full((4,), 2) + x.repeat_interleave(2)[::2], 0),
    ],
)
def test_waits_are_counted(gpu, asks, waits):
    x = up(4)
    gpu.clear()
    asks(x)
    assert gpu.waits.total() == waits, gpu
    assert all("in test_pretended_gpu.py:" in where for where in gpu.waits)


def test_gradients_stay_where_their_tensors_are(gpu):
    weight, here = nn.Parameter(torch.ones(2, 2)), torch.ones(2, 2, requires_grad=True)
    model = nn.Linear(2, 2).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters())
    ((here * weight).to("cuda") + model(up(2, 2))).sum().cpu().backward()
    gpu.clear()
    optimizer.step()
    assert weight.grad.tolist() == [[1, 1], [1, 1]] and not here.grad.is_cuda
    assert model.weight.grad.is_cuda and optimizer.state[model.weight]["exp_avg"].is_cuda
    assert gpu.calls and not gpu.waits


def test_the_place_of_a_wait_is_a_line_of_the_library(gpu):
    masks = up(1, 3, 3) > 0
    gpu.clear()
    rle_encode(masks)
    places = sorted(gpu.waits)
    assert [p.rpartition(":")[0] for p in places] == ["copy to the CPU in geometry/masks.py", "nonzero in geometry/masks.py"]
    first, *lines = str(gpu).splitlines()
    assert first.endswith(" calls, 2 waits") and sorted(lines) == [f"     1 {p}" for p in places]


def test_convolutions_round_as_tensor_cores_do(gpu, monkeypatch):
    g = torch.Generator().manual_seed(0)
    x, w = torch.rand(1, 8, 9, 9, generator=g), torch.rand(4, 8, 3, 3, generator=g)
    exact = nn.functional.conv2d(x, w)
    rounded = nn.functional.conv2d(x.to("cuda"), w.to("cuda")).cpu()
    assert 1e-6 < ((rounded - exact).abs() / exact).max() < 1e-3
    assert torch.equal(rounded, nn.functional.conv2d(tf32(x), tf32(w)))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert torch.equal(nn.functional.conv2d(x.to("cuda"), w.to("cuda")).cpu(), exact)
    product = x.view(8, 81).to("cuda") @ x.view(81, 8).to("cuda")
    assert torch.equal(product.cpu(), x.view(8, 81) @ x.view(81, 8)), "matrix products keep all bits"


@pytest.mark.parametrize(
    "wide",
    [
        lambda: torch.ones(3, device="mps").double(),
        lambda: torch.ones(3).double().to("mps"),
        lambda: torch.zeros(3, dtype=torch.float64, device="mps"),
        lambda: torch.tensor([1.0], dtype=torch.float64, device="mps"),
        lambda: torch.ones(3, device="mps").to("mps", torch.float64),
    ],
)
def test_apples_gpu_has_no_float64(wide):
    with pretended_gpu("mps") as gpu:
        x = torch.ones(3, device="mps")
        assert x.is_mps and not x.is_cuda and x.cpu().double().dtype == torch.float64 and gpu.waits.total() == 1
        assert not torch.cuda.is_available() and torch.backends.mps.is_available()
        with pytest.raises(TypeError, match="float64"):
            wide()


def test_it_ends_with_the_block():
    with pretended_gpu():
        x = up(3)
    assert x.device.type == "cpu" and torch.cuda.get_device_name.__name__ == "get_device_name"
    assert (x + torch.ones(3)).tolist() == [2, 2, 2]
