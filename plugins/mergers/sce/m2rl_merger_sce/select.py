"""Select: the positions of a tensor at which the experts vary most, by an exact threshold in bounded memory.

Of n positions with a variance above zero the ⌊τ·n⌋ largest are selected, and those that equal the smallest of them:
a threshold does not depend on the order of positions, as breaking ties does. No positions where ⌊τ·n⌋ is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Literal

from m2rl_core.order_statistics import count_high, count_low, find, value
from m2rl_core.types import Block, Stats
from m2rl_merger_sce.parts import parts

if TYPE_CHECKING:
    from torch import Tensor


def variance(block: Block) -> Tensor:
    """Of the experts' weights, so of their task vectors: the base cancels. Float32, ``block.shape``.

    Summed in float64, where bfloat16 weights lose nothing: positions that tie do so whatever the order of the experts,
    and those at which all agree have exactly zero.
    """
    import torch

    return torch.cat([_variance(part) for part in parts(block)])


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
    return (variance(block) >= low.floor).float()


@dataclass(frozen=True)
class High:
    """High halves of a tensor's variances, and where the threshold falls among them."""

    counts_RB: Tensor
    """Int64 [1, 65536]."""
    nonzero: int
    tau: float

    @property
    def chosen(self) -> int:
        return int(self.nonzero * self.tau)

    @cached_property
    def place_RK(self) -> tuple[Tensor, Tensor]:
        """The high half of the threshold, and its rank among the values that share it, each int64 [1, 1]."""
        import torch

        rank = int(self.counts_RB.sum()) - max(1, self.chosen) + 1
        return find(self.counts_RB, torch.tensor([[rank]]))


@dataclass(frozen=True)
class Low:
    """Low halves of the variances that share the threshold's high half, and the threshold itself."""

    counts_RKB: Tensor
    """Int64 [1, 1, 65536]."""
    high: High

    @cached_property
    def floor(self) -> float:
        """The smallest variance that is selected; infinite where none is."""
        return float(value(self.high.place_RK[0], self._low_RK)) if self.high.chosen else inf

    @property
    def share(self) -> float:
        """Of all positions, those that are selected."""
        if not self.high.chosen:
            return 0.0
        counts_B, high, low = self.high.counts_RB[0], int(self.high.place_RK[0]), int(self._low_RK)
        return float((counts_B[high + 1 :].sum() + self.counts_RKB[0, 0, low:].sum()) / counts_B.sum())

    @cached_property
    def _low_RK(self) -> Tensor:
        """The threshold's low half, int64 [1, 1]."""
        return find(self.counts_RKB, self.high.place_RK[1][..., None])[0][..., 0]


@dataclass
class CountHigh:
    """The first reading."""

    tau: float
    name: str = "variances"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> High:
        spread_RN = variance(block).flatten()[None]
        return High(count_high(spread_RN), int(spread_RN.count_nonzero()), self.tau)

    def combine(self, left: High, right: High) -> High:
        return High(left.counts_RB + right.counts_RB, left.nonzero + right.nonzero, self.tau)


@dataclass
class CountLow:
    """The second one."""

    name: str = "selection"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> Low:
        high: High = stats[CountHigh.name]
        return Low(count_low(variance(block).flatten()[None], high.place_RK[0]), high)

    def combine(self, left: Low, right: Low) -> Low:
        return Low(left.counts_RKB + right.counts_RKB, left.high)
