"""The policy against plain transformers and autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from m2rl_core.config import OptimSection
from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.packing import pack
from m2rl_core.policy import Frozen, Policy, optimizer
from m2rl_core.train_sft import NegativeLogLikelihood, share_tokens
from m2rl_core.types import Batch, Divergence, Sample

Make = Callable[..., Sample]
LOSS = NegativeLogLikelihood(ComponentConfig())


def reference_logps(folder: Path, sample: Sample) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([sample.ids_L])
    logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return torch.cat([torch.zeros(1), logp]) * torch.tensor(sample.sampled_L)


def test_log_probs_equal_transformers(tiny_model: Path, tiny_policy: Policy, make_sample: Make) -> None:
    for seed in range(3):
        sample = make_sample(40, 30, seed)
        [batch] = pack([sample], 64, tiny_policy.device)
        mine = tiny_policy.logps(batch)[:40]
        torch.testing.assert_close(mine, reference_logps(tiny_model, sample).detach(), rtol=0, atol=1e-5)


def test_gradients_equal_plain_autograd(tiny_model: Path, tiny_policy: Policy, make_sample: Make) -> None:
    samples = [make_sample(20 + 3 * i, 9, i) for i in range(5)]
    share_tokens(samples)
    batches = pack(samples, 64, tiny_policy.device)
    assert len(batches) > 1
    for batch in batches:
        tiny_policy.backward(batch, LOSS)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = torch.zeros(())
    for sample in samples:
        ids, said = torch.tensor([sample.ids_L]), torch.tensor(sample.sampled_L[1:])
        logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        total = total - logp[said].sum() / (5 * 9)
    total.backward()
    expected = dict(model.named_parameters())
    for name, parameter in tiny_policy.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6)
    assert tiny_policy.metrics()["loss"] == pytest.approx(total.item(), rel=1e-5)


def test_a_step_is_clipped_adamw(tiny_policy: Policy, make_sample: Make) -> None:
    before = {n: p.detach().clone() for n, p in tiny_policy.model.named_parameters()}
    sample = make_sample(20, 9)
    share_tokens([sample])
    [batch] = pack([sample], 64, tiny_policy.device)
    tiny_policy.backward(batch, LOSS)
    gradients = {n: p.grad.clone() for n, p in tiny_policy.model.named_parameters() if p.grad is not None}
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    tiny_policy.step(lr=0.01)
    name = "model.layers.0.mlp.up_proj.weight"
    clipped = gradients[name] * min(1.0, 1.0 / (norm.item() + 1e-6))
    update = clipped / (clipped.abs() + 1e-8)  # AdamW's first step: m / sqrt(v) is the sign
    expected = before[name] * (1 - 0.01 * 0.1) - 0.01 * update
    torch.testing.assert_close(
        dict(tiny_policy.model.named_parameters())[name].detach(), expected, rtol=1e-4, atol=1e-6
    )


def test_a_non_finite_gradient_skips_the_update(tiny_policy: Policy, make_sample: Make) -> None:
    before = {n: p.detach().clone() for n, p in tiny_policy.model.named_parameters()}
    [batch] = pack([make_sample(20, 9)], 64, tiny_policy.device)
    batch.coef_T = batch.trained_T * float("nan")
    tiny_policy.backward(batch, LOSS)
    tiny_policy.step(lr=0.1)
    assert tiny_policy.metrics()["skipped_updates"] == 1
    for name, parameter in tiny_policy.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_saved_state_continues_bit_for_bit(tiny_model: Path, tmp_path: Path, make_sample: Make) -> None:
    def train(policy: Policy, steps: range) -> None:
        for step in steps:
            sample = make_sample(20, 9, step)
            share_tokens([sample])
            [batch] = pack([sample], 64, policy.device)
            policy.backward(batch, LOSS)
            policy.step(lr=0.003)

    def fresh() -> Policy:
        return Policy.load(tiny_model, dtype="bfloat16", optim=OptimSection())

    whole, first, second = fresh(), fresh(), fresh()
    train(whole, range(6))
    train(first, range(3))
    first.save_state(tmp_path)
    second.load_state(tmp_path)
    train(second, range(3, 6))
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_offloaded_moments_change_no_bit(
    tiny_model: Path, tmp_path: Path, make_sample: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it matter whether a state was saved with or without; pieces are smaller here than every matrix."""
    monkeypatch.setattr(optimizer, "PIECE", 64)

    def fresh(offload: bool) -> Policy:
        return Policy.load(tiny_model, dtype="float32", optim=OptimSection(clip=0.01), offload=offload)

    def train(policy: Policy, steps: range) -> None:
        for step in steps:
            samples = [make_sample(24, 9, i + 10 * step) for i in range(4)]
            share_tokens(samples)
            for batch in policy.pack(samples, 64):
                policy.backward(batch, LOSS)
            policy.step(1e-2)

    policies = [fresh(False), fresh(True)]
    for policy, folder in zip(policies, (tmp_path / "device", tmp_path / "host"), strict=True):
        train(policy, range(2))
        folder.mkdir()
        policy.save_state(folder)
    crossed = [fresh(False), fresh(True)]
    for policy, folder in zip(crossed, (tmp_path / "host", tmp_path / "device"), strict=True):
        policy.load_state(folder)
    for policy in (*policies, *crossed):
        train(policy, range(2, 4))
    for other in (policies[1], *crossed):
        for (name, expected), (_, found) in zip(policies[0].named_tensors(), other.named_tensors(), strict=True):
            assert torch.equal(found, expected), name


