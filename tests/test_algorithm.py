"""Assembling an algorithm; denominators counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m2rl_core.algorithm import Parts, batches, contributing, correct, credit, score, settle
from m2rl_core.errors import StageError
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.packing import unpack
from m2rl_core.policy import Frozen, Policy
from m2rl_core.train_sft import NegativeLogLikelihood
from m2rl_core.types import Batch, Correction, Divergence, Group, Reduction, Reward, Sample

Make = Callable[..., Sample]


class Ones:
    name, reference, needs = "ones", "test", frozenset[str]()
    Config = ComponentConfig

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        return [torch.ones(len(s.ids_L)) for s in group]


class DropEven:
    """Masks every other token; ``shrink`` takes it out of the denominator too."""

    name, reference, needs = "drop", "test", frozenset[str]()
    Config = ComponentConfig

    def __init__(self, shrink: bool) -> None:
        self.shrink = shrink

    def __call__(self, batch: Batch) -> Correction:
        keep = torch.arange(len(batch.ids_T)) % 2 == 0
        if self.shrink:
            return Correction(torch.ones(len(keep)), keep, {"masked": 0.5})
        return Correction(keep.float(), torch.ones_like(keep), {"masked": 0.5})


def parts(reduction: Reduction, importance: DropEven | None = None) -> Parts:
    loss = NegativeLogLikelihood(ComponentConfig())
    return Parts(Ones(), importance, loss, reduction, frozenset(), max_tokens=10)


def coefficients(samples: list[Sample], using: Parts) -> list[list[float]]:
    """Coefficients of the trained tokens of every sample."""
    correct(samples, using)
    return [s.coef_L[torch.tensor(s.sampled_L)].tolist() for s in samples if s.coef_L is not None]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sequence", [1 / (2 * 2), 1 / (2 * 6)]), ("token", [1 / 8, 1 / 8]), ("constant", [1 / 20, 1 / 20])],
)
def test_denominators(make_sample: Make, reduction: Reduction, expected: list[float]) -> None:
    samples = [make_sample(20, 2), make_sample(30, 6, 1)]
    found = coefficients(samples, parts(reduction))
    assert found == [pytest.approx([expected[0]] * 2), pytest.approx([expected[1]] * 6)]


def test_masking_with_the_denominator_unchanged(make_sample: Make) -> None:
    [found] = coefficients([make_sample(20, 4)], parts("token", DropEven(shrink=False)))
    assert found == pytest.approx([1 / 4, 0, 1 / 4, 0])


def test_masking_with_the_denominator_shrunk(make_sample: Make) -> None:
    [found] = coefficients([make_sample(20, 4)], parts("token", DropEven(shrink=True)))
    assert found == pytest.approx([1 / 2, 0, 1 / 2, 0])


def test_a_sample_of_several_sequences_counts_once(make_sample: Make) -> None:
    whole, cut = make_sample(20, 8), make_sample(20, 8)
    cut.starts = [0, 14]
    assert coefficients([cut], parts("sequence")) == coefficients([whole], parts("sequence"))


def test_the_rules_metrics_are_returned(make_sample: Make) -> None:
    samples = [make_sample(20, 4), make_sample(20, 8, 1)]
    assert correct(samples, parts("token", DropEven(shrink=True))) == {"masked": 0.5}


def test_samples_without_advantage_are_counted_but_not_computed(make_sample: Make) -> None:
    samples = [make_sample(20, 4, i) for i in range(3)]
    for sample, value in zip(samples, (1.0, 0.0, -1.0), strict=True):
        sample.advantage_L = torch.full((20,), value)
    using = parts("token")
    assert coefficients(samples, using)[0] == pytest.approx([1 / 12] * 4)
    assert contributing(samples, using.loss) == samples
    using.loss.vanishes = True
    assert contributing(samples, using.loss) == [samples[0], samples[2]]


def test_credit_goes_to_samples_with_a_verdict(make_sample: Make) -> None:
    good, failed = make_sample(8, 3), make_sample(8, 3, 1)
    good.reward = Reward(1.0)
    credit([Group(good.prompt, [good, failed])], Ones())
    assert good.advantage_L is not None
    assert failed.advantage_L is None


def test_a_failing_advantage_is_named(make_sample: Make) -> None:
    class Broken(Ones):
        name = "broken"

        def __call__(self, group: list[Sample]) -> list[Tensor]:
            raise ZeroDivisionError("oops")

    sample = make_sample(8, 3)
    sample.reward = Reward(1.0)
    with pytest.raises(
        StageError, match="advantage 'broken' failed while crediting prompt p0: ZeroDivisionError: oops"
    ):
        credit([Group(sample.prompt, [sample])], Broken())


@pytest.fixture
def frozen(tiny_model: Path, other_model: Path) -> Frozen:
    """Teachers: the policy's own start for math, another model for coding."""
    folders = {"start": tiny_model, "other": other_model}
    teachers = {"math": "start", "coding": "other"}
    return Frozen(folders, teachers, "start", lambda folder: Policy.load(folder, dtype="float32"))


