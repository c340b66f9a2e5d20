"""From sums to shares, overlaps and cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from m2rl_analyzer_weight_shift.names import LABELS, Place
from m2rl_analyzer_weight_shift.tally import RULES, Floats, Tally

PAPER_LAYER, PAPER_LAYERS = 17, 36
"""The layer of Table 5, and how many the paper's model has."""


@dataclass(frozen=True, slots=True)
class Shifts:
    """What was measured of some models, with their names."""

    models: Sequence[str]
    places: Mapping[Place, Tally]
    other: Tally
    """Of embeddings, norms and biases."""

    @property
    def layers(self) -> list[int]:
        return sorted({place.layer for place in self.places})

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions of two models each."""
        return list(combinations(range(len(self.models)), 2))

    def label(self, pair: tuple[int, int]) -> str:
        return " - ".join(self.models[i] for i in pair)

    def of(self, kinds: Sequence[str] = tuple(LABELS), layer: int | None = None) -> list[Tally]:
        """Tallies of some weight types, of one layer or of all."""
        return [t for p, t in self.places.items() if p.kind in kinds and layer in (None, p.layer)]


def default_layer(layers: Sequence[int]) -> int:
    """Layer 17 as in the paper; of fewer layers, the one at the same relative depth."""
    return PAPER_LAYER if PAPER_LAYER in layers else layers[PAPER_LAYER * len(layers) // PAPER_LAYERS]


def shares(tallies: Sequence[Tally], rule: str = "eta") -> Floats:
    """Changed weights over all weights, for each model; NaN of nothing."""
    counts_E = _both(tallies, rule).diagonal()
    return _divide(counts_E, sum(t.size for t in tallies))


def jaccard(tallies: Sequence[Tally], rule: str = "eta") -> Floats:
    """Weights that both models of a pair have changed, over those that one has, [E, E]; NaN where none has."""
    both_EE = _both(tallies, rule)
    counts_E = both_EE.diagonal()
    return _divide(both_EE, counts_E[:, None] + counts_E - both_EE)


def random_jaccard(tallies: Sequence[Tally], rule: str = "eta") -> Floats:
    """The Jaccard overlap to expect where as many weights of each tensor changed, but independently, [E, E].

    For shares p and q, pq / (p + q − pq): 0.18 for 30% each.
    """
    both_EE = union_EE = np.zeros(())
    for tally in tallies:
        share_E = shares([tally], rule)
        product_EE = share_E[:, None] * share_E
        both_EE = both_EE + tally.size * product_EE
        union_EE = union_EE + tally.size * (share_E[:, None] + share_E - product_EE)
    return _divide(both_EE, union_EE)


def cosines(tally: Tally) -> Floats:
    """Exact cosines of two models' shifts within their overlap, [E, E]; NaN where there is none."""
    return _divide(tally.dots_EE, np.sqrt(tally.squares_EE * tally.squares_EE.T))


def projected_cosines(tally: Tally) -> Floats:
    """The same after the projection."""
    dots_EE = np.einsum("ijd,jid->ij", tally.sketch_EED, tally.sketch_EED)
    squares_EE = np.square(tally.sketch_EED).sum(-1)
    return _divide(dots_EE, np.sqrt(squares_EE * squares_EE.T))


def mean(matrices: Sequence[Floats]) -> Floats:
    """Element by element over what is known; NaN where nothing is."""
    stacked = np.stack(matrices)
    known = np.isfinite(stacked)
    return _divide(np.where(known, stacked, 0.0).sum(0), known.sum(0))


def _both(tallies: Sequence[Tally], rule: str) -> Floats:
    return np.asarray(np.stack([t.both_REE[RULES.index(rule)] for t in tallies]).sum(0), np.float64)


def _divide(numerator: Floats, denominator: Floats | float) -> Floats:
    """NaN instead of a warning where the denominator is zero."""
    out: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)
    return out
