"""Distillation's parts against hand cases, and what every mode is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from m2rl_algorithm_opd import Opd
from m2rl_algorithm_opd.parts import Distil, PolicyGradient, TeacherAdvantage
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.packing import pack
from m2rl_core.testing import AlgorithmContract
from m2rl_core.types import Batch, Composition, Divergence, Sample

Make = Callable[..., Sample]


class TestSampledContract(AlgorithmContract):
    advantage = TeacherAdvantage(ComponentConfig())
    loss = PolicyGradient(ComponentConfig())

    def test_better_samples_get_no_smaller_advantage(self) -> None:
        """The teacher knows of no reward, so there is nothing to hold here."""
        one, other = self.advantage(self.samples((1.0, 0.0))), self.advantage(self.samples((0.0, 1.0)))
        assert [value.tolist() for value in one] == [value.tolist() for value in other]


def taught(make: Make, teacher: list[float], old: list[float]) -> Sample:
    sample = make(2 + len(old), len(old))
    sample.teacher_logps_L = torch.tensor([9.0, 9.0, *teacher])
    sample.old_logps_L = torch.tensor([0.0, 0.0, *old])
    return sample


def test_credit_is_what_the_teacher_likes_better(make_sample: Make) -> None:
    sample = taught(make_sample, [-1.0, -0.5, -3.0], [-2.0, -0.5, -1.0])
    [credit] = TeacherAdvantage(ComponentConfig())([sample])
    assert credit.tolist() == [0.0, 0.0, 1.0, 0.0, -2.0]


def batch_of(make: Make, advantage: float, old: float) -> Batch:
    sample = make(3, 1)
    sample.advantage_L, sample.old_logps_L = torch.full((3,), advantage), torch.tensor([0.0, 0.0, old])
    [batch] = pack([sample], 16, torch.device("cpu"))
    return batch.take(torch.nonzero(batch.trained_T)[:, 0])


@pytest.mark.parametrize(("ratio", "advantage"), [(1.0, 2.0), (3.0, 2.0), (0.2, -1.5)])
def test_the_policy_gradient_is_never_clipped(make_sample: Make, ratio: float, advantage: float) -> None:
    batch = batch_of(make_sample, advantage, -1.0)
    logps = torch.tensor([-1.0 + math.log(ratio)], requires_grad=True)
    loss = PolicyGradient(ComponentConfig())(logps, batch)
    assert loss.item() == pytest.approx(-ratio * advantage, rel=1e-6)
    assert torch.autograd.grad(loss.sum(), logps)[0].item() == pytest.approx(-ratio * advantage, rel=1e-6)


def test_the_expected_credit_is_minus_the_reverse_kl() -> None:
    """Over all tokens of a small vocabulary, weighted by the student's own probabilities."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(-1)
    expected = (student.exp() * (teacher - student)).sum()
    kl = torch.nn.functional.kl_div(teacher, student, reduction="sum", log_target=True)
    assert expected.item() == pytest.approx(-kl.item())
    # and the policy gradient's expectation is that of the reverse KL
    logits = student.clone().requires_grad_()
    logp = logits.log_softmax(-1)
    objective = (student.exp() * (logp - student).exp() * -(teacher - student)).sum()
    [mine] = torch.autograd.grad(objective, logits, retain_graph=True)
    [theirs] = torch.autograd.grad((logp.exp() * (logp - teacher)).sum(), logits)
    torch.testing.assert_close(mine, theirs)


def test_a_divergence_is_the_loss(make_sample: Make) -> None:
    batch = batch_of(make_sample, 1.0, -1.0)
    batch.divergence_T = torch.tensor([0.25], requires_grad=True)
    loss = Distil(Distil.Config(kind="js", beta=0.3, top_k=5))
    assert loss.divergence == Divergence("js", 0.3, 5)
    assert loss(torch.tensor([-1.0]), batch) is batch.divergence_T


REWARD = {"use": "group", "weight": 0.5}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Composition([{"use": "teacher"}], [{"use": "policy-gradient"}])),
        ({"reward": 0.5}, Composition([{"use": "teacher"}, REWARD], [{"use": "policy-gradient"}])),
        (
            {"mode": "full"},
            Composition([], [{"use": "distil", "kind": "reverse", "beta": 0.5}]),
        ),
        (
            {"mode": "top-k", "divergence": "js", "beta": 0.1, "k": 8, "reward": 0.5, "reduction": "token"},
            Composition(
                [{"use": "group"}],
                [
                    {"use": "distil", "kind": "js", "beta": 0.1, "top_k": 8},
                    {"use": "policy-gradient", "weight": 0.5},
                ],
                reduction="token",
            ),
        ),
        (
            {"importance": "mis"},
            Composition([{"use": "teacher"}], [{"use": "policy-gradient"}], {"use": "mis"}),
        ),
    ],
)
def test_every_mode_is_made_of_its_parts(config: dict[str, Any], expected: Composition) -> None:
    assert Opd(Opd.Config(**config)).compose() == expected


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "all"},
        {"mode": "full", "divergence": "js", "beta": 0.0},
        {"mode": "top-k", "k": 0},
        {"reward": -1.0},
        {"temperature": 1.0},
        {"divergence": "js"},
        {"mode": "full", "k": 5},
        {"mode": "full", "beta": 0.3},
    ],
)
def test_settings_that_mean_nothing_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Opd.Config(**config)
