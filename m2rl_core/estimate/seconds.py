"""Time of one step: rollout, scoring, training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from m2rl_core.estimate.device import Machine
from m2rl_core.estimate.lengths import Lengths
from m2rl_core.estimate.sampling import prefill_flops
from m2rl_core.estimate.shape import Shape

__all__ = ["Seconds", "reading_seconds", "scoring_flops", "teaching_flops", "training_flops"]

STORED = 4
"""Bytes of a number in a checkpoint of the core's (:meth:`m2rl_core.policy.Policy.save`)."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one step, one part after the other; verification, weight sync and checkpoints are not in it."""

    update: float
    """Forward and backward passes of the policy."""
    moving: float = 0
    """The optimizer's moments from host memory and back, where they are offloaded."""
    rollout: float = 0
    old: float = 0
    """Log-probs of the policy before the update."""
    reference: float = 0
    teachers: float = 0
    """Their log-probs of the sampled tokens, and reading the weights of one after the other."""
    lectures: float = 0
    """Their hidden states for a divergence over the whole vocabulary, reading included."""

    @property
    def score(self) -> float:
        """What a run's clock calls ``score``."""
        return self.old + self.reference + self.teachers + self.lectures

    @property
    def train(self) -> float:
        """What a run's clock calls ``train``."""
        return self.update + self.moving

    @property
    def total(self) -> float:
        return math.fsum(astuple(self))

    @property
    def teachers_share(self) -> float:
        """Of a step."""
        return (self.teachers + self.lectures) / self.total


def scoring_flops(shape: Shape, lengths: Lengths) -> float:
    """Of the log-probs of one sample's response: a forward pass, and the head where a token was drawn.

    A lecture costs the same: the student's loss makes the product with the teacher's head, once.
    """
    return prefill_flops(shape, lengths.tokens, lengths.pairs) + 2 * shape.head * lengths.mean


def training_flops(shape: Shape, lengths: Lengths, *, checkpointing: bool, separable: bool = True) -> float:
    """Of one sample. Backward costs two forward passes, checkpointing one more.

    The head's product is made three times, and once more where the loss is not token by token.
    """
    body = prefill_flops(shape, lengths.tokens, lengths.pairs)
    return (4 if checkpointing else 3) * body + (3 if separable else 4) * (2 * shape.head * lengths.mean)


def teaching_flops(teachers: Mapping[str, Shape], shares: Mapping[str, float], lengths: Lengths) -> float:
    """Of one sample's teacher, on average over the domains."""
    total = sum(shares.values())
    return sum(share / total * scoring_flops(teachers[domain], lengths) for domain, share in shares.items())


def reading_seconds(
    before: Sequence[str], models: Sequence[str], shapes: Mapping[str, Shape], machine: Machine
) -> float:
    """To read the frozen ``models``, used in this order after ``before``: every process reads all of each.

    One that is used twice in a row stays.
    """
    held = before[-1:]
    bytes_read = 0
    for model in models:
        bytes_read += 0 if [model] == list(held) else STORED * shapes[model].parameters
        held = [model]
    return bytes_read / machine.device.reading
