"""The exact value of a given rank among any number of values that come in pieces: two readings, bounded memory.

Bit patterns of non-negative float32 numbers sort as the numbers do. A first reading counts their high halves, and so
finds the one that holds the rank; a second reading counts the low halves of the values that share it. Counts of pieces
add up, whatever the pieces. Shape suffixes beyond those of :mod:`m2rl_core.types`: _R rows of values, _K ranks asked
for in each row, _B the 65536 bins of a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BINS", "count_high", "count_low", "find", "value"]

BINS = 1 << 16


def count_high(values_RN: Tensor) -> Tensor:
    """How often each high half occurs, int64 [R, B], among non-negative float32 values [R, N]."""
    import torch

    return torch.stack([torch.bincount(bits >> 16, minlength=BINS) for bits in values_RN.view(torch.int32)])


def count_low(values_RN: Tensor, high_RK: Tensor) -> Tensor:
    """How often each low half occurs, int64 [R, K, B], among the values [R, N] with one of the given high halves."""
    import numpy as np
    import torch

    counts = []
    for bits, high_K in zip(values_RN.view(torch.int32).numpy(), high_RK.tolist(), strict=True):
        halves = bits >> 16  # of NumPy, whose masks are three times as fast as torch's on a CPU
        inside_K = [bits[halves == high] & (BINS - 1) for high in high_K]
        counts.append([np.bincount(inside, minlength=BINS) for inside in inside_K])
    return torch.from_numpy(np.array(counts))


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
