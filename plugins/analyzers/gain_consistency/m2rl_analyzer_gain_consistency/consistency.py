"""How consistent an arm's gains are with the union of the experts' on one suite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m2rl_analyzer_gain_consistency.answers import Answers, Floats
from m2rl_analyzer_gain_consistency.gains import Gains, plain, splits
from m2rl_analyzer_gain_consistency.null import PERMUTATIONS, Null, permuted
from m2rl_core.seeding import derive
from m2rl_core.statistics.scores import RESAMPLES

FEWEST_PROMPTS = 2


@dataclass(frozen=True, slots=True)
class Consistency:
    """Cosines of one arm on one suite; NaN where a vector is zero, and but for the paper's with too few samples."""

    prompts: int
    corrected_prompts: int
    """Those with samples enough for all but the paper's."""
    paper: float
    """Of the gain vectors of all samples, as in Figure 5."""
    halves: float
    """Of gain vectors from different halves of the samples, which share no noise; mean over divisions."""
    ceiling: float
    """What ``halves`` can reach: between a vector and itself from other samples, geometric mean of union and arm."""
    corrected: float
    """Without the noise of the samples: of vectors whose maxima are not chosen on the samples that value them."""
    draws: Floats
    """``corrected`` of resampled prompts, [RESAMPLES]."""
    null: Null
    """``halves`` with the arm's prompts in another order, any prompts changing places."""
    level_null: Null
    """The same, with prompts changing places that are about equally hard for the base."""


def consistency(answers: Answers, *names: str) -> Consistency:
    """Everything of one arm on one suite; ``names`` say which, for the random draws.

    The corrected cosine is that of the vectors' expectations over draws of samples: products of vectors from different
    halves have no noise in expectation, in its numerator as in its denominator.
    """
    enough = answers.enough
    pairs = splits(enough) if len(enough) >= FEWEST_PROMPTS else []
    if not pairs:
        return _uncorrected(answers)
    rectified, products_3I = [each for each, _ in pairs], _products([each for _, each in pairs])
    base_I = np.nanmean(enough.base_IK, axis=1)
    return Consistency(
        prompts=len(answers),
        corrected_prompts=len(enough),
        paper=cosine(*plain(answers)),
        halves=_mean([cosine(g.union_HI[h], g.arm_HI[1 - h]) for g in rectified for h in (0, 1)]),
        ceiling=_ceiling(rectified),
        corrected=float(_ratio(products_3I.sum(1))),
        draws=_ratio(products_3I @ _resample(len(enough), *names).T),
        null=permuted(rectified, np.zeros(len(enough)), *names),
        level_null=permuted(rectified, np.round(4 * base_I), *names),
    )


def _uncorrected(answers: Answers) -> Consistency:
    """With samples enough for the paper's cosine alone."""
    unknown, nothing = float("nan"), Null(np.full(PERMUTATIONS, np.nan))
    return Consistency(
        prompts=len(answers),
        corrected_prompts=0,
        paper=cosine(*plain(answers)),
        halves=unknown,
        ceiling=unknown,
        corrected=unknown,
        draws=np.empty(0),
        null=nothing,
        level_null=nothing,
    )


def cosine(a_I: Floats, b_I: Floats) -> float:
    """NaN beside a vector of zeros."""
    lengths = np.sqrt((a_I @ a_I) * (b_I @ b_I))
    return float(a_I @ b_I / lengths) if lengths > 0 else float("nan")


def _ceiling(rectified: list[Gains]) -> float:
    union = _mean([cosine(*g.union_HI) for g in rectified])
    arm = _mean([cosine(*g.arm_HI) for g in rectified])
    return float(np.sqrt(union * arm))


def _products(valued: list[Gains]) -> Floats:
    """[3, prompts], mean over divisions: union with arm, union with itself, arm with itself, halves always apart."""
    rows = [
        ((g.union_HI * g.arm_HI[::-1]).mean(0), g.union_HI[0] * g.union_HI[1], g.arm_HI[0] * g.arm_HI[1])
        for g in valued
    ]
    return np.asarray(np.mean(rows, axis=0))


def _ratio(sums: Floats) -> Floats:
    """The cosine from sums of products [3, …]; NaN where a vector has no length beyond its noise."""
    known = (sums[1] > 0) & (sums[2] > 0)
    lengths = np.sqrt(np.where(known, sums[1] * sums[2], 1.0))
    return np.asarray(np.where(known, sums[0] / lengths, np.nan))


def _resample(prompts: int, *names: str) -> Floats:
    """[RESAMPLES, prompts] how often each prompt is drawn, in resamples of one fewer (m2rl_core.statistics.scores)."""
    draw = np.random.default_rng(derive("gain-consistency prompts", *names))
    shares = np.full(prompts, 1 / max(1, prompts))
    return draw.multinomial(max(1, prompts - 1), shares, size=RESAMPLES).astype(np.float64)


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
