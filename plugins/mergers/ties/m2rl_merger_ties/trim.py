"""Trim: the magnitude from which an entry of a task vector is kept, exact, in two readings and bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from m2rl_core.each_expert import numbers_E
from m2rl_core.order_statistics import BINS, count_high, count_low, find, value
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

Semantics = Literal["original", "mergekit"]
Scope = Literal["model", "tensor"]


def magnitudes_EN(block: Block) -> Tensor:
    """Of the task vectors, flat."""
    return block.deltas_E.view(len(block.experts_E), -1).abs_()


@dataclass(frozen=True)
class Rule:
    """Which entry, in order of magnitude, is the smallest that is kept."""

    density: float | Sequence[float]
    """Of all experts, or of each."""
    semantics: Semantics

    def ranks_E(self, size: int, experts: int) -> list[int]:
        """Its rank among ``size`` entries of each expert's task vector, counted from 1 for the smallest."""
        return [self._rank(size, density) for density in numbers_E(self.density, experts, "densities")]

    def _rank(self, size: int, density: float) -> int:
        if self.semantics == "mergekit":
            return size - max(1, int(size * density)) + 1
        return max(1, int(size * (1.0 - density)))


@dataclass(frozen=True)
class High:
    """High halves of the magnitudes, and where the threshold falls among them."""

    counts_EB: Tensor
    """Int64 [E, 65536]."""
    rule: Rule

    @cached_property
    def size(self) -> int:
        """Entries of one task vector."""
        return int(self.counts_EB[0].sum())

    @cached_property
    def place_EK(self) -> tuple[Tensor, Tensor]:
        """High half of the threshold and its rank among the values that share it, each int64 [E, 1]."""
        import torch

        ranks_E = self.rule.ranks_E(self.size, len(self.counts_EB))
        return find(self.counts_EB, torch.tensor(ranks_E)[:, None])


@dataclass(frozen=True)
class Low:
    """Low halves of the magnitudes that share the threshold's high half, and the thresholds themselves."""

    counts_EB: Tensor
    """Int64 [E, 65536]."""
    high: High

    @cached_property
    def _low_E(self) -> Tensor:
        _, rank_EK = self.high.place_EK
        return find(self.counts_EB, rank_EK)[0][:, 0]

    @cached_property
    def floors_E(self) -> list[float]:
        """The smallest magnitude that each expert keeps."""
        found: list[float] = value(self.high.place_EK[0][:, 0], self._low_E).tolist()
        return found

    @cached_property
    def below_E(self) -> list[float]:
        """The largest float32 magnitude that each expert does not keep."""
        import numpy as np

        return [float(np.nextafter(np.float32(floor), np.float32(0.0))) for floor in self.floors_E]

    @cached_property
    def densities_E(self) -> list[float]:
        """The share of each task vector's entries that is kept and not zero: entries that tie are kept together."""
        found = []
        for expert, floor in enumerate(self.floors_E):
            high, low = int(self.high.place_EK[0][expert, 0]), int(self._low_E[expert])
            kept = int(self.high.counts_EB[expert, high + 1 :].sum()) + int(self.counts_EB[expert, low:].sum())
            if floor == 0.0:
                kept -= int(self.counts_EB[expert, 0])
            found.append(kept / self.high.size)
        return found


@dataclass
class CountHigh:
    """The first reading."""

    rule: Rule
    scope: Scope
    name: str = "high magnitudes"

    def measure(self, block: Block, stats: Stats) -> High:
        return High(count_high(magnitudes_EN(block)), self.rule)

    def combine(self, left: High, right: High) -> High:
        return High(left.counts_EB + right.counts_EB, self.rule)


@dataclass
class CountLow:
    """The second one."""

    scope: Scope
    name: str = "magnitudes"

    def measure(self, block: Block, stats: Stats) -> Low:
        high: High = stats["high magnitudes"]
        counts_E1B = count_low(magnitudes_EN(block), high.place_EK[0])
        return Low(counts_E1B.view(-1, BINS), high)

    def combine(self, left: Low, right: Low) -> Low:
        return Low(left.counts_EB + right.counts_EB, left.high)