def test_a_saved_model_opens_in_transformers(tiny_policy: Policy, tmp_path: Path) -> None:
    tiny_policy.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    for one, other in zip(tiny_policy.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template
    out = model.generate(torch.tensor([tokenizer.encode("12 + 34")]), max_new_tokens=4, do_sample=False)
    assert out.shape[1] > 4


def test_a_tied_head_is_handed_out_once(tiny_policy: Policy) -> None:
    names = [name for name, _ in tiny_policy.named_tensors()]
    assert len(names) == len(set(names))
    assert "lm_head.weight" not in names
    assert "model.embed_tokens.weight" in names


def test_bfloat16_products_stay_close(tiny_model: Path, tiny_policy: Policy, make_sample: Make) -> None:
    sample = make_sample(40, 30)
    rounded = Policy.load(tiny_model, dtype="bfloat16")
    [batch] = pack([sample], 64, rounded.device)
    assert (rounded.logps(batch) - tiny_policy.logps(batch)).abs().max() < 0.1


def test_the_temperature_divides_logits(tiny_model: Path, make_sample: Make) -> None:
    policy = Policy.load(tiny_model, dtype="float32", temperature=0.5)
    sample = make_sample(20, 1)
    [batch] = pack([sample], 32, policy.device)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    logits = model(torch.tensor([sample.ids_L])).logits[0, -2] / 0.5
    expected = logits.log_softmax(-1)[sample.ids_L[-1]].item()
    assert policy.logps(batch)[19].item() == pytest.approx(expected, abs=1e-5)


def test_weights_other_than_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(DataError, match="no safetensors"):
        Policy.load(tmp_path, dtype="float32")


class Apart:
    """Divergence and log-prob together, of one teacher."""

    name, reference, needs = "apart", "test", frozenset[str]()
    separable, vanishes = True, False
    Config = ComponentConfig

    def __init__(self, kind: Literal["reverse", "forward", "js"]) -> None:
        self.divergence: Divergence | None = Divergence(kind, 0.3)

    def __call__(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        assert batch.divergence_T is not None
        return batch.divergence_T - 0.5 * logps


@pytest.mark.parametrize("kind", ["reverse", "forward", "js"])
def test_the_gradient_of_a_divergence_is_that_of_naive_autograd(
    tiny_policy: Policy,
    tiny_model: Path,
    other_model: Path,
    make_sample: Make,
    kind: Literal["reverse", "forward", "js"],
) -> None:
    samples = [make_sample(20 + i, 9, i) for i in range(3)]
    share_tokens(samples)
    frozen = Frozen({"s": tiny_model, "t": other_model}, {"math": "t"}, "s", lambda f: Policy.load(f, dtype="float32"))
    for batch in tiny_policy.pack(samples, 64):
        batch.teacher = "t"
        tiny_policy.backward(batch, Apart(kind), frozen.lecture(batch))
    student, teacher = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float64) for f in (tiny_model, other_model))
    total, apart = torch.zeros((), dtype=torch.float64), 0.0
    for sample in samples:
        ids, said = torch.tensor([sample.ids_L]), torch.tensor(sample.sampled_L[1:])
        s, t = (model(ids).logits[0, :-1][said].log_softmax(-1) for model in (student, teacher))
        mixed = (0.3 * t.exp() + 0.7 * s.exp()).log()
        found = {
            "reverse": (s.exp() * (s - t)).sum(-1),
            "forward": (t.exp() * (t - s)).sum(-1),
            "js": 0.3 * (t.exp() * (t - mixed)).sum(-1) + 0.7 * (s.exp() * (s - mixed)).sum(-1),
        }[kind]
        logp = s.gather(1, ids[0, 1:][said][:, None])[:, 0]
        total = total + (found - 0.5 * logp).sum() / 27
        apart += found.sum().item() / 27
    total.backward()
    expected = dict(student.named_parameters())
    for name, parameter in tiny_policy.model.named_parameters():
        assert expected[name].grad is not None
        torch.testing.assert_close(parameter.grad, expected[name].grad.float(), rtol=1e-4, atol=1e-6)
    metrics = tiny_policy.metrics()
    assert metrics["loss"] == pytest.approx(total.item(), rel=1e-5)
    assert metrics["divergence"] == pytest.approx(apart, rel=1e-5)


