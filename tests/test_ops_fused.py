"""The fused token loss, alone and with a teacher, against autograd in float64 and against the split op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import ConfigError, DataError
from m2rl_core.ops import Lecture, Scores, divergence, divergences, fused_loss, token_logps
from m2rl_core.testing.ops import Largest, inputs, naive_divergence, naive_scores
from m2rl_core.types import Divergence

KINDS = [
    Divergence("reverse"),
    Divergence("forward"),
    Divergence("js"),
    Divergence("js", beta=0.1),
    Divergence("js", beta=0.001),
    Divergence("js", beta=0.999),
    *(Divergence(kind, top_k=k) for kind in ("reverse", "forward", "js") for k in (1, 8, 100, 101, 500)),
]


def lecture(tokens: int = 37, vocab: int = 101, hidden: int = 17) -> Lecture:
    """A teacher of another width."""
    generator = torch.Generator().manual_seed(4)
    return Lecture(torch.randn(tokens, hidden, generator=generator), torch.randn(vocab, hidden, generator=generator))


class Weighted:
    """A nonlinear loss of all scores, in any precision."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, part: slice, scores: Scores) -> Tensor:
        a, b, c = self.weight[:, part].to(scores.logps_N.dtype)
        loss: Tensor = a * (0.3 * scores.logps_N).exp() + b * scores.entropy_N**2
        return loss if scores.divergence_N is None else loss + c * scores.divergence_N.sqrt()


