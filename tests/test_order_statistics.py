"""Ranks among values that come in pieces, against sorting them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from m2rl_core.order_statistics import count_high, count_low, find, value


def kth(values_RN: Tensor, rank_RK: Tensor, pieces: int) -> Tensor:
    """Through counts of so many pieces."""
    parts = values_RN.tensor_split(pieces, 1)
    high_RK, inside_RK = find(sum((count_high(part) for part in parts), torch.tensor(0)), rank_RK)
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


def test_values_that_differ_in_their_last_bits_only() -> None:
    values = (torch.arange(100, dtype=torch.int32) + (1 << 29)).view(torch.float32)
    shuffled = values[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    assert kth(shuffled[None], torch.tensor([[1, 37, 100]]), 3).tolist() == [values[[0, 36, 99]].tolist()]
