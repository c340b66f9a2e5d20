"""A multi-turn environment: search first, act on what was found; judged by the state it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from m2rl_core.interfaces import ComponentConfig, Domain, Episode
from m2rl_core.types import Message, Prompt, Reward, Suite, Trajectory

TOOLS = ({"name": "search", "parameters": {}}, {"name": "delete", "parameters": {}})


class Office(Domain):
    """Emails that can be searched and deleted."""

    name: ClassVar[str] = "office"
    reference: ClassVar[str] = "test"

    class Config(ComponentConfig):
        max_turns: int = 6
        history: Literal["keep", "drop"] = "keep"

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {"office-heldout": Suite(source="generated", k=2)}

    def prompts(self, split: str) -> Iterable[Prompt]:
        for i in range(4):
            content = f"Delete the email of person {i}."
            gold = [{"name": "delete", "arguments": {"id": f"{i:04d}"}}]
            yield Prompt(f"{split}/{i}", self.name, ({"role": "user", "content": content},), gold, {}, TOOLS)

    def open(self, prompt: Prompt) -> Episode:
        return Visit(self.config)

    def verify(self, trajectory: Trajectory) -> Reward:
        """Replay all calls on a fresh copy; the order of reads is free."""
        calls = [c for m in trajectory.messages if m["role"] == "assistant" for c in parse(m["content"])]
        acted = [call for call in calls if call["name"] == "delete"]
        return Reward(float(acted == trajectory.prompt.ground_truth), f"{len(acted)} actions")


class Visit:
    """One episode: its own copy of the emails."""

    def __init__(self, config: Office.Config) -> None:
        self.max_turns, self.history = config.max_turns, config.history
        self.emails = {f"{i:04d}": f"person {i}" for i in range(4)}

    async def reply(self, text: str) -> list[Message]:
        return [{"role": "tool", "content": self.run(call)} for call in parse(text)]

    def run(self, call: Mapping[str, object]) -> str:
        if call["name"] == "search":
            return json.dumps(self.emails)
        return str(self.emails.pop(str(call.get("arguments")), "no such email"))

    async def close(self) -> None:
        self.emails.clear()


def parse(text: str) -> list[dict[str, object]]:
    """The tool calls of an assistant turn."""
    parts = text.partition("</think>")[2].split("<tool_call>")[1:]
    return [json.loads(part.partition("</tool_call>")[0]) for part in parts]
