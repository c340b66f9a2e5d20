"""Log-prob and entropy of chosen tokens from hidden states [N, H] and the head [V, H], in chunks of tokens.

The forward pass keeps only the log-normaliser per token; the backward pass recomputes the logits of one chunk at a
time, so that the largest temporary is [chunk, V] whatever N is (four matrix products instead of three). Products run in
``dtype``; statistics, and the sum over chunks of the head's gradient, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once: 64 MiB in float32."""


def _chunks(tokens: int, vocab: int) -> list[slice]:
    size = max(16, CHUNK_ELEMENTS // vocab)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _logits(hidden_N: Tensor, head: Tensor, temperature: float) -> Tensor:
    return (hidden_N @ head.T).float().div_(temperature)


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_N: Tensor, head: Tensor, ids_N: Tensor, temperature: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        hidden, weights = hidden_N.to(dtype), head.to(dtype)
        logps_N = torch.empty(len(ids_N), device=hidden_N.device)
        entropy_N, lse_N = torch.empty_like(logps_N), torch.empty_like(logps_N)
        for part in _chunks(len(ids_N), len(head)):
            logits = _logits(hidden[part], weights, temperature)
            lse_N[part] = logits.logsumexp(-1)
            logp = logits.sub_(lse_N[part, None])
            logps_N[part] = logp.gather(1, ids_N[part, None])[:, 0]
            entropy_N[part] = -(logp.exp() * logp).sum(-1)
        ctx.save_for_backward(hidden_N, head, ids_N, lse_N, entropy_N)
        ctx.temperature, ctx.dtype = temperature, dtype
        return logps_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logps_N: Tensor, grad_entropy_N: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """d logp = 1_y − p and d entropy = −p·(log p + entropy), both over the temperature."""
        hidden_N, head, ids_N, lse_N, entropy_N = ctx.saved_tensors
        hidden, weights = hidden_N.to(ctx.dtype), head.to(ctx.dtype)
        grad_hidden = torch.empty_like(hidden_N)
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        for part in _chunks(len(ids_N), len(head)):
            logp = _logits(hidden[part], weights, ctx.temperature).sub_(lse_N[part, None])
            p = logp.exp()
            g, h = grad_logps_N[part, None], grad_entropy_N[part, None]
            grad = p * -(g + h * (logp + entropy_N[part, None]))
            grad.scatter_add_(1, ids_N[part, None], g)
            grad = grad.div_(ctx.temperature).to(ctx.dtype)
            grad_hidden[part] = (grad @ weights).to(grad_hidden.dtype)
            grad_head += grad.T @ hidden[part]
        return grad_hidden, grad_head.to(head.dtype), None, None, None


def token_logps(
    hidden_N: Tensor, head: Tensor, ids_N: Tensor, *, temperature: float = 1.0, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Log-prob [nats] of each token and entropy [nats] of its distribution, both float32 [N] and differentiable.

    Args:
        hidden_N: [N, H], the hidden state *before* each token (see :func:`m2rl_core.policy.model.predictors`).
        head: [V, H], the output embedding.
        ids_N: int64 [N], the tokens.
        temperature: divides the logits; the same on the sampler's side (Log-prob semantics must match).
        dtype: of the matrix products; default: that of ``hidden_N``.
    """
    run: Callable[..., tuple[Tensor, Tensor]] = _TokenLogps.apply
    return run(hidden_N, head, ids_N, temperature, dtype or hidden_N.dtype)
