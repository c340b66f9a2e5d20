"""Weight averaging: ``Σ wᵢ xᵢ / Σ wᵢ`` over the experts; the base is not part of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Merger, Preset
from m2rl_core.mergers.each_expert import numbers_E
from m2rl_core.mergers.sums import weighted_sum
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor


class Average(Merger):
    """Element by element, so that any block will do."""

    name: ClassVar[str] = "average"
    reference: ClassVar[str] = "the paper's section 3.2; model soups, https://arxiv.org/abs/2203.05482 section 2"
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset({}, "Equal shares, as in the paper."),
        "released-code": Preset({}, "Equal shares, as in the M2RL release. The same numbers as `paper`."),
    }
    granularity = "block"
    needs_base = False

    class Config(ComponentConfig):
        weights: list[Annotated[float, Field(ge=0.0)]] | None = None
        """A share for each expert, in their order; the sum does not matter. Default: equal shares, as in the paper."""

        @field_validator("weights")
        @classmethod
        def _of_something(cls, weights: list[float] | None) -> list[float] | None:
            if weights and not any(weights):
                raise ValueError("one share at least is not zero")
            return weights

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: one share per expert."""
        self._weights(len(experts))

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Sums one expert after another, so that no weight depends on the block around it.

        Raises:
            ValueError: not one share per expert.
        """
        weights = self._weights(len(block.experts_E))
        return [weighted_sum(block.experts_E, weights).div_(sum(weights))]

    def _weights(self, experts: int) -> Sequence[float]:
        return numbers_E(1.0 if self.config.weights is None else self.config.weights, experts, "weights")


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Average]
