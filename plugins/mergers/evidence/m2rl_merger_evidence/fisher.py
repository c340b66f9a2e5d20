"""Fisher merging: every weight is the mean of the experts' weights, each counting by its Fisher information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

FISHER, POWER = "fisher", "fisher_power"


class Fisher(Merger):
    """``Σ (Fᵢ + εᵢ) xᵢ / Σ (Fᵢ + εᵢ)``, element by element."""

    name: ClassVar[str] = "fisher"
    reference: ClassVar[str] = "https://arxiv.org/abs/2111.09832 section 3"
    granularity = "block"
    needs_base = False
    needs = frozenset({FISHER})

    class Config(ComponentConfig):
        normalize: bool = True
        """Divide each expert's Fisher by its root mean square over the model, so that no expert counts more because
        its log-probs have steeper slopes, as those of longer answers have."""
        floor: PositiveFloat = 1e-6
        """ε as a share of each expert's root mean square: weights of which nobody knows anything are averaged."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def passes(self) -> Sequence[Pass]:
        return [Power()]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Sums one expert after another, so that no weight depends on the block around it.

        Raises:
            ValueError: an expert whose Fisher is 0 everywhere.
        """
        import torch

        total, weight = torch.zeros(block.shape), torch.zeros(block.shape)
        for information, size, expert in zip(
            block.evidence[FISHER], self._sizes(block, stats[POWER]), block.experts_E, strict=True
        ):
            counts = information / size if self.config.normalize else information.clone()
            counts += self.config.floor * (1.0 if self.config.normalize else size)
            total.addcmul_(counts, expert)
            weight += counts
        return [total.div_(weight)]

    def _sizes(self, block: Block, power_E: Tensor) -> list[float]:
        """Root mean square of each expert's Fisher over the model."""
        sizes: list[float] = (power_E[0] / power_E[1]).sqrt().tolist()
        for index, size in enumerate(sizes):
            if size == 0.0:
                raise ValueError(f"the Fisher of expert '{block.names_E[index]}' is 0 everywhere")
        return sizes


class Power(Pass):
    """Sum of the squares of each expert's Fisher, and the number of weights: float64 [2, E]."""

    name: str = POWER
    scope: Literal["model", "tensor"] = "model"

    def measure(self, block: Block, stats: Stats) -> Tensor:
        import torch

        information_E = block.evidence[FISHER].flatten(1) if block.shape else block.evidence[FISHER][:, None]
        squares_E = information_E.double().square().sum(1)
        return torch.stack([squares_E, torch.full_like(squares_E, information_E.shape[1])])

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right
