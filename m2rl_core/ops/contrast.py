"""Divergences between rows of log-probs, and their gradients with respect to the student's logits.

Over categories with log-probs s and t, a divergence is Σ term; with *slope* = s · ∂ divergence / ∂ s (up to a constant,
which a softmax cannot see) its gradient with respect to the student's logits is slope − s · Σ slope. Categories are the
tokens, or with ``top_k`` the teacher's k likeliest tokens and one bucket for the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from m2rl_core.types import Divergence


def value(log_s: Tensor, log_t: Tensor, divergence: Divergence) -> Tensor:
    """The divergence [C, nats] between rows of log-probs [C, V]."""
    if divergence.top_k:
        log_s, log_t, _ = _grouped(log_s, log_t, divergence.top_k)
    return _terms(log_s, log_t, divergence).term.sum(1)


def gradient(log_s: Tensor, log_t: Tensor, divergence: Divergence) -> Tensor:
    """Gradient of :func:`value` with respect to the student's logits, [C, V]."""
    if divergence.top_k:
        return _grouped_gradient(log_s, log_t, divergence)
    slope = _terms(log_s, log_t, divergence).slope
    return slope.addcmul(log_s.exp(), slope.sum(1, keepdim=True), value=-1.0)


class _Terms(NamedTuple):
    term: Tensor
    slope: Tensor


def _terms(log_s: Tensor, log_t: Tensor, divergence: Divergence) -> _Terms:
    match divergence.kind:
        case "reverse":
            term = _expected(log_s, log_s - log_t)
            return _Terms(term, term)
        case "forward":
            return _Terms(_expected(log_t, log_t - log_s), log_t.exp().neg_())
        case "js":
            beta = divergence.beta
            log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
            slope = _expected(log_s, log_s - log_m).mul_(1.0 - beta)
            return _Terms(_expected(log_t, log_t - log_m).mul_(beta).add_(slope), slope)


def _expected(log_p: Tensor, of: Tensor) -> Tensor:
    """p · of in place of ``of``; 0 where p is 0, however far ``of`` is from being finite."""
    p = log_p.exp()
    return of.mul_(p).masked_fill_(p == 0.0, 0.0)


def _grouped(log_s: Tensor, log_t: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probs of both over k + 1 categories, the last being the rest; the teacher's k likeliest tokens [C, k])."""
    top = log_t.topk(min(top_k, log_t.shape[1]), dim=1).indices
    return _with_rest(log_s, top), _with_rest(log_t, top), top


def _with_rest(logp: Tensor, top: Tensor) -> Tensor:
    """The rest is summed: one minus the mass of the top would have no digits left where the rest is small."""
    rest = logp.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([logp.gather(1, top), rest], 1)


def _grouped_gradient(log_s: Tensor, log_t: Tensor, divergence: Divergence) -> Tensor:
    """Within the rest every token moves in proportion to its own mass."""
    grouped_s, grouped_t, top = _grouped(log_s, log_t, divergence.top_k)
    slope = _terms(grouped_s, grouped_t, divergence).slope
    s, mean = grouped_s.exp(), slope.sum(1, keepdim=True)
    rest = torch.where(s[:, -1:] > 0.0, slope[:, -1:] / s[:, -1:], 0.0)
    grad = log_s.exp().mul_(rest - mean)
    return grad.scatter_(1, top, (slope - s * mean)[:, :-1])
