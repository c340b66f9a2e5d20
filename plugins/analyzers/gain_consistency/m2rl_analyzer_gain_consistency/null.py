"""The cosine that gain vectors have by chance: what is left when the arm's prompts change places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m2rl_analyzer_gain_consistency.answers import Floats
from m2rl_analyzer_gain_consistency.gains import Gains
from m2rl_core.seeding import derive

PERMUTATIONS = 999


@dataclass(frozen=True, slots=True)
class Null:
    """Cosines under permutation."""

    values: Floats
    """[PERMUTATIONS]; NaN where a vector is zero."""

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def p(self, observed: float) -> float:
        """Share of orders, the observed one included, whose cosine is at least as large."""
        if not np.isfinite(observed):
            return float("nan")
        return float((1 + (self.values >= observed - 1e-12).sum()) / (1 + len(self.values)))


def permuted(halves: Sequence[Gains], strata_I: Floats, *names: str) -> Null:
    """The mean cosine of the halves, with prompts of the same stratum in another order.

    Args:
        strata_I: prompts with the same number change places.
        names: say which vectors these are, for the random draws.
    """
    union = _unit(np.concatenate([g.union_HI for g in halves]))
    arm = _unit(np.concatenate([g.arm_HI[::-1] for g in halves]))
    known = np.isfinite(union).all(1) & np.isfinite(arm).all(1)
    if not known.any():
        return Null(np.full(PERMUTATIONS, np.nan))
    draw = np.random.default_rng(derive("gain-consistency null", *names))
    orders = (_order(strata_I, draw) for _ in range(PERMUTATIONS))
    together = union[known].T @ arm[known] / known.sum()  # [prompts, prompts]: one product serves every order
    rows = np.arange(len(strata_I))
    return Null(np.array([together[rows, order].sum() for order in orders]))


def _order(strata_I: Floats, draw: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """A random permutation within strata."""
    order = np.empty(len(strata_I), np.intp)
    places = np.argsort(strata_I, kind="stable")
    shuffled = np.lexsort((draw.random(len(strata_I)), strata_I))
    order[places] = shuffled
    return order


def _unit(vectors: Floats) -> Floats:
    """Rows of length one; NaN for zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.full_like(vectors, np.nan), where=lengths > 0))
