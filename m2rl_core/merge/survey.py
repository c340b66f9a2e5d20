"""What one reading tells of any merge, whatever the merger: lengths and angles of the task vectors, moved weights.

Without an anchor, experts are compared with their own mean, and only the lengths mean something.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from m2rl_core.types import Block

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survey:
    """Sums over a block, or over all of them."""

    size: int
    """Elements."""
    base: float | None
    """Squared length of the anchor."""
    gram_EE: Floats
    """Inner products of the task vectors."""
    changed_E: npt.NDArray[np.int64]
    """Elements in which each expert differs from the anchor."""
    conflicts: int
    """Elements that some experts raise and others lower."""

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            self.size + other.size,
            None if self.base is None or other.base is None else self.base + other.base,
            self.gram_EE + other.gram_EE,
            self.changed_E + other.changed_E,
            self.conflicts + other.conflicts,
        )

    @property
    def finite(self) -> bool:
        """False where a weight is not a finite number."""
        return bool(np.isfinite(self.base or 0.0) and np.isfinite(self.gram_EE).all())

    @property
    def norms_E(self) -> Floats:
        """Length of each task vector."""
        return np.sqrt(np.diagonal(self.gram_EE))

    @property
    def cosines_EE(self) -> Floats:
        """Pairwise cosine of the task vectors; 0 beside one that is zero."""
        lengths = np.outer(self.norms_E, self.norms_E)
        return np.divide(self.gram_EE, lengths, out=np.zeros_like(self.gram_EE), where=lengths > 0)


def survey(block: Block) -> Survey:
    """The sums of one block."""
    reference = block.experts_E.mean(0) if block.base is None else block.base
    deltas_E = (block.experts_E - reference).view(len(block.experts_E), -1)
    highest, lowest = deltas_E.amax(0).numpy(), deltas_E.amin(0).numpy()
    return Survey(
        size=deltas_E.shape[1],
        base=None if block.base is None else float(_gram(block.base.view(1, -1))),
        gram_EE=_gram(deltas_E).numpy(),
        changed_E=np.array([np.count_nonzero(row != 0) for row in deltas_E.numpy()]),  # torch compares more slowly
        conflicts=int(np.count_nonzero((highest > 0) & (lowest < 0))),
    )


def _gram(rows: Tensor) -> Tensor:
    """Inner products of rows, float64; summed in float32 where that does not overflow."""
    fast = (rows @ rows.T).double()
    return fast if fast.isfinite().all() else rows.double() @ rows.double().T
