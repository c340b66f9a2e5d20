"""The domain: where prompts come from, and how an answer is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import ClassVar, Literal

from pydantic import Field

from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.types import Prompt, Reward, Suite, Trajectory
from m2rl_domain_math.files import PUBLISHED, published, training
from m2rl_domain_math.gold import answer
from m2rl_domain_math.judging import JUDGES, Mode
from m2rl_domain_math.problems import LEVELS, Problem, problems

__all__ = ["Math"]


class Math(ProceduralDomain):
    """Problems whose answer is a number, an expression, or a structure of such."""

    name: ClassVar[str] = "math"
    reference: ClassVar[str] = "the paper's section 3.1; https://github.com/huggingface/Math-Verify"
    verify_seconds: ClassVar[float] = 10.0
    levels: ClassVar[Mapping[int, str]] = LEVELS
    published: ClassVar[Mapping[str, Suite]] = PUBLISHED

    class Config(ProceduralConfig):
        levels: tuple[Literal[1, 2, 3, 4], ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated problems, mixed evenly; ``math-hard`` asks the hardest whatever this is."""
        mode: Mode = "strict"
        """Whose rules decide. ``qwq-compat``: the paper's evaluator; ``deepscaler-compat``: the released code's. Both
        reward more than is right; AIME is judged by ``strict`` whatever this is."""
        aime24: str | None = None
        """Path of a local .jsonl copy of the 30 problems of AIME 2024: the suite ``aime24``."""
        aime25: str | None = None
        """Path of a local .jsonl copy of the 30 problems of AIME 2025: the suite ``aime25``."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def questions(self, level: int, draw: Random) -> Iterator[Problem]:
        return problems(level, draw)

    def rows(self) -> Iterator[Prompt]:
        return training(self.name, self.config.source)

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        return published(self.name, suite, source)

    def gold(self, prompt: Prompt) -> str:
        return rf"\boxed{{{prompt.ground_truth}}}"

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where the answer is right by the rules of the mode, else 0.

        Raises:
            DataError: the prompt has no gold answer.
        """
        prompt = trajectory.prompt
        expected = answer(f"prompt '{prompt.id}'", prompt.ground_truth)
        mode = "strict" if "suite" in prompt.metadata else self.config.mode
        return JUDGES[mode](expected, trajectory.answer)
