"""Time of one step: rollout, scoring, training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass

from m2rl_core.estimate.device import Machine
from m2rl_core.estimate.lengths import Lengths
from m2rl_core.estimate.sampling import prefill_flops
from m2rl_core.estimate.shape import Shape

__all__ = ["Seconds", "scoring_flops", "swap_seconds", "teaching_flops", "training_flops"]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one step, one part after the other; verification, weight sync and checkpoints are not in it."""

    train: float
    rollout: float = 0
    old: float = 0
    """Log-probs of the policy before the update."""
    reference: float = 0
    teachers: float = 0
    """Their forward passes, and moving their weights to the device one after the other."""

    @property
    def total(self) -> float:
        return math.fsum(astuple(self))

    @property
    def teachers_share(self) -> float:
        """Of a step."""
        return self.teachers / self.total


def scoring_flops(shape: Shape, lengths: Lengths) -> float:
    """Of the log-probs of one sample's response: a forward pass, and the head where a token was drawn."""
    return prefill_flops(shape, lengths.tokens, lengths.pairs) + 2 * shape.head * lengths.mean


def training_flops(shape: Shape, lengths: Lengths, *, checkpointing: bool) -> float:
    """Of one sample. Backward costs two forward passes, checkpointing one more; the head's product is made again."""
    body = prefill_flops(shape, lengths.tokens, lengths.pairs)
    return (4 if checkpointing else 3) * body + 4 * (2 * shape.head * lengths.mean)


def teaching_flops(
    teachers: Mapping[str, Shape], shares: Mapping[str, float], lengths: Lengths, *, divergence: bool
) -> float:
    """Of one sample's teacher, on average over the domains.

    A divergence over the whole vocabulary makes the product with the teacher's head twice, for its value and for its
    gradient.
    """
    total = sum(shares.values())
    again = 2 * lengths.mean if divergence else 0
    return sum(
        share / total * (scoring_flops(teachers[domain], lengths) + teachers[domain].head * again)
        for domain, share in shares.items()
    )


def swap_seconds(models: Mapping[str, Shape], machine: Machine) -> float:
    """To move every frozen model to every device once, in bfloat16; nothing where there is only one, which stays."""
    moved = sum(2 * shape.parameters for shape in models.values())
    return moved / machine.device.host_bandwidth if len(models) > 1 else 0
