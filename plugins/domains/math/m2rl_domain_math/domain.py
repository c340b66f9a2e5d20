"""The domain: where prompts come from, and how an answer is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count
from random import Random
from typing import Any, ClassVar, Literal

from pydantic import Field

from m2rl_core.answers import UnreadableError, claims
from m2rl_core.errors import DataError
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.rows import gold, messages, rows
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_math.matching import matches
from m2rl_domain_math.problems import LEVELS, Problem, problems

__all__ = ["Math"]

DATASETS = frozenset({"nano_v3_sft_profiled_dapo17k", "nano_v3_sft_profiled_skywork_no_omni"})


class Math(ProceduralDomain):
    """Problems whose answer is a number, an expression, or a structure of such."""

    name: ClassVar[str] = "math"
    reference: ClassVar[str] = "the paper's section 3.1; https://github.com/huggingface/Math-Verify"
    verify_seconds: ClassVar[float] = 10.0
    levels: ClassVar[Mapping[int, str]] = LEVELS

    class Config(ProceduralConfig):
        levels: tuple[Literal[1, 2, 3, 4], ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated problems, mixed evenly; ``math-hard`` asks the hardest whatever this is."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def questions(self, level: int, draw: Random) -> Iterator[Problem]:
        return problems(level, draw)

    def rows(self) -> Iterator[Prompt]:
        return map(self._prompt, count(), rows(self.config.source, DATASETS))

    def _prompt(self, index: int, placed: tuple[str, Mapping[str, Any]]) -> Prompt:
        place, row = placed
        return Prompt(f"train/{index:06d}", self.name, messages(place, row), _one(place, gold(place, row)))

    def gold(self, prompt: Prompt) -> str:
        return rf"\boxed{{{prompt.ground_truth}}}"

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where everything that the answer claims is the gold answer, else 0. Several boxes may be one list.

        Raises:
            DataError: the prompt has no gold answer.
        """
        truth = trajectory.prompt.ground_truth
        expected = str(truth).strip() if isinstance(truth, str | int | float) else ""
        if not expected:
            raise DataError(f"prompt '{trajectory.prompt.id}' has no gold answer", found=repr(truth))
        try:
            stated, said = claims(trajectory.answer)
            claimed = stated or said
            if not claimed:
                return Reward(0.0, "no answer")
            wrong = next((claim for claim in claimed if not matches(expected, claim)), None)
            if wrong is None or (len(stated) > 1 and matches(expected, "; ".join(stated))):
                return Reward(1.0, "equal")
        except UnreadableError as error:
            return Reward(0.0, f"unreadable: {error}")
        return Reward(0.0, f"not the gold answer: {wrong[:80]}")


def _one(place: str, answer: str) -> str:
    """The gold answer out of the JSON list of one string that Skywork rows hold.

    Raises:
        DataError: the list is empty or holds several.
    """
    if not answer.startswith('["'):
        return answer
    try:
        listed = json.loads(answer)
    except ValueError:
        return answer
    if len(listed) != 1 or not isinstance(listed[0], str) or not listed[0].strip():
        raise DataError(f"{place} has not exactly one gold answer", found=answer)
    return listed[0].strip()
