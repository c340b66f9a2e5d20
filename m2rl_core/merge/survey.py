"""What one reading tells of any merge, whatever the merger: lengths and angles of the task vectors, moved weights.

Estimated from the first :data:`SAMPLE` weights of every block, so exact for tensors that are no larger: a survey of
every weight would cost more than the merge. Without an anchor, experts are compared with their own mean, and only the
lengths mean something.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m2rl_core.types import Block

SAMPLE = 1 << 13
"""Elements."""

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
    changed_E: Floats
    """Elements in which each expert differs from the anchor."""
    conflicts: float
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
    def norms_E(self) -> Floats:
        """Length of each task vector."""
        return np.sqrt(np.diagonal(self.gram_EE))

    @property
    def cosines_EE(self) -> Floats:
        """Pairwise cosine of the task vectors; 0 beside one that is zero."""
        lengths = np.outer(self.norms_E, self.norms_E)
        return np.divide(self.gram_EE, lengths, out=np.zeros_like(self.gram_EE), where=lengths > 0)


def survey(block: Block) -> Survey:
    """The sums of one block, all of whose weights are finite."""
    experts_E = block.experts_E.flatten(1) if block.shape else block.experts_E[:, None]
    size = experts_E.shape[1]
    experts_E = experts_E[:, :SAMPLE].double()
    base = None if block.base is None else block.base.flatten()[:SAMPLE].double()
    deltas_E = (experts_E - (experts_E.mean(0) if base is None else base)).numpy()
    share = deltas_E.shape[1] / size
    return Survey(
        size=size,
        base=None if base is None else float(base @ base) / share,
        gram_EE=deltas_E @ deltas_E.T / share,
        changed_E=(deltas_E != 0).sum(1) / share,
        conflicts=float(((deltas_E.max(0) > 0) & (deltas_E.min(0) < 0)).sum()) / share,
    )
