"""The domain with a judge: what cannot be decided here is asked of a model."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from m2rl_core.answers import UnreadableError
from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_science.domain import Science, is_free, key_text
from m2rl_domain_science.freeform import answers, single
from m2rl_domain_science.judge import Judge, ask, key_problem

__all__ = ["ScienceJudged"]


class ScienceJudged(Science):
    """Science with a judge model for free-form answers.

    Choices, and answers that are the gold's text or number, are decided here. So are answers that claim nothing or
    several things: they are wrong. Only a single claim that differs from the gold is asked about.
    """

    name: ClassVar[str] = "science-judged"
    remote: ClassVar[bool] = True
    verify_seconds: ClassVar[float] = 300.0
    """A request may have to wait for those before it."""

    class Config(Science.Config):
        judge: Judge
        """The model that is asked: ``{url, model, ...}``."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._requests = ThreadPoolExecutor(config.judge.parallel, thread_name_prefix="judge")

    def check(self) -> None:
        super().check()
        if problem := key_problem(self.config.judge):
            raise DataError(f"the judge of '{self.name}' has no key", found=problem, then="set it and run again")

    def prompts(self, split: str) -> Iterator[Prompt]:
        return map(self._own, super().prompts(split))

    def _own(self, prompt: Prompt) -> Prompt:
        return dataclasses.replace(prompt, domain=self.name)

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        """The verdict of :meth:`verify`, or the judge's where only that can tell.

        Raises:
            DataError: as :meth:`verify`.
        """
        prompt = trajectory.prompt
        reward = await asyncio.to_thread(self.verify, trajectory)
        claim = _open_claim(trajectory) if reward.value == 0.0 and is_free(prompt) else None
        if claim is None:
            return reward
        question = prompt.messages[-1]["content"] if prompt.messages else ""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._requests, ask, self.config.judge, question, key_text(prompt), claim)


def _open_claim(trajectory: Trajectory) -> str | None:
    """The one thing that the answer claims, if it does."""
    try:
        return single(answers(trajectory.answer))
    except UnreadableError:
        return None
