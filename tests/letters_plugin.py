"""A plugin for whole tiny studies: domains that reward answers which begin with certain characters, and REINFORCE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Conversation, Prompt, Reward, Suite, Trajectory


class Letters(Domain):
    """Rewards answers that begin with one of ``liked``; has the suite ``NAME-heldout``."""

    name: ClassVar[str] = "letters"
    reference: ClassVar[str] = "test"

    class Config(ComponentConfig):
        suite: str
        liked: str = "02468abcdefghijklm"

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {self.config.suite: Suite("generated", k=2)}

    def prompts(self, split: str) -> list[Prompt]:
        numbers = range(40) if split == "train" else range(40, 44)
        return [Prompt(str(i), "letters", ({"role": "user", "content": str(i)},)) for i in numbers]

    def demonstrations(self) -> list[Conversation]:
        return [
            Conversation(
                f"{i}",
                "letters",
                ({"role": "user", "content": str(i)}, {"role": "assistant", "content": self.config.liked[i % 10] * 2}),
            )
            for i in range(20)
        ]

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(float(trajectory.answer[:1] in set(self.config.liked)))


class Part:
    name: ClassVar[str] = "letters"
    reference: ClassVar[str] = "test"
    needs: ClassVar[frozenset[str]] = frozenset()
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...


class Centred(Part):
    def __call__(self, group: list[Any]) -> list[Any]:
        import torch

        mean = sum(s.reward.value for s in group) / len(group)
        return [torch.full((len(s.ids_L),), s.reward.value - mean) for s in group]


class Towards(Part):
    name = "letters-taught"
    needs = frozenset({"teacher_logps", "old_logps"})

    def __call__(self, group: list[Any]) -> list[Any]:
        return [s.teacher_logps_L - s.old_logps_L for s in group]


class Reinforce(Part):
    separable, vanishes, divergence = True, True, None

    def __call__(self, logps: Any, batch: Any) -> Any:
        return -logps * batch.advantage_T


class Rewarded(Part):
    def compose(self) -> Composition:
        return Composition({"use": "letters"}, {"use": "letters"})


class Taught(Part):
    name = "letters-taught"

    def compose(self) -> Composition:
        return Composition({"use": "letters-taught"}, {"use": "letters"})


@hookimpl
def m2rl_domains() -> list[type]:
    return [Letters]


@hookimpl
def m2rl_algorithms() -> list[type]:
    return [Rewarded, Taught]


@hookimpl
def m2rl_advantages() -> list[type]:
    return [Centred, Towards]


@hookimpl
def m2rl_losses() -> list[type]:
    return [Reinforce]
