"""Model Stock: from the base towards the experts' mean, as far as the angle between task vectors says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.types import Block, Stats
from m2rl_merger_geometric.span import GRAM, Gram, cosines, weighted

if TYPE_CHECKING:
    from torch import Tensor


class ModelStock(Merger):
    """``t · mean + (1 − t) · b`` per tensor, where ``t = E·c / (1 + (E − 1)·c)`` and c is the mean pairwise cosine."""

    name: ClassVar[str] = "model-stock"
    reference: ClassVar[str] = "https://arxiv.org/abs/2403.19522 section 4"
    granularity = "block"
    needs_base = True
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: an angle takes two experts."""
        if len(experts) < 2:
            raise ValueError("model-stock needs the angle between two experts or more")

    def passes(self) -> Sequence[Pass]:
        return [Gram(deltas=True)]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Raises ValueError without a base."""
        experts = len(block.experts_E)
        return [weighted(block.deltas_E, [share(stats[GRAM]) / experts] * experts).add_(block.anchor)]


def share(gram_EE: Tensor) -> float:
    """t, from the inner products of the task vectors.

    0, the base itself, where these cancel out: the formula's denominator is then nothing but rounding.
    """
    experts = len(gram_EE)
    pairs = experts * (experts - 1)
    found = cosines(gram_EE)
    cosine = float(found.sum() - found.diagonal().sum()) / pairs
    denominator = 1.0 + (experts - 1) * cosine
    return experts * cosine / denominator if denominator > 1e-6 else 0.0
