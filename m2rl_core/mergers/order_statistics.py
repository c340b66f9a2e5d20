"""The exact value of a given rank among any number of values that come in pieces: two readings, bounded memory.

Bit patterns of non-negative float32 numbers sort as the numbers do. A first reading counts their high halves, and so
finds the one that holds the rank; a second reading counts the low halves of the values that share it, and is left out
where the rank is that of a zero. Counts of pieces add up, whatever the pieces; the first ones are the same for all
ranks, so that a sweep over them counts once. Shape suffixes beyond those of :mod:`m2rl_core.types`: _R rows of values,
_K ranks asked for in each row, _B the 65536 bins of a half, _E rows that are experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Literal

from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Bits = npt.NDArray[np.int32]

__all__ = [
    "BINS",
    "CountHigh",
    "CountLow",
    "High",
    "Low",
    "Ranks",
    "Sought",
    "count_high",
    "count_low",
    "find",
    "magnitudes_EN",
    "value",
]

BINS = 1 << 16


def count_high(rows: Iterable[Tensor]) -> High:
    """How often each high half occurs, and how many values are not zero.

    Args:
        rows: of non-negative float32 values [N]; a tensor [R, N], or one row after another as it is made.
    """
    import torch

    counts, nonzero = zip(*(_count_high(values.view(torch.int32).numpy()) for values in rows), strict=True)
    return High(torch.stack(counts), torch.tensor(nonzero))


def count_low(rows: Iterable[Tensor], high_RK: Tensor) -> Tensor:
    """How often each low half occurs, int64 [R, K, B], among the values with one of the given high halves.

    Args:
        rows: as of :func:`count_high`.
        high_RK: int64 [R, K].
    """
    import torch

    counts = []
    for values, high_K in zip(rows, high_RK.tolist(), strict=True):
        bits_N = values.view(torch.int32).numpy()
        counts += [_count_low(bits_N, high) for high in high_K]
    return torch.stack(counts).view(*high_RK.shape, BINS)


# NumPy compares and selects several times as fast as torch does on a CPU. Counting one bin over and over again is slow,
# and sparse values hold many zeros: these are counted apart.


def _count_high(bits_N: Bits) -> tuple[Tensor, int]:
    """The counts, and how many values are not zero."""
    import numpy as np
    import torch

    glance = bits_N[::64]
    if 2 * np.count_nonzero(glance) > len(glance):
        counts_B = torch.bincount(torch.from_numpy(bits_N >> 16), minlength=BINS)
        return counts_B, int(np.count_nonzero(bits_N)) if counts_B[0] else len(bits_N)
    moved_N = bits_N.take(np.flatnonzero(bits_N != 0)) >> 16
    counts_B = torch.bincount(torch.from_numpy(moved_N), minlength=BINS)
    counts_B[0] += len(bits_N) - len(moved_N)
    return counts_B, len(moved_N)


def _count_low(bits_N: Bits, high: int) -> Tensor:
    import numpy as np
    import torch

    inside_N, zeros = bits_N >> 16 == high, 0
    if high == 0:
        moved_N = bits_N != 0
        inside_N &= moved_N
        zeros = len(bits_N) - int(np.count_nonzero(moved_N))
    low_N = bits_N.take(np.flatnonzero(inside_N)) & (BINS - 1)
    counts_B = torch.bincount(torch.from_numpy(low_N), minlength=BINS)
    counts_B[0] += zeros
    return counts_B


def find(counts_B: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The bins that hold the values of the 1-based ranks, counted from the smallest, and their ranks there.

    Args:
        counts_B: int64 [..., B].
        rank: int64 [..., K], each at least 1; those beyond the sum of their counts are in the last bin.
    """
    import torch

    sums_B = counts_B.cumsum(-1)
    bins = torch.searchsorted(sums_B, rank).clamp_(max=BINS - 1)
    return bins, rank - (sums_B - counts_B).gather(-1, bins)


def value(high: Tensor, low: Tensor) -> Tensor:
    """The float32 numbers with these halves."""
    import torch

    return (high * BINS + low).to(torch.int32).view(torch.float32)


# ── as passes of a merger ────────────────────────────────────────────────────────────────────────────────────────────


def magnitudes_EN(block: Block) -> Tensor:
    """Of the task vectors, flat."""
    return block.deltas_E.view(len(block.experts_E), -1).abs_()


