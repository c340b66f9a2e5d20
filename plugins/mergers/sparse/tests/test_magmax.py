"""MagMax: golden numbers, and what every merger must do."""

from __future__ import annotations

import torch

from m2rl_core.testing import MergerContract
from m2rl_core.types import Block
from m2rl_merger_sparse import MagMax

DELTAS = torch.tensor(
    [
        [4, -2, 1, 0.5, 0, 3, -1, 2],
        [2, 3, -1, 0.5, 0, -3, -4, 0.25],
        [-1, 1, -2, 0.5, 0, 0, 2, 8],
    ]
)


class TestMagMax(MergerContract):
    merger = MagMax(MagMax.Config())


def test_largest_of_three_by_hand() -> None:
    """Golden case G18; at position 5 the later of two equal magnitudes counts."""
    block = Block("w", 0, (8,), torch.ones(8), 1 + DELTAS)
    assert MagMax(MagMax.Config()).merge(block, {})[0].tolist() == [5, 4, -1, 1.5, 1, -2, -3, 9]
    assert MagMax(MagMax.Config(scale=0.5)).merge(block, {})[0].tolist() == [3, 2.5, 0, 1.25, 1, -0.5, -1, 5]
