"""The Karcher mean: the point of the sphere with the least sum of squared arcs to the experts' directions.

Its length is the mean of theirs. Everything happens in coordinates: a direction is a row of weights on the experts'
unit vectors, whose inner products are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.types import Block, Stats
from m2rl_merger_geometric.span import GRAM, Gram, cosines, lengths, weighted

if TYPE_CHECKING:
    from torch import Tensor


class Karcher(Merger):
    """Per tensor; an expert whose tensor is zero has no direction there and is left out of it."""

    name: ClassVar[str] = "karcher"
    reference: ClassVar[str] = "https://doi.org/10.1002/cpa.3160300502 (Karcher 1977), on the sphere, per tensor"
    granularity = "block"
    needs_base = False

    class Config(ComponentConfig):
        iterations: PositiveInt = 10
        """Most steps towards the mean."""
        tolerance: PositiveFloat = 1e-5
        """Length of a step [radians] after which there is no other."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def passes(self) -> Sequence[Pass]:
        return [Gram(deltas=False)]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Raises ValueError where the directions cancel out."""
        return [weighted(block.experts_E, self._weights(stats[GRAM]))]

    def _weights(self, gram_EE: Tensor) -> list[float]:
        """Weight of each expert's tensor."""
        import torch

        lengths_E = lengths(gram_EE)
        there = lengths_E > 0
        weights_E = torch.zeros_like(lengths_E)
        if there.any():
            units = mean_direction(cosines(gram_EE)[there][:, there], self.config.iterations, self.config.tolerance)
            weights_E[there] = units * lengths_E[there].mean() / lengths_E[there]
        found: list[float] = weights_E.tolist()
        return found


def mean_direction(cosines_EE: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Weights [E] on unit vectors, all there, of the unit vector that is their Karcher mean.

    Raises:
        ValueError: the vectors cancel out, so that every direction is as good, or some are opposite to the mean.
    """
    import torch

    # start: the normalised sum
    mean_E = _normalised(torch.ones(len(cosines_EE), dtype=cosines_EE.dtype), cosines_EE)
    for _ in range(iterations):
        heights_E = (cosines_EE @ mean_E).clamp(-1.0, 1.0)
        angles_E = heights_E.acos()
        if bool((angles_E.sin() < 1e-9)[heights_E < 0].any()):
            raise ValueError("an expert's tensor points away from the mean of all: there is no Karcher mean")
        # unit vector i seen from the mean: (uᵢ − cos θᵢ · mean) · θᵢ / sin θᵢ; its limit for θᵢ → 0 has factor 1
        factors_E = torch.where(angles_E > 1e-9, angles_E / angles_E.sin(), 1.0) / len(angles_E)
        step_E = factors_E - (factors_E * heights_E).sum() * mean_E
        length = _length(step_E, cosines_EE)
        if length < tolerance:
            break
        mean_E = _normalised(length.cos() * mean_E + length.sin() / length * step_E, cosines_EE)
    return mean_E


def _length(weights_E: Tensor, cosines_EE: Tensor) -> Tensor:
    return (weights_E @ cosines_EE @ weights_E).clamp(min=0.0).sqrt()


def _normalised(weights_E: Tensor, cosines_EE: Tensor) -> Tensor:
    length = _length(weights_E, cosines_EE)
    if length < 1e-6:
        raise ValueError("the experts' tensors cancel out: there is no Karcher mean")
    return weights_E / length
