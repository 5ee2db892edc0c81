"""The design study counts what it says, of the networks that it names."""

import pytest
import torch

from fairseg_lite.course import study
from fairseg_lite.models.deepmask import HEADS, deepmask_tiny


def count(options: dict) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in deepmask_tiny(**options).parameters())


def test_the_first_trunk_is_the_shipped_network_and_each_name_tells_its_options():
    assert next(iter(study.TRUNKS.items())) == ("W96-P4-D11-F64", {})
    for name, options in study.TRUNKS.items():
        with torch.device("meta"):
            model = deepmask_tiny(**options)
        main_path = [m for n, m in model.trunk.named_modules() if isinstance(m, torch.nn.Conv2d) and "downsample" not in n]
        letters = {part[0]: int(part[1:]) for part in name.split("-")}
        assert letters == {
            "W": model.patch_size, "P": model.stride.bit_length() - 1, "D": len(main_path), "F": model.reduce.out_channels,
        }  # fmt: skip


def test_heads_of_the_study_are_those_of_the_library():
    assert [options["head"] for options in study.HEADS.values()] == list(HEADS)


def test_parameters_windows_and_arithmetic_by_hand():
    options = {"patch_size": 32, "features": 16}
    cost = study.costs({"tiny": options}, size=(40, 64), top_k=5, repeat=1)["tiny"]
    assert cost.parameters == count(options)
    # canvas: (40 + 32, 64 + 32) up to multiples of 16 = 80 x 96, so 5 x 6 cells and 4 x 5 windows of 2 x 2
    assert cost.windows == 20
    reduced, embedded = 5 * 6 * 128 * 16, 20 * 2 * 2 * 16 * 512
    assert cost.gflop["512-d layer"] == pytest.approx(2e-9 * (reduced + embedded))
    assert cost.gflop["score head"] == pytest.approx(2e-9 * 20 * (512 * 256 + 256))
    assert cost.gflop["masks"] == pytest.approx(2e-9 * 5 * 512 * 8 * 8)
    assert cost.head_parameters == 128 * 16 + 16 + 2 * 2 * 16 * 512 + 512 + 512 * 64 + 64 + 512 * 256 + 256 + 256 + 1
    assert cost.seconds.keys() == cost.gflop.keys() and min(cost.seconds.values()) > 0


def test_a_smaller_patch_sees_a_smaller_picture():
    """Half the patch at half the size: the same objects for about a quarter of the arithmetic, border included."""
    found = study.costs({"64": {"patch_size": 64}, "32": {"patch_size": 32}}, size=(64, 64), top_k=1, repeat=1)
    assert found["64"].windows == 25 and found["32"].windows == 9
    assert found["64"].gflop["trunk"] == pytest.approx(4 * found["32"].gflop["trunk"])


def test_heads_that_share_less_cost_more():
    options = {k: {**v, "patch_size": 32} for k, v in study.HEADS.items()}
    found = study.costs(options, size=(32, 32), top_k=9, repeat=1)
    a, b, c = (found[f"head {h}"] for h in "ABC")
    assert a.parameters > b.parameters > c.parameters
    assert sum(a.gflop.values()) > sum(b.gflop.values()) > sum(c.gflop.values())


def test_top_k_beyond_the_windows_takes_them_all_and_the_generator_is_left_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    cost = study.costs({"x": {"patch_size": 32}}, size=(16, 16), top_k=1000, repeat=1)["x"]
    assert cost.windows == 4 and cost.gflop["masks"] == pytest.approx(2e-9 * 4 * 512 * 64)
    assert torch.equal(torch.get_rng_state(), state)


def test_table_has_a_line_for_each_variant():
    found = study.costs({"one": {"patch_size": 32}, "two": {"patch_size": 32, "head": "A"}}, size=(16, 16), repeat=1)
    head, *lines = study.cost_table(found).splitlines()
    assert [line.split()[0] for line in lines] == ["one", "two"] and len({len(line) for line in (head, *lines)}) == 1
    assert f"{found['two'].parameters / 1e6:.2f}" in lines[1]


@pytest.mark.parametrize("change", [{"variants": {}}, {"repeat": 0}, {"top_k": 0}, {"size": (0, 5)}])
def test_nothing_to_measure_is_refused(change):
    with pytest.raises(ValueError, match="all must be at least 1"):
        study.costs(**{"variants": {"x": {}}, **change})
