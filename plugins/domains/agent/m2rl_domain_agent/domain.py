"""The domain: where prompts come from, the episodes they are worked on in, and how the outcome is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import count
from random import Random
from typing import Any, ClassVar, Literal

from pydantic import Field

from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Episode
from m2rl_core.procedural import GENERATED, ProceduralConfig, ProceduralDomain
from m2rl_core.rows import rows
from m2rl_core.types import Prompt, Reward, Suite, Trajectory
from m2rl_domain_agent import bfcl
from m2rl_domain_agent.calls import CallError, text_of
from m2rl_domain_agent.episodes import WorkplaceEpisode, turns_of
from m2rl_domain_agent.nemo_gym import Gym, NemoGym
from m2rl_domain_agent.prompts import allowed, gold_calls, row_prompt
from m2rl_domain_agent.questions import LEVELS, Question, questions
from m2rl_domain_agent.workplace import Workplace, company, replayed

__all__ = ["Agent", "Embedded"]

DATASETS = frozenset({"nano_v3_sft_profiled_workbench"})


class Embedded(ComponentConfig):
    """The workplace of this package."""

    use: Literal["workplace"] = "workplace"


class Agent(ProceduralDomain):
    """Tool use over several turns: find something out, then act on it; judged by the state that is left behind."""

    name: ClassVar[str] = "agent"
    reference: ClassVar[str] = "the paper's section 3.1; NeMo-Gym's workplace_assistant resources server"
    verify_seconds: ClassVar[float] = 30.0
    levels: ClassVar[Mapping[int, str]] = LEVELS
    max_tokens: ClassVar[int] = 192
    published: ClassVar[Mapping[str, Suite]] = {bfcl.SUITE: bfcl.PUBLISHED}

    class Config(ProceduralConfig):
        levels: tuple[Literal[1, 2, 3, 4], ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated prompts, mixed evenly; ``agent-hard`` asks the hardest whatever this is."""
        tables: str | None = None
        """Folder with upstream's CSV files (its ``csv_data``, all six in one place). Rows of the blend need them."""
        environment: Embedded | NemoGym = Field(Embedded(), discriminator="use")
        """``{use: workplace}``, or ``{use: nemo-gym, url: ...}``: a resources server that answers and judges."""
        history: Literal["keep", "drop"] = "keep"
        """``drop`` removes earlier turns' reasoning from the context, and trains every turn as its own sequence."""
        bfcl_v3: str | None = None
        """Folder with the files of BFCL v3, or ``bfcl-eval`` for those inside that package: the suite ``bfcl-v3``."""

    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config
        self._gym = Gym(config.environment) if isinstance(config.environment, NemoGym) else None

    @property
    def splits(self) -> bool:
        return self.config.history == "drop"

    @property
    def remote(self) -> bool:
        """True where a resources server judges."""
        return self._gym is not None

    def check(self) -> None:
        if self._gym is not None and self.config.source == GENERATED:
            raise DataError(
                "generated prompts have a workplace of their own, which no server knows",
                allowed="rows of the blend as the source of 'environment: {use: nemo-gym}'",
                then="set 'source', or leave out 'environment'",
            )
        if self.config.tables is not None:
            _ = self._workplace
        super().check()

    def questions(self, level: int, draw: Random) -> Iterator[Question]:
        return questions(level, draw)

    def rows(self) -> Iterator[Prompt]:
        if self._gym is None and self.config.tables is None:
            raise DataError(
                "rows of the blend are about upstream's tables",
                found="no 'tables'",
                then="set 'tables' to a folder with the CSV files of NeMo-Gym's workplace_assistant",
            )
        return map(self._prompt, count(), rows(self.config.source, DATASETS))

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        return bfcl.prompts(source, self.name)

    def _prompt(self, index: int, placed: tuple[str, Mapping[str, Any]]) -> Prompt:
        place, row = placed
        prompt = row_prompt(f"train/{index:06d}", self.name, place, row)
        if self._gym is None:
            self._wanted(prompt, place)
        return prompt

    @cached_property
    def _workplace(self) -> Workplace:
        return company() if self.config.tables is None else Workplace.read(self.config.tables)

    def _start(self, prompt: Prompt) -> Workplace:
        """The workplace as the prompt finds it; not to be changed."""
        own = prompt.metadata.get("tables")
        return self._workplace if own is None else Workplace.of(own)

    def _wanted(self, prompt: Prompt, place: str = "") -> Workplace:
        """The state that the gold calls lead to.

        Raises:
            DataError: no gold, malformed gold, or gold of which every call fails: it is about other tables, and
                doing nothing would be right.
        """
        gold = gold_calls(prompt, place)
        state, done = replayed(self._start(prompt), gold, allowed(prompt))
        if gold and not done:
            raise DataError(
                f"{place or f'prompt {prompt.id!r}'}: every gold call fails on these tables",
                found=f"{gold[0].name} {dict(gold[0].arguments)}"[:200],
                then="set 'tables' to those that the rows are about",
            )
        return state

    def gold(self, prompt: Prompt) -> str | None:
        """The gold calls as one turn; of BFCL, where one turn is the whole answer."""
        if _is_bfcl(prompt):
            return bfcl.gold(prompt)
        return text_of(gold_calls(prompt)) or "There is nothing to be done."

    def open(self, prompt: Prompt) -> Episode:
        """At most six turns in a fresh copy of the prompt's workplace, or in a session of the resources server.

        A prompt of BFCL has a conversation of its own.
        """
        if _is_bfcl(prompt):
            return bfcl.open(prompt, self.config.history)
        if self._gym is not None:
            return self._gym.open(prompt, self.config.history)
        return WorkplaceEpisode(self._start(prompt).copy(), allowed(prompt), self.config.history)

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where the trajectory's calls leave the same state as the gold calls, on fresh copies; else 0.

        Prompts of BFCL are judged by its own rules.

        Raises:
            DataError: the prompt has no gold calls, or none that does anything here.
        """
        prompt = trajectory.prompt
        if _is_bfcl(prompt):
            return bfcl.verify(trajectory)
        wanted = self._wanted(prompt)
        try:
            turns = turns_of(trajectory.messages)
        except CallError as error:
            return Reward(0.0, f"malformed call: {error}")
        made = [call for _, each in turns for call in each]
        state, _ = replayed(self._start(prompt), made, allowed(prompt))
        differs = state.difference(wanted)
        return Reward(0.0, f"other {differs} than wanted") if differs else Reward(1.0, "the state that was wanted")

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        """The resources server's verdict; a turn that cannot be read is wrong without asking.

        Raises:
            ServerError: no verdict.
        """
        if self._gym is None or _is_bfcl(trajectory.prompt):
            return await asyncio.to_thread(self.verify, trajectory)
        return await self._gym.verify(trajectory)


def _is_bfcl(prompt: Prompt) -> bool:
    return bool(prompt.metadata.get("suite") == bfcl.SUITE)
