"""What the ops share: which row functions a device has, how work is cut up, and the matrix products."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from m2rl_core.errors import DataError, StageError

ALIGN = 16
"""Parts start at multiples of this: kernels like it."""
CACHED_ROWS = 8192
"""Rows of a bfloat16 product at a time, on a CPU: of 256 columns they are 4 MiB."""


def row_functions(device: torch.device) -> ModuleType:
    """``triton_rows`` on CUDA where Triton can be imported, else ``rows``: the same functions."""
    return _row_functions(device.type)


@cache
def _row_functions(device: str) -> ModuleType:
    fast = device == "cuda" and importlib.util.find_spec("triton") is not None
    # whole names, so that a change of either counts as a change of the code behind a stage
    return importlib.import_module("m2rl_core.ops.triton_rows" if fast else "m2rl_core.ops.rows")


def parts(count: int, most: int) -> list[slice]:
    """``count`` things in even parts of at most about ``most`` each."""
    number = math.ceil(count / max(most, ALIGN))
    size = math.ceil(count / max(number, 1) / ALIGN) * ALIGN
    return [slice(start, min(start + size, count)) for start in range(0, count, size)] if count else []


class Products:
    """Logits of some tokens over some of the vocabulary, always in the same buffer: one block at a time.

    Args:
        hidden: [N, H].
        rows: the most tokens at a time.
        columns: the most of the vocabulary at a time.
    """

    def __init__(self, hidden: Tensor, rows: int, columns: int) -> None:
        self.hidden = hidden
        self.buffer = hidden.new_empty(rows * columns)

    def logits(self, part: slice, weights: Tensor) -> Tensor:
        """``hidden[part] @ weights.T``; the next call overwrites it."""
        hidden = self.hidden[part]
        shape = len(hidden), len(weights)
        return torch.mm(hidden, weights.T, out=self.buffer[: shape[0] * shape[1]].view(shape))


def longest(pieces: Sequence[slice]) -> int:
    """Length of the longest; 0 where there are none."""
    return max((piece.stop - piece.start for piece in pieces), default=0)


def accumulate_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to the float32 ``total``, summed in float32 whatever the factors' dtype."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.device.type == "cuda":
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:  # a CPU has no such product; a rounded one is added while it is in the cache
        for some in parts(len(total), CACHED_ROWS):
            total[some].add_(left[some] @ right)


def verify(logps_N: Tensor, ids_N: Tensor, vocab: int) -> None:
    """Refuse what cannot be a log-prob, once per call (it waits for the device).

    Raises:
        DataError: a token outside the vocabulary.
        StageError: a log-prob above 0 by more than rounding: a kernel is broken.
    """
    outside, positive = torch.stack([((ids_N < 0) | (ids_N >= vocab)).any(), (logps_N > 0).any()]).tolist()
    if outside:
        wrong = ids_N[(ids_N < 0) | (ids_N >= vocab)][0].item()
        raise DataError("a token lies outside the vocabulary", found=wrong, allowed=f"0 to {vocab - 1}")
    if positive:
        found = f"{logps_N.max().item():.6g} at token {int(logps_N.argmax())} of {len(logps_N)}"
        raise StageError("a log-prob is above 0", found=found, then="report it: a log-prob kernel gave a wrong result")
