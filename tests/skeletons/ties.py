"""TIES over the whole model or tensor by tensor: what the merger interface must carry at the least.

Yadav et al. 2023, https://arxiv.org/abs/2306.01708, algorithm 1, as its authors compute it: an expert keeps the entries
whose magnitude is at least the k-th smallest of its whole task vector, k = d − ⌊density·d⌋; each entry's sign is that
of the sum of what was kept, or, where that sum is exactly zero, the sign of most entries; the entries that agree are
averaged.

The k-th magnitude is exact in bounded memory: bit patterns of non-negative float32 sort as their values do, so one
reading counts their high halves, and a second one the low halves of those that share the k-th's high half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import ClassVar, Literal

import torch
from torch import Tensor

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.types import Block, Stats

Scope = Literal["model", "tensor"]
HALVES = 1 << 16


def magnitudes_E(block: Block) -> Tensor:
    """Bit patterns of the task vectors' magnitudes, int32 [E, n]."""
    return block.deltas_E.flatten(1).abs().view(torch.int32)


def find_E(counts_E: Tensor, rank_E: Tensor) -> tuple[Tensor, Tensor]:
    """The bin that holds the element of 1-based rank ``rank_E``, and its rank there."""
    sums_E = counts_E.cumsum(1)
    bin_E = torch.searchsorted(sums_E, rank_E[:, None])
    return bin_E[:, 0], rank_E - (sums_E - counts_E).gather(1, bin_E)[:, 0]


@dataclass
class Coarse:
    """Counts of high halves, int64 [E, 65536], and where the k-th magnitude falls."""

    counts_E: Tensor
    density: float

    @cached_property
    def place_E(self) -> tuple[Tensor, Tensor]:
        sizes = self.counts_E.sum(1).tolist()
        return find_E(self.counts_E, torch.tensor([max(1, size - int(size * self.density)) for size in sizes]))


@dataclass
class Fine:
    """Counts of low halves in one bin for each expert, int64 [E, 65536], and the k-th magnitude itself."""

    counts_E: Tensor
    coarse: Coarse

    @cached_property
    def floor_E(self) -> Tensor:
        high_E, rank_E = self.coarse.place_E
        low_E, _ = find_E(self.counts_E, rank_E)
        return (high_E * HALVES + low_E).int().view(torch.float32)


@dataclass
class CountHigh:
    density: float
    scope: Scope
    name: str = "coarse"

    def measure(self, block: Block, stats: Stats) -> Coarse:
        counts = [torch.bincount(bits >> 16, minlength=HALVES) for bits in magnitudes_E(block)]
        return Coarse(torch.stack(counts), self.density)

    def combine(self, left: Coarse, right: Coarse) -> Coarse:
        return Coarse(left.counts_E + right.counts_E, self.density)


@dataclass
class CountLow:
    scope: Scope
    name: str = "fine"

    def measure(self, block: Block, stats: Stats) -> Fine:
        high_E, _ = stats["coarse"].place_E
        inside = [bits[bits >> 16 == high] for bits, high in zip(magnitudes_E(block), high_E, strict=True)]
        counts = [torch.bincount(bits & (HALVES - 1), minlength=HALVES) for bits in inside]
        return Fine(torch.stack(counts), stats["coarse"])

    def combine(self, left: Fine, right: Fine) -> Fine:
        return Fine(left.counts_E + right.counts_E, left.coarse)


@dataclass
class CountSigns:
    """More raised entries than lowered ones, as a signed number."""

    scope: Scope
    name: str = "majority"

    def measure(self, block: Block, stats: Stats) -> int:
        return int(reduce(torch.add, trimmed_E(block, stats)).sign().sum())

    def combine(self, left: int, right: int) -> int:
        return left + right


def trimmed_E(block: Block, stats: Stats) -> Tensor:
    """The task vectors without their small entries, [E, *shape]."""
    floor_E = stats["fine"].floor_E.view(-1, *[1] * len(block.shape))
    return block.deltas_E.where(block.deltas_E.abs() >= floor_E, 0.0)


class Ties(Merger):
    """Trim, elect signs, average those that agree."""

    name: ClassVar[str] = "ties"
    reference: ClassVar[str] = "https://arxiv.org/abs/2306.01708 algorithm 1"
    granularity = "block"
    needs_base = True

    class Config(ComponentConfig):
        density: float = 0.2
        scale: float = 1.0
        scope: Scope = "model"

    def __init__(self, config: Config) -> None:
        self.config = config

    def passes(self) -> Sequence[Pass]:
        scope = self.config.scope
        return [CountHigh(self.config.density, scope), CountLow(scope), CountSigns(scope)]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        assert block.base is not None
        kept_E = trimmed_E(block, stats)
        summed = reduce(torch.add, kept_E)
        majority = 1.0 if stats["majority"] > 0 else -1.0
        elected = torch.where(summed == 0, majority, summed.sign())
        agreeing_E = kept_E.where(kept_E.sign() == elected, 0.0)
        count = reduce(torch.add, (agreeing_E != 0).float()).clamp_(min=1.0)
        return [block.base + reduce(torch.add, agreeing_E) / count * self.config.scale]
