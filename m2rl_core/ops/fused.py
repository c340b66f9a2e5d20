"""A loss that is taken token by token, fused with the head: three matrix products, nothing computed twice.

Logits are held for a part of the tokens over the whole vocabulary. While they are there, the loss is asked for its
value and its slopes, the logits become their own gradient in place, and the gradients of hidden states and head are
added up: all in the forward pass. The backward pass only scales them. With a lecture, a divergence from a teacher is
one more score that the loss may use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from m2rl_core.ops.divergence import HELD_ELEMENTS, Lecture, check_comparable
from m2rl_core.ops.products import Products, accumulate_, longest, parts, row_functions, verify
from m2rl_core.ops.rows import finish
from m2rl_core.types import Divergence


class Scores(NamedTuple):
    """What is known of each token, float32 [N]."""

    logps_N: Tensor
    """Log-prob [nats]."""
    entropy_N: Tensor
    """Entropy [nats] of its distribution."""
    divergence_N: Tensor | None
    """Divergence [nats] from the teacher; ``None`` without a lecture."""


TokenLoss = Callable[[slice, Scores], Tensor]
"""From (part of the tokens, their scores as leaves of a graph) to the weighted loss of each of these tokens."""


@dataclass(frozen=True)
class _Job:
    """What :func:`fused_loss` was asked for, but for the two tensors with a gradient."""

    ids_N: Tensor
    token_loss: TokenLoss
    scale: float
    dtype: torch.dtype
    lecture: Lecture | None
    divergence: Divergence | None


class _Alone:
    """Statistics and gradient of one part of the tokens at a time; the logits stay in between."""

    def __init__(self, hidden_N: Tensor, head: Tensor, tokens: list[slice], job: _Job) -> None:
        self.job = job
        self.rows = row_functions(hidden_N.device)
        self.weights = head.to(job.dtype)
        self.products = Products(hidden_N.to(job.dtype), longest(tokens), len(head))

    def scores(self, part: slice) -> Scores:
        self.logits = self.products.logits(part, self.weights)
        self.lse, logp, entropy = finish(self.rows.summarise(self.logits, self.job.ids_N[part], 0, self.job.scale))
        self.entropy = entropy
        return Scores(logp, entropy, None)

    def gradient(self, part: slice, slopes: Scores) -> Tensor:
        """The logits' gradient, in the logits' place."""
        own = (self.job.ids_N[part], 0, self.lse, self.entropy)
        self.rows.gradient_(self.logits, *own, slopes.logps_N, slopes.entropy_N, self.job.scale)
        return self.logits


class _Taught(_Alone):
    """The same with a teacher beside."""

    def __init__(self, hidden_N: Tensor, head: Tensor, tokens: list[slice], job: _Job) -> None:
        super().__init__(hidden_N, head, tokens, job)
        assert job.lecture is not None
        self.teacher_weights = job.lecture.head.to(job.dtype)
        self.teacher = Products(job.lecture.hidden_N.to(job.dtype), longest(tokens), len(head))

    def scores(self, part: slice) -> Scores:
        self.logits = self.products.logits(part, self.weights)
        self.taught = self.teacher.logits(part, self.teacher_weights)
        rest = (self.job.ids_N[part], self.job.scale, self.job.divergence)
        self.found = self.rows.compare(self.logits, self.taught, *rest)
        return Scores(self.found.logp, self.found.entropy, self.found.value)

    def gradient(self, part: slice, slopes: Scores) -> Tensor:
        rest = (self.job.scale, self.job.divergence)
        self.rows.compare_gradient_(self.logits, self.taught, self.job.ids_N[part], self.found, *slopes, *rest)
        return self.logits


class _Sums:
    """Gradients of hidden states and head, as far as somebody wants them; the head's in float32."""

    def __init__(self, hidden_N: Tensor, head: Tensor, wanted: tuple[bool, bool]) -> None:
        self.hidden = torch.empty_like(hidden_N) if wanted[0] else None
        self.head = torch.zeros(head.shape, device=head.device) if wanted[1] else None
        self.wanted = any(wanted)

    def add(self, part: slice, grad: Tensor, student: _Alone) -> None:
        if self.hidden is not None:
            self.hidden[part] = grad @ student.weights
        if self.head is not None:
            accumulate_(self.head, grad.T, student.products.hidden[part])


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_N: Tensor, head: Tensor, job: _Job) -> tuple[Tensor | None, ...]:
        heads = 1 if job.lecture is None else 2
        tokens = parts(len(hidden_N), HELD_ELEMENTS[hidden_N.device.type] // (heads * len(head)))
        student = (_Alone if job.lecture is None else _Taught)(hidden_N, head, tokens, job)
        sums = _Sums(hidden_N, head, ctx.needs_input_grad[:2])
        total, known = torch.zeros((), device=hidden_N.device), _room(job, hidden_N.device)
        for part in tokens:
            scores = student.scores(part)
            _keep(known, part, scores)
            loss, slopes = _ask(job.token_loss, part, scores)
            total += loss
            if sums.wanted:
                sums.add(part, student.gradient(part, slopes), student)
        verify(known.logps_N, job.ids_N, len(head))
        ctx.grads, ctx.dtype = (sums.hidden, sums.head), head.dtype
        ctx.mark_non_differentiable(*(score for score in known if score is not None))
        return total, *known

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, None]:
        """Scales what the forward pass has found, in place: it can be used once."""
        if ctx.grads is None:
            raise RuntimeError("the gradient of a fused loss was used already: call fused_loss again")
        (hidden, head), ctx.grads = ctx.grads, None
        return (
            None if hidden is None else hidden.mul_(grad_total),
            None if head is None else head.mul_(grad_total).to(ctx.dtype),
            None,
        )


