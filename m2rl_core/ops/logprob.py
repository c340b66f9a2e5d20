"""Log-prob and entropy of chosen tokens from hidden states [N, H] and the head [V, H], as an autograd function.

For losses of whole sequences, and for scoring. The vocabulary is split: logits are held for one slice of it at a time,
the forward pass keeps the log-normaliser of each token, and the backward pass computes the logits again (four matrix
products). Each slice of the head's gradient is then finished before the next begins. Products run in ``dtype``;
statistics and sums in float32. Where the loss is token by token, :func:`m2rl_core.ops.fused_loss` needs three products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from m2rl_core.ops.products import Products, accumulate_, longest, parts, row_functions, verify
from m2rl_core.ops.rows import finish, join

SLICE = {"cpu": 4096, "cuda": 16384}
"""Vocabulary per slice."""
HELD_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Logits held at once: 32 MiB in float32 on a CPU, 512 MiB in bfloat16 on a GPU."""


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_N: Tensor, head: Tensor, ids_N: Tensor, temperature: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        lse_N, logps_N, entropy_N = (torch.empty(len(ids_N), device=hidden_N.device) for _ in range(3))
        weights, rows = head.to(dtype), row_functions(hidden_N.device)
        tokens, slices, products = _plan(hidden_N.to(dtype), len(head))
        for part in tokens:
            partials = (
                rows.summarise(products.logits(part, weights[v]), ids_N[part], v.start, 1.0 / temperature)
                for v in slices
            )
            lse_N[part], logps_N[part], entropy_N[part] = finish(reduce(join, partials))
        verify(logps_N, ids_N, len(head))
        ctx.save_for_backward(hidden_N, head, ids_N, lse_N, entropy_N)
        ctx.temperature, ctx.dtype = temperature, dtype
        return logps_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logps_N: Tensor, grad_entropy_N: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """The head's gradient slice by slice; that of the hidden states grows over the slices."""
        hidden_N, head, *_ = ctx.saved_tensors
        grad_hidden = torch.zeros(hidden_N.shape, device=hidden_N.device)
        grad_head = torch.empty_like(head)
        tokens, slices, products = _plan(hidden_N.to(ctx.dtype), len(head))
        for v in slices:
            weights = head[v].to(ctx.dtype)
            grad_weights = torch.zeros(weights.shape, device=head.device)
            for part in tokens:
                logits = products.logits(part, weights)
                _gradient_(ctx, logits, part, v.start, grad_logps_N, grad_entropy_N)
                accumulate_(grad_hidden[part], logits, weights)
                accumulate_(grad_weights, logits.T, products.hidden[part])
            grad_head[v] = grad_weights
        return grad_hidden.to(hidden_N.dtype), grad_head, None, None, None


def _plan(hidden: Tensor, vocab: int) -> tuple[list[slice], list[slice], Products]:
    """(parts of the tokens, slices of the vocabulary, their products)."""
    slices = parts(vocab, SLICE[hidden.device.type])
    tokens = parts(len(hidden), HELD_ELEMENTS[hidden.device.type] // longest(slices))
    return tokens, slices, Products(hidden, longest(tokens), longest(slices))


def _gradient_(
    ctx: Any, logits: Tensor, part: slice, offset: int, grad_logps_N: Tensor, grad_entropy_N: Tensor
) -> None:
    """A block of logits becomes its gradient."""
    *_, ids_N, lse_N, entropy_N = ctx.saved_tensors
    own = (ids_N[part], offset, lse_N[part], entropy_N[part])
    rows = row_functions(logits.device)
    rows.gradient_(logits, *own, grad_logps_N[part], grad_entropy_N[part], 1.0 / ctx.temperature)


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

    Raises:
        DataError: a token outside the vocabulary.
        StageError: a log-prob above 0 by more than rounding.
    """
    run: Callable[..., tuple[Tensor, Tensor]] = _TokenLogps.apply
    return run(hidden_N, head, ids_N, temperature, dtype or hidden_N.dtype)
