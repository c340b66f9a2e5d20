"""The contracts of algorithms, mergers and analyzers pass what is sound, and each of their checks can fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import StageError
from m2rl_core.interfaces import Analyzer, ComponentConfig, Lab, Merger, Pass
from m2rl_core.testing import AlgorithmContract, AnalyzerContract, MergerContract
from m2rl_core.types import Batch, Block, Claim, Correction, Divergence, Figure, Findings, Sample, Stats, Table

Unsound = Sequence[tuple[str, object]]


def fails(contract: type, attributes: dict[str, Any], check: str, folder: Path) -> None:
    """See that one check of a contract fails on the component in ``attributes``."""
    checked: Any = type("Checked", (contract,), attributes)()
    checked._models_folder = folder
    arguments = {"tmp_path": folder} if "tmp_path" in getattr(contract, check).__code__.co_varnames else {}
    with pytest.raises((AssertionError, TypeError, ValueError, RuntimeError, StageError)):
        getattr(checked, check)(**arguments)


def checks(contract: type) -> set[str]:
    return {name for name in vars(contract) if name.startswith("test_")}


class Part:
    """What all components share."""

    name: ClassVar[str] = "part"
    reference: ClassVar[str] = "a test"
    needs: frozenset[str] = frozenset()
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig


# ── algorithms ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Centred(Part):
    """The reward less the group's mean, changed by ``spoil(values, group)``."""

    def __init__(
        self, spoil: Callable[[list[Tensor], list[Sample]], list[Tensor]] = lambda values, group: values
    ) -> None:
        self.spoil = spoil

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        rewards = torch.tensor([sample.reward.value or 0.0 for sample in group])
        values = [torch.full((len(s.ids_L),), float(r - rewards.mean())) for s, r in zip(group, rewards, strict=True)]
        return self.spoil(values, group)


class Plain(Part):
    """−A log p, changed by ``spoil(loss, logps)``."""

    separable, vanishes = True, True
    divergence: Divergence | None = None

    def __init__(self, spoil: Callable[[Tensor, Tensor], Tensor] = lambda loss, logps: loss) -> None:
        self.spoil = spoil

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.advantage_T is not None
        return self.spoil(-batch.advantage_T * logps, logps)


class Ratio(Part):
    """π_old / π_sampler, changed by ``spoil``."""

    def __init__(self, spoil: Callable[[Correction], Correction] = lambda correction: correction) -> None:
        self.spoil = spoil

    def __call__(self, batch: Batch) -> Correction:
        assert batch.old_logps_T is not None
        weight_T = (batch.old_logps_T - batch.sampler_logps_T).exp()
        return self.spoil(Correction(weight_T, torch.ones_like(weight_T, dtype=torch.bool), {"mean": 1.0}))


class TestAlgorithm(AlgorithmContract):
    advantage = Centred()
    loss = Plain()
    importance = Ratio()
    by_hand: ClassVar[dict[tuple[float, ...], tuple[float, ...]]] = {(1.0, 0.0, 0.0, 0.0): (0.75, -0.25, -0.25, -0.25)}


ALGORITHMS: Unsound = [
    ("test_advantages_have_the_samples_shapes", Centred(lambda values, group: [v[:1] for v in values])),
    ("test_advantages_have_the_samples_shapes", Centred(lambda values, group: [v.double() for v in values])),
    ("test_advantages_have_the_samples_shapes", Centred(lambda values, group: [v / 0.0 for v in values])),
    (
        "test_advantages_do_not_depend_on_the_order_of_samples",
        Centred(lambda values, group: [v + n for n, v in enumerate(values)]),
    ),
    ("test_better_samples_get_no_smaller_advantage", Centred(lambda values, group: [-v for v in values])),
    ("test_a_group_of_one_is_finite", Centred(lambda values, group: [v / (len(group) - 1) for v in values])),
    ("test_advantages_are_those_worked_out_by_hand", Centred(lambda values, group: [2 * v for v in values])),
    ("test_losses_are_one_per_token_with_a_true_gradient", Plain(lambda loss, logps: loss.mean())),
    ("test_losses_are_one_per_token_with_a_true_gradient", Plain(lambda loss, logps: loss + logps.detach() ** 2 * 9)),
    ("test_a_vanishing_loss_vanishes", Plain(lambda loss, logps: loss + logps)),
    ("test_a_separable_loss_is_the_same_in_chunks", Plain(lambda loss, logps: loss - loss.mean())),
    ("test_corrections_are_one_per_token_and_carry_no_gradient", Ratio(lambda c: replace(c, weight_T=c.weight_T[:1]))),
    ("test_corrections_are_one_per_token_and_carry_no_gradient", Ratio(lambda c: replace(c, weight_T=-c.weight_T))),
    (
        "test_corrections_are_one_per_token_and_carry_no_gradient",
        Ratio(lambda c: replace(c, weight_T=c.weight_T.requires_grad_())),
    ),
    ("test_corrections_are_one_per_token_and_carry_no_gradient", Ratio(lambda c: replace(c, keep_T=c.weight_T))),
    ("test_a_sampler_that_is_the_policy_needs_no_correction", Ratio(lambda c: replace(c, weight_T=2 * c.weight_T))),
]