def _room(job: _Job, device: torch.device) -> Scores:
    """Scores of all tokens, to be filled in."""
    logps_N, entropy_N, divergence_N = (torch.empty(len(job.ids_N), device=device) for _ in range(3))
    return Scores(logps_N, entropy_N, None if job.lecture is None else divergence_N)


def _keep(known: Scores, part: slice, scores: Scores) -> None:
    for whole, some in zip(known, scores, strict=True):
        if whole is not None and some is not None:
            whole[part] = some


def _ask(token_loss: TokenLoss, part: slice, scores: Scores) -> tuple[Tensor, Scores]:
    """(Σ loss over the part, its slopes with respect to each score; 0 where the loss does not use it)."""
    with torch.enable_grad():
        asked = [score.detach().requires_grad_() for score in scores if score is not None]
        leaves = Scores(asked[0], asked[1], asked[2] if len(asked) > 2 else None)
        loss = token_loss(part, leaves)
        if loss.shape != leaves.logps_N.shape:
            expected = list(leaves.logps_N.shape)
            raise ValueError(f"a token loss gives one value per token, {expected}; found {list(loss.shape)}")
        total = loss.float().sum()
    slopes = [torch.zeros_like(leaf) for leaf in asked]
    if total.requires_grad:
        slopes = [*torch.autograd.grad(total, asked, materialize_grads=True)]
    return total.detach(), Scores(slopes[0], slopes[1], slopes[2] if len(asked) > 2 else None)


def fused_loss(
    hidden_N: Tensor,
    head: Tensor,
    ids_N: Tensor,
    token_loss: TokenLoss,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
    lecture: Lecture | None = None,
    divergence: Divergence | None = None,
) -> tuple[Tensor, Scores]:
    """Σ ``token_loss`` over all tokens, differentiable once in ``hidden_N`` and ``head``, and everyone's scores.

    Args:
        hidden_N: [N, H], the hidden state *before* each token. N = 0 gives a loss and gradients of 0.
        head: [V, H], the output embedding.
        ids_N: int64 [N], the tokens.
        token_loss: called on one part of the tokens after the other with (which tokens, their scores as leaves);
            returns the weighted loss of each. It must not depend on tokens outside the part.
        temperature: divides the logits, the teacher's too.
        dtype: of the matrix products; default: that of ``hidden_N``.
        lecture: a teacher's hidden states and head; together with ``divergence``.
        divergence: the divergence from the teacher that the scores shall hold.

    Returns:
        The loss, float32 [], and the scores of all tokens, without a gradient.

    Raises:
        DataError: a token outside the vocabulary; teacher and student do not belong together.
        ConfigError: a ``beta`` outside (0, 1).
        StageError: a log-prob above 0 by more than rounding.
        ValueError: a lecture without a divergence or the reverse; a loss that is not one value per token.
    """
    if (lecture is None) != (divergence is None):
        raise ValueError("a lecture and a divergence come together")
    if lecture is not None and divergence is not None:
        check_comparable(len(ids_N), head, lecture, divergence)
    job = _Job(ids_N, token_loss, 1.0 / temperature, dtype or hidden_N.dtype, lecture, divergence)
    run: Callable[..., tuple[Any, ...]] = _FusedLoss.apply
    total, *scores = run(hidden_N, head, job)
    return total, Scores(*scores)
