"""KL(expert ‖ model) on trajectories that the expert samples, for every expert on every domain's prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m2rl_core.interfaces import Lab
from m2rl_core.statistics.scores import Estimate, Grid, estimate, share
from m2rl_core.types import Divergence, Prompt, Sample, Sampling

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Cell", "Cells", "measure"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One expert against one model on one domain's prompts. All grids have the same items, the domain's prompts."""

    tokens: Grid
    """Tokens that a sample draws, the mean over a prompt's samples."""
    sampled: Grid
    """Σ log π_expert / π_model over the drawn tokens of a sample [nats], the mean over a prompt's samples."""
    full: Grid
    """The same with each token's log ratio replaced by its expectation, the divergence over the whole vocabulary: the
    same mean with less noise, and never negative."""
    samples: int
    truncated: float
    """Share of the samples that were cut off."""

    def per_sequence(self, estimator: str) -> Estimate:
        """KL of whole trajectories, the left side of Eq. 1 [nats]."""
        return estimate([getattr(self, estimator)])

    def per_token(self, estimator: str) -> Estimate:
        """All nats over all tokens [nats per token]."""
        return ratio(getattr(self, estimator), self.tokens)


Cells = Mapping[tuple[str, str], Cell]
"""(domain of the expert, domain of the prompts) → cell, of one model."""


def measure(
    lab: Lab, models: Sequence[str], prompts: Mapping[str, Sequence[Prompt]], sampling: Sampling, n: int
) -> dict[str, Cells]:
    """The cells of every model. Each expert samples once, and all models are compared on the same trajectories.

    Args:
        prompts: domain → its prompts.
        n: samples per prompt.
    """
    found: dict[str, dict[tuple[str, str], Cell]] = {model: {} for model in models}
    everything = [prompt for each in prompts.values() for prompt in each]
    for home, expert in lab.experts.items():
        groups = lab.generate(expert, everything, sampling, n)
        samples = [sample for group in groups for sample in group if sample.finish != "abort"]
        theirs = {model: lab.logps(model, samples) for model in models}
        own = lab.logps(expert, samples)  # last, so that a lab which holds few models still holds this one below
        for model in models:
            ratios = [a - b for a, b in zip(own, theirs[model], strict=True)]
            full = lab.divergences(expert, model, samples, Divergence("reverse"))
            for domain, asked in prompts.items():
                found[model][home, domain] = _cell(domain, asked, samples, ratios, full)
    return dict(found)


def ratio(part: Grid, whole: Grid) -> Estimate:
    """``part / whole``; NaN where the whole is zero or less."""
    known = whole.score > 0
    return share([part], [whole]) if known else Estimate(math.nan, math.nan, math.nan, math.nan)


def _cell(
    domain: str, prompts: Sequence[Prompt], samples: Sequence[Sample], ratios: Sequence[Tensor], full: Sequence[Tensor]
) -> Cell:
    here = [i for i, sample in enumerate(samples) if sample.prompt.domain == domain]
    mine = [samples[i] for i in here]
    ids = [prompt.id for prompt in prompts]
    return Cell(
        _grid(ids, mine, [float(sample.length) for sample in mine]),
        _grid(ids, mine, [_total(ratios[i]) for i in here]),
        _grid(ids, mine, [_total(full[i]) for i in here]),
        len(mine),
        sum(sample.finish == "length" for sample in mine) / max(1, len(mine)),
    )


def _total(values_L: Tensor) -> float:
    """The sum over a sample's tokens, in double precision: long reasoning has many small terms."""
    return float(values_L.double().sum())


def _grid(ids: Sequence[str], samples: Sequence[Sample], values: Sequence[float]) -> Grid:
    """[1, prompts], the mean over a prompt's samples; NaN where it has none."""
    by_prompt: dict[str, list[float]] = {key: [] for key in ids}
    for sample, value in zip(samples, values, strict=True):
        by_prompt[sample.prompt.id].append(value)
    means = [sum(each) / len(each) if each else math.nan for each in by_prompt.values()]
    return Grid((0,), tuple(by_prompt), np.array([means]), np.ones(len(means)))
