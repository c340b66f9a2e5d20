"""Coefficients through the core, weight · keep / denominator: by hand, and with a policy's own log-probs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from m2rl_algorithm_mis.rules import Mis, Tis
from m2rl_core.algorithm import Parts, correct
from m2rl_core.errors import StageError
from m2rl_core.interfaces import ComponentConfig, Importance
from m2rl_core.packing import unpack
from m2rl_core.policy import Policy
from m2rl_core.types import Batch, Divergence, Reduction, Sample

Make = Callable[..., Sample]


class Ones:
    name: ClassVar[str] = "ones"
    reference: ClassVar[str] = "test"
    needs: frozenset[str] = frozenset()
    Config = ComponentConfig

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        return [torch.ones(len(s.ids_L)) for s in group]


class Likelihood:
    name: ClassVar[str] = "likelihood"
    reference: ClassVar[str] = "test"
    separable = True
    vanishes = False
    needs: frozenset[str] = frozenset()
    divergence: Divergence | None = None
    Config = ComponentConfig

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        return -logps


def parts(rule: Importance, reduction: Reduction = "token") -> Parts:
    return Parts(Ones(), rule, Likelihood(), reduction, rule.needs, max_tokens=10)


def coefficients(samples: list[Sample], rule: Importance, reduction: Reduction) -> list[list[float]]:
    """Coefficients of the trained tokens of every sample."""
    correct(samples, parts(rule, reduction))
    return [s.coef_L[torch.tensor(s.sampled_L)].tolist() for s in samples if s.coef_L is not None]


@pytest.fixture
def samples(sample_of: Make) -> list[Sample]:
    return [sample_of(r, seed=i) for i, r in enumerate([[1.0, 4.0, 0.25, 1.5], [0.4, 0.8], [9.0]])]


@pytest.mark.parametrize(
    ("config", "divisors"),
    [
        # kept 4, 2 and 1 tokens of 3 samples
        ({}, {"sequence": [4 * 3, 2 * 3, 1 * 3], "token": [7] * 3, "constant": [30] * 3}),
        # kept 2, 1 and 0 tokens of 2 samples
        ({"shrink": True}, {"sequence": [2 * 2, 1 * 2, 1], "token": [3] * 3, "constant": [20] * 3}),
        # kept 0, 2 and 1 tokens of 2 samples: the first is vetoed
        ({"veto": 0.3}, {"sequence": [1, 2 * 2, 1 * 2], "token": [3] * 3, "constant": [20] * 3}),
        # kept 0, 1 and 0 tokens of 1 sample
        ({"veto": 0.3, "shrink": True}, {"sequence": [1, 1, 1], "token": [1] * 3, "constant": [10] * 3}),
    ],
    ids=["keep", "shrink", "veto", "veto-shrink"],
)
@pytest.mark.parametrize("reduction", ["sequence", "token", "constant"])
def test_masked_coefficients_by_hand(
    config: dict[str, float], divisors: dict[str, list[int]], reduction: Reduction, samples: list[Sample]
) -> None:
    first = [0.0] * 4 if "veto" in config else [1.0, 0.0, 0.0, 1.5]
    found = coefficients(samples, Mis(Mis.Config.model_validate(config)), reduction)
    for row, weights, divisor in zip(found, [first, [0.0, 0.8], [0.0]], divisors[reduction], strict=True):
        assert row == pytest.approx([weight / divisor for weight in weights], rel=1e-6)


@pytest.mark.parametrize(
    ("reduction", "divisors"), [("sequence", [12, 6, 3]), ("token", [7] * 3), ("constant", [30] * 3)]
)
def test_truncated_coefficients_by_hand(reduction: Reduction, divisors: list[int], samples: list[Sample]) -> None:
    found = coefficients(samples, Tis(Tis.Config()), reduction)
    for row, weights, divisor in zip(found, [[1.0, 2.0, 0.25, 1.5], [0.4, 0.8], [2.0]], divisors, strict=True):
        assert row == pytest.approx([weight / divisor for weight in weights], rel=1e-6)


def test_a_sampler_without_log_probs_is_named(sample_of: Make) -> None:
    sample = sample_of([1.0, 1.0], logps_L=[0.0, math.nan, math.nan])
    with pytest.raises(StageError, match="importance rule 'mis' failed while weighting a minibatch: ValueError: none"):
        correct([sample], parts(Mis(Mis.Config())))


def rescore(policy: Policy, samples: list[Sample]) -> None:
    for batch in policy.pack(samples, 128):
        unpack(batch, policy.logps(batch), samples, "old_logps_L")


def test_a_policy_agrees_with_itself_and_not_with_another(tiny_policy: Policy, make_sample: Make) -> None:
    """Log-probs of a real model: of the sampler's version, then of one after a change of weights."""
    samples = [make_sample(24, 12, i) for i in range(4)]
    using = parts(Mis(Mis.Config()))
    rescore(tiny_policy, samples)
    for sample in samples:
        assert sample.old_logps_L is not None
        sample.logps_L = sample.old_logps_L.tolist()
    assert correct(samples, using)["ratio_k3"] == 0.0
    with torch.no_grad():
        for parameter in tiny_policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    rescore(tiny_policy, samples)
    moved = correct(samples, using)
    assert moved["ratio_k3"] > 1e-4
    assert moved["ratio_ess"] < 1.0