@pytest.fixture(params=[1 << 25, 16 * 101], ids=["whole", "chunks"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.HELD_ELEMENTS, "cpu", request.param)


def expected_of(kind: Divergence | None, temperature: float, tokens: int = 37, vocab: int = 101) -> tuple[Tensor, ...]:
    """(loss, gradients of hidden states and head, scores…) in float64."""
    hidden, head, ids, weight = inputs(tokens, vocab)
    scores = naive_scores(hidden, head, ids, temperature)
    value = None
    if kind is not None:
        teacher = lecture(tokens, vocab)
        logits = hidden.double() @ head.double().T, teacher.hidden_N.double() @ teacher.head.double().T
        value = naive_divergence(logits[0] / temperature, logits[1] / temperature, kind)
    total = Weighted(weight)(slice(None), Scores(*scores, value)).sum()
    grads = torch.autograd.grad(total, (hidden, head))
    return (total.detach(), *grads, *(s.detach() for s in (*scores, value) if s is not None))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", [None, *KINDS], ids=str)
@pytest.mark.usefixtures("chunked")
def test_fused_values_and_gradients(kind: Divergence | None, temperature: float) -> None:
    hidden, head, ids, weight = inputs()
    taught = {} if kind is None else {"lecture": lecture(), "divergence": kind}
    total, scores = fused_loss(hidden, head, ids, Weighted(weight), temperature=temperature, **taught)  # type: ignore[arg-type]
    mine = [total.detach(), *torch.autograd.grad(total, (hidden, head)), *(s for s in scores if s is not None)]
    for one, other in zip(mine, expected_of(kind, temperature), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other.double(), rtol=2e-4, atol=2e-4 * other.abs().max().item())


@pytest.mark.parametrize("kind", [None, *KINDS[:4], KINDS[7]], ids=str)
def test_fused_with_bfloat16_products(kind: Divergence | None) -> None:
    """Rounded logits (0.02 at size 5) move gradients by about 1%."""
    hidden, head, ids, weight = inputs()
    taught = {} if kind is None else {"lecture": lecture(), "divergence": kind}
    total, scores = fused_loss(hidden, head, ids, Weighted(weight), dtype=torch.bfloat16, **taught)  # type: ignore[arg-type]
    mine = [*torch.autograd.grad(total, (hidden, head)), *(s for s in scores if s is not None)]
    for one, other in zip(mine, expected_of(kind, 1.0)[1:], strict=True):
        assert (one - other).norm() < 0.03 * other.norm()


def test_fused_equals_split() -> None:
    hidden, head, ids, weight = inputs(tokens=300)
    total, scores = fused_loss(hidden, head, ids, lambda part, s: weight[0, part] * s.logps_N)
    logps, entropy = token_logps(hidden, head, ids)
    torch.testing.assert_close(scores.logps_N, logps.detach(), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(scores.entropy_N, entropy.detach(), rtol=1e-6, atol=5e-6)
    split = torch.autograd.grad((weight[0] * logps).sum(), (hidden, head))
    for one, other in zip(torch.autograd.grad(total, (hidden, head)), split, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [None, *KINDS[:3]], ids=str)
@pytest.mark.parametrize(("tokens", "vocab"), [(0, 101), (1, 101), (17, 3), (50, 1)])
def test_fused_odd_sizes(kind: Divergence | None, tokens: int, vocab: int) -> None:
    hidden, head, ids, weight = inputs(tokens, vocab)
    taught = {} if kind is None else {"lecture": lecture(tokens, vocab), "divergence": kind}

    def loss(part: slice, scores: Scores) -> Tensor:
        value = scores.logps_N if scores.divergence_N is None else scores.logps_N - scores.divergence_N
        return weight[0, part] * value

    total, scores = fused_loss(hidden, head, ids, loss, **taught)  # type: ignore[arg-type]
    grads = torch.autograd.grad(total, (hidden, head))
    assert [g.shape for g in grads] == [hidden.shape, head.shape]
    assert all(bool(x.isfinite().all()) for x in (total, *grads, *(s for s in scores if s is not None)))
    assert scores.logps_N.shape == (tokens,)
    expected = naive_scores(hidden, head, ids, 1.0)[0]
    torch.testing.assert_close(scores.logps_N.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    if not tokens:
        assert total == 0
        assert not grads[1].any()


def test_the_incoming_gradient_scales_and_is_used_once() -> None:
    hidden, head, ids, _ = inputs()
    plain = torch.autograd.grad(fused_loss(hidden, head, ids, lambda _, s: -s.logps_N)[0], (hidden, head))
    total, scores = fused_loss(hidden, head, ids, lambda _, s: -s.logps_N)
    assert not scores.logps_N.requires_grad
    scaled = torch.autograd.grad(3 * total, (hidden, head), retain_graph=True)
    for one, other in zip(scaled, plain, strict=True):
        torch.testing.assert_close(one, 3 * other)
    with pytest.raises(RuntimeError, match="used already"):
        torch.autograd.backward(total)


def test_only_what_needs_a_gradient_gets_one() -> None:
    hidden, head, ids, _ = inputs()
    total, _ = fused_loss(hidden, head.detach(), ids, lambda _, s: -s.logps_N)
    [frozen_head] = torch.autograd.grad(total, [hidden])
    total, _ = fused_loss(hidden, head, ids, lambda _, s: -s.logps_N)
    torch.testing.assert_close(frozen_head, torch.autograd.grad(total, [hidden])[0])
    with torch.no_grad():
        silent, _ = fused_loss(hidden, head, ids, lambda _, s: -s.logps_N)
    assert not silent.requires_grad
    torch.testing.assert_close(silent, total.detach())


def test_a_loss_may_ignore_its_scores() -> None:
    hidden, head, ids, _ = inputs()
    total, _ = fused_loss(hidden, head, ids, lambda _, s: torch.ones_like(s.logps_N))
    assert total == 37
    assert not torch.autograd.grad(total, [head])[0].any()


def test_bfloat16_leaves_get_bfloat16_gradients() -> None:
    hidden, head, ids, _ = inputs()
    half = hidden.detach().bfloat16().requires_grad_(), head.detach().bfloat16().requires_grad_()
    total, scores = fused_loss(*half, ids, lambda _, s: -s.logps_N)
    assert scores.logps_N.dtype == total.dtype == torch.float32
    assert {g.dtype for g in torch.autograd.grad(total, half)} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_the_same_twice(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.HELD_ELEMENTS, "cpu", 64 * 101)
    hidden, head, ids, weight = inputs(tokens=300)

    def run() -> list[Tensor]:
        taught = {"lecture": lecture(300), "divergence": Divergence("js")}
        total, scores = fused_loss(hidden, head, ids, Weighted(weight), dtype=dtype, **taught)  # type: ignore[arg-type]
        return [total.detach(), *torch.autograd.grad(total, (hidden, head)), *(s for s in scores if s is not None)]

    assert all(torch.equal(one, other) for one, other in zip(run(), run(), strict=True))


@pytest.mark.parametrize("kind", [None, Divergence("reverse"), Divergence("forward", top_k=5)], ids=str)
def test_fused_never_holds_tokens_times_vocabulary(kind: Divergence | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.HELD_ELEMENTS, "cpu", 8192)
    hidden, head, ids, weight = inputs(tokens=400)
    taught = {} if kind is None else {"lecture": lecture(400), "divergence": kind}
    with Largest() as seen:
        torch.autograd.backward(fused_loss(hidden, head, ids, Weighted(weight), **taught)[0])  # type: ignore[arg-type]
    assert seen.elements <= 400 * 24, "nothing larger than the hidden states"
    with Largest() as seen:
        naive_scores(hidden, head, ids, 1.0)
    assert seen.elements >= 400 * 101, "the watch sees a whole matrix of logits"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_divergences_of_two_models(kind: Divergence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.HELD_ELEMENTS, "cpu", 32 * 101)
    hidden, head, _, _ = inputs()
    found = divergences(hidden, head, lecture(), kind, temperature=0.7)
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), expected_of(kind, 0.7)[-1], rtol=1e-4, atol=1e-6)
    same = divergences(hidden, head, Lecture(hidden, head), kind)
    torch.testing.assert_close(same, torch.zeros(37), rtol=0, atol=1e-6)
    assert divergences(hidden[:0], head, lecture(0), kind).shape == (0,)


def test_lectures_that_do_not_fit_are_refused() -> None:
    hidden, head, ids, _ = inputs()

    def ask(taught: Lecture | None, kind: Divergence | None) -> None:
        fused_loss(hidden, head, ids, lambda _, s: s.logps_N, lecture=taught, divergence=kind)

    with pytest.raises(DataError, match=r"Found: 100 tokens\. Allowed: 101 tokens"):
        ask(lecture(vocab=100), KINDS[0])
    with pytest.raises(DataError, match="saw other tokens"):
        ask(lecture(tokens=36), KINDS[0])
    with pytest.raises(ConfigError, match=r"Found: 1\.0"):
        ask(lecture(), Divergence("js", beta=1.0))
    with pytest.raises(ValueError, match="come together"):
        ask(lecture(), None)
    with pytest.raises(ValueError, match=r"one value per token, \[37\]; found \[\]"):
        fused_loss(hidden, head, ids, lambda _, s: s.logps_N.sum())