@pytest.mark.parametrize(("check", "part"), ALGORITHMS)
def test_an_unsound_part_of_an_algorithm_is_found(check: str, part: Part, tmp_path: Path) -> None:
    place = {Centred: "advantage", Plain: "loss", Ratio: "importance"}[type(part)]
    fails(TestAlgorithm, {place: part}, check, tmp_path)


def test_every_check_of_algorithms_can_fail() -> None:
    assert {check for check, _ in ALGORITHMS} == checks(AlgorithmContract)


# ── mergers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Mean(Part, Merger):
    """The experts' mean, changed by ``spoil(mean, block)``."""

    granularity = "block"
    needs_base = True

    def __init__(self, spoil: Callable[[Tensor, Block], Tensor] = lambda mean, block: mean, **more: object) -> None:
        self.spoil = spoil
        vars(self).update(more)

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        return [self.spoil(block.experts_E.mean(0), block)]


class Count(Pass):
    name, scope = "count", "model"

    def measure(self, block: Block, stats: Stats) -> int:
        return 1

    def combine(self, left: int, right: int) -> int:
        return left + right


def refuse(experts: Sequence[str]) -> None:
    raise ValueError("not these")


class TestMean(MergerContract):
    merger = Mean()


MERGERS: Unsound = [
    ("test_takes_the_experts_that_it_merges", Mean(check=refuse)),
    ("test_fills_every_output_with_finite_numbers", Mean(lambda mean, block: mean / 0.0)),
    ("test_experts_that_never_moved_change_nothing", Mean(lambda mean, block: 0.9 * mean)),
    ("test_the_order_of_experts_means_nothing", Mean(lambda mean, block: block.experts_E[0].clone())),
    ("test_blocks_and_threads_mean_nothing", Mean(lambda mean, block: mean - mean.mean())),
    ("test_leaves_its_blocks_alone", Mean(lambda mean, block: block.experts_E.mul_(0.5).sum(0))),
    ("test_passes_have_names_of_their_own", Mean(passes=lambda: [Count(), Count()])),
]


@pytest.mark.parametrize(("check", "merger"), MERGERS)
def test_an_unsound_merger_is_found(check: str, merger: Mean, tmp_path: Path) -> None:
    fails(TestMean, {"merger": merger}, check, tmp_path)


def test_every_check_of_mergers_can_fail() -> None:
    assert {check for check, _ in MERGERS} == checks(MergerContract)


# ── analyzers ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fixed(Part, Analyzer):
    """Finds what ``make`` makes."""

    def __init__(self, make: Callable[[], Findings]) -> None:
        self.make = make

    def run(self, lab: Lab) -> Findings:
        return self.make()


class Norms(Part, Analyzer):
    """Lengths of the task vectors in the laboratory that the contract brings."""

    def run(self, lab: Lab) -> Findings:
        assert lab.start is not None
        found = {d: float(sum(b.deltas_E.square().sum() for b in lab.blocks(lab.start, [d]))) for d in lab.experts}
        table = Table("Norms", ["expert", "norm"], [[name, norm] for name, norm in found.items()])
        figure = Figure("Norms", "bars", list(found), {"norm": list(found.values())})
        claims = [Claim("They move", "3.3", min(found.values()), (0.0, 1e9), "holds")]
        return Findings({"norms": table}, {"norms": figure}, claims)


class TestNorms(AnalyzerContract):
    analyzer = Norms()

    def test_the_laboratory_has_a_start_and_two_experts(self) -> None:
        rows = self.findings().tables["norms"].rows
        assert [row[0] for row in rows] == ["math", "science"]
        assert all(float(row[1] or 0.0) > 0.0 for row in rows)


NUMBERS = itertools.count()
ANALYZERS: Unsound = [
    ("test_it_finds_something", Fixed(Findings)),
    (
        "test_the_findings_can_be_written_and_read",
        Fixed(lambda: Findings({"x": Table("X", ["a"], [[object()]])})),  # type: ignore[list-item]
    ),
    ("test_tables_are_rectangular", Fixed(lambda: Findings({"x": Table("X", ["a", "b"], [[1.0]])}))),
    (
        "test_figures_have_a_value_for_every_x",
        Fixed(lambda: Findings({}, {"x": Figure("X", "bars", ["a", "b"], {"y": [1.0]})})),
    ),
    (
        "test_intervals_hold_their_statistic",
        Fixed(lambda: Findings({}, {}, [Claim("Moves", "3", 2.0, (0.0, 1.0), "holds")])),
    ),
    (
        "test_the_same_study_gives_the_same_findings",
        Fixed(lambda: Findings({"x": Table("X", ["a"], [[float(next(NUMBERS))]])})),
    ),
]


@pytest.mark.parametrize(("check", "analyzer"), ANALYZERS)
def test_an_unsound_analyzer_is_found(check: str, analyzer: Fixed, tmp_path: Path) -> None:
    fails(TestNorms, {"analyzer": analyzer}, check, tmp_path)


def test_every_check_of_analyzers_can_fail() -> None:
    assert {check for check, _ in ANALYZERS} == checks(AnalyzerContract)
