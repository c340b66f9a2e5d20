"""Reinforced Agent Merging: what one expert alone has changed is kept whole, what several have is averaged over them.

RL moves few weights, and each expert other ones; averaging over all experts would shrink what only one has learned. An
entry counts as changed where ``|δᵢ| > ε``; then, with nⱼ the number of experts that changed entry j,

    merged_j = b_j + Σᵢ δᵢⱼ / nⱼ               over the experts that changed it, where nⱼ > 1
    merged_j = b_j + δᵢⱼ (1 + r·min(ρᵢ, α))    where only expert i did

ρᵢ is the number of expert i's shared entries for each one that is its own: RAM+ so makes up for what averaging takes
from the others. RAM has r = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from m2rl_core.interfaces import ComponentConfig, Merger, Pass, Preset
from m2rl_core.mergers.density import tell_density
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Lengths:
    """Squared lengths of the task vectors in one tensor, float64 [E], and its elements."""

    squares_E: Tensor
    size: int

    def rms_E(self) -> list[float]:
        """Root mean squares of the task vectors."""
        found: list[float] = (self.squares_E / self.size).sqrt().tolist()
        return found


@dataclass
class MeasureLengths:
    """One reading."""

    name: str = "lengths"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> Lengths:
        deltas_EN = block.deltas_E.view(len(block.experts_E), -1).double()
        return Lengths(deltas_EN.mul_(deltas_EN).sum(1), deltas_EN.shape[1])

    def combine(self, left: Lengths, right: Lengths) -> Lengths:
        return Lengths(left.squares_E + right.squares_E, left.size + right.size)


@dataclass
class CountShared:
    """One reading: entries that each expert changed with others, and alone, int64 [2, E]."""

    merger: Ram
    scope: Literal["model", "tensor"]
    name: str = "overlap"

    def measure(self, block: Block, stats: Stats) -> Tensor:
        import torch

        changed_E = self.merger.changed_E(block, block.deltas_E, stats)
        changed_EN = changed_E.view(len(changed_E), -1)
        own_E = (changed_EN & (changed_EN.sum(0) == 1)).sum(1)
        return torch.stack([changed_EN.sum(1) - own_E, own_E])

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Ram(Merger):
    """One reading more for ε, and one for r."""

    name: ClassVar[str] = "ram"
    reference: ClassVar[str] = "https://arxiv.org/abs/2601.13572"
    granularity = "block"
    needs_base = True
    presets: ClassVar[Mapping[str, Preset]] = {
        "ram-plus": Preset({"r": 0.1}, "RAM+ with its published r and α; ε stays relative."),
        "published": Preset(
            {"epsilon": 1e-5, "relative": False},
            "RAM with its published, absolute ε = 1e-5, below which small task vectors vanish.",
        ),
        "published-plus": Preset(
            {"epsilon": 1e-5, "relative": False, "r": 0.1},
            "RAM+ with its published, absolute ε = 1e-5; mergekit's ramplus_tl counts ρ per tensor (scope: tensor).",
        ),
    }

    class Config(ComponentConfig):
        epsilon: float = Field(0.1, ge=0.0)
        """ε. The default is what the published 1e-5 amounts to for entries of 1e-4."""
        relative: bool = True
        """ε is a share of the root mean square of the expert's task vector in that tensor; False: it is a weight."""
        r: float = Field(0.0, ge=0.0)
        """How far entries of one expert alone are scaled up; RAM+ publishes 0.1."""
        alpha: float = Field(0.2, ge=0.0)
        """α, the most of ρ that counts; as published."""
        scope: Literal["model", "tensor"] = "model"
        """ρ of whole task vectors, as published, or of each tensor, as in mergekit."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def passes(self) -> Sequence[Pass]:
        lengths: list[Pass] = [MeasureLengths()] if self.config.relative else []
        return [*lengths, CountShared(self, self.config.scope)] if self.config.r else lengths

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Tells ``density/EXPERT``: the share of its entries that count as changed."""
        import torch

        deltas_E = block.deltas_E
        changed_E = self.changed_E(block, deltas_E, stats)
        tell_density(block, changed_E)
        count = changed_E.sum(0)
        alone = count == 1
        total = torch.zeros_like(deltas_E[0])
        for delta, changed, factor in zip(deltas_E, changed_E, self._factors_E(stats, len(deltas_E)), strict=True):
            own = torch.where(alone, factor, 1.0)
            total += delta.mul_(changed).mul_(own)
        return [total.div_(count.clamp_(min=1)).add_(block.anchor)]

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """``factor/EXPERT``, by which RAM+ scales what that expert alone has changed; nothing for RAM."""
        factors_E = self._factors_E(stats, len(experts))
        return (
            {f"factor/{name}": factor for name, factor in zip(experts, factors_E, strict=True)} if self.config.r else {}
        )

    def changed_E(self, block: Block, deltas_E: Tensor, stats: Stats) -> Tensor:
        """Where each expert has changed the base, bool [E, *shape]."""
        import torch

        limits = [self.config.epsilon] * len(deltas_E)
        if self.config.relative:
            limits = [self.config.epsilon * rms for rms in stats[MeasureLengths.name].rms_E()]
        return torch.stack([delta.abs() > limit for delta, limit in zip(deltas_E, limits, strict=True)])

    def _factors_E(self, stats: Stats, experts: int) -> list[float]:
        """For entries that one expert alone has changed; none of those exist where the expert has none of its own."""
        if not self.config.r:
            return [1.0] * experts
        shared_E, own_E = stats[CountShared.name].tolist()
        ratios = [shared / max(1, own) for shared, own in zip(shared_E, own_E, strict=True)]
        return [1.0 + self.config.r * min(ratio, self.config.alpha) for ratio in ratios]
