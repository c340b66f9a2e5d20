"""What the row functions hand over: statistics of rows of logits."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Partial(NamedTuple):
    """Statistics of a slice of the vocabulary, of scaled logits x; float32 [C] each."""

    peak: Tensor
    """max x."""
    mass: Tensor
    """Σ exp(x − peak)."""
    moment: Tensor
    """Σ exp(x − peak) · (x − peak)."""
    target: Tensor
    """x of the row's own token where the slice holds it, else −inf."""


class Comparison(NamedTuple):
    """Statistics of rows of a student's logits beside a teacher's; float32 [C] each."""

    lse: Tensor
    logp: Tensor
    entropy: Tensor
    teacher_lse: Tensor
    value: Tensor
    """The divergence [nats]."""
