"""Triton row kernels against float64; tests/test_kernels.py runs this file in a process of its own.

On a machine without CUDA the kernels are interpreted, which TRITON_INTERPRET=1 must say before Triton is imported.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from m2rl_core.ops import rows, triton_rows
from m2rl_core.ops.rows import Comparison
from m2rl_core.ops.triton_rows import compare, compare_gradient_, gradient_, summarise
from m2rl_core.types import Divergence

DTYPES = [torch.float32, torch.bfloat16]
DIVERGENCES = [
    Divergence("reverse"),
    Divergence("forward"),
    Divergence("js", beta=0.5),
    Divergence("js", beta=0.9),
]
named = pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda d: f"{d.kind}-{d.beta}")
typed = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=[16, None], ids=["many tiles", "one tile"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a row of a few hundred logits takes several, and the tiles of production."""
    if request.param is not None:
        monkeypatch.setattr(triton_rows, "LANES", request.param)
        monkeypatch.setattr(triton_rows, "LANES_OF_TWO", request.param)


class Case(NamedTuple):
    student: Tensor
    teacher: Tensor
    ids: Tensor
    weights: tuple[Tensor, Tensor, Tensor]
    """g, h and v: float32 [C] each."""


def case(device: str, dtype: torch.dtype, count: int = 3, vocab: int = 301, size: float = 3.0, pad: int = 0) -> Case:
    generator = torch.Generator().manual_seed(vocab + count)
    logits = size * torch.randn(2, count, vocab + pad, generator=generator)
    student, teacher = logits.to(device, dtype)[..., :vocab]
    ids = torch.randint(vocab, (count,), generator=generator).to(device)
    g, h, v = torch.randn(3, count, generator=generator).to(device)
    return Case(student, teacher, ids, (g, h, v))


class Exact(NamedTuple):
    lse: Tensor
    logp: Tensor
    entropy: Tensor
    teacher_lse: Tensor
    value: Tensor
    gradient: Tensor


def exact(case: Case, scale: float, divergence: Divergence | None = None) -> Exact:
    """All of it in float64 on the CPU, gradients by autograd."""
    raw = case.student.detach().cpu().double().requires_grad_()
    x, y = raw * scale, case.teacher.cpu().double() * scale
    logp, logq = x.log_softmax(-1), y.log_softmax(-1)
    chosen = logp.gather(1, case.ids.cpu()[:, None])[:, 0]
    entropy = -(logp.exp() * logp).sum(-1)
    value = diverged(logp, logq, divergence) if divergence else torch.zeros_like(entropy)
    g, h, v = (weight.cpu().double() for weight in case.weights)
    [gradient] = torch.autograd.grad((g * chosen + h * entropy + v * value).sum(), raw)
    lse, teacher_lse = x.detach().logsumexp(-1), y.logsumexp(-1)
    return Exact(lse, chosen.detach(), entropy.detach(), teacher_lse, value.detach(), gradient)


def diverged(logp: Tensor, logq: Tensor, divergence: Divergence) -> Tensor:
    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a.exp() * (a - b)).sum(-1)

    if divergence.kind == "js":
        beta = divergence.beta
        mixture = torch.logaddexp(logq + math.log(beta), logp + math.log(1 - beta))
        return beta * kl(logq, mixture) + (1 - beta) * kl(logp, mixture)
    return kl(logp, logq) if divergence.kind == "reverse" else kl(logq, logp)


def close(found: Tensor, expected: Tensor, tolerance: float = 3e-6) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), expected, rtol=tolerance, atol=tolerance)