def test_old_log_probs_are_scored_when_somebody_needs_them(
    tiny_policy: Policy, frozen: Frozen, make_sample: Make
) -> None:
    samples = [make_sample(12, 5, i) for i in range(3)]
    assert score(tiny_policy, frozen, samples, replace(parts("token"), scored=frozenset({"old_logps"})), 64) == {}
    for sample in samples:
        assert sample.old_logps_L is not None
        assert (sample.old_logps_L[-5:] < 0).all()
        assert (sample.old_logps_L[:-5] == 0).all()
        assert sample.reference_logps_L is None


def test_every_sample_is_scored_by_its_domains_teacher(
    tiny_policy: Policy, frozen: Frozen, other_model: Path, make_sample: Make
) -> None:
    samples = [make_sample(12, 5, i, domain=("math", "coding")[i % 2]) for i in range(4)]
    asked = replace(parts("token"), scored=frozenset({"old_logps", "reference_logps", "teacher_logps"}))
    metrics = score(tiny_policy, frozen, samples, asked, 64)
    other = Policy.load(other_model, dtype="float32")
    [batch] = other.pack(samples, 64)
    unpack(batch, other.logps(batch), expected := [make_sample(12, 5) for _ in samples], "old_logps_L")
    for sample, theirs in zip(samples, expected, strict=True):
        assert sample.old_logps_L is not None
        assert sample.teacher_logps_L is not None
        assert sample.reference_logps_L is not None
        torch.testing.assert_close(sample.reference_logps_L, sample.old_logps_L)
        wanted = sample.old_logps_L if sample.prompt.domain == "math" else theirs.old_logps_L
        torch.testing.assert_close(sample.teacher_logps_L, wanted)
    gaps = {d: [] for d in ("math", "coding")}
    for sample in samples:
        said = torch.tensor(sample.sampled_L)
        gaps[sample.prompt.domain] += (torch.tensor(sample.logps_L) - sample.teacher_logps_L)[said].tolist()
    assert metrics == pytest.approx(
        {
            "teacher_kl": sum(sum(g) for g in gaps.values()) / 20,
            **{f"teacher_kl/{d}": sum(g) / 10 for d, g in gaps.items()},
        }
    )


def test_batches_of_a_divergence_have_one_teacher_each(tiny_policy: Policy, frozen: Frozen, make_sample: Make) -> None:
    samples = [make_sample(12, 5, i, domain=("math", "coding")[i % 2]) for i in range(6)]
    plain = list(batches(tiny_policy, frozen, samples, parts("token"), 64))
    assert [batch.teacher for batch in plain] == [None] * len(plain)
    taught = parts("token")
    taught.loss.divergence = Divergence("reverse")
    found = list(batches(tiny_policy, frozen, samples, taught, 64))
    assert [(batch.teacher, set(batch.domain_N)) for batch in found] == [("start", {"math"}), ("other", {"coding"})]
    assert sum(len(batch.pieces_N) for batch in found) == 6


def test_dropped_groups_get_no_credit(make_sample: Make) -> None:
    sample = make_sample(8, 3)
    sample.reward = Reward(1.0)
    credit([Group(sample.prompt, [sample], dropped=True)], Ones())
    assert sample.advantage_L is None


