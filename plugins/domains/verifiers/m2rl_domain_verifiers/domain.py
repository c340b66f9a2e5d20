"""The domain: an environment's tasks as prompts, its rewards as verdicts.

The package is imported where a domain is built: listing plugins does without its many dependencies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.seeding import derive
from m2rl_core.types import Prompt, Reward, Suite, Trajectory

__all__ = ["Verifiers"]


class Verifiers(Domain):
    """Single-turn tasks of an installed environment, judged by its own rewards."""

    name: ClassVar[str] = "verifiers"
    reference: ClassVar[str] = "https://github.com/PrimeIntellect-ai/verifiers, the interface verifiers.v1"

    class Config(ComponentConfig):
        environment: str
        """The installed package that offers the tasks: what ``vf-eval`` is given, ``owner/name`` or ``name``."""
        args: dict[str, Any] = Field(default_factory=dict)
        """The environment's own settings, of its taskset; those of its tasks under ``task``."""
        tasks: PositiveInt | None = None
        """Only the first so many tasks. An environment without an end needs it."""
        heldout: NonNegativeInt = 64
        """Tasks that are not trained on: the suite ``NAME-heldout``. A hash of what is asked decides which. 0: none."""
        range: tuple[float, float] = (0.0, 1.0)
        """Least and greatest sum of the weighted rewards, which become 0 and 1. A sum outside is a failed verdict."""
        remote: bool = False
        """Rewards ask a service, with credentials: they are awaited where the core runs, not computed in a worker.
        An environment whose judges are in ``args`` is remote in any case."""
        seconds: PositiveFloat = 10.0
        """Limit of one verdict, in CPU seconds and, doubled, in wall seconds."""

        @model_validator(mode="after")
        def _ascends(self) -> Verifiers.Config:
            if self.range[0] >= self.range[1]:
                raise ValueError("range should ascend, as in [0, 2]")
            return self

    config: Config

    def __init__(self, config: Config) -> None:
        from m2rl_domain_verifiers.environment import Environment

        self.config = config
        self.environment = Environment(config.environment, config.args)

    @property
    def remote(self) -> bool:
        return self.config.remote or self.environment.has_judges

    @property
    def verify_seconds(self) -> float:
        return self.config.seconds

    @property
    def suite(self) -> str:
        """Name of the suite of tasks that are not trained on."""
        return f"{self.environment.name}-heldout"

    @property
    def suites(self) -> Mapping[str, Suite]:
        about = f"{self.config.heldout} tasks that are not trained on"
        return {self.suite: Suite(self.config.environment, about)} if self.config.heldout else {}

    def check(self) -> None:
        """See that the environment can be played in one turn; its tasks are not loaded, which may take a network."""
        self.environment.refuse()
        if self.environment.endless and self.config.tasks is None:
            raise DataError(f"the tasks of '{self.config.environment}' have no end", then="say how many: 'tasks: 1000'")

    def prompts(self, split: str) -> list[Prompt]:
        if split not in self._splits:
            raise DataError(f"'{self.name}' has no prompts '{split}'", allowed=self._splits)
        return self._splits[split]

    @cached_property
    def _splits(self) -> Mapping[str, list[Prompt]]:
        self.check()
        loaded = [self._prompt(task) for task in islice(self.environment.tasks(), self.config.tasks)]
        places = {prompt.id: derive("heldout", repr(prompt.messages)) for prompt in loaded}
        order = sorted({places[prompt.id] for prompt in loaded})
        if len(order) <= self.config.heldout:
            raise DataError(
                f"'{self.config.environment}' has {len(order)} different tasks, and {self.config.heldout} are held out",
                then="lower 'heldout'",
            )
        held_out = set(order[: self.config.heldout])  # the same question falls on one side, however often it is asked
        sides = {True: self.suite, False: "train"}
        found: dict[str, list[Prompt]] = {side: [] for side in ("train", *self.suites)}
        for prompt in loaded:
            found[sides[places[prompt.id] in held_out]].append(prompt)
        return found

    def _prompt(self, task: Any) -> Prompt:
        asked = self.environment.asked(task)
        return Prompt(f"task/{task.data.idx:06d}", self.name, asked, self.environment.stored(task))

    def verify(self, trajectory: Trajectory) -> Reward:
        """The weighted sum of the environment's rewards, within ``range``.

        Raises:
            DataError: the prompt is no task of the environment, or a reward was not given.
            TaskError: of the environment's own rewards.
        """
        return asyncio.run(self.verify_remote(trajectory))

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        rewards, metrics, total = await self.environment.score(trajectory)
        low, high = self.config.range
        if not low <= total <= high:  # so is what is not a number
            shown = ", ".join(f"{name} {value:g}" for name, value in rewards.items())
            raise DataError(
                f"the rewards of '{self.config.environment}' add up to {total:g} ({shown})",
                allowed=f"{low:g} to {high:g}",
                then="set 'range' to the least and greatest sum",
            )
        return Reward((total - low) / (high - low), metrics={**metrics, **rewards})
