"""Losses and their gradients against hand cases and naive definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from m2rl_algorithm_grpo import formulas
from m2rl_algorithm_grpo.advantages import GroupAdvantage
from m2rl_algorithm_grpo.losses import Cispo, Gspo, PpoClip, ReferenceKl, Sapo
from m2rl_core.algorithm import Parts, correct
from m2rl_core.interfaces import Loss
from m2rl_core.packing import pack
from m2rl_core.policy import Policy
from m2rl_core.types import Batch, Sample

Make = Callable[..., Sample]
POLICY_LOSSES: list[Loss] = [
    PpoClip(PpoClip.Config()),
    PpoClip(PpoClip.Config(dual=3.0)),
    Gspo(Gspo.Config()),
    Cispo(Cispo.Config()),
    Sapo(Sapo.Config()),
]


def sample_of(make: Make, advantage: float, old: list[float], index: int = 0) -> Sample:
    """Three tokens of prompt, then one per old log-prob."""
    sample = make(3 + len(old), len(old), index)
    sample.advantage_L = torch.full((len(sample.ids_L),), advantage)
    sample.old_logps_L = torch.tensor([0.0] * 3 + old)
    sample.reference_logps_L = sample.old_logps_L
    return sample


def batch_of(*samples: Sample) -> Batch:
    """The trained tokens in the order of the samples."""
    [batch] = pack(samples, 256, torch.device("cpu"), dense=False)
    trained = torch.nonzero(batch.trained_T)[:, 0]
    owner_T = torch.tensor([p.sample for p in batch.pieces_N])[batch.sequence_T[trained]]
    return batch.take(trained[owner_T.argsort(stable=True)])


def value_and_slope(make: Make, loss: Loss, ratio: float, advantage: float) -> tuple[float, float]:
    """Of one token with old log-prob −1."""
    batch = batch_of(sample_of(make, advantage, [-1.0]))
    logps = torch.tensor([-1.0 + math.log(ratio)], dtype=torch.float64, requires_grad=True)
    value = loss(logps, batch)
    [gradient] = torch.autograd.grad(value.sum(), logps)
    return value.item(), gradient.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.56, 0.0),  # above 1 + 0.28, with a positive advantage: clipped
        (1.5, -2.0, 3.0, 3.0),  # above, with a negative one: not clipped
        (0.5, 2.0, -1.0, -1.0),  # below 1 - 0.2, with a positive advantage: not clipped
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_ppo_clip_by_hand(make_sample: Make, ratio: float, advantage: float, value: float, slope: float) -> None:
    found = value_and_slope(make_sample, PpoClip(PpoClip.Config()), ratio, advantage)
    assert found == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (5.0, -2.0, 6.0, 0.0),  # above 3, with a negative advantage: at most 3 · 2
        (2.5, -2.0, 5.0, 5.0),
        (0.5, -2.0, 1.6, 0.0),  # the lower clip is as before
        (5.0, 2.0, -2.56, 0.0),  # and so is everything with a positive advantage
        (1.0, 2.0, -2.0, -2.0),
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_dual_clip_by_hand(make_sample: Make, ratio: float, advantage: float, value: float, slope: float) -> None:
    found = value_and_slope(make_sample, PpoClip(PpoClip.Config(dual=3.0)), ratio, advantage)
    assert found == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.5, 2.0, -2 * 1.3 * (-1 + math.log(1.5)), -2 * 1.3),  # bounded, and the gradient still flows
        (1.5, -2.0, 2 * 1.3 * (-1 + math.log(1.5)), 2 * 1.3),
        (0.1, 2.0, -2 * 0.1 * (-1 + math.log(0.1)), -2 * 0.1),  # no lower bound
        (0.1, -2.0, 2 * 0.1 * (-1 + math.log(0.1)), 2 * 0.1),
        (1.0, 2.0, 2.0, -2.0),
    ],
)
def test_cispo_by_hand(make_sample: Make, ratio: float, advantage: float, value: float, slope: float) -> None:
    found = value_and_slope(make_sample, Cispo(Cispo.Config(high=0.3)), ratio, advantage)
    assert found == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize(("advantage", "temperature"), [(2.0, 1.5), (-2.0, 3.0)])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 4.0])
def test_sapo_by_hand(make_sample: Make, ratio: float, advantage: float, temperature: float) -> None:
    gate = 1 / (1 + math.exp(-temperature * (ratio - 1)))
    value, slope = -4 / temperature * gate * advantage, -4 * gate * (1 - gate) * ratio * advantage
    found = value_and_slope(make_sample, Sapo(Sapo.Config(positive=1.5, negative=3.0)), ratio, advantage)
    assert found == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize("loss", POLICY_LOSSES, ids=lambda loss: loss.name)
def test_on_policy_gradient_is_that_of_reinforce(make_sample: Make, loss: Loss) -> None:
    batch = batch_of(sample_of(make_sample, 0.7, [-1.0, -2.0, -0.1]), sample_of(make_sample, -0.3, [-0.5], 1))
    assert batch.old_logps_T is not None
    logps = batch.old_logps_T.clone().requires_grad_()
    [gradient] = torch.autograd.grad(loss(logps, batch).sum(), logps)
    torch.testing.assert_close(gradient, torch.tensor([-0.7, -0.7, -0.7, 0.3]))


def test_on_policy_all_losses_move_a_model_alike(make_sample: Make, tiny_policy: Policy) -> None:
    """Through the policy's own backward pass, where π_old is the policy itself."""
    samples = [make_sample(12, 5, 0), make_sample(9, 2, 1), make_sample(14, 9, 2)]
    for sample, advantage in zip(samples, (1.0, -0.5, 0.25), strict=True):
        sample.advantage_L = torch.full((len(sample.ids_L),), advantage)
        sample.coef_L = torch.full((len(sample.ids_L),), 1 / sample.length)
    found = []
    for loss in POLICY_LOSSES:
        [batch] = tiny_policy.pack(samples, 64)
        tiny_policy.backward(batch, loss)
        found.append(torch.cat([p.grad.flatten() for p in tiny_policy.model.parameters() if p.grad is not None]))
        tiny_policy.optimizer.zero_grad()
    largest = found[0].abs().max().item()
    assert largest > 0.0
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0], rtol=0.0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("mean", "advantage", "value", "flows"),
    [
        (2e-4, 1.0, -math.exp(2e-4), True),
        (6e-4, 1.0, -(1 + 4e-4), False),  # above 1 + 4e-4, with a positive advantage: clipped
        (6e-4, -1.0, math.exp(6e-4), True),
        (-6e-4, 1.0, -math.exp(-6e-4), True),
        (-6e-4, -1.0, 1 - 3e-4, False),  # below 1 - 3e-4, with a negative one: clipped
    ],
)
def test_gspo_by_hand(make_sample: Make, mean: float, advantage: float, value: float, flows: bool) -> None:
    """Log-ratios that differ from token to token, with the given mean; a second sequence must not matter."""
    old = [-1.0, -2.0, -0.5]
    batch = batch_of(sample_of(make_sample, advantage, old), sample_of(make_sample, 5.0, [-1.0, -1.0], 1))
    moved = torch.tensor([mean + 0.2, mean - 0.3, mean + 0.1, 0.7, -0.7], dtype=torch.float64)
    logps = (torch.tensor([*old, -1.0, -1.0], dtype=torch.float64) + moved).requires_grad_()
    loss = Gspo(Gspo.Config())(logps, batch)
    assert loss[:3].tolist() == pytest.approx([value] * 3, rel=1e-9)
    assert loss[3:].tolist() == pytest.approx([-5.0] * 2, rel=1e-9)
    [gradient] = torch.autograd.grad(loss[:3].mean(), logps)
    slope = value / 3 if flows else 0.0
    assert gradient.tolist() == pytest.approx([slope] * 3 + [0.0] * 2, rel=1e-9)