class Bounded:
    """The trainer's over the sampler's probability where that is between a half and 2, else 0; token by token."""

    name, reference, needs, separable = "bounded", "test", frozenset({"old_logps"}), True
    Config = ComponentConfig

    def __call__(self, batch: Batch) -> Correction:
        assert batch.old_logps_T is not None
        log_T = batch.old_logps_T - batch.sampler_logps_T
        ratio_T = log_T.exp()
        weight_T = ratio_T.where((ratio_T >= 0.5) & (ratio_T <= 2.0), 0.0)
        return Correction(weight_T, log_T.isfinite(), {"masked": (weight_T == 0).float().mean().item()})


class Credited(NegativeLogLikelihood):
    """Log-probs times advantages: nothing without an advantage."""

    vanishes = True

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.advantage_T is not None
        return -logps * batch.advantage_T


class Sequences(Credited):
    """Probability ratios of whole sequences, as in GSPO."""

    separable = False
    needs = frozenset({"old_logps"})

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.advantage_T is not None
        assert batch.old_logps_T is not None
        sums_N = torch.zeros(len(batch.pieces_N)).index_add(0, batch.sequence_T, logps - batch.old_logps_T)
        return -sums_N.exp()[batch.sequence_T] * batch.advantage_T


class Apart(Credited):
    """Beside it a divergence from teachers."""

    vanishes = False
    divergence = Divergence("reverse")

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.divergence_T is not None
        return super().__call__(logps, batch) + batch.divergence_T


def sampled_elsewhere(policy: Policy, make_sample: Make) -> list[Sample]:
    """Samples whose sampler had other log-probs, one of them not finite; the third has no advantage."""
    samples, noise = [make_sample(16 + i, 6 + i, i) for i in range(7)], torch.Generator().manual_seed(3)
    for batch in policy.pack(samples, 64):
        unpack(batch, policy.logps(batch), samples, "reference_logps_L")
    for i, sample in enumerate(samples):
        assert sample.reference_logps_L is not None
        sampled_L = torch.tensor(sample.sampled_L)
        sample.logps_L = (sample.reference_logps_L + torch.randn(16 + i, generator=noise) * sampled_L).tolist()
        sample.prompt = replace(sample.prompt, domain="coding" if i % 3 else "math")
        sample.advantage_L = torch.full((16 + i,), 0.0 if i == 2 else (-1.0) ** i)
    samples[3].logps_L[-2] = -torch.inf
    return samples


def updated(policy: Policy, frozen: Frozen, samples: list[Sample], using: Parts) -> tuple[dict[str, float | None], int]:
    """One update, as ``train_rl`` makes it: its metrics, and how many passes were made without a gradient."""
    passes, logps = [], policy.logps

    def counted(batch: Batch) -> Tensor:
        passes.append(len(batch.pieces_N))
        return logps(batch)

    policy.logps = counted  # type: ignore[method-assign]
    score(policy, frozen, samples, using, 64)
    metrics = correct(samples, using)
    for batch in batches(policy, frozen, samples, using, 64):
        policy.backward(batch, using.loss, frozen.lecture(batch), using.weigh)
    metrics |= settle(policy, samples, using, 64)
    policy.step(0.0)
    return metrics | policy.metrics(), sum(passes)


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize(("loss", "unseen"), [(Credited, 1), (Sequences, 1), (Apart, 0)])
def test_a_rule_within_the_backward_passes_changes_nothing(
    tiny_policy: Policy,
    frozen: Frozen,
    make_sample: Make,
    loss: type[NegativeLogLikelihood],
    unseen: int,
    reduction: Reduction,
) -> None:
    """The old log-probs that it finds are those of a pass before, so all numbers are the same up to rounding."""
    before = Parts(Ones(), Bounded(), loss(ComponentConfig()), reduction, frozenset({"old_logps"}), 10)
    within = replace(before, scored=frozenset())
    assert (before.weigh, within.weigh is None) == (None, False)
    ahead, samples = (sampled_elsewhere(tiny_policy, make_sample) for _ in range(2))
    expected, all_of_them = updated(tiny_policy, frozen, ahead, before)
    found, few = updated(tiny_policy, frozen, samples, within)
    assert found == pytest.approx(expected, rel=1e-5)
    assert (all_of_them, few) == (len(samples), unseen)
    assert 0.1 < expected["masked"] < 0.9, "otherwise nothing is tested"
    for one, other in zip(samples, ahead, strict=True):
        torch.testing.assert_close(one.old_logps_L, other.old_logps_L, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.coef_L, other.coef_L, rtol=1e-5, atol=1e-7)
