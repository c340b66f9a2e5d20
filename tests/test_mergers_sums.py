"""Sums over experts: by hand, in reused memory, and with too few weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from m2rl_core.mergers.sums import weighted_sum


def test_a_weighted_sum_by_hand() -> None:
    tensors_E = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    assert weighted_sum(tensors_E, [2.0, 1.0, -0.5]).tolist() == [-38.0, -76.0]
    assert weighted_sum(tensors_E, [1.0, 1.0, 1.0]).tolist() == [111.0, 222.0]
    assert tensors_E.tolist() == [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], "what is summed stays"


def test_tensors_may_overwrite_each_other() -> None:
    def counted() -> Iterator[Tensor]:
        room = torch.zeros(2)
        for number in (1, 2, 3):
            yield room.fill_(number)

    assert weighted_sum(counted(), [1.0, 1.0, 10.0]).tolist() == [33.0, 33.0]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0]])
def test_there_is_a_weight_for_each(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="zip"):
        weighted_sum(torch.ones(2, 3), weights)
