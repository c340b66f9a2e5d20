"""``kind: rl`` — reinforcement learning from verifiable rewards. One step reads on one screen.

What differs from textbook GRPO is in the parts, not in the loop: samples without a verdict leave their group, domains
are drawn by exact quotas, and every denominator is counted before the first backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from m2rl_core.algorithm import assemble, batches, contributing, correct, credit, score, settle
from m2rl_core.config import RlStage
from m2rl_core.policy import open_frozen, open_policy
from m2rl_core.rollout.ahead import open_rollouts
from m2rl_core.rollout.alarms import Alarms
from m2rl_core.rollout.diverged import batch_kept
from m2rl_core.rollout.mixture import open_source
from m2rl_core.rollout.records import mean, records, summarise, workload
from m2rl_core.rollout.verdicts import usable
from m2rl_core.run import Components, StageRun
from m2rl_core.schedule import lr_at
from m2rl_core.types import Reasoning, Sample

__all__ = ["train_rl"]


def train_rl(run: StageRun[RlStage]) -> None:
    """Train ``run.stage.init`` on what it says itself; the result is the stage's checkpoint."""
    stage, start = run.stage, run.models[run.stage.init]
    parts = assemble(run.registry, stage, f"stages.{run.name}.algorithm")
    source, alarms, held = open_source(run), Alarms(run.note), Components(parts.leaves)
    policy, frozen = open_policy(run, start, temperature=stage.temperature), open_frozen(run)
    with open_rollouts(run, start, source, reasoning(run)) as rollouts:
        for step in range(run.restore(policy, rollouts, source, alarms, held), stage.steps):
            with run.clock("sync"):
                rollouts.load_weights(policy.named_tensors(), version=step)
            with run.clock("rollout"):
                groups_P = rollouts.collect(step)
            samples_S = usable(groups_P, run)
            with run.clock("score"):
                scores = score(policy, frozen, samples_S, parts, stage.tokens_per_device)
            with run.clock("train"):
                credit(groups_P, parts.advantage)
                corrections = []
                for minibatch in split(samples_S, stage.updates):
                    corrections.append(correct(minibatch, parts))
                    with batch_kept(run, policy, minibatch, step):
                        for batch in batches(policy, frozen, minibatch, parts, stage.tokens_per_device):
                            policy.backward(batch, parts.loss, frozen.lecture(batch), parts.weigh)
                        corrections.append(settle(policy, minibatch, parts, stage.tokens_per_device))
                        policy.step(lr_at(stage, step, stage.steps))
            source.observe(groups_P)
            metrics = alarms.watch(summarise(groups_P, step)) | source.metrics(step)
            metrics |= scores | mean(corrections) | policy.metrics()
            work = workload(groups_P, samples_S, contributing(samples_S, parts.loss))
            run.log(step, metrics, samples=records(groups_P), workload=work)
            run.keep(step + 1, policy.save, every=stage.keep_every)
            run.checkpoint(step + 1, policy, rollouts, source, alarms, held, every=stage.checkpoint_every)
    run.finish(policy.save)


def reasoning(run: StageRun[RlStage]) -> dict[str, Reasoning]:
    """The reward's format gate of every domain."""
    return {name: section.reasoning for name, section in run.study.domains.items()}


def split(samples_S: Sequence[Sample], updates: int) -> list[Sequence[Sample]]:
    """Minibatches of (nearly) equal size, each with samples of every group where groups are large enough."""
    return [samples_S[i::updates] for i in range(min(updates, len(samples_S)))]
