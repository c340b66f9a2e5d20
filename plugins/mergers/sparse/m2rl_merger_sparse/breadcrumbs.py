"""Model Breadcrumbs: task vectors without their outliers and without their small entries, summed.

Tensor by tensor and expert by expert, of n entries ordered by magnitude, the ⌊top·n⌋ largest are dropped, of the others
the ⌊density·n⌋ largest are kept, and the kept ones are added: ``b + λ Σ wᵢ δ̂ᵢ``. An entry that equals the smallest or
the largest kept one is kept too: thresholds do not depend on the order of positions, as breaking ties does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from m2rl_core.interfaces import Merger, Pass
from m2rl_core.order_statistics import count_high, count_low, find, value
from m2rl_core.types import Block, Stats
from m2rl_merger_sparse.scaled import Scaled

if TYPE_CHECKING:
    from torch import Tensor


def magnitudes_EN(block: Block) -> Tensor:
    """Of the task vectors, flat."""
    return block.deltas_E.view(len(block.experts_E), -1).abs_()


@dataclass(frozen=True)
class High:
    """High halves of a tensor's magnitudes, and where the two thresholds fall among them."""

    counts_EB: Tensor
    """Int64 [E, 65536]."""
    density: float
    top: float

    @cached_property
    def kept(self) -> int:
        return int(self.density * self._size)

    @cached_property
    def place_EK(self) -> tuple[Tensor, Tensor]:
        """High half and rank within it of the smallest and the largest kept magnitude, each int64 [E, 2]."""
        import torch

        dropped = max(0, self._size - self.kept - int(self.top * self._size))
        ranks_K = torch.tensor([min(dropped + 1, self._size), dropped + self.kept])
        return find(self.counts_EB, ranks_K.expand(len(self.counts_EB), 2).contiguous())

    @cached_property
    def _size(self) -> int:
        return int(self.counts_EB[0].sum())


@dataclass(frozen=True)
class Low:
    """Low halves of the magnitudes that share a threshold's high half, and the thresholds themselves."""

    counts_EKB: Tensor
    """Int64 [E, 2, 65536]."""
    high: High

    @cached_property
    def bounds_E(self) -> list[tuple[float, float]]:
        """The smallest and the largest magnitude that each expert keeps; none fits where it keeps nothing."""
        found = value(self.high.place_EK[0], self._low_EK)
        return [(low, high) if self.high.kept else (1.0, -1.0) for low, high in found.tolist()]

    def densities_E(self) -> list[float]:
        """Share of each task vector's entries that is kept and not zero: more than asked for where many are equal."""
        if not self.high.kept:
            return [0.0] * len(self.counts_EKB)
        found = []
        for expert, counts_B in enumerate(self.high.counts_EB):
            (high, last), (low, _) = self.high.place_EK[0][expert].tolist(), self._low_EK[expert].tolist()
            below, up_to = (counts_B[:bin_].sum() for bin_ in (high, last))
            below = below + self.counts_EKB[expert, 0, : max(low, int(high == low == 0))].sum()  # zeros change nothing
            up_to = up_to + self.counts_EKB[expert, 1, : int(self._low_EK[expert, 1]) + 1].sum()
            found.append(float((up_to - below).clamp(min=0) / counts_B.sum()))
        return found

    @cached_property
    def _low_EK(self) -> Tensor:
        """Low halves of the thresholds, int64 [E, 2]."""
        return find(self.counts_EKB, self.high.place_EK[1][..., None])[0][..., 0]


@dataclass
class CountHigh:
    """The first reading."""

    density: float
    top: float
    name: str = "high magnitudes"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> High:
        return High(count_high(magnitudes_EN(block)), self.density, self.top)

    def combine(self, left: High, right: High) -> High:
        return High(left.counts_EB + right.counts_EB, self.density, self.top)


@dataclass
class CountLow:
    """The second one."""

    name: str = "magnitudes"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> Low:
        high: High = stats[CountHigh.name]
        return Low(count_low(magnitudes_EN(block), high.place_EK[0]), high)

    def combine(self, left: Low, right: Low) -> Low:
        return Low(left.counts_EKB + right.counts_EKB, left.high)


class Breadcrumbs(Merger):
    """Three readings of each tensor; exact thresholds in bounded memory."""

    name: ClassVar[str] = "breadcrumbs"
    reference: ClassVar[str] = "https://arxiv.org/abs/2312.06795"
    granularity = "block"
    needs_base = True

    class Config(Scaled):
        density: float = Field(0.143, ge=0.0, le=1.0)
        """Share of each task vector's entries that is kept. Default: β = 0.85 and γ = 0.993 in the paper's notation."""
        top: float = Field(0.007, ge=0.0, lt=1.0)
        """Share that is dropped as outliers, 1 − γ; fewer where ``density`` leaves no room for them."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: one factor per expert."""
        self.config.weights_E(len(experts))

    def passes(self) -> Sequence[Pass]:
        return [CountHigh(self.config.density, self.config.top), CountLow()]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        import torch

        assert block.base is not None
        low: Low = stats[CountLow.name]
        total = torch.zeros_like(block.experts_E[0])
        weights = self.config.weights_E(len(block.experts_E))
        for delta, (smallest, largest), weight in zip(block.deltas_E, low.bounds_E, weights, strict=True):
            size = delta.abs()
            total += delta.mul_((size >= smallest) & (size <= largest)).mul_(weight)
        return [total.mul_(self.config.scale).add_(block.base)]

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """``density/EXPERT``: the share of its entries that is kept and not zero."""
        low: Low = stats[CountLow.name]
        return {f"density/{name}": share for name, share in zip(experts, low.densities_E(), strict=True)}
