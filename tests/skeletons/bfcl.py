"""A BFCL suite: three thirds of nested means as prompt weights, and conversations with several user turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from m2rl_core.interfaces import ComponentConfig, Domain, Episode, SingleTurn
from m2rl_core.types import Message, Prompt, Reward, Suite, Trajectory

SIZES = {"non_live/simple": 5, "non_live/multiple": 2, "live/simple": 3, "multi_turn/base": 4}


class Bfcl(Domain):
    """Single-turn calls judged by their arguments; multi-turn conversations judged by the state after every turn."""

    name: ClassVar[str] = "bfcl"
    reference: ClassVar[str] = "https://gorilla.cs.berkeley.edu/leaderboard.html"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {"bfcl-v3": Suite(source="bfcl-eval", revision="v3", temperature=0.0)}

    def prompts(self, split: str) -> Iterable[Prompt]:
        thirds = {category.partition("/")[0] for category in SIZES}
        for category, size in SIZES.items():
            third = category.partition("/")[0]
            siblings = sum(other.startswith(third + "/") for other in SIZES)
            for i in range(size):
                users = ["Book a flight.", "Cancel it."] if third == "multi_turn" else ["Book a flight."]
                yield Prompt(
                    id=f"{category}/{i}",
                    domain=self.name,
                    messages=({"role": "user", "content": users[0]},),
                    ground_truth=["book()"] * len(users),
                    metadata={"later": users[1:]},
                    tools=({"name": "book"},),
                    weight=1 / (len(thirds) * siblings * size),
                )

    def open(self, prompt: Prompt) -> Episode:
        return Dialogue(list(prompt.metadata["later"])) if prompt.metadata["later"] else SingleTurn()

    def verify(self, trajectory: Trajectory) -> Reward:
        said = [m["content"] for m in trajectory.messages if m["role"] == "assistant"]
        return Reward(
            float(all(gold in text for gold, text in zip(trajectory.prompt.ground_truth, said, strict=False)))
        )


class Dialogue:
    """The user speaks again when the model makes no more calls."""

    max_turns = 20
    history: Literal["keep", "drop"] = "keep"

    def __init__(self, later: list[str]) -> None:
        self.later = later

    async def reply(self, text: str) -> list[Message]:
        if "()" in text:
            return [{"role": "tool", "content": "done"}]
        return [{"role": "user", "content": self.later.pop(0)}] if self.later else []

    async def close(self) -> None: ...
