"""Sums over weights, from which every number of the analysis follows; they add up over blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

RULES = ("eta", "exact", "ulp")
"""When a weight counts as changed, in the order of :attr:`Tally.both_REE`."""

DIM = 256
"""Dimensions after the projection; the paper's section 3.3."""

BINS = (0x40000000 >> 16) + 1
"""Bins of the relative change, which is at most 2: the upper 16 bits of its float32 representation."""


@dataclass(slots=True)
class Tally:
    """Sums over some weights of E models beside their base. The overlap of i and j: weights that both have changed."""

    size: int
    """Weights."""
    both_REE: Counts
    """Weights that i and j have changed, under each rule; the diagonal counts those of each model."""
    dots_EE: Floats
    """Inner products of the shifts, in the overlap under the first rule."""
    squares_EE: Floats
    """Squared length of the shift of i within the overlap of i and j."""
    sketch_EED: Floats
    """Projection of the shift of i within the overlap of i and j."""

    @classmethod
    def zero(cls, models: int) -> Tally:
        pairs = (models, models)
        return cls(
            size=0,
            both_REE=np.zeros((len(RULES), *pairs), np.int64),
            dots_EE=np.zeros(pairs),
            squares_EE=np.zeros(pairs),
            sketch_EED=np.zeros((*pairs, DIM)),
        )

    def add(self, other: Tally) -> None:
        self.size += other.size
        self.both_REE += other.both_REE
        self.dots_EE += other.dots_EE
        self.squares_EE += other.squares_EE
        self.sketch_EED += other.sketch_EED

    @classmethod
    def total(cls, tallies: Iterable[Tally], models: int) -> Tally:
        """Their sum. Sketches of different tensors are independent projections, so that they add up too."""
        found = cls.zero(models)
        for tally in tallies:
            found.add(tally)
        return found