def test_gspo_gradient_is_that_of_the_sequence_objective(make_sample: Make) -> None:
    """Through the core's coefficients, against autograd through the naive (π_θ(y) / π_old(y))^(1/|y|)."""
    olds = [[-1.0, -2.0, -0.5, -0.25], [-1.5], [-0.5, -0.75]]
    flat = torch.tensor([logp for old in olds for logp in old], dtype=torch.float64)
    samples = [sample_of(make_sample, a, old, i) for i, (a, old) in enumerate(zip((1.5, -0.5, 2.0), olds, strict=True))]
    loss, advantage = Gspo(Gspo.Config(low=0.2, high=0.2)), GroupAdvantage(GroupAdvantage.Config())
    correct(samples, Parts(advantage, None, loss, "sequence", frozenset(), max_tokens=8))
    batch = batch_of(*samples)
    moved = torch.tensor([0.1, -0.2, 0.3, 0.05, 0.4, 0.9, -0.1], dtype=torch.float64)
    logps = (flat + moved).requires_grad_()
    assert batch.coef_T is not None
    total = (batch.coef_T * loss(logps, batch)).sum()

    objective = torch.zeros((), dtype=torch.float64)
    for part, old, a in zip((logps[:4], logps[4:5], logps[5:]), olds, (1.5, -0.5, 2.0), strict=True):
        ratio = (part.sum().exp() / math.exp(sum(old))) ** (1 / len(old))
        objective = objective + torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a) / 3
    torch.testing.assert_close(total, -objective, rtol=1e-6, atol=0.0)
    [found], [expected] = torch.autograd.grad(total, logps), torch.autograd.grad(-objective, logps)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_gspo_ratio_of_a_long_sequence_is_finer_than_its_clip(make_sample: Make) -> None:
    """10,000 tokens moved up by 3.1 nats, 10,000 down, all up by 3.5e-4: within 1 + 4e-4, so nothing is clipped."""
    old = [-4.0] * 10_000 + [-8.0] * 10_000
    [batch] = pack([sample_of(make_sample, 1.0, old)], 20_016, torch.device("cpu"), dense=False)
    batch = batch.take(torch.nonzero(batch.trained_T)[:, 0])
    moved = torch.tensor([3.1 + 3.5e-4] * 10_000 + [-3.1 + 3.5e-4] * 10_000)
    logps = (torch.tensor(old) + moved).requires_grad_()
    loss = Gspo(Gspo.Config())(logps, batch)
    assert loss[0].item() == pytest.approx(-(1 + 3.5e-4), abs=1e-6)
    [gradient] = torch.autograd.grad(loss.mean(), logps)
    assert bool(gradient.all())


