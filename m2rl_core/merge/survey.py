"""What one reading tells of any merge, whatever the merger: lengths and angles of the task vectors, moved weights.

Without an anchor the experts are compared with their own mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from m2rl_core.types import Block

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survey:
    """Sums over a block, or over all of them."""

    size: int
    """Elements."""
    base: float
    """Squared length of the anchor; 0 without one."""
    gram_EE: Floats
    """Inner products of the task vectors."""
    changed_E: npt.NDArray[np.int64]
    """Elements in which each expert differs from the anchor."""
    conflicts: int
    """Elements that some experts raise and others lower."""

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            self.size + other.size,
            self.base + other.base,
            self.gram_EE + other.gram_EE,
            self.changed_E + other.changed_E,
            self.conflicts + other.conflicts,
        )

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
    """The sums of one block. Not finite where the block is not."""
    reference = block.experts_E.mean(0) if block.base is None else block.base
    deltas_E = (block.experts_E - reference).flatten(1)
    moved = deltas_E.numpy()
    flat = None if block.base is None else block.base.flatten()
    return Survey(
        size=moved.shape[1],
        base=0.0 if flat is None else float(torch.dot(flat, flat)),
        gram_EE=(deltas_E @ deltas_E.T).double().numpy(),
        changed_E=np.array([np.count_nonzero(row != 0) for row in moved]),  # numpy counts booleans fast, floats slowly
        conflicts=int(np.count_nonzero((moved.max(0) > 0) & (moved.min(0) < 0))),
    )
