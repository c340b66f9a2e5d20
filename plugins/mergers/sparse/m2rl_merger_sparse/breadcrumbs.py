"""Model Breadcrumbs: task vectors without their outliers and without their small entries, summed.

Tensor by tensor and expert by expert, of n entries ordered by magnitude, the ⌊top·n⌋ largest are dropped, of the others
the ⌊density·n⌋ largest are kept, and the kept ones are added: ``b + λ Σ wᵢ δ̂ᵢ``. An entry that equals the smallest or
the largest kept one is kept too: thresholds do not depend on the order of positions, as breaking ties does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from m2rl_core.interfaces import Merger, Pass
from m2rl_core.mergers.density import density_remarks
from m2rl_core.mergers.each_expert import Each, each_or_all, numbers_E
from m2rl_core.mergers.order_statistics import CountHigh, CountLow, Low, magnitudes_EN
from m2rl_core.types import Block, Stats
from m2rl_merger_sparse.scaled import Scaled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """Which entries of each expert's task vector, in order of magnitude, are the smallest and the largest kept one."""

    density: float | tuple[float, ...]
    """Of all experts, or of each."""
    top: float

    def __call__(self, size: int, nonzero_E: Tensor) -> Tensor:
        """Their ranks among ``size`` entries, counted from 1 for the smallest, int64 [E, 2]."""
        import torch

        densities_E = numbers_E(self.density, len(nonzero_E), "densities")
        return torch.tensor([self._ranks(size, int(density * size)) for density in densities_E])

    def _ranks(self, size: int, kept: int) -> tuple[int, int]:
        dropped = max(0, size - kept - int(self.top * size)) if kept else size
        return dropped + 1, dropped + kept


def densities_E(low: Low) -> list[float]:
    """Share of each task vector's entries that is kept and not zero: more than asked for where many are equal."""
    size = low.high.size
    left_out_E = low.below_RK[:, 0].maximum(size - low.high.nonzero_R)  # zeros change nothing
    return [kept / size for kept in (low.up_to_RK[:, 1] - left_out_E).clamp(min=0).tolist()]


class Breadcrumbs(Merger):
    """Three readings of each tensor; exact thresholds in bounded memory."""

    name: ClassVar[str] = "breadcrumbs"
    reference: ClassVar[str] = "https://arxiv.org/abs/2312.06795"
    granularity = "block"
    needs_base = True

    class Config(Scaled):
        density: Each[Annotated[float, Field(ge=0.0, le=1.0)]] = 0.143
        """Share of each task vector's entries that is kept, or a list of one share per expert, in their order. Default:
        β = 0.85 and γ = 0.993 in the paper's notation."""
        top: float = Field(0.007, ge=0.0, lt=1.0)
        """Share that is dropped as outliers, 1 − γ; fewer where ``density`` leaves no room for them."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: one factor per expert, and as many densities."""
        numbers_E(self.config.density, len(experts), "densities")
        self.config.weights_E(len(experts))

    def passes(self) -> Sequence[Pass]:
        rule = Rule(each_or_all(self.config.density), self.config.top)
        return [CountHigh(magnitudes_EN), CountLow(magnitudes_EN, rule)]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        import torch

        low: Low = stats[CountLow.name]
        total = torch.zeros_like(block.experts_E[0])
        weights = self.config.weights_E(len(block.experts_E))
        bounds_E = low.values_RK.tolist()
        for delta, (smallest, largest), weight in zip(block.deltas_E, bounds_E, weights, strict=True):
            size = delta.abs()
            total += delta.mul_((size >= smallest) & (size <= largest)).mul_(weight)
        return [total.mul_(self.config.scale).add_(block.anchor)]

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """``density/EXPERT``: the share of its entries that is kept and not zero."""
        shares_E = densities_E(stats[CountLow.name])
        return {f"density/{name}": share for name, share in zip(experts, shares_E, strict=True)}

    def remarks(self, experts: Sequence[str], found: Mapping[str, float]) -> Iterator[str]:
        """Where what was kept is another share than was asked for."""
        return density_remarks(experts, numbers_E(self.config.density, len(experts), "densities"), found, "cutting")
