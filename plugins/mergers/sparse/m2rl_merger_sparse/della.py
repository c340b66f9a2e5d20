"""DELLA: drop entries at random, the smaller of a row the likelier; rescale, elect signs, average those that agree.

Each expert's entries of one row are ranked by magnitude, 0 for the smallest of n; entry j is kept with probability
``pⱼ = density − ε + 2ε·rankⱼ/(n − 1)`` and divided by it, so that its expectation stays. Then, with weights wᵢ,

    merged = b + λ Σ wᵢ δ̂ᵢ / Σ wᵢ,  over the experts whose wᵢ δ̂ᵢ has the sign of their sum, where zero counts as +

or, without election, ``b + λ Σ wᵢ δ̂ᵢ``. A row's draws depend on the seed, the expert's name, the tensor and the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from m2rl_core.interfaces import Merger, Pass
from m2rl_core.mergers.density import tell_density
from m2rl_core.mergers.each_expert import Each, numbers_E
from m2rl_core.mergers.election import elected
from m2rl_core.seeding import derive
from m2rl_core.types import Block, Stats
from m2rl_merger_sparse.scaled import Scaled

if TYPE_CHECKING:
    from torch import Tensor


def row_ranks(magnitudes_RN: Tensor) -> Tensor:
    """Rank of each entry within its row [R, N], 0 for the smallest, as float32; equal ones rank by position.

    A magnitude's bit pattern and its position make one integer, so that no two are equal and any sort gives the same.
    """
    import numpy as np
    import torch

    width = magnitudes_RN.shape[1]
    keys_RN = magnitudes_RN.view(torch.int32).long().mul_(1 << 32).add_(torch.arange(width))
    order_RN = torch.from_numpy(np.sort(keys_RN.numpy(), axis=1)).bitwise_and_((1 << 32) - 1)
    return torch.empty_like(magnitudes_RN).scatter_(1, order_RN, torch.arange(float(width)).expand(order_RN.shape))


def draws(seed: int, expert: str, tensor: str, first: int, rows: int, width: int) -> Tensor:
    """Uniform numbers in [0, 1) for rows ``first`` … of a tensor, float32 [rows, width]."""
    import torch

    found, generator = torch.empty(rows, width), torch.Generator()
    for row in range(rows):
        torch.rand(width, generator=generator.manual_seed(derive(seed, expert, tensor, first + row)), out=found[row])
    return found


@dataclass
class MeasureNorms:
    """One reading: L1 norms of each expert's task vector before and after dropping, float64 [2, E]."""

    merger: Della
    name: str = "norms"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> Tensor:
        import torch

        norms = []
        for expert in range(len(block.experts_E)):
            magnitudes, keep, _ = self.merger.drawn(block, expert)
            norms.append(torch.stack([magnitudes.abs().double().sum(), (magnitudes.abs() * keep).double().sum()]))
        return torch.stack(norms, 1)

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Della(Merger):
    """Whole rows; one reading more for the L1 norm."""

    name: ClassVar[str] = "della"
    reference: ClassVar[str] = "https://arxiv.org/abs/2406.11617"
    granularity = "rows"
    needs_base = True

    class Config(Scaled):
        density: Each[Annotated[float, Field(gt=0.0, lt=1.0)]] = 0.5
        """Mean share of entries that is kept, 1 − p, or a list of one share per expert, in their order. The paper
        searches it; the default is ours."""
        epsilon: float = Field(0.15, ge=0.0)
        """How far the probabilities of a row's largest and smallest entries lie from ``density``."""
        rescale: Literal["probability", "l1"] = "probability"
        """By 1/pⱼ, as the authors do, or so that the task vector keeps its L1 norm in each tensor, as mergekit does."""
        elect: bool = True
        """Elect signs and average those that agree; False sums all, as mergekit's ``della_linear``."""
        seed: int = 0
        """Of the draws, as for ``dare``."""

        @model_validator(mode="after")
        def _probabilities(self) -> Della.Config:
            for density in self.density if isinstance(self.density, list) else [self.density]:
                if not 0.0 < density - self.epsilon <= density + self.epsilon < 1.0:
                    raise ValueError(
                        f"density ± epsilon must be probabilities between 0 and 1, found {density} ± {self.epsilon}"
                    )
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: one factor per expert, and as many densities."""
        numbers_E(self.config.density, len(experts), "densities")
        self.config.weights_E(len(experts))

    def passes(self) -> Sequence[Pass]:
        return [MeasureNorms(self)] if self.config.rescale == "l1" else []

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Tells ``density/EXPERT``: the share of its entries that is kept and not zero."""
        import torch

        weights = self.config.weights_E(len(block.experts_E))
        pruned_E = [self._pruned(block, expert, stats) for expert in range(len(weights))]
        tell_density(block, pruned_E)
        for pruned, weight in zip(pruned_E, weights, strict=True):
            pruned.mul_(weight)
        merged = reduce(torch.add, pruned_E)
        if self.config.elect:
            side = elected(merged)
            merged, share = torch.zeros_like(merged), torch.zeros_like(merged)
            for pruned, weight in zip(pruned_E, weights, strict=True):
                agrees = pruned.sign() == side
                merged += pruned.mul_(agrees)
                share += agrees.float().mul_(weight)
            merged.div_(share.where(share != 0, 1.0))
        return [merged.mul_(self.config.scale).view(block.shape).add_(block.anchor)]

    def drawn(self, block: Block, expert: int) -> tuple[Tensor, Tensor, Tensor]:
        """One expert's task vector [R, N], which of its entries are kept, and with what probability."""
        import torch

        width = block.shape[-1] if block.shape else 1
        delta_RN = (block.experts_E[expert] - block.anchor).view(-1, width)
        share_RN = row_ranks(delta_RN.abs()).div_(width - 1) if width > 1 else torch.full_like(delta_RN, 0.5)
        density = numbers_E(self.config.density, len(block.experts_E), "densities")[expert]
        chance_RN = share_RN.mul_(2 * self.config.epsilon).add_(density - self.config.epsilon)
        first = block.offset // width
        uniform_RN = draws(self.config.seed, block.names_E[expert], block.name, first, len(delta_RN), width)
        return delta_RN, uniform_RN < chance_RN, chance_RN

    def _pruned(self, block: Block, expert: int, stats: Stats) -> Tensor:
        delta_RN, keep_RN, chance_RN = self.drawn(block, expert)
        delta_RN.mul_(keep_RN)
        if self.config.rescale == "probability":
            return delta_RN.div_(chance_RN)
        before, after = stats[MeasureNorms.name][:, expert].tolist()
        return delta_RN.mul_(before / after if after else 1.0)
