"""The arithmetic on one block of weights, in buffers that its thread reuses."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from m2rl_analyzer_weight_shift.rules import eta_is_exact, eta_mask, histogram, mark_beyond_a_step, pairs
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
        self._room = torch.empty(6, models * BLOCK)
        self._base = torch.empty(BLOCK)
        self._flags = np.empty(len(RULES) * models * BLOCK, np.bool_)

    def load(self, sources: list[Tensor]) -> None:
        """Take the next block: the base's weights and each model's, in their stored types."""
        count = len(sources[0])
        width = padded(count)
        self._count, self._dtypes = count, {source.dtype for source in sources}
        parts = self._room[:, : self._models * width].view(6, self._models, width)
        self._models_EN, self._shift_EN, self._size_EN, self._larger_EN, self._mask_EN, self._part_EN = parts
        self._base_N = self._base[:width]
        self._flags_REN = self._flags[: len(RULES) * self._models * width].reshape(len(RULES), self._models, width)
        for weights_N, out in zip(sources, (self._base_N, *self._models_EN), strict=True):
            out[:count].copy_(weights_N)
            out[count:].zero_()
        torch.sub(self._models_EN, self._base_N, out=self._shift_EN)

    @property
    def finite(self) -> bool:
        """Whether every weight of the block is a finite number."""
        return math.isfinite(self._shift_EN.sum().item())

    @property
    def _dtype(self) -> torch.dtype:
        """The type with the widest steps among those in which the block is stored."""
        return max(self._dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def _alike(self) -> bool:
        """Whether the ``eta`` rule says the same as ``exact``, so that masked shifts are the shifts themselves."""
        return len(self._dtypes) == 1 and eta_is_exact(self._eta, self._dtype)

    def counts(self) -> Tally:
        """The block's tally without its products: which weights have changed."""
        alike = self._alike
        eta_EN, exact_EN, ulp_EN = self._flags_REN
        mark_beyond_a_step(self._models_EN, self._base_N, self._dtype, ulp_EN, eta_EN)
        np.not_equal(self._shift_EN.numpy(), 0, out=exact_EN)
        if alike:
            torch.ne(self._shift_EN, 0, out=self._mask_EN)
        else:
            self._measure()
            eta_mask(self._size_EN, self._larger_EN, self._eta, self._mask_EN)
            np.not_equal(self._mask_EN.numpy(), 0, out=eta_EN)
        found = Tally.zero(self._models)
        found.size = self._count
        found.both_REE[:] = pairs(self._flags_REN[1:])[[0, 0, 1]] if alike else pairs(self._flags_REN)
        return found

    def tally(self, name: str, index: int) -> Tally:
        """Every sum of the block; ``name`` and ``index`` say which it is, for the projection."""
        found = self.counts()
        signs_N = self._projection.signs(len(self._base_N), name, index)
        signed_EN = torch.mul(self._shift_EN, signs_N, out=self._part_EN)
        if not self._alike:
            signed_EN.mul_(self._mask_EN)
        found.sketch_EED += self._projection.within(signed_EN, self._mask_EN, name, index).numpy()
        found.dots_EE += (signed_EN @ signed_EN.T).numpy()  # every sign is squared
        found.squares_EE += (signed_EN.square_() @ self._mask_EN.T).numpy()
        return found

    def changes(self) -> Floats:
        """Histogram of the relative changes \\|w − w₀\\| / max(\\|w\\|, \\|w₀\\|), [E, BINS]."""
        self._measure()
        self._larger_EN.clamp_(min=torch.finfo(torch.float32).tiny)  # 0 / 0
        found = histogram(torch.div(self._size_EN, self._larger_EN, out=self._part_EN))
        found[:, 0] -= len(self._base_N) - self._count  # what fills the block up
        return found

    def _measure(self) -> None:
        """\\|w − w₀\\| and max(\\|w\\|, \\|w₀\\|)."""
        torch.abs(self._shift_EN, out=self._size_EN)
        torch.abs(self._models_EN, out=self._larger_EN)
        torch.maximum(self._larger_EN, self._base_N.abs(), out=self._larger_EN)
