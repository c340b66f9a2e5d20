"""The exact value of a given rank among any number of values that come in pieces: two readings, bounded memory.

Bit patterns of non-negative float32 numbers sort as the numbers do. A first reading counts their high halves, and so
finds the one that holds the rank; a second reading counts the low halves of the values that share it. Counts of pieces
add up, whatever the pieces. Shape suffixes beyond those of :mod:`m2rl_core.types`: _R rows of values, _K ranks asked
for in each row, _B the 65536 bins of a half.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    Bits = npt.NDArray[np.int32]

__all__ = ["BINS", "count_high", "count_low", "find", "value"]

BINS = 1 << 16


def count_high(rows: Iterable[Tensor]) -> Tensor:
    """How often each high half occurs, int64 [R, B].

    Args:
        rows: of non-negative float32 values [N]; a tensor [R, N], or one row after another as it is made.
    """
    import torch

    return torch.stack([_count_high(values.view(torch.int32).numpy()) for values in rows])


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


def _count_high(bits_N: Bits) -> Tensor:
    import torch

    halves_N = bits_N >> 16
    glance = halves_N[::64]
    if 2 * np.count_nonzero(glance) > len(glance):
        return torch.bincount(torch.from_numpy(halves_N), minlength=BINS)
    moved_N = halves_N.take(np.flatnonzero(halves_N != 0))
    counts_B = torch.bincount(torch.from_numpy(moved_N), minlength=BINS)
    counts_B[0] = len(halves_N) - len(moved_N)
    return counts_B


def _count_low(bits_N: Bits, high: int) -> Tensor:
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
        rank: int64 [..., K], each in 1 … the sum of its counts.
    """
    import torch

    sums_B = counts_B.cumsum(-1)
    bins = torch.searchsorted(sums_B, rank)
    return bins, rank - (sums_B - counts_B).gather(-1, bins)


def value(high: Tensor, low: Tensor) -> Tensor:
    """The float32 numbers with these halves."""
    import torch

    return (high * BINS + low).to(torch.int32).view(torch.float32)