Ranks = Callable[[int, "Tensor"], "Tensor"]
"""From the number of values in a row, and those of them above zero, int64 [R], to the ranks that are asked for, int64
[R, K], counted from 1 for the smallest value; one more than there are values is the rank of infinity."""


@dataclass(frozen=True)
class High:
    """High halves of all values."""

    counts_RB: Tensor
    """Int64 [R, B]."""
    nonzero_R: Tensor
    """Values above zero, int64 [R]."""
    _sought: dict[Ranks, Sought] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def size(self) -> int:
        """Values in one row."""
        return int(self.counts_RB[0].sum())

    @property
    def zeros_R(self) -> Tensor:
        """Int64 [R]."""
        return self.size - self.nonzero_R

    def sought(self, ranks: Ranks) -> Sought:
        """Where the ranks fall; found out once for each rule."""
        if ranks not in self._sought:
            ranks_RK = ranks(self.size, self.nonzero_R)
            self._sought[ranks] = Sought(ranks_RK, *find(self.counts_RB, ranks_RK))
        return self._sought[ranks]


@dataclass(frozen=True)
class Sought:
    """Where the ranks that are asked for fall among the high halves; all int64 [R, K]."""

    ranks_RK: Tensor
    high_RK: Tensor
    """High half of the value of each rank."""
    inside_RK: Tensor
    """Its rank among the values that share it."""


@dataclass(frozen=True)
class Low:
    """Low halves of the values that share a high half with one that is asked for, and so these."""

    counts_RKB: Tensor
    """Int64 [R, K, B]."""
    high: High
    sought: Sought

    @cached_property
    def values_RK(self) -> Tensor:
        """The values of the ranks, float32."""
        found_RK = value(self.sought.high_RK, self._place_RK[0])
        return found_RK.where(self.sought.ranks_RK <= self.high.size, inf)

    @property
    def below_RK(self) -> Tensor:
        """How many values are smaller than that of the rank, int64."""
        return self.sought.ranks_RK - self._place_RK[1]

    @property
    def up_to_RK(self) -> Tensor:
        """How many values are no larger than that of the rank, int64."""
        return self.below_RK + self.counts_RKB.gather(-1, self._place_RK[0][..., None])[..., 0]

    @cached_property
    def _place_RK(self) -> tuple[Tensor, Tensor]:
        """Low half of the value of each rank, and its rank among those that equal it."""
        low_RK1, equal_RK1 = find(self.counts_RKB, self.sought.inside_RK[..., None])
        return low_RK1[..., 0], equal_RK1[..., 0]


@dataclass
class CountHigh:
    """The first reading.

    Args:
        values: of a block, non-negative float32 [R, N].
    """

    values: Callable[[Block], Tensor]
    scope: Literal["model", "tensor"] = "tensor"
    name: str = "high halves"

    def measure(self, block: Block, stats: Stats) -> High:
        return count_high(self.values(block))

    def combine(self, left: High, right: High) -> High:
        return High(left.counts_RB + right.counts_RB, left.nonzero_R + right.nonzero_R)


@dataclass
class CountLow:
    """The second one, of the same values, after which those of the ranks are known."""

    values: Callable[[Block], Tensor]
    ranks: Ranks
    """Hashable; equal rules ask for equal ranks."""
    scope: Literal["model", "tensor"] = "tensor"
    name: str = "order statistics"

    def known(self, stats: Stats) -> Low | None:
        """Where all ranks are those of zeros, the zeros are all that there is to count."""
        import torch

        high: High = stats[CountHigh.name]
        sought = high.sought(self.ranks)
        if (sought.ranks_RK > high.zeros_R[:, None]).any():
            return None
        counts_RKB = torch.zeros(*sought.ranks_RK.shape, BINS, dtype=torch.int64)
        counts_RKB[..., 0] = high.zeros_R[:, None]
        return Low(counts_RKB, high, sought)

    def measure(self, block: Block, stats: Stats) -> Low:
        high: High = stats[CountHigh.name]
        sought = high.sought(self.ranks)
        return Low(count_low(self.values(block), sought.high_RK), high, sought)

    def combine(self, left: Low, right: Low) -> Low:
        return Low(left.counts_RKB + right.counts_RKB, left.high, left.sought)
