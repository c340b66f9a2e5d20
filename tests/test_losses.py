"""Every loss that is installed, on every way to its gradient: fused chunk by chunk, and over whole sequences."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from m2rl_core.interfaces import Loss
from m2rl_core.ops import Lecture, Scores, fused_loss, token_logps
from m2rl_core.plugins import load_plugins
from m2rl_core.policy.model import weighted
from m2rl_core.testing import AlgorithmContract
from m2rl_core.types import Batch, Divergence

REGISTRY = load_plugins()
VOCAB, HIDDEN = 64, 12
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "distil": [
        *({"kind": kind} for kind in ("reverse", "forward")),
        {"kind": "js", "beta": 0.2},
        *({"kind": kind, "top_k": 5} for kind in ("reverse", "forward", "js")),
    ],
    "ppo-clip": [{}, {"dual": 1.5}],
    "reference-kl": [{"estimator": estimator} for estimator in ("k1", "k2", "k3")],
}
CASES = [{"use": name, **config} for name in REGISTRY.names("loss") for config in VARIANTS.get(name, [{}])]


def ways(case: dict[str, Any]) -> list[str]:
    """A loss of whole sequences is never fused, and a divergence always is."""
    loss = REGISTRY.create("loss", case, "test")
    return ["fused"] * loss.separable + ["whole"] * (loss.divergence is None)


def identified(value: dict[str, Any] | str) -> str:
    return value if isinstance(value, str) else "-".join(map(str, value.values()))


def batch_of(loss: Loss) -> Batch:
    """Trained tokens with everything that a loss may need."""
    contract = AlgorithmContract()
    contract.advantage, contract.loss = REGISTRY.create("advantage", "group", "test"), loss
    view = contract.batch()
    view.coef_T = torch.rand(len(view.ids_T), generator=torch.Generator().manual_seed(4)) / 10
    moved: dict[str, Any] = {
        f.name: v.to(DEVICE) for f in fields(view) if isinstance(v := getattr(view, f.name), Tensor)
    }
    return replace(view, **moved)


def inputs(tokens: int) -> tuple[Tensor, Tensor, Lecture]:
    """Hidden states, a head, and what a teacher of another size makes of them."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    hidden, head = draw(tokens, HIDDEN), draw(VOCAB, HIDDEN) / 2
    return hidden.requires_grad_(), head.requires_grad_(), Lecture(draw(tokens, 7), draw(VOCAB, 7) / 2)


def near(view: Batch, hidden: Tensor, head: Tensor) -> None:
    """Old and reference log-probs close to the policy's: ratios lie on both sides of their clips, and are not huge."""
    logps, _ = token_logps(hidden.detach(), head.detach(), view.ids_T)
    old, reference = 0.4 * torch.randn(2, len(logps), generator=torch.Generator().manual_seed(6)).to(DEVICE)
    view.old_logps_T, view.reference_logps_T = logps + old, logps + reference


def naive(view: Batch, loss: Loss, hidden: Tensor, head: Tensor, lecture: Lecture) -> Tensor:
    """The same in float64 and with all logits at once."""
    logp = (hidden.double() @ head.double().T).log_softmax(-1)
    teacher = (lecture.hidden_N.double() @ lecture.head.double().T).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    apart = None if loss.divergence is None else divergence(logp, teacher, loss.divergence)
    return weighted(view, loss, slice(None), Scores(logp.gather(1, view.ids_T[:, None])[:, 0], entropy, apart)).sum()


def divergence(student: Tensor, teacher: Tensor, asked: Divergence) -> Tensor:
    if asked.top_k:
        top = teacher.topk(asked.top_k).indices
        student, teacher = (bucketed(logp, top) for logp in (student, teacher))
    mixed = (asked.beta * teacher.exp() + (1 - asked.beta) * student.exp()).log()
    if asked.kind == "js":
        return asked.beta * kl(teacher, mixed) + (1 - asked.beta) * kl(student, mixed)
    return kl(student, teacher) if asked.kind == "reverse" else kl(teacher, student)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def bucketed(logp: Tensor, top: Tensor) -> Tensor:
    rest = torch.ones_like(logp, dtype=torch.bool).scatter(1, top, False)
    return torch.cat([logp.gather(1, top), logp.masked_fill(~rest, -torch.inf).logsumexp(-1, keepdim=True)], 1)


@pytest.mark.parametrize(("case", "way"), [(case, way) for case in CASES for way in ways(case)], ids=identified)
def test_gradients_are_those_of_naive_autograd(case: dict[str, Any], way: str) -> None:
    loss = REGISTRY.create("loss", case, "test")
    view = batch_of(loss)
    hidden, head, lecture = inputs(len(view.ids_T))
    near(view, hidden, head)
    if way == "fused":
        taught = {"lecture": lecture, "divergence": loss.divergence} if loss.divergence else {}
        total, _ = fused_loss(hidden, head, view.ids_T, partial(weighted, view, loss), **taught)  # type: ignore[arg-type]
    else:
        total = weighted(view, loss, slice(None), Scores(*token_logps(hidden, head, view.ids_T), None)).sum()
    expected = naive(view, loss, hidden, head, lecture)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    mine, theirs = (torch.autograd.grad(value, (hidden, head)) for value in (total, expected))
    for one, other in zip(mine, theirs, strict=True):
        assert bool(other.any())
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
