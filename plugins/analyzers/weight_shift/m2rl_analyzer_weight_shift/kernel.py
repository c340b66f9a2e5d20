"""The arithmetic on one block of weights, in buffers that its thread reuses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from m2rl_analyzer_weight_shift.rules import (
    eta_is_exact,
    eta_mask,
    histogram,
    mark_beyond_a_step,
    mark_by_bits,
    pairs,
)
from m2rl_analyzer_weight_shift.sketch import BLOCK, Projection, padded
from m2rl_analyzer_weight_shift.tally import RULES, Floats, Tally


class Kernel:
    """Measures blocks of at most BLOCK weights.

    Args:
        models: number of them, E.
        eta: of the ``eta`` rule.
        projection: of the shifts.
    """

    def __init__(self, models: int, eta: float, projection: Projection) -> None:
        self._models, self._eta, self._projection = models, eta, projection
        self._room = torch.empty(5, models * BLOCK)
        self._base = torch.empty(BLOCK)
        self._flags = np.empty(len(RULES) * models * BLOCK, np.bool_)
        self._steps = np.empty(models * BLOCK, np.int16)

    def load(self, sources: Tensor | Sequence[Tensor]) -> None:
        """Take the next block: the base's weights and each model's, in their stored types.

        Args:
            sources: [1 + E, N] of one type, or a sequence of [N]. Not to be overwritten before the next block.
        """
        self._sources, self._count = sources, sources[0].shape[0]
        self._dtypes = {source.dtype for source in sources}
        self._alike = len(self._dtypes) == 1 and eta_is_exact(self._eta, self._dtype)
        width = padded(self._count)
        parts = self._room[:, : self._models * width].view(5, self._models, width)
        self._models_EN, self._shift_EN, self._size_EN, self._larger_EN, self._mask_EN = parts
        self._base_N = self._base[:width]
        self._flags_REN = self._flags[: len(RULES) * self._models * width].reshape(len(RULES), self._models, width)
        self._fill(self._base_N[None], sources[:1])
        self._fill(self._shift_EN, sources[1:])
        self._shift_EN.sub_(self._base_N)

    def _fill(self, out_EN: Tensor, sources: Tensor | Sequence[Tensor]) -> None:
        """Weights in float32, and zeros after them."""
        if isinstance(sources, Tensor):
            out_EN[:, : self._count].copy_(sources)
        else:
            for weights_N, row_N in zip(sources, out_EN, strict=True):
                row_N[: self._count].copy_(weights_N)
        out_EN[:, self._count :].zero_()

    @property
    def finite(self) -> bool:
        """Whether every weight of the block is a finite number."""
        return math.isfinite(self._shift_EN.sum().item())

    @property
    def _dtype(self) -> torch.dtype:
        """The type with the widest steps among those in which the block is stored."""
        return max(self._dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    def counts(self) -> Tally:
        """The block's tally without its products: which weights have changed."""
        alike = self._alike
        eta_EN, exact_EN, ulp_EN = self._flags_REN
        if alike and isinstance(self._sources, Tensor) and self._dtype.itemsize == 2:
            mark_by_bits(self._sources, exact_EN, ulp_EN, self._steps)
        else:
            self._fill(self._models_EN, self._sources[1:])
            mark_beyond_a_step(self._models_EN, self._base_N, self._dtype, ulp_EN, eta_EN)
            np.not_equal(self._shift_EN.numpy(), 0, out=exact_EN)
        if not alike:
            self._measure()
            eta_mask(self._size_EN, self._larger_EN, self._eta, self._mask_EN)
            np.not_equal(self._mask_EN.numpy(), 0, out=eta_EN)
        found = Tally.zero(self._models)
        found.size = self._count
        found.both_REE[:] = pairs(self._flags_REN[1:])[[0, 0, 1]] if alike else pairs(self._flags_REN)
        return found

    def tally(self, name: str, index: int) -> Tally:
        """Every sum of the block, whose shifts are used up; ``name`` and ``index`` say which block it is, for the
        projection."""
        found = self.counts()
        signed_EN = self._shift_EN.mul_(self._projection.signs(len(self._base_N), name, index))
        if self._alike:  # masked shifts are the shifts themselves
            torch.ne(signed_EN, 0, out=self._mask_EN)
        else:
            signed_EN.mul_(self._mask_EN)
        found.sketch_EED += self._projection.within(signed_EN, self._mask_EN, name, index).numpy()
        found.dots_EE += (signed_EN @ signed_EN.T).numpy()  # every sign is squared
        found.squares_EE += (signed_EN.square_() @ self._mask_EN.T).numpy()
        return found

    def changes(self) -> Floats:
        """Histogram of the relative changes \\|w − w₀\\| / max(\\|w\\|, \\|w₀\\|), [E, BINS]."""
        self._fill(self._models_EN, self._sources[1:])
        self._measure()
        self._larger_EN.clamp_(min=torch.finfo(torch.float32).tiny)  # 0 / 0
        found = histogram(torch.div(self._size_EN, self._larger_EN, out=self._size_EN))
        found[:, 0] -= len(self._base_N) - self._count  # what fills the block up
        return found

    def _measure(self) -> None:
        """\\|w − w₀\\| and max(\\|w\\|, \\|w₀\\|)."""
        torch.abs(self._shift_EN, out=self._size_EN)
        torch.abs(self._models_EN, out=self._larger_EN)
        torch.maximum(self._larger_EN, self._base_N.abs(), out=self._larger_EN)
