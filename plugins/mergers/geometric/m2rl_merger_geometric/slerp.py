"""Spherical linear interpolation between two experts, ``sin((1 − t)θ)/sin θ · x₀ + sin(tθ)/sin θ · x₁``."""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, sin
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.types import Block, Stats
from m2rl_merger_geometric.span import GRAM, Gram, cosines, lengths, weighted

if TYPE_CHECKING:
    from torch import Tensor

STRAIGHT = 0.9995
"""Above this |cos θ| the arc is as good as its chord, and sin θ too small to divide by."""


class Slerp(Merger):
    """θ is the angle between the two experts' whole tensors, not between rows."""

    name: ClassVar[str] = "slerp"
    reference: ClassVar[str] = "https://dl.acm.org/doi/10.1145/325334.325242 (Shoemake 1985), per tensor"
    granularity = "block"
    needs_base = False

    class Config(ComponentConfig):
        t: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
        """0 gives the first expert, 1 the second."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: two experts."""
        if len(experts) != 2:
            raise ValueError("slerp goes from one expert to another: name two (karcher takes more)")

    def passes(self) -> Sequence[Pass]:
        return [Gram(deltas=False)]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        gram_EE, t = stats[GRAM], self.config.t
        straight = not bool(lengths(gram_EE).all())  # a tensor of zeros makes no angle
        weights = (1.0 - t, t) if straight else arc(float(cosines(gram_EE)[0, 1]), t)
        return [weighted(block.experts_E, weights)]


def arc(cosine: float, t: float) -> tuple[float, float]:
    """Weights of the two ends at share ``t`` of the arc between them; of the chord where the arc is flat."""
    if abs(cosine) > STRAIGHT:
        return 1.0 - t, t
    angle = acos(cosine)
    return sin((1.0 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)
