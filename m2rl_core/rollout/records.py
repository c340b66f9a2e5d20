"""A step in numbers and in JSON: what ``metrics.jsonl`` and ``rollouts.jsonl`` hold of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from m2rl_core.types import Group, Message, Prompt, Reward, Sample, Trajectory

__all__ = ["TROUBLE", "from_record", "mean", "reached_verifier", "records", "summarise", "to_record", "workload"]

TROUBLE = "the environment failed"
"""Begins the reason of a verdict that failed before there was something to verify."""


def summarise(groups_P: Sequence[Group], version: int | None = None) -> dict[str, float | None]:
    """Reward, length and health of a step, of all domains together and of each (``reward/math``).

    Rewards are means over samples with a verdict, ``length`` is the mean of a sample's tokens and ``tokens`` their sum;
    shares are of groups or of samples. ``dropped`` groups, which others have replaced, count like all others. Sums run
    in sample order, so that
    a resumed run repeats them bit for bit. Where ``version`` says which policy is about to be trained,
    ``staleness`` is the mean over sampled tokens of that minus the version that drew the token.
    """
    metrics: dict[str, float | None] = {}
    domains = list(dict.fromkeys(g.prompt.domain for g in groups_P))
    for suffix, groups in [
        ("", list(groups_P)),
        *((f"/{d}", [g for g in groups_P if g.prompt.domain == d]) for d in domains),
    ]:
        samples = [s for g in groups for s in g.samples_G]
        rewards = [s.reward.value for s in samples if s.reward.value is not None]
        if rewards:
            metrics["reward" + suffix] = fmean(rewards)
        metrics["length" + suffix] = fmean(s.length for s in samples)
        metrics["tokens" + suffix] = sum(s.length for s in samples)
        metrics["truncated" + suffix] = fmean(s.finish == "length" for s in samples)
        metrics["zero_variance" + suffix] = fmean(g.zero_variance for g in groups)
        metrics["dropped" + suffix] = sum(g.dropped for g in groups)
        metrics["verifier_failures" + suffix] = fmean(s.reward.value is None for s in samples)
        metrics["samples" + suffix] = len(samples)
        versions = [v for s in samples for v, drawn in zip(s.versions_L, s.sampled_L, strict=True) if drawn]
        if versions and version is not None:
            metrics["staleness" + suffix] = version - fmean(versions)
    return metrics


def mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric over those of a step's updates that have it; of a ``…_max`` the largest."""
    names = dict.fromkeys(name for each in found for name in each)
    values = {name: [each[name] for each in found if name in each] for name in names}
    return {name: max(v) if name.partition("/")[0].endswith("_max") else fmean(v) for name, v in values.items()}


def workload(
    groups_P: Sequence[Group], scored_S: Sequence[Sample], trained_S: Sequence[Sample]
) -> dict[str, Mapping[str, int]]:
    """Kind of work → domain → its tokens, by which the seconds of a step are shared among the domains.

    Domains are worked on together, so their seconds cannot be measured apart: this is a share by tokens. ``rollout``
    counts the tokens that were sampled, ``score`` and ``train`` all tokens, prompts included, of the samples given.
    """
    sampled = Counter[str]()
    for group in groups_P:
        sampled[group.prompt.domain] += sum(sample.length for sample in group.samples_G)
    return {"rollout": sampled, "score": _tokens(scored_S), "train": _tokens(trained_S)}


def _tokens(samples_S: Sequence[Sample]) -> Counter[str]:
    found = Counter[str]()
    for sample in samples_S:
        found[sample.prompt.domain] += len(sample.ids_L)
    return found


def to_record(sample: Sample) -> dict[str, Any]:
    """One sample as plain JSON; :func:`from_record` reads it back."""
    return {
        "domain": sample.prompt.domain,
        "prompt": sample.prompt.id,
        "sample": sample.index,
        "reward": sample.reward.value,
        "verdict": sample.reward.verdict,
        "reason": sample.reward.reason,
        "finish": sample.finish,
        "question": list(sample.prompt.messages),
        "tools": [dict(tool) for tool in sample.prompt.tools],
        "ground_truth": sample.prompt.ground_truth,
        "metadata": dict(sample.prompt.metadata),
        "messages": list(sample.trajectory.messages),
        "answer": sample.trajectory.answer,
        "ids": sample.ids_L,
        "sampled": [int(s) for s in sample.sampled_L],
        "logps": sample.logps_L,
        "versions": sample.versions_L,
        "starts": sample.starts,
    }


def from_record(record: dict[str, Any]) -> Sample:
    """The sample that :func:`to_record` wrote."""
    question: tuple[Message, ...] = tuple(record["question"])
    prompt = Prompt(
        record["prompt"], record["domain"], question, record["ground_truth"], record["metadata"], tuple(record["tools"])
    )
    truncated = record["finish"] == "length"
    return Sample(
        prompt=prompt,
        index=record["sample"],
        ids_L=record["ids"],
        sampled_L=[bool(s) for s in record["sampled"]],
        logps_L=record["logps"],
        versions_L=record["versions"],
        trajectory=Trajectory(prompt, tuple(record["messages"]), record["answer"], truncated),
        finish=record["finish"],
        reward=Reward(record["reward"], record["reason"]),
        starts=record["starts"],
    )


def reached_verifier(record: Mapping[str, Any]) -> bool:
    """Whether a stored sample was judged at all: neither its environment nor the engine gave it up."""
    gave_up = record["reward"] is None and record["reason"].startswith(TROUBLE)
    return record["finish"] != "abort" and not gave_up


def records(groups_P: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """All samples of a step, in order."""
    return (to_record(sample) for group in groups_P for sample in group.samples_G)
