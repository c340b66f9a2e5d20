"""What is logged of the mismatch, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from m2rl_algorithm_mis.rules import Mis, Tis
from m2rl_core.types import Sample

Make = Callable[..., Sample]
Weigh = Callable[..., Any]

MISMATCH = {"ratio_mean", "ratio_max", "ratio_k1", "ratio_k3", "ratio_ess", "ratio_unknown"}


def logged(weigh: Weigh, samples: list[Sample], **config: Any) -> dict[str, float]:
    metrics: dict[str, float] = weigh(Mis(Mis.Config.model_validate(config)), samples).metrics
    return metrics


def test_mismatch_by_hand(sample_of: Make, weigh: Weigh) -> None:
    # ratios 1, 2, 1/2, 4: their logs sum to log 4, they to 7.5, their squares to 21.25
    metrics = logged(weigh, [sample_of([1.0, 2.0]), sample_of([0.5, 4.0], seed=1)])
    assert metrics["ratio_mean"] == pytest.approx(7.5 / 4)
    assert metrics["ratio_max"] == pytest.approx(4.0)
    assert metrics["ratio_k1"] == pytest.approx(-math.log(4) / 4)
    assert metrics["ratio_k3"] == pytest.approx((7.5 - 4 - math.log(4)) / 4)
    assert metrics["ratio_ess"] == pytest.approx(7.5**2 / (4 * 21.25))


def test_no_mismatch_is_all_ones_and_zeros(sample_of: Make, weigh: Weigh) -> None:
    metrics = logged(weigh, [sample_of([1.0] * 5)])
    ones = {"ratio_mean", "ratio_max", "ratio_ess"}
    assert {name: metrics[name] for name in metrics if "/" not in name} == {
        name: 1.0 if name in ones else 0.0 for name in MISMATCH | {"ratio_masked_low", "ratio_masked_high"}
    }


def test_a_tiny_divergence_keeps_its_digits(sample_of: Make, weigh: Weigh) -> None:
    near, step = -(2.0**-7), 2.0**-30  # float32's resolution there; k3 is step² / 2 up to its cube
    samples = [sample_of([1.0, 1.0], logps_L=[0.0, near, near])]
    assert samples[0].old_logps_L is not None
    samples[0].old_logps_L[1:] = samples[0].old_logps_L.new_tensor([near + step, near - step])
    metrics = logged(weigh, samples)
    assert metrics["ratio_k3"] == pytest.approx(step**2 / 2, rel=1e-3, abs=0.0)
    assert metrics["ratio_k1"] == 0.0


def test_masked_shares_do_not_overlap(sample_of: Make, weigh: Weigh) -> None:
    samples = [sample_of([0.4, 1.0, 3.0, 2.5]), sample_of([0.01, 5.0], seed=1)]
    plain = logged(weigh, samples)
    assert (plain["ratio_masked_low"], plain["ratio_masked_high"]) == pytest.approx((2 / 6, 3 / 6))
    assert "ratio_vetoed" not in plain
    vetoed = logged(weigh, samples, veto=0.1)
    assert (vetoed["ratio_masked_low"], vetoed["ratio_masked_high"]) == pytest.approx((1 / 6, 2 / 6))
    assert vetoed["ratio_vetoed"] == pytest.approx(2 / 6)


def test_shares_are_of_the_rules_level_and_ratios_are_of_tokens(sample_of: Make, weigh: Weigh) -> None:
    samples = [sample_of([1.5, 1.5, 1.0]), sample_of([1.0], seed=1)]
    token, sequence = (logged(weigh, samples, level=level) for level in ("token", "sequence"))
    assert (token["ratio_masked_high"], sequence["ratio_masked_high"]) == (0.0, 0.75)
    assert {name: token[name] for name in MISMATCH} == {name: sequence[name] for name in MISMATCH}


@pytest.mark.parametrize(("low", "share"), [(0.0, 1 / 4), (0.5, 2 / 4)])
def test_truncated_counts_what_truncation_changed(low: float, share: float, sample_of: Make, weigh: Weigh) -> None:
    found = weigh(Tis(Tis.Config(low=low)), [sample_of([0.1, 1.0, 1.9, 2.1])])
    assert found.metrics["ratio_truncated"] == pytest.approx(share)


def test_every_domain_has_its_own_numbers(sample_of: Make, weigh: Weigh) -> None:
    samples = [
        sample_of([4.0, 1.0], domain="math"),
        sample_of([0.25], domain="if", seed=1),
        sample_of([1.0, 1.0, 1.0], domain="math", seed=2),
    ]
    metrics = logged(weigh, samples)
    assert {name.split("/")[1] for name in metrics if "/" in name} == {"math", "if"}
    assert (metrics["ratio_mean"], metrics["ratio_mean/math"], metrics["ratio_mean/if"]) == pytest.approx(
        (8.25 / 6, 8 / 5, 0.25)
    )
    assert (metrics["ratio_masked_low/math"], metrics["ratio_masked_low/if"]) == (0.0, 1.0)
    assert metrics["ratio_masked_high/math"] == pytest.approx(1 / 5)
    assert metrics["ratio_k1/if"] == pytest.approx(math.log(4))


def test_staleness_counts_from_the_newest_version(sample_of: Make, weigh: Weigh) -> None:
    samples = [
        sample_of([1.0, 2.0, 1.0], versions_L=[-1, 7, 7, 5]),  # its sampling went on under a newer policy
        sample_of([3.0], versions_L=[-1, 5], seed=1),
    ]
    metrics = logged(weigh, samples)
    assert {name for name in metrics if "staleness" in name and name.startswith("ratio_mean")} == {
        "ratio_mean/staleness-0",
        "ratio_mean/staleness-2",
    }
    assert metrics["ratio_mean/staleness-0"] == pytest.approx(1.5)
    assert metrics["ratio_mean/staleness-2"] == pytest.approx(2.0)
    assert metrics["ratio_masked_high/staleness-2"] == pytest.approx(0.5)


def test_one_version_is_not_split_by_staleness(sample_of: Make, weigh: Weigh) -> None:
    assert not [name for name in logged(weigh, [sample_of([1.0], versions_L=[-1, 9])]) if "staleness" in name]


def test_a_domain_without_a_known_ratio_has_no_mean(sample_of: Make, weigh: Weigh) -> None:
    broken = sample_of([1.0, 1.0], domain="if", logps_L=[0.0, math.nan, -math.inf])
    metrics = logged(weigh, [broken, sample_of([2.0], seed=1)])
    assert "ratio_mean/if" not in metrics
    assert metrics["ratio_unknown/if"] == 1.0
    assert metrics["ratio_mean"] == pytest.approx(2.0)
