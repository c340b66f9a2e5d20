"""The ops in float64, a line at a time, and a watch on what they allocate: for tests of kernels and of losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from m2rl_core.types import Divergence

__all__ = ["Largest", "inputs", "naive_divergence", "naive_scores"]


def inputs(tokens: int = 37, vocab: int = 101, hidden: int = 24) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(hidden states, head, tokens, three weights per token), always the same for the same sizes."""
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(tokens, hidden, generator=generator, requires_grad=True),
        torch.randn(vocab, hidden, generator=generator, requires_grad=True),
        torch.randint(vocab, (tokens,), generator=generator),
        torch.randn(3, tokens, generator=generator),
    )


def naive_scores(hidden: Tensor, head: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log-probs, entropies), differentiable."""
    logp = (hidden.double() @ head.double().T / temperature).log_softmax(-1)
    return logp.gather(1, ids[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def naive_divergence(student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
    """Between rows of scaled logits in float64, differentiable."""
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    if 0 < divergence.top_k < log_t.shape[1]:
        order = log_t.argsort(-1, descending=True)
        top, rest = order[:, : divergence.top_k], order[:, divergence.top_k :]
        log_s, log_t = (
            torch.cat([x.gather(1, top), x.gather(1, rest).logsumexp(1, keepdim=True)], 1) for x in (log_s, log_t)
        )
    s, t, beta = log_s.exp(), log_t.exp(), divergence.beta
    log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log(1 - beta))
    terms = {
        "reverse": s * (log_s - log_t),
        "forward": t * (log_t - log_s),
        "js": beta * t * (log_t - log_m) + (1 - beta) * s * (log_s - log_m),
    }
    return terms[divergence.kind].sum(-1)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the size of the largest tensor that any operation returns while it is active.

    Views count as what they show; a larger buffer counts when it is made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return found