def close_gradient(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """In bfloat16 what is left is the rounding of the result to 8 bits; the interpreter cuts instead of rounding."""
    assert found.dtype == dtype
    rtol = 1e-5 if dtype == torch.float32 else 2.0**-8 if found.is_cuda else 2.0**-7
    torch.testing.assert_close(found.cpu().double(), expected, rtol=rtol, atol=2e-6)


def backward(case: Case, scale: float, divergence: Divergence) -> tuple[Comparison, Tensor]:
    comparison = compare(case.student, case.teacher, case.ids, scale, divergence)
    student = case.student.clone()
    compare_gradient_(student, case.teacher, case.ids, comparison, *case.weights, scale, divergence)
    return comparison, student


@typed
@pytest.mark.parametrize("vocab", [1, 2, 101, 300, 2000])
@pytest.mark.parametrize("scale", [1.0, 1 / 0.7])
@pytest.mark.usefixtures("tiles")
def test_statistics_and_gradient(dtype: torch.dtype, vocab: int, scale: float, device: str) -> None:
    given = case(device, dtype, vocab=vocab)
    expected = exact(given, scale)
    peak, mass, moment, target = summarise(given.student, given.ids, 0, scale)
    lse, entropy = peak + mass.log(), mass.log() - moment / mass
    close(lse, expected.lse)
    close(entropy, expected.entropy)
    close(target - peak - mass.log(), expected.logp)
    close(peak, given.student.cpu().double().amax(-1) * scale)
    logits = given.student.clone()
    gradient_(logits, given.ids, 0, lse, entropy, *given.weights[:2], scale)
    close_gradient(logits, expected.gradient, dtype)


@typed
@named
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.usefixtures("tiles")
def test_divergence_and_gradient(dtype: torch.dtype, divergence: Divergence, scale: float, device: str) -> None:
    given = case(device, dtype)
    expected = exact(given, scale, divergence)
    comparison, gradient = backward(given, scale, divergence)
    for found, number in zip(comparison, expected, strict=False):
        close(found, number)
    close_gradient(gradient, expected.gradient, dtype)


@typed
@pytest.mark.parametrize("vocab", [1, 2, 16, 1999])
@pytest.mark.parametrize("kind", ["reverse", "js"])
def test_divergence_over_any_vocabulary(dtype: torch.dtype, vocab: int, kind: str, device: str) -> None:
    divergence = Divergence(kind)  # type: ignore[arg-type]
    given = case(device, dtype, vocab=vocab)
    expected = exact(given, 1.0, divergence)
    comparison, gradient = backward(given, 1.0, divergence)
    close(comparison.value, expected.value)
    close_gradient(gradient, expected.gradient, dtype)


@typed
def test_tiles_of_production_follow_each_other(dtype: torch.dtype, device: str) -> None:
    given = case(device, dtype, count=2, vocab=3 * 8192 + 40)
    expected = exact(given, 1.0, DIVERGENCES[0])
    peak, mass, moment, _ = summarise(given.student, given.ids, 0, 1.0)
    close(peak + mass.log(), expected.lse)
    close(mass.log() - moment / mass, expected.entropy)
    comparison, gradient = backward(given, 1.0, DIVERGENCES[0])
    close(comparison.value, expected.value)
    close_gradient(gradient, expected.gradient, dtype)


@typed
@pytest.mark.usefixtures("tiles")
def test_slices_of_the_vocabulary_make_the_whole(dtype: torch.dtype, device: str) -> None:
    given = case(device, dtype, vocab=300)
    expected = exact(given, 1.0)
    slices = [(0, 128), (128, 256), (256, 300)]
    parts = [summarise(given.student[:, a:b], given.ids, a, 1.0) for a, b in slices]
    lse = torch.stack([p.peak + p.mass.log() for p in parts]).logsumexp(0)
    close(lse, expected.lse)
    target = torch.stack([p.target for p in parts])
    assert (target.isfinite().sum(0) == 1).all()
    close(target.amax(0) - lse, expected.logp)
    logits = given.student.clone()
    entropy = expected.entropy.float().to(device)
    for a, b in slices:
        gradient_(logits[:, a:b], given.ids, a, lse, entropy, *given.weights[:2], 1.0)
    close_gradient(logits, expected.gradient, dtype)


@typed
@named
def test_rows_that_lie_apart(dtype: torch.dtype, divergence: Divergence, device: str) -> None:
    """A slice of a larger buffer, whose other columns stay as they are."""
    given = case(device, dtype, vocab=77, pad=13)
    expected = exact(given, 1.0, divergence)
    comparison = compare(given.student, given.teacher, given.ids, 1.0, divergence)
    close(comparison.value, expected.value)
    close(summarise(given.student, given.ids, 0, 1.0).peak, given.student.cpu().double().amax(-1))
    buffer = torch.full((3, 100), 7.0, dtype=dtype, device=device)
    inner = buffer[:, 5:82]
    inner.copy_(given.student)
    compare_gradient_(inner, given.teacher, given.ids, comparison, *given.weights, 1.0, divergence)
    close_gradient(inner, expected.gradient, dtype)
    assert (buffer[:, :5] == 7).all()
    assert (buffer[:, 82:] == 7).all()


def test_ids_outside_of_the_slice(device: str) -> None:
    given = case(device, torch.float32, count=4, vocab=50)
    ids = torch.tensor([99, 100, 149, 150], device=device)
    target = summarise(given.student, ids, 100, 1.0).target
    assert target.tolist() == [-torch.inf, given.student[1, 0], given.student[2, 49], -torch.inf]
    logits, zeros = given.student.clone(), torch.zeros(4, device=device)
    gradient_(logits, ids, 100, given.student.logsumexp(-1), zeros, zeros + 1, zeros, 1.0)
    expected = -given.student.softmax(-1)
    expected[1, 0] += 1
    expected[2, 49] += 1
    torch.testing.assert_close(logits, expected)


def test_dtypes_of_the_two_sides_may_differ(device: str) -> None:
    given = case(device, torch.float32)
    for student, teacher in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        mixed = given._replace(student=given.student.to(student), teacher=given.teacher.to(teacher))
        expected = exact(mixed, 1.0, DIVERGENCES[1])
        comparison, gradient = backward(mixed, 1.0, DIVERGENCES[1])
        close(comparison.value, expected.value)
        close_gradient(gradient, expected.gradient, student)


@named
@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row(count: int, divergence: Divergence, device: str) -> None:
    given = case(device, torch.float32, count=count)
    expected = exact(given, 1.0, divergence)
    comparison, gradient = backward(given, 1.0, divergence)
    close(comparison.value, expected.value)
    close_gradient(gradient, expected.gradient, torch.float32)
    partial = summarise(given.student, given.ids, 0, 1.0)
    assert all(statistic.shape == (count,) for statistic in partial)
    gradient_(given.student.clone(), given.ids, 0, comparison.lse, comparison.entropy, *given.weights[:2], 1.0)


@named
@pytest.mark.parametrize("size", [1e3, 1e6])
@pytest.mark.usefixtures("tiles")
def test_very_large_logits(divergence: Divergence, size: float, device: str) -> None:
    """Log-probs are relative to the peak and stay exact; a log-normaliser of 10⁶ itself has 0.06 of resolution."""
    given = case(device, torch.bfloat16, size=size)
    expected = exact(given, 1.0, divergence)
    comparison, gradient = backward(given, 1.0, divergence)
    close(comparison.logp, expected.logp)
    close(comparison.entropy, expected.entropy)
    close(comparison.lse, expected.lse)
    assert gradient.isfinite().all()
    if divergence.kind != "js" or size < 1e6:
        torch.testing.assert_close(comparison.value.cpu().double(), expected.value, rtol=1e-5, atol=1e-4)


@named
@typed
def test_a_student_like_its_teacher(dtype: torch.dtype, divergence: Divergence, device: str) -> None:
    given = case(device, dtype, size=10.0)
    given = given._replace(teacher=given.student.clone())
    value = compare(given.student, given.teacher, given.ids, 1.0, divergence).value
    assert (value.abs() < 2e-7).all()
    if divergence.kind != "js":
        assert (value == 0).all()


def test_log_probs_and_entropy_keep_their_signs(device: str) -> None:
    given = case(device, torch.bfloat16, count=8, size=30.0)
    given = given._replace(ids=given.student.argmax(-1))
    comparison = compare(given.student, given.teacher, given.ids, 1 / 0.6, DIVERGENCES[0])
    partial = summarise(given.student, given.ids, 0, 1 / 0.6)
    assert (comparison.logp <= 0).all()
    assert (partial.target <= partial.peak).all()
    assert (partial.mass >= 1).all()
    assert (partial.moment <= 0).all()


@named
def test_a_row_does_not_see_its_neighbours(divergence: Divergence, device: str) -> None:
    given = case(device, torch.bfloat16, count=5)
    comparison, gradient = backward(given, 1.0, divergence)
    g, h, v = given.weights
    few = Case(given.student[2:4], given.teacher[2:4], given.ids[2:4], (g[2:4], h[2:4], v[2:4]))
    alone, gradient_alone = backward(few, 1.0, divergence)
    assert all(torch.equal(a[2:4], b) for a, b in zip(comparison, alone, strict=True))
    assert torch.equal(gradient[2:4], gradient_alone)
    everything = summarise(given.student, given.ids, 0, 1.0)
    assert all(torch.equal(a[2:4], b) for a, b in zip(everything, summarise(few.student, few.ids, 0, 1.0), strict=True))


@named
def test_a_logit_that_is_not_a_number_shows(divergence: Divergence, device: str) -> None:
    given = case(device, torch.bfloat16)
    given.student[1, 40] = torch.nan
    comparison, gradient = backward(given, 1.0, divergence)
    mass = summarise(given.student, given.ids, 0, 1.0).mass
    for statistic in (mass, comparison.lse, comparison.logp, comparison.entropy, comparison.value):
        assert statistic.isnan().nonzero().tolist() == [[1]]
    assert gradient[1].isnan().all()
    assert gradient[::2].isfinite().all()


def test_what_is_refused(device: str) -> None:
    given = case(device, torch.float32)
    with pytest.raises(ValueError, match="student and teacher differ"):
        compare(given.student, given.teacher[:, 1:], given.ids, 1.0, DIVERGENCES[0])
    with pytest.raises(ValueError, match="0 < beta < 1"):
        compare(given.student, given.teacher, given.ids, 1.0, Divergence("js", beta=1.0))
    with pytest.raises(ValueError, match="lie apart"):
        summarise(given.student.T.contiguous().T, given.ids, 0, 1.0)
    with pytest.raises(ValueError, match="lie apart"):
        compare(given.student, given.teacher.T.contiguous().T, given.ids, 1.0, DIVERGENCES[0])
    with pytest.raises(ValueError, match="float64"):
        summarise(given.student.double(), given.ids, 0, 1.0)


@pytest.mark.parametrize("kind", ["reverse", "js"])
def test_the_likeliest_tokens_alone_are_left_to_torch(kind: str, device: str) -> None:
    divergence = Divergence(kind, top_k=9)  # type: ignore[arg-type]
    given = case(device, torch.float32)
    comparison, gradient = backward(given, 2.0, divergence)
    expected = rows.compare(given.student, given.teacher, given.ids, 2.0, divergence)
    assert all(torch.equal(a, b) for a, b in zip(comparison, expected, strict=True))
    student = given.student.clone()
    rows.compare_gradient_(student, given.teacher, given.ids, expected, *given.weights, 2.0, divergence)
    assert torch.equal(gradient, student)
    assert (comparison.value < compare(given.student, given.teacher, given.ids, 2.0, Divergence(kind)).value).all()  # type: ignore[arg-type]


@typed
@named
def test_torch_and_triton_say_the_same(dtype: torch.dtype, divergence: Divergence, device: str) -> None:
    given = case(device, dtype, vocab=500, size=6.0)
    comparison, gradient = backward(given, 1 / 0.9, divergence)
    other = rows.compare(given.student, given.teacher, given.ids, 1 / 0.9, divergence)
    for one, two in zip(comparison, other, strict=True):
        torch.testing.assert_close(one, two, rtol=3e-6, atol=3e-6)
    student = given.student.clone()
    rows.compare_gradient_(student, given.teacher, given.ids, other, *given.weights, 1 / 0.9, divergence)
    close_gradient(gradient, student.cpu().double(), dtype)
    for one, two in zip(
        summarise(given.student, given.ids, 3, 0.5), rows.summarise(given.student, given.ids, 3, 0.5), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=3e-6, atol=3e-6)