def test_gspo_takes_a_batch_without_trained_tokens(make_sample: Make) -> None:
    batch = batch_of(sample_of(make_sample, 1.0, [-1.0]))
    assert Gspo(Gspo.Config())(torch.zeros(0), batch.take(torch.zeros(0, dtype=torch.int64))).shape == (0,)


@pytest.mark.parametrize("moved", [-0.7, 0.0, 0.4])
@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        ("k1", lambda x: x, lambda x: x),
        ("k2", lambda x: x * x / 2, lambda x: x),
        ("k3", lambda x: math.exp(-x) - 1 + x, lambda x: 1 - math.exp(-x)),
    ],
)
def test_kl_by_hand(
    make_sample: Make, estimator: Any, moved: float, value: Callable[..., float], slope: Callable[..., float]
) -> None:
    loss = ReferenceKl(ReferenceKl.Config(estimator=estimator))
    found = value_and_slope(make_sample, loss, math.exp(moved), advantage=0.0)
    assert found == pytest.approx((value(moved), slope(moved)), rel=1e-6, abs=1e-12)


def softmaxes() -> tuple[torch.Tensor, torch.Tensor]:
    """(log π_θ over five tokens, whose logits have a gradient; log π_ref)."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, -0.4], dtype=torch.float64, requires_grad=True)
    return logits, torch.tensor([1.0, 0.5, 0.0, -0.5, 0.2], dtype=torch.float64).log_softmax(0)


@pytest.mark.parametrize(
    ("estimate", "direction"), [(formulas.k1, "reverse"), (formulas.k2, "reverse"), (formulas.k3, "forward")]
)
def test_expected_gradients_are_those_of_the_documented_kl(estimate: Any, direction: str) -> None:
    """Exactly, by summing over the vocabulary with the sampling probabilities held fixed."""
    logits, reference = softmaxes()
    policy = logits.log_softmax(0)
    sampled = (policy.detach().exp() * estimate(policy - reference)).sum()
    exact = policy.exp() @ (policy - reference) if direction == "reverse" else reference.exp() @ (reference - policy)
    [found] = torch.autograd.grad(sampled, logits, retain_graph=True)
    [expected] = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("estimate", [formulas.k1, formulas.k3])
def test_k1_and_k3_have_the_value_of_the_kl(estimate: Any) -> None:
    logits, reference = softmaxes()
    policy = logits.detach().log_softmax(0)
    torch.testing.assert_close(policy.exp() @ estimate(policy - reference), policy.exp() @ (policy - reference))


@pytest.mark.parametrize(
    ("component", "settings"),
    [
        (PpoClip, {"low": 1.0}),
        (PpoClip, {"high": -0.1}),
        (PpoClip, {"dual": 1.0}),
        (Gspo, {"low": -1e-4}),
        (Cispo, {"high": -0.5}),
        (Cispo, {"low": 0.2}),
        (Sapo, {"positive": 0.0}),
        (Sapo, {"negative": -1.0}),
        (ReferenceKl, {"estimator": "k4"}),
    ],
)
def test_losses_refuse_settings_out_of_range(component: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        component.Config.model_validate(settings)
