"""Assembling an algorithm; denominators counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from m2rl_core.algorithm import Parts, correct, credit, score
from m2rl_core.errors import StageError
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.packing import pack
from m2rl_core.policy import Policy
from m2rl_core.train_sft import NegativeLogLikelihood
from m2rl_core.types import Batch, Correction, Group, Reduction, Reward, Sample

Make = Callable[..., Sample]
CPU = torch.device("cpu")


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


def coefficients(samples: list[Sample], using: Parts, device_tokens: int = 64) -> list[list[float]]:
    """Coefficients of the trained tokens of every sample."""
    batches = pack(samples, device_tokens, CPU)
    correct(batches, using, len(samples))
    found: dict[int, list[float]] = {}
    for batch in batches:
        for piece in batch.pieces_N:
            here = slice(piece.at, piece.at + piece.stop - piece.start)
            found[piece.sample] = batch.coef_T[here][batch.trained_T[here]].tolist()
    return [found[i] for i in range(len(samples))]


@pytest.mark.parametrize("device_tokens", [32, 64, 1024])
@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sequence", [1 / (2 * 2), 1 / (2 * 6)]), ("token", [1 / 8, 1 / 8]), ("constant", [1 / 20, 1 / 20])],
)
def test_denominators(make_sample: Make, reduction: Reduction, expected: list[float], device_tokens: int) -> None:
    samples = [make_sample(20, 2), make_sample(30, 6, 1)]
    found = coefficients(samples, parts(reduction), device_tokens)
    assert found == [pytest.approx([expected[0]] * 2), pytest.approx([expected[1]] * 6)]


def test_masking_with_the_denominator_unchanged(make_sample: Make) -> None:
    [found] = coefficients([make_sample(20, 4)], parts("token", DropEven(shrink=False)))
    assert found == pytest.approx([1 / 4, 0, 1 / 4, 0])


def test_masking_with_the_denominator_shrunk(make_sample: Make) -> None:
    [found] = coefficients([make_sample(20, 4)], parts("token", DropEven(shrink=True)))
    assert found == pytest.approx([1 / 2, 0, 1 / 2, 0])


def test_coefficients_do_not_depend_on_packing(make_sample: Make) -> None:
    samples = [make_sample(10 + i, 2 + i, i) for i in range(12)]
    expected = coefficients(samples, parts("sequence"), 1024)
    assert coefficients(samples, parts("sequence"), 32) == [pytest.approx(e) for e in expected]


def test_the_rules_metrics_are_averaged_over_tokens(make_sample: Make) -> None:
    batches = pack([make_sample(20, 4), make_sample(20, 8, 1)], 32, CPU)
    assert correct(batches, parts("token", DropEven(shrink=True)), 2) == {"masked": pytest.approx(0.5)}


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


def test_old_log_probs_are_scored_when_somebody_needs_them(tiny_policy: Policy, make_sample: Make) -> None:
    samples = [make_sample(12, 5, i) for i in range(3)]
    score(tiny_policy, samples, replace(parts("token"), needs=frozenset({"old_logps"})), 64)
    for sample in samples:
        assert sample.old_logps_L is not None
        assert (sample.old_logps_L[-5:] < 0).all()
        assert (sample.old_logps_L[:-5] == 0).all()


def test_scores_that_cannot_be_computed_are_refused(tiny_policy: Policy, make_sample: Make) -> None:
    with pytest.raises(StageError, match="needs teacher_logps"):
        score(tiny_policy, [make_sample(8, 3)], replace(parts("token"), needs=frozenset({"teacher_logps"})), 64)
