"""Averaging: golden numbers, rounding, and what every merger must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_average import Average

DELTAS = torch.tensor(
    [
        [4, -2, 1, 0.5, 0, 3, -1, 2],
        [2, 3, -1, 0.5, 0, -3, -4, 0.25],
        [-1, 1, -2, 0.5, 0, 0, 2, 8],
    ]
)


class TestAverage(MergerContract):
    merger = Average(Average.Config())


class TestWeightedAverage(MergerContract):
    merger = Average(Average.Config(weights=[3, 1, 2]))
    symmetric = False


def average(experts_E: torch.Tensor, weights: list[float] | None = None) -> torch.Tensor:
    block = Block("w", 0, tuple(experts_E.shape[1:]), None, experts_E)
    return Average(Average.Config(weights=weights)).merge(block, {})[0]


def test_three_experts_by_hand() -> None:
    """Golden case G1: three task vectors on a base of ones."""
    wanted = torch.tensor([8 / 3, 5 / 3, 1 / 3, 1.5, 1, 1, 0, 53 / 12])
    torch.testing.assert_close(average(1 + DELTAS), wanted, rtol=1e-6, atol=1e-7)


def test_only_the_proportions_of_weights_matter() -> None:
    wanted = (0.5 * DELTAS[0] + 0.25 * DELTAS[1] + 0.25 * DELTAS[2]) / 1.0
    torch.testing.assert_close(average(DELTAS, [2, 1, 1]), wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(average(DELTAS, [7, 7, 7]), average(DELTAS, [1, 1, 1]))
    assert torch.equal(average(DELTAS, [0, 1, 0]), DELTAS[1])


def test_rounds_once() -> None:
    """At most one bf16 step from the float64 mean, and nearly everywhere equal to it."""
    experts_E = (0.02 * torch.randn(5, 200_000, generator=torch.Generator().manual_seed(3))).bfloat16()
    exact = experts_E.double().mean(0).bfloat16()
    found = average(experts_E.float()).bfloat16()
    apart = (found.view(torch.int16).int() - exact.view(torch.int16).int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 1e-4


def test_the_base_has_no_say(tmp_path: Path) -> None:
    experts = [{"w": torch.full((3,), value)} for value in (1.0, 3.0)]
    (found,) = merge_tensors(Average(Average.Config()), tmp_path, {"w": torch.full((3,), 1e6)}, experts)
    assert torch.equal(found["w"], torch.full((3,), 2.0))


def test_refuses_weights_that_make_no_mean() -> None:
    for weights in ([0.0, 0.0, 0.0], [1.0, -1.0, 1.0]):
        with pytest.raises(ValidationError):
            Average.Config(weights=weights)
    for weights in ([1.0, 1.0], []):
        with pytest.raises(ValueError, match="weights for 3 experts"):
            average(DELTAS, weights)
        with pytest.raises(ValueError, match="weights for 3 experts"):
            Average(Average.Config(weights=weights)).check(["math", "science", "code"])
