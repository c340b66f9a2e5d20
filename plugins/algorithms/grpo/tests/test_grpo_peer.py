"""Losses, KL and reductions against TRL's own numbers: ``GRPOTrainer._compute_loss`` on the same ragged batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from m2rl_algorithm_grpo.advantages import GroupAdvantage
from m2rl_algorithm_grpo.losses import Cispo, Gspo, PpoClip, ReferenceKl, Sapo
from m2rl_core.algorithm import Parts, correct
from m2rl_core.interfaces import Loss
from m2rl_core.packing import pack
from m2rl_core.types import Reduction, Sample

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="pip install trl==1.16.0")

Make = Callable[..., Sample]
PROMPT = 3
LENGTHS = [7, 1, 12, 4, 5]
ADVANTAGES = [1.3, -0.7, 0.4, -1.1, 0.9]
MAX_TOKENS = 16


@dataclass(frozen=True)
class Scores:
    """Log-probs [S, L] of the responses, padded on the right; ``mask`` is 1 on their tokens."""

    new: Tensor
    old: Tensor
    reference: Tensor
    mask: Tensor


def scores(spread: float) -> Scores:
    """The policy has moved by up to ``spread`` nats per token since sampling; what the core keeps is float32."""
    generator = torch.Generator().manual_seed(5)
    shape = (len(LENGTHS), max(LENGTHS))
    old = -3 * torch.rand(shape, generator=generator)
    reference = old + torch.rand(shape, generator=generator) - 0.5
    moved = spread * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return Scores((old + moved).requires_grad_(), old.double(), reference.double(), mask)


def trl(given: Scores, **settings: Any) -> Tensor:
    """The loss of TRL's trainer, with a stand-in for the trainer's state; ``settings`` are GRPOConfig's."""
    config: dict[str, Any] = {
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "delta": None,
        "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05,
        "use_bias_correction_kl": False,
        "steps_per_generation": 1,
    } | settings
    trainer = SimpleNamespace(
        **config,
        args=SimpleNamespace(**config),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=MAX_TOKENS,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (given.new, torch.zeros_like(given.old), None),
    )
    prompts = torch.ones(len(LENGTHS), PROMPT, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": given.mask,
        "completion_mask": given.mask,
        "advantages": torch.tensor(ADVANTAGES).double(),
        "old_per_token_logps": given.old,
        "ref_per_token_logps": given.reference,
        "num_items_in_batch": given.mask.sum(),
    }
    total: Tensor = grpo_trainer.GRPOTrainer._compute_loss(trainer, None, inputs)
    return total


def ours(given: Scores, make: Make, reduction: Reduction, *terms: tuple[float, Loss]) -> Tensor:
    """Σ coef · Σ weight · loss over the packed batch, as the core computes it."""
    samples = []
    for i, length in enumerate(LENGTHS):
        sample = make(PROMPT + length, length, i)
        sample.advantage_L = torch.full((PROMPT + length,), ADVANTAGES[i])
        for name, values in (("old_logps_L", given.old), ("reference_logps_L", given.reference)):
            setattr(sample, name, torch.cat([torch.zeros(PROMPT), values[i, :length].float()]))
        samples.append(sample)
    advantage = GroupAdvantage(GroupAdvantage.Config())
    correct(samples, Parts(advantage, None, terms[0][1], reduction, frozenset(), max_tokens=MAX_TOKENS))
    [batch] = pack(samples, 256, torch.device("cpu"), dense=False)
    batch = batch.take(torch.nonzero(batch.trained_T)[:, 0])
    owner_T = torch.tensor([p.sample for p in batch.pieces_N])[batch.sequence_T]
    logps = given.new[owner_T, batch.position_T - PROMPT]
    assert batch.coef_T is not None
    return sum(((batch.coef_T * weight * loss(logps, batch)).sum() for weight, loss in terms), torch.zeros(()))


def assert_same(given: Scores, found: Tensor, expected: Tensor) -> None:
    """Values and gradients, to 1e-6."""
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, check_dtype=False)
    [mine] = torch.autograd.grad(found, given.new)
    [theirs] = torch.autograd.grad(expected, given.new)
    assert bool(theirs.any())
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


CASES: dict[str, tuple[Loss, Reduction, dict[str, Any]]] = {
    "grpo": (PpoClip(PpoClip.Config()), "sequence", {}),
    "bnpo": (PpoClip(PpoClip.Config()), "token", {"loss_type": "bnpo"}),
    "dapo": (PpoClip(PpoClip.Config()), "token", {"loss_type": "dapo"}),
    "dr-grpo": (PpoClip(PpoClip.Config(high=0.2)), "constant", {"loss_type": "dr_grpo", "epsilon_high": 0.2}),
    "two-sided": (PpoClip(PpoClip.Config(dual=1.4)), "sequence", {"delta": 1.4}),
    "gspo": (
        Gspo(Gspo.Config()),
        "sequence",
        {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    ),
    "gspo-dr-grpo": (
        Gspo(Gspo.Config(low=0.05, high=0.05)),
        "constant",
        {
            "loss_type": "dr_grpo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 0.05,
            "epsilon_high": 0.05,
        },
    ),
    # TRL's epsilon_high is the largest weight itself
    "cispo": (Cispo(Cispo.Config(high=0.3)), "token", {"loss_type": "cispo", "epsilon_high": 1.3}),
    "sapo": (Sapo(Sapo.Config()), "sequence", {"loss_type": "sapo"}),
}


@pytest.mark.parametrize("spread", [4e-4, 0.6, 1.5])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_reductions_are_those_of_trl(make_sample: Make, case: str, spread: float) -> None:
    loss, reduction, settings = CASES[case]
    given = scores(spread)
    assert_same(given, ours(given, make_sample, reduction, (1.0, loss)), trl(given, **settings))


def test_a_policy_loss_with_k3_is_that_of_trl(make_sample: Make) -> None:
    given = scores(0.6)
    terms = (1.0, PpoClip(PpoClip.Config())), (0.05, ReferenceKl(ReferenceKl.Config(estimator="k3")))
    assert_same(given, ours(given, make_sample, "sequence", *terms), trl(given, beta=0.05))


def test_k2_has_the_gradient_of_trls_corrected_kl_on_policy(make_sample: Make) -> None:
    """TRL multiplies k3 with ρ by default. At ρ = 1 that has k2's gradient, and k1's as it is defined here."""
    given = scores(0.0)
    policy = 1.0, PpoClip(PpoClip.Config())
    [expected] = torch.autograd.grad(trl(given, beta=0.05, use_bias_correction_kl=True), given.new)
    for estimator in ("k1", "k2"):
        penalty = 0.05, ReferenceKl(ReferenceKl.Config.model_validate({"estimator": estimator}))
        [found] = torch.autograd.grad(ours(given, make_sample, "sequence", policy, penalty), given.new)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
