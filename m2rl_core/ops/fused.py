"""provisional"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Scores(NamedTuple):
    logps_N: Tensor
    entropy_N: Tensor
    divergence_N: Tensor | None


class Lecture(NamedTuple):
    hidden_N: Tensor
    head: Tensor


def fused_loss(
    hidden_N: Tensor,
    head: Tensor,
    ids_N: Tensor,
    token_loss: Any,
    *,
    temperature: float = 1.0,
    dtype: Any = None,
    lecture: Any = None,
    divergence: Any = None,
) -> Any:
    dtype = dtype or hidden_N.dtype
    logp = ((hidden_N.to(dtype) @ head.to(dtype).T).float() / temperature).log_softmax(-1)
    logps = logp.gather(1, ids_N[:, None])[:, 0]
    ent = -(logp.exp() * logp).sum(-1)
    d = None
    if divergence is not None:
        q = ((lecture.hidden_N.to(dtype) @ lecture.head.to(dtype).T).float() / temperature).log_softmax(-1)
        d = (logp.exp() * (logp - q)).sum(-1)
    s = Scores(logps, ent, d)
    return token_loss(slice(None), s).sum(), Scores(*(None if x is None else x.detach() for x in s))
