"""Signs of sums, and what becomes of those that are zero, in every merger that elects."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from m2rl_core.mergers.election import elected
from m2rl_core.types import Block
from m2rl_merger_sce import Sce
from m2rl_merger_sparse import Della
from m2rl_merger_ties import Ties


@pytest.mark.parametrize(("zero", "side"), [(1, 1.0), (-1, -1.0), (0, 0.0)])
def test_sums_elect_their_sign_and_the_rule_that_of_zeros(zero: int, side: float) -> None:
    total = torch.tensor([2.5, -1e-30, 0.0, -0.0])
    before = total.clone()
    assert elected(total, zero).tolist() == [1.0, -1.0, side, side]
    assert torch.equal(total, before)


def test_what_cancels_is_plus_but_for_ties_in_its_original_form() -> None:
    """Two experts cancel in the first entry; in the others both go down."""
    deltas_E = torch.tensor([[2.0, -1, -1, -1], [-2, -1, -1, -1]])
    block = Block("w", 0, (1, 4), torch.zeros(1, 4), deltas_E[:, None], ("math", "law"))
    flat = Block("w", 0, (4,), torch.zeros(4), deltas_E, ("math", "law"))

    def first(merger: Any, block: Block) -> float:
        stats: dict[str, Any] = {}
        for each in merger.passes():
            stats[each.name] = each.measure(block, stats)
        return float(merger.merge(block, stats)[0].flatten()[0])

    assert first(Sce(Sce.Config()), flat) == 2
    assert first(Della(Della.Config(density=0.9999, epsilon=0.0)), block) == pytest.approx(2, rel=2e-4)
    assert first(Ties(Ties.Config(density=1.0, semantics="mergekit")), flat) == 2
    assert first(Ties(Ties.Config(density=1.0)), flat) == -2
