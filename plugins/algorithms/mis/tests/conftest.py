"""Samples with given ratios, and what a rule says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from m2rl_core.interfaces import Importance
from m2rl_core.packing import pack, unpack
from m2rl_core.types import Sample


@dataclass
class Weighed:
    """A rule's answer, sorted by sample: a number per trained token."""

    weights: list[list[float]]
    keeps: list[list[bool]]
    metrics: dict[str, float]


@pytest.fixture
def sample_of(make_sample: Callable[..., Sample]) -> Callable[..., Sample]:
    """A prompt token, then one trained token per ratio; the sampler's log-probs are random."""

    def make(ratios: Sequence[float], *, domain: str = "math", seed: int = 0, **fields: Any) -> Sample:
        sample = make_sample(1 + len(ratios), len(ratios), seed, domain=domain)
        logs = torch.tensor([0.0, *(math.log(r) for r in ratios)], dtype=torch.float64)
        sample.old_logps_L = (torch.tensor(sample.logps_L, dtype=torch.float64) + logs).float()
        for name, value in fields.items():
            setattr(sample, name, value)
        return sample

    return make


@pytest.fixture
def weigh() -> Callable[[Importance, Sequence[Sample]], Weighed]:
    """Asks a rule about a minibatch, packed as the core packs it."""

    def ask(rule: Importance, samples: Sequence[Sample]) -> Weighed:
        [batch] = pack(samples, 1 << 18, torch.device("cpu"), dense=False)
        chosen = torch.nonzero(batch.trained_T)[:, 0]
        found = rule(batch.take(chosen))
        assert found.weight_T.dtype == torch.float32
        assert found.keep_T.dtype == torch.bool
        assert bool(found.weight_T.isfinite().all())

        def sorted_out(values: Tensor) -> list[list[float]]:
            values_T = torch.zeros(len(batch.ids_T))
            values_T[chosen] = values.float()
            unpack(batch, values_T, samples, "coef_L")
            return [s.coef_L[torch.tensor(s.sampled_L)].tolist() for s in samples if s.coef_L is not None]

        keeps = [[bool(k) for k in row] for row in sorted_out(found.keep_T)]
        return Weighed(sorted_out(found.weight_T), keeps, dict(found.metrics))

    return ask
