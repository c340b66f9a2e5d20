"""Verdicts of a model on its own answers, and how right they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from m2rl_analyzer_self_verification.answers import Answer
from m2rl_core.interfaces import Lab
from m2rl_core.judging.prompts import ask, verdict
from m2rl_core.statistics.scores import Grid
from m2rl_core.types import Prompt, Sample, Sampling

__all__ = ["MODES", "Judged", "Mode", "judge"]

Mode = Literal["outcome", "process"]
MODES: tuple[Mode, ...] = ("outcome", "process")


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's verdicts on its own answers to one suite, asked for in one way."""

    answers: Sequence[Answer]
    verdicts: Sequence[Sequence[bool | None]]
    """Of every answer, one per sample: whether the model calls it right; ``None`` where it does not say so clearly."""

    @property
    def agreement(self) -> Grid:
        """[1, prompts] 100 × the share of verdicts that agree with the verifier; an unclear one does not."""
        shares: dict[str, list[float]] = {}
        weights: dict[str, float] = {}
        for answer, said in zip(self.answers, self.verdicts, strict=True):
            weights[answer.prompt] = answer.weight
            shares.setdefault(answer.prompt, []).append(100 * _share(said, answer.right))
        points = np.array([[sum(each) / len(each) for each in shares.values()]])
        return Grid((0,), tuple(shares), points, np.array(list(weights.values()), np.float64))

    @property
    def true_positive_rate(self) -> float:
        """Share of the verdicts on right answers that call them right; NaN without right answers."""
        return _mean([_share(said, True) for a, said in zip(self.answers, self.verdicts, strict=True) if a.right])

    @property
    def true_negative_rate(self) -> float:
        """Share of the verdicts on wrong answers that call them wrong; NaN without wrong answers."""
        return _mean([_share(said, False) for a, said in zip(self.answers, self.verdicts, strict=True) if not a.right])

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the two rates: 0.5 for any judge that does not look, however many answers are right."""
        return (self.true_positive_rate + self.true_negative_rate) / 2

    @property
    def always_yes(self) -> float:
        """Agreement of a judge that calls everything right: the share of right answers."""
        return _mean([float(answer.right) for answer in self.answers])

    @property
    def unclear(self) -> float:
        """Share of verdicts that could not be read."""
        return _mean([_share(said, None) for said in self.verdicts])


def judge(
    lab: Lab,
    model: str,
    answers: Mapping[str, Sequence[Answer]],
    templates: Mapping[Mode, str],
    sampling: Sampling,
    k: int,
) -> dict[tuple[str, Mode], Judged]:
    """(suite, mode) → ``k`` verdicts of ``model`` on each of its own answers, all drawn together.

    Args:
        answers: suite → answers of ``model``.
    """
    asked = [(suite, mode, answer) for mode in MODES for suite, each in answers.items() for answer in each]
    prompts = [_prompt(suite, mode, templates[mode], answer) for suite, mode, answer in asked]
    drawn = lab.generate(model, prompts, sampling, k, verify=False)
    found: dict[tuple[str, Mode], tuple[list[Answer], list[list[bool | None]]]] = {}
    for (suite, mode, answer), samples in zip(asked, drawn, strict=True):
        there, verdicts = found.setdefault((suite, mode), ([], []))
        there.append(answer)
        verdicts.append([verdict(_said(sample)) for sample in samples])
    return {at: Judged(*both) for at, both in found.items()}


def _prompt(suite: str, mode: Mode, template: str, answer: Answer) -> Prompt:
    message = ask(template, answer.question, answer.reasoning, answer.final)
    return Prompt(f"{suite}/{answer.prompt}/{answer.sample}/{mode}", "judge", (message,))


def _said(sample: Sample) -> str:
    """The whole turn; nothing where it was cut off, for then it had not ended with a verdict."""
    return sample.trajectory.messages[-1]["content"] if sample.finish == "stop" else ""


def _share(said: Sequence[bool | None], wanted: bool | None) -> float:
    return sum(each is wanted for each in said) / len(said)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
