"""What each part of an algorithm does to a step.

``assemble`` builds the parts; then, in the order of a step: :func:`score` (the log-probs that somebody needs),
:func:`credit` (advantages), :func:`correct` (importance weights and denominators, before the first backward), and
:func:`settle` (what a rule has to say that weighed within the backward passes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from m2rl_core.composition import Components, compose
from m2rl_core.config import RlStage
from m2rl_core.errors import boundary
from m2rl_core.interfaces import Advantage, Importance, Loss
from m2rl_core.packing import ALIGN, pack, unpack
from m2rl_core.plugins import Registry
from m2rl_core.policy import Frozen, Policy, Weigh, sharding
from m2rl_core.types import Batch, Correction, Group, Sample

__all__ = ["Parts", "assemble", "batches", "contributing", "correct", "credit", "score", "settle", "share"]


@dataclass(frozen=True)
class Parts(Components):
    """An algorithm ready to be used by a stage."""

    scored: frozenset[str]
    """Log-probs to be computed for every sample before the update: ``old_logps`` and the like."""
    max_tokens: int
    """Denominator per sample of the ``constant`` reduction."""

    @property
    def weigh(self) -> Weigh | None:
        """The importance rule for the backward pass, where it waits for the log-probs that this pass finds."""
        rule = self.importance
        if rule is None or "old_logps" not in rule.needs - self.scored:
            return None
        return lambda batch: _ask(rule, batch).weight_T


def assemble(registry: Registry, stage: RlStage, owner: str) -> Parts:
    """Build the stage's algorithm; ``owner`` is its path in the study, for messages."""
    made = compose(registry, stage.algorithm, owner)
    scored = made.scores(stage.updates)
    return Parts(made.advantage, made.importance, made.loss, made.reduction, scored, stage.max_tokens)


def score(
    policy: Policy, frozen: Frozen, samples_S: Sequence[Sample], parts: Parts, tokens_per_device: int
) -> dict[str, float]:
    """Fill in the log-probs that ``parts`` need: of the policy as it is, of the reference, of each sample's teacher.

    Returns:
        ``teacher_kl`` and ``teacher_kl/DOMAIN``, where teachers were asked: the mean over tokens of sampler's minus
        teacher's log-prob [nats], an estimate of KL(student ‖ teacher).
    """

    def fill(scorer: Policy, theirs: Sequence[Sample], name: str) -> None:
        _fill(scorer, theirs, f"{name}_L", tokens_per_device)
        share(theirs, f"{name}_L")

    if "old_logps" in parts.scored:
        fill(policy, samples_S, "old_logps")
    if "reference_logps" in parts.scored:
        fill(frozen.use(frozen.reference), samples_S, "reference_logps")
    if "teacher_logps" not in parts.scored:
        return {}
    for teacher, theirs in frozen.by_teacher(samples_S):
        if theirs:
            fill(frozen.use(teacher), theirs, "teacher_logps")
    return _teacher_kl(samples_S)


def batches(
    policy: Policy, frozen: Frozen, samples_S: Sequence[Sample], parts: Parts, tokens_per_device: int
) -> Iterator[Batch]:
    """The samples that can have a gradient, packed; teacher by teacher where the loss needs their hidden states.

    What a backward pass has found for an importance rule is taken over into its samples when the next batch is asked
    for.
    """
    moving_S = contributing(samples_S, parts.loss)
    lessons = [(None, moving_S)] if parts.loss.divergence is None else frozen.by_teacher(moving_S)
    for teacher, theirs in lessons:
        for batch in policy.pack(theirs, tokens_per_device):
            batch.teacher = teacher
            yield batch
            if parts.weigh and batch.old_logps_T is not None:
                unpack(batch, batch.old_logps_T, theirs, "old_logps_L")


def credit(groups_P: Sequence[Group], advantage: Advantage) -> None:
    """Set the advantage of every usable sample."""
    for group in groups_P:
        if group.dropped or not (samples := group.usable):
            continue
        with boundary(f"advantage '{advantage.name}'", f"crediting prompt {group.prompt.id}"):
            for sample, value_L in zip(samples, advantage(samples), strict=True):
                sample.advantage_L = value_L


def correct(samples_S: Sequence[Sample], parts: Parts) -> dict[str, float]:
    """Fix ``coef = weight · keep / denominator`` of every trained token of a minibatch, before its first backward.

    Denominators count kept tokens over the whole minibatch: per sample and over samples (``sequence``, the released
    code), over tokens (``token``, DAPO), or ``max_tokens`` per sample (``constant``, Dr. GRPO).

    Where the rule weighs within the backward pass, weights are 1 until :func:`settle`.

    Returns:
        The importance rule's metrics, averaged over tokens; none where the rule is still to come.
    """
    if parts.importance is None:
        _uncorrected(samples_S, parts)
        return {}
    return _corrected(samples_S, parts, parts.importance, waits=parts.weigh is not None)


