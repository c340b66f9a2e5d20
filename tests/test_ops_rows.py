"""The row functions by themselves: slices, extremes and masked tokens."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from m2rl_core.ops import rows
from m2rl_core.ops.products import row_functions
from m2rl_core.testing.ops import naive_divergence
from m2rl_core.types import Divergence

ROWS, VOCAB = 9, 203
KINDS = [Divergence("reverse"), Divergence("forward"), Divergence("js", beta=0.3)]
KINDS += [Divergence(kind.kind, kind.beta, top_k=7) for kind in KINDS]


def logits_of(seed: int = 0, size: float = 3.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def chosen() -> Tensor:
    return torch.randint(VOCAB, (ROWS,), generator=torch.Generator().manual_seed(1))


def joined(slices: list[rows.Partial]) -> rows.Partial:
    return reduce(lambda a, b: rows.join(a, b), slices)


def slopes(seed: int = 2) -> Tensor:
    return torch.randn(3, ROWS, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[1 << 17, 2 * VOCAB], ids=["one tile", "tiles"], autouse=True)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rows.TILE_ELEMENTS, "cpu", request.param)


@pytest.mark.parametrize("scale", [1.0, 1.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_joined_are_the_whole(scale: float, dtype: torch.dtype) -> None:
    logits, ids = logits_of(dtype=dtype), chosen()
    cuts = [0, 1, 64, 65, 200, VOCAB]
    slices = [rows.summarise(logits[:, a:b], ids, a, scale) for a, b in pairwise(cuts)]
    whole = rows.summarise(logits, ids, 0, scale)
    for one, other in zip(joined(slices), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    logp = (logits.double() * scale).log_softmax(1)
    lse, mine, entropy = rows.finish(whole)
    torch.testing.assert_close(lse.double(), (logits.double() * scale).logsumexp(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(mine.double(), logp.gather(1, ids[:, None])[:, 0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(entropy.double(), -(logp.exp() * logp).sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entropic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_slices(entropic: bool, dtype: torch.dtype) -> None:
    logits, ids, (g, h, _) = logits_of(dtype=dtype), chosen(), slopes()
    h = h * entropic
    x = logits.double().requires_grad_()
    logp = (x * 1.4).log_softmax(1)
    loss = g @ logp.gather(1, ids[:, None])[:, 0].float() - h @ (logp.exp() * logp).sum(1).float()
    [expected] = torch.autograd.grad(loss, x)
    lse, _, entropy = rows.finish(rows.summarise(logits, ids, 0, 1.4))
    for a, b in ((0, 100), (100, VOCAB)):
        rows.gradient_(logits[:, a:b], ids, a, lse, entropy, g, h, 1.4)
    exact = dtype == torch.float32
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4 if exact else 2**-8, atol=1e-6)


def test_a_confident_token_keeps_its_gradient_in_bfloat16() -> None:
    """1 − p must not be formed of rounded numbers: p = 0.9995 rounds to 1."""
    logits = torch.zeros(1, 2, dtype=torch.bfloat16)
    logits[0, 0] = 7.5
    ids, one = torch.tensor([0]), torch.ones(1)
    lse, _, entropy = rows.finish(rows.summarise(logits, ids, 0, 1.0))
    rows.gradient_(logits, ids, 0, lse, entropy, one, 0 * one, 1.0)
    rest = 1 / (1 + torch.tensor(7.5).exp())
    torch.testing.assert_close(logits.float(), torch.stack([rest, -rest])[None], rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_comparisons_and_their_gradients(kind: Divergence, dtype: torch.dtype) -> None:
    student, teacher, ids, (g, h, d) = logits_of(dtype=dtype), logits_of(5, dtype=dtype), chosen(), slopes()
    x = student.double().requires_grad_()
    logp, value = (x * 1.4).log_softmax(1), naive_divergence(x * 1.4, teacher.double() * 1.4, kind)
    own, entropy = logp.gather(1, ids[:, None])[:, 0], -(logp.exp() * logp).sum(1)
    [expected] = torch.autograd.grad(g.double() @ own + h.double() @ entropy + d.double() @ value, x)
    found = rows.compare(student, teacher, ids, 1.4, kind)
    lse, teacher_lse = (x * 1.4).logsumexp(1), (teacher.double() * 1.4).logsumexp(1)
    for one, other in zip(found, (lse, own, entropy, teacher_lse, value), strict=True):
        torch.testing.assert_close(one.double(), other.detach(), rtol=1e-5, atol=2e-5)
    untouched = teacher.clone()
    rows.compare_gradient_(student, teacher, ids, found, g, h, d, 1.4, kind)
    exact = dtype == torch.float32
    torch.testing.assert_close(student.double(), expected, rtol=1e-3 if exact else 2**-7, atol=1e-5)
    assert torch.equal(teacher, untouched)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_extreme_logits(kind: Divergence, size: float) -> None:
    student, teacher, ids, (g, h, d) = logits_of(size=size), logits_of(5, size=size), chosen(), slopes()
    expected = naive_divergence(student.double(), teacher.double(), kind)
    found = rows.compare(student, teacher, ids, 1.0, kind)
    torch.testing.assert_close(found.value.double(), expected, rtol=1e-5, atol=1e-6)
    logp = student.double().log_softmax(1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(found.logp.double(), logp, rtol=1e-6, atol=2e-6)
    assert bool((found.logp <= 0).all())
    rows.compare_gradient_(student, teacher, ids, found, g, h, d, 1.0, kind)
    assert bool(student.isfinite().all())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_masked_tokens_are_no_numbers_nowhere(kind: Divergence) -> None:
    """Tokens that both models rule out count for nothing."""
    student, teacher, ids, (g, h, d) = logits_of(), logits_of(5), chosen().clamp_min(64), slopes()
    kept = student[:, 64:].double(), teacher[:, 64:].double()
    student[:, :64] = teacher[:, :64] = -torch.inf
    slices = [rows.summarise(student[:, a:b], ids, a, 1.4) for a, b in pairwise((0, 32, 64, 100, VOCAB))]
    lse, _, entropy = rows.finish(joined(slices))
    found = rows.compare(student, teacher, ids, 1.4, kind)
    torch.testing.assert_close(found.lse, lse, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.entropy, entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found.value.double(), naive_divergence(kept[0] * 1.4, kept[1] * 1.4, kind), rtol=1e-4, atol=1e-5
    )
    other = student.clone()
    rows.gradient_(other, ids, 0, lse, entropy, g, h, 1.4)
    rows.compare_gradient_(student, teacher, ids, found, g, h, d, 1.4, kind)
    for grad in (other, student):
        assert bool(grad.isfinite().all())
        assert not grad[:, :64].any()


def test_large_logits_keep_the_digits_of_the_log_prob() -> None:
    logits = torch.tensor([[1e4, 1e4 - 1.0]])
    for token in (0, 1):
        _, logp, _ = rows.finish(rows.summarise(logits, torch.tensor([token]), 0, 1.0))
        torch.testing.assert_close(logp, logits.double().log_softmax(1)[:, token].float(), rtol=1e-6, atol=0)


def test_what_is_broken_stays_visible() -> None:
    logits, ids = logits_of(), chosen()
    logits[2, 5] = torch.nan
    lse, logp, entropy = rows.finish(rows.summarise(logits, ids, 0, 1.0))
    value = rows.compare(logits, logits_of(5), ids, 1.0, KINDS[0]).value
    assert all(
        [bool(x.isnan()) for x in found] == [i == 2 for i in range(ROWS)] for found in (lse, logp, entropy, value)
    )


def test_a_log_prob_above_zero_is_cut_only_within_rounding() -> None:
    one = torch.ones(3)
    partial = rows.Partial(one * 2.0, one, one * 0.0, torch.tensor([2.0 + 1e-6, 2.1, 1.0]))
    _, logp, _ = rows.finish(partial)
    torch.testing.assert_close(logp, torch.tensor([0.0, 0.1, -1.0]))


def test_a_cpu_takes_the_torch_rows() -> None:
    assert row_functions(torch.device("cpu")) is rows
