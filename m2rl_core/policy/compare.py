"""How far one model's distributions are from another's at the tokens of given samples, over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from m2rl_core.ops import Lecture, divergences
from m2rl_core.packing import place
from m2rl_core.policy.model import Policy, predictors
from m2rl_core.types import Divergence, Sample

__all__ = ["compare"]


@torch.no_grad()
def compare(
    student: Policy, teacher: Policy, samples_S: Sequence[Sample], divergence: Divergence, tokens_per_device: int
) -> list[Tensor]:
    """Float32 [L] per sample: the divergence [nats] of ``student`` from ``teacher`` before each token that was sampled,
    0 at all others. Both are in memory; the temperature is the student's.

    Raises:
        ConfigError: a sample longer than ``tokens_per_device``.
        DataError: another vocabulary.
    """
    found = [torch.zeros(len(sample.ids_L)) for sample in samples_S]
    for batch in student.pack(samples_S, tokens_per_device):
        at = predictors(batch)
        work = partial(_values, divergence=divergence, lecture=teacher.run(batch, _states, at))
        values_N = student.run(batch, work, at)
        values_T = torch.zeros(len(batch.ids_T), device=values_N.device)
        place(batch, values_T.index_copy_(0, at[0], values_N), found)
    return found


def _states(hidden_N: Tensor, head: Tensor, ids_N: Tensor, **_: Any) -> Lecture:
    return Lecture(hidden_N, head)


def _values(
    hidden_N: Tensor, head: Tensor, ids_N: Tensor, *, lecture: Lecture, divergence: Divergence, **how: Any
) -> Tensor:
    return divergences(hidden_N, head, lecture, divergence, **how)
