"""Calculate: each expert's energy in one tensor, at the selected positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

from m2rl_core.mergers.order_statistics import CountLow
from m2rl_core.types import Block, Stats
from m2rl_merger_sce.parts import parts
from m2rl_merger_sce.select import selected

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Energies:
    """Of one tensor, or of a piece."""

    sums_E: Tensor
    """Squares of the task vectors' selected entries, summed, float64 [E]."""
    size: int
    """Elements, selected or not."""

    def weights_E(self, faint: float) -> list[float]:
        """Each expert's share; equal ones where the energies, as means over the tensor, sum to no more than ``faint``.

        mergekit's rule says *less than* 1e-6; at exactly that sum it makes no difference that could be seen.
        """
        total = float(self.sums_E.sum())
        if total <= faint * self.size:
            return [1.0 / len(self.sums_E)] * len(self.sums_E)
        return [energy / total for energy in self.sums_E.tolist()]


@dataclass
class Measure:
    """One reading; float64, so that the shares do not depend on how a tensor is cut."""

    name: str = "energies"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> Energies:
        return reduce(self.combine, (self._of_part(part, stats) for part in parts(block)))

    def _of_part(self, block: Block, stats: Stats) -> Energies:
        import torch

        deltas_EN = block.deltas_E
        if CountLow.name in stats:
            deltas_EN *= selected(block, stats)
        return Energies(torch.stack([delta @ delta for delta in deltas_EN.double()]), deltas_EN.shape[1])

    def combine(self, left: Energies, right: Energies) -> Energies:
        return Energies(left.sums_E + right.sums_E, left.size + right.size)
