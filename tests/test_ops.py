"""Log-probs and entropies from hidden states, against ten lines of float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m2rl_core.ops import logprob, token_logps


def naive(hidden: Tensor, head: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logp = (hidden.double() @ head.double().T / temperature).log_softmax(-1)
    return logp.gather(1, ids[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def inputs(tokens: int = 37, vocab: int = 101, hidden: int = 24) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(tokens, hidden, generator=generator, requires_grad=True),
        torch.randn(vocab, hidden, generator=generator, requires_grad=True),
        torch.randint(vocab, (tokens,), generator=generator),
        torch.randn(2, tokens, generator=generator),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [16 * 101, 1 << 24])
def test_values_and_gradients(temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprob, "CHUNK_ELEMENTS", chunk)
    hidden, head, ids, weight = inputs()
    logps, entropy = token_logps(hidden, head, ids, temperature=temperature)
    expected_logps, expected_entropy = naive(hidden, head, ids, temperature)
    torch.testing.assert_close(logps.double(), expected_logps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), expected_entropy, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad((weight[0] * logps + weight[1] * entropy).sum(), (hidden, head))
    theirs = torch.autograd.grad((weight[0] * expected_logps + weight[1] * expected_entropy).sum(), (hidden, head))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_log_probs_are_never_positive() -> None:
    hidden, head, ids, _ = inputs()
    logps, _ = token_logps(hidden * 100, head, ids)
    assert bool((logps <= 0).all())


def test_bfloat16_products_stay_close() -> None:
    hidden, head, ids, _ = inputs()
    exact, _ = naive(hidden, head, ids, 1.0)
    logps, _ = token_logps(hidden, head, ids, dtype=torch.bfloat16)
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps.double(), exact, rtol=0.03, atol=0.15)


def test_never_holds_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = logprob._logits

    def watched(*args: Tensor | float) -> Tensor:
        nonlocal largest
        out: Tensor = original(*args)  # type: ignore[arg-type]
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(logprob, "_logits", watched)
    monkeypatch.setattr(logprob, "CHUNK_ELEMENTS", 2048)
    hidden, head, ids, _ = inputs(tokens=400)
    logps, _ = token_logps(hidden, head, ids)
    logps.sum().backward()
    assert largest <= 2048
    assert largest < 400 * 101
