"""An algorithm put together from its parts, and what each part does to a step.

``assemble`` resolves the names; then, in the order of a step: :func:`score` (the log-probs that somebody needs),
:func:`credit` (advantages), :func:`correct` (importance weights and denominators, before the first backward).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2rl_core.config import RlStage
from m2rl_core.errors import StageError, boundary
from m2rl_core.interfaces import Advantage, Algorithm, Importance, Loss
from m2rl_core.packing import ALIGN, pack, unpack
from m2rl_core.plugins import Registry
from m2rl_core.policy import Policy
from m2rl_core.types import Batch, Group, Reduction, Sample

__all__ = ["Parts", "assemble", "contributing", "correct", "credit", "score"]


@dataclass(frozen=True)
class Parts:
    """An algorithm ready to be used."""

    advantage: Advantage
    importance: Importance | None
    loss: Loss
    reduction: Reduction
    needs: frozenset[str]
    """Per-token scores to be computed for every sample before the update."""
    max_tokens: int
    """Denominator per sample of the ``constant`` reduction."""


def assemble(registry: Registry, stage: RlStage, owner: str) -> Parts:
    """Build the stage's algorithm; ``owner`` is its path in the study, for messages."""
    algorithm: Algorithm = registry.create("algorithm", stage.algorithm, owner)
    made = algorithm.compose()
    advantage: Advantage = registry.create("advantage", made.advantage, f"{owner}.advantage")
    loss: Loss = registry.create("loss", made.loss, f"{owner}.loss")
    importance: Importance | None = None
    if made.importance is not None:
        importance = registry.create("importance", made.importance, f"{owner}.importance")
    needs = advantage.needs | (importance.needs if importance else frozenset())
    # With one update per step the policy that is updated is still the one before the update: backward fills it in.
    needs |= loss.needs if stage.updates > 1 else loss.needs - {"old_logps"}
    return Parts(advantage, importance, loss, made.reduction, needs - {"entropy"}, stage.max_tokens)


def score(policy: Policy, samples_S: Sequence[Sample], parts: Parts, tokens_per_device: int) -> None:
    """Fill in the per-token scores that ``parts`` need.

    Raises:
        StageError: a score that this version cannot compute.
    """
    if unknown := parts.needs - {"old_logps"}:
        raise StageError(f"the algorithm needs {', '.join(sorted(unknown))}, which this version cannot compute")
    if "old_logps" in parts.needs:
        for batch in policy.pack(samples_S, tokens_per_device):
            unpack(batch, policy.logps(batch), samples_S, "old_logps_L")


def credit(groups_P: Sequence[Group], advantage: Advantage) -> None:
    """Set the advantage of every usable sample."""
    for group in groups_P:
        if not (samples := group.usable):
            continue
        with boundary(f"advantage '{advantage.name}'", f"crediting prompt {group.prompt.id}"):
            for sample, value_L in zip(samples, advantage(samples), strict=True):
                sample.advantage_L = value_L


def correct(samples_S: Sequence[Sample], parts: Parts) -> dict[str, float]:
    """Fix ``coef = weight · keep / denominator`` of every trained token of a minibatch, before its first backward.

    Denominators count kept tokens over the whole minibatch: per sample and over samples (``sequence``, the released
    code), over tokens (``token``, DAPO), or ``max_tokens`` per sample (``constant``, Dr. GRPO).

    Returns:
        The importance rule's metrics, averaged over tokens.
    """
    [batch] = pack(samples_S, sum(len(s.ids_L) for s in samples_S) + ALIGN, torch.device("cpu"), dense=False)
    trained = torch.nonzero(batch.trained_T)[:, 0]
    weight_T, keep_T, metrics = _importance(parts, batch.take(trained))
    owner_T = torch.tensor([p.sample for p in batch.pieces_N])[batch.sequence_T[trained]]
    kept_S = torch.zeros(len(samples_S)).index_add_(0, owner_T, keep_T.float())
    coef_T = torch.zeros(len(batch.ids_T))
    coef_T[trained] = weight_T * keep_T / _denominators(kept_S, parts)[owner_T]
    unpack(batch, coef_T, samples_S, "coef_L")
    return metrics


def contributing(samples_S: Sequence[Sample], loss: Loss) -> Sequence[Sample]:
    """The samples that can have a gradient; the others are in the denominators already and need not be computed."""
    if not loss.vanishes:
        return samples_S
    return [s for s in samples_S if s.advantage_L is None or bool(s.advantage_L.any())]


def _importance(parts: Parts, view: Batch) -> tuple[Tensor, Tensor, dict[str, float]]:
    if parts.importance is None:
        ones_T = torch.ones(len(view.ids_T))
        return ones_T, ones_T.bool(), {}
    with boundary(f"importance rule '{parts.importance.name}'", "weighting a minibatch"):
        correction = parts.importance(view)
    return correction.weight_T, correction.keep_T, dict(correction.metrics)


def _denominators(kept_S: Tensor, parts: Parts) -> Tensor:
    """What a token of each sample is divided by; at least 1, for samples without a kept token."""
    present = (kept_S > 0).sum()
    if parts.reduction == "token":
        return kept_S.sum().clamp_min(1).expand_as(kept_S)
    if parts.reduction == "constant":
        return (present * parts.max_tokens).clamp_min(1).expand_as(kept_S)
    return (kept_S * present).clamp_min(1)
