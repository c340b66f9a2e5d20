"""Select: the positions of a tensor at which the experts vary most, by an exact threshold in bounded memory.

Of n positions with a variance above zero the ⌊τ·n⌋ largest are selected, and those that equal the smallest of them:
a threshold does not depend on the order of positions, as breaking ties does. No positions where ⌊τ·n⌋ is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from m2rl_core.mergers.order_statistics import CountLow, Low
from m2rl_core.types import Block, Stats
from m2rl_merger_sce.parts import parts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """Which variance of a tensor, in order of size, is the smallest that is selected."""

    tau: float

    def __call__(self, size: int, nonzero_R: Tensor) -> Tensor:
        """Its rank among ``size`` of them, counted from 1 for the smallest, int64 [1, 1]; beyond all: none is."""
        return size - (nonzero_R.double() * self.tau).long()[:, None] + 1


def variances_RN(block: Block) -> Tensor:
    """Of the experts' weights, so of their task vectors: the base cancels. Float32 [1, N].

    Summed in float64, where bfloat16 weights lose nothing: positions that tie do so whatever the order of the experts,
    and those at which all agree have exactly zero.
    """
    import torch

    return torch.cat([_variance(part) for part in parts(block)])[None]


def _variance(block: Block) -> Tensor:
    experts = len(block.experts_E)
    first = block.experts_E[0].double()
    total, squares = first.new_zeros(first.shape), first.new_zeros(first.shape)
    for expert in block.experts_E[1:]:
        apart = expert.double().sub_(first)
        total += apart
        squares += apart.mul_(apart)
    return squares.mul_(experts).sub_(total.mul_(total)).div_(experts**2).float().clamp_(min=0.0)


def selected(block: Block, stats: Stats) -> Tensor:
    """1 where the variance reaches the tensor's threshold and else 0, float32, ``block.shape``."""
    low: Low = stats[CountLow.name]
    return (variances_RN(block)[0] >= low.values_RK[0, 0]).float()


def selected_share(low: Low) -> float:
    """Of all positions, those that are selected."""
    return (low.high.size - int(low.below_RK)) / low.high.size
