"""A domain for ``rl_step.py``: prompts from a file, and a reward that costs nothing and differs within every group."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Prompt, Reward, Trajectory


def reward(text: str) -> float:
    """As good as random, between 0 and 1."""
    return sum(text.encode()) % 101 / 100


class Cheap(Domain):
    """Conversations that a JSON file lists, rewarded by :func:`reward`."""

    name: ClassVar[str] = "cheap"
    reference: ClassVar[str] = "benchmarks/rl_step.py"
    suites: ClassVar[dict[str, str]] = {}  # type: ignore[assignment]

    class Config(ComponentConfig):
        prompts: Path

    def __init__(self, config: Config) -> None:
        self.config = config

    def prompts(self, split: str) -> Iterable[Prompt]:
        found = json.loads(self.config.prompts.read_text())
        return [Prompt(str(i), "cheap", tuple(messages), None) for i, messages in enumerate(found)]

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(reward(trajectory.answer))


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [Cheap]
