"""Trim: the magnitude from which an entry of a task vector is kept, exact, in two readings and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from m2rl_core.mergers.each_expert import numbers_E
from m2rl_core.mergers.order_statistics import Low

if TYPE_CHECKING:
    from torch import Tensor

Semantics = Literal["original", "mergekit"]


@dataclass(frozen=True)
class Rule:
    """Which entry of each expert's task vector, in order of magnitude, is the smallest that is kept."""

    density: float | tuple[float, ...]
    """Of all experts, or of each."""
    semantics: Semantics

    def __call__(self, size: int, nonzero_E: Tensor) -> Tensor:
        """Its rank among ``size`` entries, counted from 1 for the smallest, int64 [E, 1]."""
        import torch

        densities_E = numbers_E(self.density, len(nonzero_E), "densities")
        return torch.tensor([[self._rank(size, density)] for density in densities_E])

    def _rank(self, size: int, density: float) -> int:
        if self.semantics == "mergekit":
            return size - max(1, int(size * density)) + 1
        return max(1, int(size * (1.0 - density)))


def below_E(low: Low) -> list[float]:
    """The largest float32 magnitude that each expert does not keep; 0 where it keeps all."""
    import torch

    floors_E = low.values_RK[:, 0]
    found: list[float] = torch.nextafter(floors_E, torch.zeros_like(floors_E)).tolist()
    return found


def densities_E(low: Low) -> list[float]:
    """The share of each task vector's entries that is kept and not zero: entries that tie are kept together."""
    kept_E = (low.high.size - low.below_RK[:, 0]).minimum(low.high.nonzero_R)
    return [kept / low.high.size for kept in kept_E.tolist()]
