"""Log-probs and entropies from hidden states, against ten lines of float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import DataError, StageError
from m2rl_core.ops import logprob, token_logps
from m2rl_core.ops.products import ALIGN, parts, verify
from m2rl_core.testing.ops import Largest, inputs, naive_scores


def gradients(total: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, inputs)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("tokens", "vocab", "width", "held"), [(37, 101, 4096, 1 << 23), (37, 101, 32, 512), (1, 7, 4, 9)]
)
def test_values_and_gradients(
    temperature: float, tokens: int, vocab: int, width: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logprob.SLICE, "cpu", width)
    monkeypatch.setitem(logprob.HELD_ELEMENTS, "cpu", held)
    hidden, head, ids, weight = inputs(tokens, vocab)
    logps, entropy = token_logps(hidden, head, ids, temperature=temperature)
    expected = naive_scores(hidden, head, ids, temperature)
    torch.testing.assert_close(logps.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), expected[1], rtol=1e-5, atol=1e-5)
    mine = gradients((weight[0] * logps + weight[1] * entropy).sum(), hidden, head)
    theirs = gradients((weight[0] * expected[0] + weight[1] * expected[1]).sum(), hidden, head)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_tokens() -> None:
    hidden, head, ids, _ = inputs(0)
    logps, entropy = token_logps(hidden, head, ids)
    assert logps.shape == entropy.shape == (0,)
    grad_hidden, grad_head = gradients(logps.sum() + entropy.sum(), hidden, head)
    assert grad_hidden.shape == hidden.shape
    assert not grad_head.any()


def test_log_probs_are_never_positive() -> None:
    hidden, head, ids, _ = inputs()
    logps, _ = token_logps(hidden * 1000, head, ids)
    likeliest, _ = token_logps(hidden * 1000, head, (hidden @ head.T).argmax(1))
    assert bool((logps <= 0).all())
    assert bool((likeliest <= 0).all())
    assert likeliest.mean() > -0.1


def test_a_positive_log_prob_is_refused() -> None:
    with pytest.raises(StageError, match=r"123 at token 1 of 2"):
        verify(torch.tensor([-1.0, 123.0]), torch.tensor([0, 0]), 5)


@pytest.mark.parametrize("wrong", [-1, 101])
def test_a_token_outside_the_vocabulary_is_refused(wrong: int) -> None:
    hidden, head, ids, _ = inputs()
    ids[3] = wrong
    with pytest.raises(DataError, match=rf"Found: {wrong}.*0 to 100"):
        token_logps(hidden, head, ids)


def test_bfloat16_products_stay_close() -> None:
    """Logits of size 5 are rounded to 8 bits: 0.02 each, and sums of 24 products before."""
    hidden, head, ids, weight = inputs()
    expected = naive_scores(hidden, head, ids, 1.0)
    logps, entropy = token_logps(hidden, head, ids, dtype=torch.bfloat16)
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps.double(), expected[0], rtol=0.01, atol=0.1)
    mine = gradients((weight[0] * logps + weight[1] * entropy).sum(), hidden, head)
    theirs = gradients((weight[0] * expected[0] + weight[1] * expected[1]).sum(), hidden, head)
    for one, other in zip(mine, theirs, strict=True):
        assert (one - other).norm() < 0.03 * other.norm()
        assert one.dtype == torch.float32


def test_bfloat16_statistics_are_those_of_the_rounded_inputs() -> None:
    """With inputs that bfloat16 holds exactly and products of few digits nothing is lost: statistics are float32."""
    hidden, head, ids, _ = inputs(tokens=64, vocab=4096, hidden=2)
    hidden, head = (tensor.detach().mul(4).round().div(4) for tensor in (hidden, head))
    logps, entropy = token_logps(hidden, head, ids, dtype=torch.bfloat16)
    expected = naive_scores(hidden, head, ids, 1.0)
    torch.testing.assert_close(logps.double(), expected[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(entropy.double(), expected[1], rtol=1e-5, atol=1e-4)


def test_bfloat16_models_get_bfloat16_gradients() -> None:
    hidden, head, ids, _ = inputs()
    half = hidden.detach().bfloat16().requires_grad_(), head.detach().bfloat16().requires_grad_()
    logps, _ = token_logps(*half, ids)
    grads = gradients(logps.sum(), *half)
    assert [grad.dtype for grad in grads] == [torch.bfloat16] * 2


def test_company_changes_a_token_by_rounding_only() -> None:
    hidden, head, ids, _ = inputs(tokens=300)
    together, _ = token_logps(hidden, head, ids)
    alone = [token_logps(hidden[i : i + n], head, ids[i : i + n])[0] for i, n in ((0, 1), (5, 37), (160, 140))]
    for part, (i, n) in zip(alone, ((0, 1), (5, 37), (160, 140)), strict=True):
        torch.testing.assert_close(part, together[i : i + n], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_twice(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(logprob.SLICE, "cpu", 48)
    monkeypatch.setitem(logprob.HELD_ELEMENTS, "cpu", 48 * 64)
    hidden, head, ids, weight = inputs(tokens=300)

    def run() -> list[Tensor]:
        logps, entropy = token_logps(hidden, head, ids, dtype=dtype)
        return [logps, entropy, *gradients((weight[0] * logps + weight[1] * entropy).sum(), hidden, head)]

    assert all(torch.equal(one, other) for one, other in zip(run(), run(), strict=True))


def test_never_holds_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(logprob.SLICE, "cpu", 64)
    monkeypatch.setitem(logprob.HELD_ELEMENTS, "cpu", 4096)
    hidden, head, ids, _ = inputs(tokens=400)
    with Largest() as seen:
        logps, entropy = token_logps(hidden, head, ids)
        torch.autograd.backward((logps + entropy).sum())
    assert seen.elements <= 400 * 24, "nothing larger than the hidden states"


def test_parts_cover_everything_once() -> None:
    for count in (0, 1, 15, 16, 17, 100, 1000, 151_936):
        for most in (1, 16, 40, 4096):
            cut = parts(count, most)
            ends = [0, *(part.stop for part in cut)]
            assert [part.start for part in cut] == ends[:-1]
            assert ends[-1] == count
            assert all(0 < part.stop - part.start < most + 2 * ALIGN for part in cut)
