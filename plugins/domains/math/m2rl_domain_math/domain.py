"""The domain: where prompts come from, and how an answer is judged."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count, cycle, islice
from random import Random
from typing import ClassVar

from pydantic import Field, field_validator

from m2rl_core.answers import UnreadableError, claims
from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.rows import gold, messages, rows
from m2rl_core.seeding import derive
from m2rl_core.types import Conversation, Message, Prompt, Reward, Suite, Trajectory
from m2rl_domain_math.matching import matches
from m2rl_domain_math.problems import LEVELS, problems, solution

__all__ = ["Math"]

DATASETS = frozenset({"nano_v3_sft_profiled_dapo17k", "nano_v3_sft_profiled_skywork_no_omni"})
HELD_OUT, HARD = 512, 256
PATIENCE = 1_000
"""Questions in a row that were asked before, after which a level counts as exhausted."""
HARDEST = max(LEVELS)


class Math(Domain):
    """Problems whose answer is a number, an expression, or a structure of such."""

    name: ClassVar[str] = "math"
    reference: ClassVar[str] = "the paper's section 3.1; https://github.com/huggingface/Math-Verify"
    verify_seconds: ClassVar[float] = 10.0

    class Config(ComponentConfig):
        source: str = "generated"
        """``generated``: procedural problems. Otherwise a local .jsonl file in the blend's schema."""
        levels: tuple[int, ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated problems, mixed evenly; ``math-hard`` asks the hardest whatever this is."""
        size: int = Field(4096, gt=0)
        """Generated training prompts."""
        noise: float = Field(0.08, ge=0.0, le=1.0)
        """Chance that a column of a demonstrated solution is miscalculated, so that SFT leaves RL something to do."""
        seed: int = 0
        """Of the generated problems."""

        @field_validator("levels")
        @classmethod
        def _known(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
            if unknown := set(levels) - set(LEVELS):
                raise ValueError(f"no level {sorted(unknown)}; allowed: {sorted(LEVELS)}")
            return levels

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        if self.config.source != "generated":
            return {}
        return {
            "math-heldout": Suite("generated", "The levels of the training prompts, other numbers", max_tokens=64),
            "math-hard": Suite("generated", f"Level {HARDEST}: {LEVELS[HARDEST]}", max_tokens=64),
        }

    def prompts(self, split: str) -> Iterator[Prompt]:
        if split == "train" and self.config.source != "generated":
            return self._read()
        if split == "train":
            return islice(self._generate(split, self.config.levels, evaluation=False), self.config.size)
        if split not in self.suites:
            raise DataError(f"math has no prompts '{split}'", allowed=["train", *self.suites])
        levels, size = ((HARDEST,), HARD) if split == "math-hard" else (self.config.levels, HELD_OUT)
        return islice(self._generate(split, levels, evaluation=True), size)

    def demonstrations(self) -> Iterator[Conversation]:
        """Endless worked solutions of problems that are not held out."""
        if self.config.source != "generated":
            return
        draw = Random(derive(self.config.seed, self.name, "demonstrations"))
        sources = [problems(level, draw, evaluation=False) for level in LEVELS]
        for index, source in zip(count(), cycle(sources), strict=False):
            problem = next(source)
            said = solution(problem, draw, self.config.noise)
            turns = (Message(role="user", content=problem.question), Message(role="assistant", content=said))
            yield Conversation(f"demonstration/{index:06d}", self.name, turns)

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

    def _generate(self, split: str, levels: tuple[int, ...], *, evaluation: bool) -> Iterator[Prompt]:
        """Prompts, the levels in turn. An evaluation asks nothing twice and leaves a level that has no more to ask."""
        draw = Random(derive(self.config.seed, self.name, split))
        sources = deque(problems(level, draw, evaluation=evaluation) for level in levels)
        asked: set[str] = set()
        index = 0
        while sources:
            source = sources.popleft()
            problem = next((each for each in islice(source, PATIENCE) if each.question not in asked), None)
            if problem is None:
                continue
            sources.append(source)
            if evaluation:
                asked.add(problem.question)
            yield Prompt(
                id=f"{split}/{index:06d}",
                domain=self.name,
                messages=(Message(role="user", content=problem.question),),
                ground_truth=str(problem.answer),
                metadata={"level": problem.level},
            )
            index += 1

    def _read(self) -> Iterator[Prompt]:
        for index, (place, row) in enumerate(rows(self.config.source, DATASETS)):
            yield Prompt(f"train/{index:06d}", self.name, messages(place, row), _one(place, gold(place, row)))


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
