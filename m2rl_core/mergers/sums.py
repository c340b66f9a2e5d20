"""Sums over experts that come out the same, to the bit, however a tensor is cut into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["weighted_sum"]


def weighted_sum(tensors_E: Iterable[Tensor], weights_E: Sequence[float]) -> Tensor:
    """Σ weight · tensor in new memory, one after another; no product by a weight of 1, which would change nothing.

    Args:
        tensors_E: of one shape; each may overwrite the one before.
        weights_E: one for each.

    Raises:
        ValueError: not one for each.
    """
    pairs = zip(tensors_E, weights_E, strict=True)
    first, weight = next(pairs)
    total = first * weight
    for tensor, weight in pairs:
        total += tensor if weight == 1.0 else tensor * weight
    return total
