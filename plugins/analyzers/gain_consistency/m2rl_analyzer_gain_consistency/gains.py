"""Gain vectors: how much better than the base a model, or the best of several, answers each prompt of a suite.

A gain is a difference of two noisy shares of right answers, cut off at zero, and the union is the largest of several.
Both steps favour lucky draws, and the base's luck is in all vectors at once. Three views, from naive to careful:

- :func:`plain`: as in the paper, from all samples;
- :func:`halves`: the same from two halves of every model's samples, so that vectors of different halves share no noise;
- :func:`valued`: in either half, one part of the samples says which model to choose (the base, if none looks better),
  and the other what the choice is worth. A prompt on which nothing was gained has an expected value of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m2rl_analyzer_gain_consistency.answers import Answers, Floats
from m2rl_core.seeding import derive

SPLITS = 32
"""Random divisions of the samples that results are averaged over."""


@dataclass(frozen=True, slots=True)
class Gains:
    """Two vectors over prompts, from one half of the samples each: of the experts' union, and of the arm."""

    union_HI: Floats
    """[2, prompts]"""
    arm_HI: Floats


def plain(answers: Answers) -> tuple[Floats, Floats]:
    """Gain vectors of the union and of the arm, each [prompts]: the paper's section 3.5."""
    base_I = np.nanmean(answers.base_IK, axis=1)
    experts_EI = np.stack([np.nanmean(each, axis=1) for each in answers.experts_EIK])
    return _rectified(experts_EI, base_I), _rectified(np.nanmean(answers.arm_IK, axis=1)[None], base_I)


def splits(answers: Answers) -> list[tuple[Gains, Gains]]:
    """:func:`halves` and :func:`valued` of every division."""
    found = []
    for number in range(SPLITS):
        draw = np.random.default_rng(derive("gain-consistency split", number))
        base, *experts, arm = (quarters(r, draw) for r in (answers.base_IK, *answers.experts_EIK, answers.arm_IK))
        found.append((halves(base, experts, arm), valued(base, experts, arm)))
    return found


def quarters(rewards_IK: Floats, draw: np.random.Generator) -> Floats:
    """Mean rewards [4, prompts] of four random parts of every prompt's samples; parts 0 and 1 are the first half."""
    keys = np.where(np.isnan(rewards_IK), 2.0, draw.random(rewards_IK.shape))  # unknown ones come last
    shuffled = np.take_along_axis(rewards_IK, np.argsort(keys, axis=1), axis=1)
    return np.stack([np.nanmean(shuffled[:, part::4], axis=1) for part in (0, 2, 1, 3)])


def halves(base_QI: Floats, experts_EQI: Sequence[Floats], arm_QI: Floats) -> Gains:
    """Gains as in the paper, from either half."""
    bases, arms = _both_halves(base_QI), _both_halves(arm_QI)
    experts = np.stack([_both_halves(each) for each in experts_EQI], axis=1)
    union = [_rectified(experts[h], bases[h]) for h in (0, 1)]
    return Gains(np.stack(union), np.stack([_rectified(arms[h][None], bases[h]) for h in (0, 1)]))


def valued(base_QI: Floats, experts_EQI: Sequence[Floats], arm_QI: Floats) -> Gains:
    """Gains whose choices are made on other samples than their values, in either half."""
    union = [_chosen(np.stack(experts_EQI), base_QI, half) for half in ((0, 1), (2, 3))]
    arm = [_chosen(arm_QI[None], base_QI, half) for half in ((0, 1), (2, 3))]
    return Gains(np.stack(union), np.stack(arm))


def _both_halves(quarters_QI: Floats) -> Floats:
    return np.asarray(quarters_QI.reshape(2, 2, -1).mean(1))


def _rectified(models_EI: Floats, base_I: Floats) -> Floats:
    """The largest gain of the models, at least zero."""
    return np.asarray(np.maximum(models_EI - base_I, 0).max(0))


def _chosen(models_EQI: Floats, base_QI: Floats, half: tuple[int, int]) -> Floats:
    """Worth of the model that looks best on one part of a half, on its other part; mean over both ways."""
    gains_EQI = models_EQI - base_QI
    ways = [_worth(gains_EQI[:, choose], gains_EQI[:, value]) for choose, value in (half, half[::-1])]
    return np.asarray(np.mean(ways, axis=0))


def _worth(seen_EI: Floats, worth_EI: Floats) -> Floats:
    """Mean worth of the models that share the largest seen gain; zero where none is positive."""
    best_I = seen_EI.max(0)
    tied_EI = seen_EI == best_I
    return np.asarray(np.where(best_I > 0, (worth_EI * tied_EI).sum(0) / tied_EI.sum(0), 0.0))