def settle(policy: Policy, samples_S: Sequence[Sample], parts: Parts, tokens_per_device: int) -> dict[str, float]:
    """After the backward passes of a minibatch, before its update: what :func:`correct` could not yet tell. Collective.

    Samples without a gradient, which no backward pass has seen, are scored for it.

    Returns:
        The metrics of a rule that weighed within the backward passes, and the final coefficients in the samples.
    """
    if parts.weigh is None or parts.importance is None:
        return {}
    moving = {id(sample) for sample in contributing(samples_S, parts.loss)}
    _fill(policy, [sample for sample in samples_S if id(sample) not in moving], "old_logps_L", tokens_per_device)
    share(samples_S, "old_logps_L")
    return _corrected(samples_S, parts, parts.importance)


def contributing(samples_S: Sequence[Sample], loss: Loss) -> Sequence[Sample]:
    """The samples that can have a gradient; the others are in the denominators already and need not be computed."""
    if not loss.vanishes:
        return samples_S
    return [s for s in samples_S if s.advantage_L is None or bool(s.advantage_L.any())]


def share(samples_S: Sequence[Sample], field: str) -> None:
    """Give every rank what each has found of ``field`` for its own sequences. Collective."""
    if sharding.ranks() > 1:
        for sample in samples_S:
            if getattr(sample, field) is None:
                setattr(sample, field, torch.zeros(len(sample.ids_L)))
        sharding.add_up([getattr(sample, field) for sample in samples_S])


def _teacher_kl(samples_S: Sequence[Sample]) -> dict[str, float]:
    sums: dict[str, tuple[float, int]] = {}
    for sample in samples_S:
        if sample.teacher_logps_L is not None:
            gap_L = (torch.tensor(sample.logps_L) - sample.teacher_logps_L) * torch.tensor(sample.sampled_L)
            total, tokens = sums.get(sample.prompt.domain, (0.0, 0))
            sums[sample.prompt.domain] = total + gap_L.sum().item(), tokens + sample.length
    found = {f"teacher_kl/{domain}": total / tokens for domain, (total, tokens) in sums.items() if tokens}
    totals = [sum(column) for column in zip(*sums.values(), strict=True)]
    return {"teacher_kl": totals[0] / totals[1], **found} if found else {}


def _uncorrected(samples_S: Sequence[Sample], parts: Parts) -> None:
    """Without a rule every trained token is kept and weighs 1: its coefficient is one over its denominator."""
    kept_S = torch.tensor([float(sample.length) for sample in samples_S])
    for sample, denominator in zip(samples_S, _denominators(kept_S, parts), strict=True):
        sample.coef_L = torch.tensor(sample.sampled_L).float() / denominator


def _fill(scorer: Policy, samples_S: Sequence[Sample], field: str, tokens_per_device: int) -> None:
    """Log-probs of this rank's share of the samples."""
    for batch in scorer.pack(samples_S, tokens_per_device):
        unpack(batch, scorer.logps(batch), samples_S, field)


def _ask(rule: Importance, batch: Batch) -> Correction:
    with boundary(f"importance rule '{rule.name}'", "weighting a minibatch"):
        return rule(batch)


def _corrected(samples_S: Sequence[Sample], parts: Parts, rule: Importance, *, waits: bool = False) -> dict[str, float]:
    """Coefficients from a rule that sees the whole minibatch as one batch of trained tokens; returns its metrics.

    Where it waits for the trainer's log-probs, it is asked what it keeps, with the sampler's in their place.
    """
    [batch] = pack(samples_S, sum(len(s.ids_L) for s in samples_S) + ALIGN, torch.device("cpu"), dense=False)
    trained = torch.nonzero(batch.trained_T)[:, 0]
    view = batch.take(trained)
    correction = _ask(rule, replace(view, old_logps_T=view.sampler_logps_T) if waits else view)
    owner_T = torch.tensor([p.sample for p in batch.pieces_N])[batch.sequence_T[trained]]
    kept_S = torch.zeros(len(samples_S)).index_add_(0, owner_T, correction.keep_T.float())
    coef_T = torch.zeros(len(batch.ids_T))
    weight_T = torch.ones_like(correction.weight_T) if waits else correction.weight_T
    coef_T[trained] = weight_T * correction.keep_T / _denominators(kept_S, parts)[owner_T]
    unpack(batch, coef_T, samples_S, "coef_L")
    return {} if waits else dict(correction.metrics)


def _denominators(kept_S: Tensor, parts: Parts) -> Tensor:
    """What a token of each sample is divided by; at least 1, for samples without a kept token."""
    present = (kept_S > 0).sum()
    match parts.reduction:
        case "sequence":
            divisor = kept_S * present
        case "token":
            divisor = kept_S.sum()
        case "constant":
            divisor = present * parts.max_tokens
    return divisor.clamp_min(1).expand_as(kept_S)