def test_nothing_is_to_be_learned_from_oneself(tiny_policy: Policy, tiny_model: Path, make_sample: Make) -> None:
    sample = make_sample(20, 9)
    share_tokens([sample])
    frozen = Frozen({"s": tiny_model}, {"math": "s"}, "s", lambda folder: Policy.load(folder, dtype="float32"))
    [batch] = tiny_policy.pack([sample], 64)
    batch.teacher = "s"
    tiny_policy.backward(batch, OnlyApart("reverse"), frozen.lecture(batch))
    assert tiny_policy.metrics()["divergence"] == pytest.approx(0.0, abs=1e-6)
    for parameter in tiny_policy.model.parameters():
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), rtol=0, atol=1e-6)


class OnlyApart(Apart):
    def __call__(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        assert batch.divergence_T is not None
        return batch.divergence_T


class WholeSequences:
    """A loss that squares the mean of each sequence's nine log-probs: no token stands alone."""

    name, reference, needs = "whole", "test", frozenset[str]()
    separable, vanishes, divergence = False, False, None
    Config = ComponentConfig

    def __call__(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        sums = torch.zeros(len(batch.domain_N)).index_add(0, batch.sequence_T, logps)
        return (sums[batch.sequence_T] / 9) ** 2


def test_losses_of_whole_sequences_get_whole_sequences(
    tiny_policy: Policy, tiny_model: Path, make_sample: Make
) -> None:
    samples = [make_sample(20 + i, 9, i) for i in range(3)]
    share_tokens(samples)
    for batch in tiny_policy.pack(samples, 64):
        tiny_policy.backward(batch, WholeSequences())
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = torch.zeros(())
    for sample in samples:
        ids, said = torch.tensor([sample.ids_L]), torch.tensor(sample.sampled_L[1:])
        logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        total = total + 9 * logp[said].mean() ** 2 / 27
    total.backward()
    expected = dict(model.named_parameters())
    for name, parameter in tiny_policy.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=5e-6)
