"""Inner products of a tensor's inputs, and weighted sums of them: all that a merger within their span reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from m2rl_core.interfaces import Pass
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

GRAM = "gram"


class Gram(Pass):
    """The pass that gathers inner products per tensor, float64 [E, E].

    In float64, because experts trained from one start are nearly parallel: what tells them apart is lost in float32.
    """

    name: str = GRAM
    scope: Literal["model", "tensor"] = "tensor"

    def __init__(self, *, deltas: bool) -> None:
        self.deltas = deltas
        """Of the task vectors instead of the weights themselves."""

    def measure(self, block: Block, stats: Stats) -> Tensor:
        vectors_E = (block.deltas_E if self.deltas else block.experts_E).flatten(1).double()
        return vectors_E @ vectors_E.T

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


def lengths(gram_EE: Tensor) -> Tensor:
    """Length of each vector, float64 [E]."""
    return gram_EE.diagonal().sqrt()


def cosines(gram_EE: Tensor) -> Tensor:
    """Cosine of each pair, float64 [E, E] within [-1, 1]; 0 beside a vector of length 0."""
    found_E = lengths(gram_EE)
    products = found_E[:, None] * found_E
    return (gram_EE / products.where(products > 0, 1.0)).clamp(-1.0, 1.0)


def weighted(vectors_E: Tensor, weights: Sequence[float]) -> Tensor:
    """Σ weight · vector, one after another, so that no weight of the model depends on the block around it."""
    total = vectors_E[0] * weights[0]
    for vector, weight in zip(vectors_E[1:], weights[1:], strict=True):
        total.add_(vector, alpha=weight)
    return total
