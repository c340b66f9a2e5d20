"""The gradient of a stage's loss at the weights of any model, as one update of that stage would compute it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from m2rl_core.algorithm import assemble, batches, correct, credit, score
from m2rl_core.analyze.models import Models
from m2rl_core.config import AnalyzeStage, RlStage
from m2rl_core.policy import Frozen, Policy
from m2rl_core.run import StageRun
from m2rl_core.types import Group, Sample

__all__ = ["gradients"]


def gradients(
    run: StageRun[AnalyzeStage],
    models: Models,
    model: str,
    stage: str,
    section: RlStage,
    groups: Sequence[list[Sample]],
) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 gradient on the CPU) of every parameter of ``model``, under the loss of ``stage``.

    Samples without a verdict leave their group, as in training; the samples handed in are not changed.
    """
    with run.clock("train"):
        policy = _backward(run, models, model, stage, section, groups)
    for name, parameter in policy.model.named_parameters():
        gradient, parameter.grad = parameter.grad, None
        yield name, torch.zeros(parameter.shape) if gradient is None else gradient.float().cpu()


def _backward(
    run: StageRun[AnalyzeStage],
    models: Models,
    model: str,
    stage: str,
    section: RlStage,
    groups: Sequence[list[Sample]],
) -> Policy:
    """``model`` with the gradients of one minibatch."""
    held, tokens = run.study.model, run.stage.tokens_per_device

    def load(folder: Path, *, checkpointing: bool = False) -> Policy:
        return Policy.load(
            folder,
            dtype=held.dtype,
            temperature=section.temperature,
            checkpointing=checkpointing,
            trust_remote_code=held.trust_remote_code,
        )

    parts = assemble(run.registry, section, f"stages.{stage}.algorithm")
    for name in (*section.teachers.values(), *([section.init] if _is_held(section, parts.scored) else [])):
        models.folder(name)
    policy = load(models.folder(model), checkpointing=held.activation_checkpointing)
    frozen = Frozen(models, section.teachers, section.init, load, trust=held.trust_remote_code)
    groups_P = [Group(group[0].prompt, [_fresh(sample) for sample in group]) for group in groups if group]
    samples_S = [sample for group in groups_P for sample in group.usable]
    score(policy, frozen, samples_S, parts, tokens)
    credit(groups_P, parts.advantage)
    correct(samples_S, parts)
    for batch in batches(policy, frozen, samples_S, parts, tokens):
        policy.backward(batch, parts.loss, frozen.lecture(batch), parts.weigh)
    return policy


def _is_held(section: RlStage, scored: frozenset[str]) -> bool:
    """Whether the stage's start is asked for anything: log-probs, or the tokens that teachers must share."""
    return bool(section.teachers) or "reference_logps" in scored


def _fresh(sample: Sample) -> Sample:
    """The same sample without what an earlier update has found of it."""
    return replace(
        sample, advantage_L=None, old_logps_L=None, reference_logps_L=None, teacher_logps_L=None, coef_L=None
    )
