"""Answers to be judged: what the models said when they were evaluated, and what the verifier made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.interfaces import Lab
from m2rl_core.judging.prompts import parts
from m2rl_core.statistics.scores import Grid, grid
from m2rl_core.types import Message

__all__ = ["Answer", "Evaluation", "evaluations"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a model."""

    prompt: str
    sample: int
    weight: float
    question: tuple[Message, ...]
    reasoning: str
    final: str
    """What follows the reasoning; empty where it was cut off."""
    right: bool
    """By the verifier, the full reward only."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's answers on one suite."""

    domain: str
    generation: Grid
    """Rewards of the whole evaluation, the score that Table 7 calls Gen."""
    answers: list[Answer]
    """Those to be judged."""
    single_turn: bool
    """Whether all of them are: a final answer says little of a conversation with tools."""


def evaluations(lab: Lab, model: str, *, limit: int | None, each: int) -> dict[str, Evaluation]:
    """Suite → evaluation; nothing for a model that was not evaluated.

    Args:
        limit: prompts of a suite, the first ones.
        each: answers to a prompt, the first ones that have a verdict.
    """
    try:
        found = lab.scores(model)
    except DataError:
        return {}
    return {suite: _evaluation(records, limit, each) for suite, records in found.items() if records}


def _evaluation(records: Sequence[Mapping[str, Any]], limit: int | None, each: int) -> Evaluation:
    rewards = grid({0: ((r["prompt"], r["weight"], r["reward"]) for r in records)})
    chosen = list(_chosen(records, set(rewards.items[:limit]), each))
    single = all(len(record["response"]) == 1 for record in records)
    return Evaluation(records[0]["domain"], rewards, [_answer(r) for r in chosen] if single else [], single)


def _chosen(records: Iterable[Mapping[str, Any]], prompts: set[str], each: int) -> Iterable[Mapping[str, Any]]:
    taken = dict.fromkeys(prompts, 0)
    for record in records:
        if record["reward"] is not None and taken.get(record["prompt"], each) < each:
            taken[record["prompt"]] += 1
            yield record


def _answer(record: Mapping[str, Any]) -> Answer:
    reasoning, final = parts(record["response"][-1]["content"])
    question, right = tuple(record["messages"]), record["reward"] == 1.0
    return Answer(record["prompt"], record["sample"], record["weight"], question, reasoning, final, right)
