"""Task arithmetic: golden numbers, rounding, and what every merger must do."""

from __future__ import annotations

import pytest
import torch

from m2rl_core.testing import MergerContract
from m2rl_core.types import Block
from m2rl_merger_task_arithmetic import TaskArithmetic

DELTAS = torch.tensor(
    [
        [4, -2, 1, 0.5, 0, 3, -1, 2],
        [2, 3, -1, 0.5, 0, -3, -4, 0.25],
        [-1, 1, -2, 0.5, 0, 0, 2, 8],
    ]
)


class TestTaskArithmetic(MergerContract):
    merger = TaskArithmetic(TaskArithmetic.Config())


class TestWeightedTaskArithmetic(MergerContract):
    merger = TaskArithmetic(TaskArithmetic.Config(scale=0.3, weights=[1, -0.5, 2]))
    symmetric = False


def add(
    base: torch.Tensor, experts_E: torch.Tensor, scale: float = 1.0, weights: list[float] | None = None
) -> torch.Tensor:
    block = Block("w", 0, tuple(base.shape), base, experts_E)
    return TaskArithmetic(TaskArithmetic.Config(scale=scale, weights=weights)).merge(block, {})[0]


def test_three_experts_by_hand() -> None:
    """Golden case G2: three task vectors on a base of ones."""
    wanted = torch.tensor([6, 3, -1, 2.5, 1, 1, -2, 11.25])
    torch.testing.assert_close(add(torch.ones(8), 1 + DELTAS), wanted, rtol=1e-6, atol=1e-7)


def test_scaled_and_weighted_by_hand() -> None:
    """Golden case G3."""
    wanted = torch.tensor([3.375, 0.875, 1, 1.4375, 1, 1.75, -0.25, 3.0625])
    found = add(torch.ones(8), 1 + DELTAS, scale=0.5, weights=[1, 0.5, 0.25])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_no_scale_gives_the_base_and_one_expert_gives_the_expert() -> None:
    assert torch.equal(add(torch.ones(8), 1 + DELTAS, scale=0.0), torch.ones(8))
    assert torch.equal(add(torch.ones(8), 1 + DELTAS[:1]), 1 + DELTAS[0])


def test_rounds_once() -> None:
    """At most one bf16 step from the float64 sum, and nearly everywhere equal to it."""
    noise = torch.Generator().manual_seed(3)
    base = (0.02 * torch.randn(200_000, generator=noise)).bfloat16()
    experts_E = (base.float() + 1e-3 * torch.randn(5, 200_000, generator=noise)).bfloat16()
    exact = (base.double() + (experts_E.double() - base.double()).sum(0)).bfloat16()
    found = add(base.float(), experts_E.float()).bfloat16()
    apart = (found.view(torch.int16).int() - exact.view(torch.int16).int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 1e-4


def test_refuses_the_wrong_number_of_weights_and_a_missing_base() -> None:
    with pytest.raises(ValueError, match="2 weights for 3 experts"):
        add(torch.ones(8), 1 + DELTAS, weights=[1, 2])
    with pytest.raises(ValueError, match="2 weights for 3 experts"):
        TaskArithmetic(TaskArithmetic.Config(weights=[1, 2])).check(["math", "science", "code"])
    block = Block("w", 0, (8,), None, DELTAS)
    with pytest.raises(ValueError, match="base"):
        TaskArithmetic(TaskArithmetic.Config()).merge(block, {})
