"""A plugin of toys: components whose work is done in no time, for tests of what surrounds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Composition, Prompt, Reward, Suite, Trajectory


class ToyDomain:
    """A domain with two suites, named after it."""

    name: ClassVar[str] = "toy"
    reference: ClassVar[str] = "none"
    remote: ClassVar[bool] = False
    verify_seconds: ClassVar[float] = 1.0

    class Config(ComponentConfig):
        prefix: str = "toy"
        level: int = 1
        data: str = ""

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {f"{self.config.prefix}-{each}": Suite("generated") for each in ("easy", "hard")}

    def prompts(self, split: str) -> Iterable[Prompt]:
        return ()

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(1.0)


class ToyMerger:
    """Takes a weight and a merger within it."""

    name: ClassVar[str] = "toy"
    reference: ClassVar[str] = "none"

    class Config(ComponentConfig):
        weight: float = 0.5
        inner: str | dict[str, Any] | None = None

    parts: ClassVar[Mapping[str, str]] = {"inner": "merger"}

    def __init__(self, config: Config, inner: object = None) -> None:
        self.config = config

    granularity = "block"
    needs_base = False

    def check(self, experts: Sequence[str]) -> None:
        pass

    def outputs(self) -> Sequence[str]:
        return ("",)


class ToyAlgorithm:
    """Says what it is made of."""

    name: ClassVar[str] = "toy"
    reference: ClassVar[str] = "none"

    class Config(ComponentConfig):
        advantage: dict[str, Any] = {"use": "toy"}
        importance: dict[str, Any] | None = None
        loss: dict[str, Any] = {"use": "toy"}
        reduction: str = "token"

    def __init__(self, config: Config) -> None:
        self.config = config

    def compose(self) -> Composition:
        return Composition(self.config.advantage, self.config.loss, self.config.importance)


class ToyPart:
    """An advantage and a loss."""

    name: ClassVar[str] = "toy"
    reference: ClassVar[str] = "none"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig


@hookimpl
def m2rl_domains() -> list[type]:
    return [ToyDomain]


@hookimpl
def m2rl_mergers() -> list[type]:
    return [ToyMerger]


@hookimpl
def m2rl_algorithms() -> list[type]:
    return [ToyAlgorithm]


@hookimpl
def m2rl_advantages() -> list[type]:
    return [ToyPart]


@hookimpl
def m2rl_losses() -> list[type]:
    return [ToyPart]
