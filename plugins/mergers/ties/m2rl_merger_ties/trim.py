"""Trim: the magnitude from which an entry of a task vector is kept, exact, in two readings and bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from m2rl_core.order_statistics import BINS, count_high, count_low, find, value
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

Semantics = Literal["original", "mergekit"]
Scope = Literal["model", "tensor"]


def magnitudes(block: Block) -> Iterator[Tensor]:
    """Of one task vector after another, flat."""
    assert block.base is not None
    for expert in block.experts_E:
        yield (expert - block.base).abs_().flatten()


@dataclass(frozen=True)
class Rule:
    """Which entry, in order of magnitude, is the smallest that is kept."""

    density: float
    semantics: Semantics

    def rank(self, size: int) -> int:
        """Its rank among ``size`` entries, counted from 1 for the smallest."""
        if self.semantics == "mergekit":
            return size - max(1, int(size * self.density)) + 1
        return max(1, int(size * (1.0 - self.density)))


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

        ranks = torch.full((len(self.counts_EB), 1), self.rule.rank(self.size))
        return find(self.counts_EB, ranks)


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
        return High(count_high(magnitudes(block)), self.rule)

    def combine(self, left: High, right: High) -> High:
        return High(left.counts_EB + right.counts_EB, self.rule)


@dataclass
class CountLow:
    """The second one."""

    scope: Scope
    name: str = "magnitudes"

    def measure(self, block: Block, stats: Stats) -> Low:
        high: High = stats["high magnitudes"]
        counts_E1B = count_low(magnitudes(block), high.place_EK[0])
        return Low(counts_E1B.view(-1, BINS), high)

    def combine(self, left: Low, right: Low) -> Low:
        return Low(left.counts_EB + right.counts_EB, left.high)
