"""An episode in the embedded workplace, and the calls that a finished one consists of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from m2rl_core.types import Message
from m2rl_domain_agent.calls import Call, CallError, calls
from m2rl_domain_agent.workplace import Workplace, answered

__all__ = ["MAX_TURNS", "WorkplaceEpisode", "turns_of"]

MAX_TURNS = 6
"""Assistant turns of an episode: upstream's and the released code's ``max_steps``. The last one's calls count."""


class WorkplaceEpisode:
    """Answers every call of a turn with one ``tool`` message; a turn without calls, or a malformed one, is the last."""

    max_turns = MAX_TURNS

    def __init__(self, work: Workplace, names: Collection[str], history: Literal["keep", "drop"]) -> None:
        self.history: Literal["keep", "drop"] = history
        self._work, self._names = work, names

    async def reply(self, text: str) -> list[Message]:
        try:
            made = calls(text)
        except CallError:  # the verifier will say so
            return []
        return [Message(role="tool", content=answered(self._work, call, self._names)) for call in made]

    async def close(self) -> None:
        return None


def turns_of(messages: Sequence[Message]) -> list[tuple[str, tuple[Call, ...]]]:
    """The assistant's turns with their calls, as far as an episode goes.

    It ends with the first turn that makes no call, and with turn :data:`MAX_TURNS`: later ones were never sampled.

    Raises:
        CallError: a turn whose calls cannot be read.
    """
    turns: list[tuple[str, tuple[Call, ...]]] = []
    for message in messages:
        if message["role"] == "assistant" and len(turns) < MAX_TURNS and (not turns or turns[-1][1]):
            turns.append((message["content"], calls(message["content"])))
    return turns
