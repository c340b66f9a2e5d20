"""Full-vocabulary divergences of a student from a teacher, both given as hidden states and a head: values only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from m2rl_core.errors import ConfigError, DataError
from m2rl_core.ops.products import Products, longest, parts, row_functions
from m2rl_core.types import Divergence

HELD_ELEMENTS = {"cpu": 1 << 25, "cuda": 5 << 27}
"""Logits held at once, of both models together: 128 MiB in float32 on a CPU, 1.25 GiB in bfloat16 on a GPU."""


class Lecture(NamedTuple):
    """A teacher's view of the same tokens; carries no gradient."""

    hidden_N: Tensor
    """[N, Ht], the teacher's hidden state before each token; Ht may differ from the student's."""
    head: Tensor
    """[V, Ht], the teacher's output embedding, over the student's vocabulary."""


def check_comparable(tokens: int, head: Tensor, lecture: Lecture, divergence: Divergence) -> None:
    """Refuse a lecture on other tokens or another vocabulary, and a mixture that is none.

    Raises:
        DataError, ConfigError: as said.
    """
    if len(lecture.head) != len(head):
        raise DataError(
            "the teacher's vocabulary is not the student's",
            found=f"{len(lecture.head)} tokens",
            allowed=f"{len(head)} tokens",
            then="take a teacher with the student's tokenizer",
        )
    if len(lecture.hidden_N) != tokens:
        raise DataError("the teacher saw other tokens", found=len(lecture.hidden_N), allowed=f"{tokens} hidden states")
    if divergence.kind == "js" and not 0.0 < divergence.beta < 1.0:
        raise ConfigError(
            "the weight of the teacher in the mixture is out of range", found=divergence.beta, allowed="0 < beta < 1"
        )


def divergences(
    hidden_N: Tensor,
    head: Tensor,
    lecture: Lecture,
    divergence: Divergence,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The divergence [nats] at each token, float32 [N], without a gradient.

    Args:
        hidden_N: [N, H], the student's hidden state before each token.
        head: [V, H], the student's output embedding.
        lecture: the teacher's.
        divergence: which; with ``top_k``, over the teacher's k likeliest tokens and the rest as one.
        temperature: divides the logits of both.
        dtype: of the matrix products; default: that of ``hidden_N``.

    Raises:
        DataError: teacher and student have different vocabularies, or saw different tokens.
        ConfigError: a ``beta`` outside (0, 1).
    """
    check_comparable(len(hidden_N), head, lecture, divergence)
    return _values(hidden_N, head, lecture, divergence, 1.0 / temperature, dtype or hidden_N.dtype)


@torch.no_grad()
def _values(
    hidden_N: Tensor, head: Tensor, lecture: Lecture, divergence: Divergence, scale: float, dtype: torch.dtype
) -> Tensor:
    found_N = torch.empty(len(hidden_N), device=hidden_N.device)
    tokens = parts(len(hidden_N), HELD_ELEMENTS[hidden_N.device.type] // (2 * len(head)))
    size, rows = (longest(tokens), len(head)), row_functions(hidden_N.device)
    student, teacher = Products(hidden_N.to(dtype), *size), Products(lecture.hidden_N.to(dtype), *size)
    head, taught = head.to(dtype), lecture.head.to(dtype)
    ids_N = torch.zeros(len(hidden_N), dtype=torch.int64, device=hidden_N.device)  # nobody asks for their log-prob
    for part in tokens:
        both = student.logits(part, head), teacher.logits(part, taught)
        found_N[part] = rows.compare(*both, ids_N[part], scale, divergence).value
    return found_N
