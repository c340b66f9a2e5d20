"""Ranks among values that come in pieces, against sorting them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2rl_core.mergers.order_statistics import CountHigh, CountLow, count_high, count_low, find, magnitudes_EN, value
from m2rl_core.types import Block


def kth(values_RN: Tensor, rank_RK: Tensor, pieces: int) -> Tensor:
    """Through counts of so many pieces."""
    parts = values_RN.tensor_split(pieces, 1)
    high_RK, inside_RK = find(sum((count_high(part).counts_RB for part in parts), torch.tensor(0)), rank_RK)
    counts_RKB = sum((count_low(part, high_RK) for part in parts), torch.tensor(0))
    low_RK1, _ = find(counts_RKB, inside_RK[..., None])
    return value(high_RK, low_RK1[..., 0])


def values_of(kind: str) -> Tensor:
    noise = torch.Generator().manual_seed(5)
    found = torch.randn(3, 1000, generator=noise).abs()
    if kind == "tied":
        return found.round(decimals=1)
    if kind == "mostly zero":
        return found * (torch.rand(found.shape, generator=noise) > 0.9)
    if kind == "tiny":
        return found * 1e-38 * (torch.rand(found.shape, generator=noise) > 0.5)
    return found * 10.0 ** torch.randint(-30, 30, found.shape, generator=noise)


@pytest.mark.parametrize("kind", ["tied", "mostly zero", "tiny", "of any scale"])
@pytest.mark.parametrize("pieces", [1, 7])
def test_any_rank_is_that_of_the_sorted_values(kind: str, pieces: int) -> None:
    values_RN = values_of(kind)
    rank_RK = torch.tensor([[1, 500, 950], [2, 900, 1000], [333, 1, 999]])
    wanted = values_RN.sort(1).values.gather(1, rank_RK - 1)
    assert torch.equal(kth(values_RN, rank_RK, pieces), wanted)


@settings(deadline=None)
@given(st.lists(st.floats(0, width=32, allow_infinity=False), min_size=1, max_size=50), st.data())
def test_any_values_have_their_ranks(values: list[float], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, len(values)))
    assert kth(torch.tensor([values]), torch.tensor([[rank]]), 1).item() == sorted(values)[rank - 1]


@pytest.mark.parametrize("kind", ["tied", "mostly zero", "of any scale"])
def test_passes_count_what_lies_below_and_up_to_a_rank(kind: str) -> None:
    """In pieces; the rank after the last is that of infinity, below which all values lie."""
    deltas_EN = values_of(kind)
    signs_EN = torch.where(torch.arange(deltas_EN.shape[1]) % 2 == 0, 1.0, -1.0)
    ranks_EK = torch.tensor([[1, 500, 1000], [2, 900, 1001], [333, 1001, 999]])

    def ranks(size: int, nonzero_E: Tensor) -> Tensor:
        assert size == 1000
        assert torch.equal(nonzero_E, (deltas_EN > 0).sum(1))
        return ranks_EK

    stats: dict[str, Any] = {}
    for each in (CountHigh(magnitudes_EN), CountLow(magnitudes_EN, ranks)):
        found = [
            each.measure(Block("w", 0, (piece.shape[1],), torch.zeros(piece.shape[1]), piece), stats)
            for piece in (deltas_EN * signs_EN).tensor_split(7, 1)
        ]
        stats[each.name] = reduce(each.combine, found)  # type: ignore[arg-type]
    low = stats[CountLow.name]
    sorted_EN = torch.cat([deltas_EN.sort(1).values, torch.full((3, 1), torch.inf)], 1)
    wanted_EK = sorted_EN.gather(1, ranks_EK - 1)
    assert torch.equal(low.values_RK, wanted_EK)
    assert torch.equal(low.below_RK, (deltas_EN[:, None] < wanted_EK[..., None]).sum(-1))
    assert torch.equal(low.up_to_RK, (deltas_EN[:, None] <= wanted_EK[..., None]).sum(-1))


def test_values_that_differ_in_their_last_bits_only() -> None:
    values = (torch.arange(100, dtype=torch.int32) + (1 << 29)).view(torch.float32)
    shuffled = values[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    assert kth(shuffled[None], torch.tensor([[1, 37, 100]]), 3).tolist() == [values[[0, 36, 99]].tolist()]


def measured(each: CountHigh | CountLow, values_RN: Tensor, stats: dict[str, Any]) -> Any:
    """What a pass finds of one block."""
    size = values_RN.shape[1]
    return each.measure(Block("w", 0, (size,), torch.zeros(size), values_RN), stats)


def test_ranks_of_zeros_are_known_without_a_second_reading() -> None:
    """And come out as they would if they were counted; one rank above the zeros of one row, and they must be."""
    values_RN = values_of("mostly zero")
    zeros = int((values_RN == 0).sum(1).min())
    first = CountHigh(magnitudes_EN)
    stats = {first.name: measured(first, values_RN, {})}

    def to(rank: int) -> CountLow:
        return CountLow(magnitudes_EN, lambda size, nonzero_R: torch.tensor([[1, rank]] * 3))

    second = to(zeros)
    known, counted = second.known(stats), measured(second, values_RN, stats)
    assert known is not None
    for found in (known, counted):
        assert not found.values_RK.any()
        assert not found.below_RK.any()
        assert torch.equal(found.up_to_RK[:, 1], (values_RN == 0).sum(1))
    assert to(zeros + 1).known(stats) is None
