"""Task arithmetic: the sum of the task vectors, added to the base, ``b + λ Σ wᵢ (xᵢ − b)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Merger, Preset
from m2rl_core.mergers.each_expert import numbers_E
from m2rl_core.mergers.sums import weighted_sum
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor


class TaskArithmetic(Merger):
    """Element by element, so that any block will do."""

    name: ClassVar[str] = "task-arithmetic"
    reference: ClassVar[str] = "the paper's section 3.2; https://arxiv.org/abs/2212.04089 section 2"
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset({"scale": 1.0}, "λ = 1: the paper names none."),
        "released-code": Preset({"scale": 1.0}, "What the M2RL release ran: λ = 1. The same numbers as `paper`."),
    }
    granularity = "block"
    needs_base = True

    class Config(ComponentConfig):
        scale: float = 1.0
        """λ. Paper silent; the released code's value."""
        weights: list[float] | None = None
        """A factor for each expert, in their order. Default: 1 each, as in the paper."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: one factor per expert."""
        self._weights(len(experts))

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Sums one task vector after another, so that no weight depends on the block around it.

        Raises:
            ValueError: no base, or not one factor per expert.
        """
        import torch

        weights, delta = self._weights(len(block.experts_E)), torch.empty_like(block.anchor)
        total = weighted_sum((torch.sub(expert, block.anchor, out=delta) for expert in block.experts_E), weights)
        return [total.mul_(self.config.scale).add_(block.anchor)]

    def _weights(self, experts: int) -> Sequence[float]:
        return numbers_E(1.0 if self.config.weights is None else self.config.weights, experts, "weights")


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [TaskArithmetic]
