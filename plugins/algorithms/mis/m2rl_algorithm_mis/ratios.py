"""Ratios of the trainer's to the sampler's probability, token by token and at the level at which a rule judges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from m2rl_core.types import Batch

if TYPE_CHECKING:
    from torch import Tensor

Level = Literal["token", "sequence", "geometric"]

LIMIT = 20.0
"""Log ratios are clamped to ±20 nats before ``exp``, as in slime and verl: e^20 is 5e8, beyond any sensible bound."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Of a minibatch's trained tokens, float64: long sums keep their digits."""

    log_T: Tensor
    """log π_trainer − log π_sampler of each token [nats], not clamped; not finite where either side is not."""
    ratio_T: Tensor
    """The ratio that each token is judged by, at the rule's level; 1 where it is unknown."""
    vetoed_T: Tensor
    """bool: tokens of samples with a catastrophic token."""
    unknown_T: Tensor
    """bool: tokens without a finite log ratio at the rule's level, unless vetoed."""

    @property
    def accepted_T(self) -> Tensor:
        """bool: tokens that have a ratio and no veto."""
        return ~(self.vetoed_T | self.unknown_T)


def measure(batch: Batch, level: Level, veto: float | None) -> Ratios:
    """The ratios of ``batch``, the trained tokens of a whole minibatch.

    Args:
        level: ``token``, each token's own ratio; ``sequence``, the product over the sample's trained tokens;
            ``geometric``, their geometric mean. A sample of several packed sequences counts as one.
        veto: a token whose own ratio is below it vetoes its whole sample.

    Raises:
        ValueError: not one token has a finite log ratio.
    """
    assert batch.old_logps_T is not None
    log_T = batch.old_logps_T.double() - batch.sampler_logps_T.double()
    if len(log_T) and not bool(log_T.isfinite().any()):
        raise ValueError(
            f"none of {len(log_T)} tokens has finite log-probs from both sampler and trainer; "
            "does the engine report the log-probs of what it draws?"
        )
    owner_T = _owners(batch)
    judged_T = _aggregate(log_T, owner_T, level)
    vetoed_T = _veto(log_T, owner_T, veto)
    ratio_T = judged_T.clamp(-LIMIT, LIMIT).exp()
    known_T = judged_T.isfinite()
    return Ratios(log_T, ratio_T.where(known_T, 1.0), vetoed_T, ~known_T & ~vetoed_T)


def _owners(batch: Batch) -> Tensor:
    """Index of each token's sample: a sample has a sequence per turn where earlier reasoning is dropped."""
    return batch.sequence_T.new_tensor([piece.sample for piece in batch.pieces_N])[batch.sequence_T]


def _aggregate(log_T: Tensor, owner_T: Tensor, level: Level) -> Tensor:
    """The log ratio at ``level``, spread over the tokens it holds for."""
    if level == "token":
        return log_T
    total_T = _sum(log_T, owner_T)
    return total_T if level == "sequence" else total_T / _sum(log_T.new_ones(log_T.shape), owner_T)


def _veto(log_T: Tensor, owner_T: Tensor, veto: float | None) -> Tensor:
    catastrophic_T = log_T < (-math.inf if veto is None else math.log(veto))
    return _sum(catastrophic_T.double(), owner_T) > 0


def _sum(values_T: Tensor, owner_T: Tensor) -> Tensor:
    """Each token's sum over its sample."""
    samples = int(owner_T.max()) + 1 if len(owner_T) else 0
    return values_T.new_zeros(samples).index_add(0, owner_T, values_T)[owner_T]
