"""The multi-turn rows: an episode in which the user speaks turn by turn, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from m2rl_core.types import Message, Prompt, Reward
from m2rl_domain_agent.bfcl.turns import MOST_STEPS, GoldCall, gold_turns, played, read, said_later, start
from m2rl_domain_agent.bfcl.world import World
from m2rl_domain_agent.calls import Call

__all__ = ["Conversation", "judge"]


class Conversation:
    """Answers each call with one ``tool`` message; after a turn without calls the user goes on.

    It ends with the user's last turn, or with a step beyond those that a turn may take.
    """

    def __init__(self, prompt: Prompt, history: Literal["keep", "drop"] = "keep") -> None:
        self.history: Literal["keep", "drop"] = history
        self._world, self._later = start(prompt), said_later(prompt)
        self._steps = 0
        self.max_turns = (MOST_STEPS + 1) * (len(self._later) + 1)

    async def reply(self, text: str) -> list[Message]:
        if made := read(text):
            self._steps += 1
            return self._done(made) if self._steps <= MOST_STEPS else []
        self._steps = 0
        return self._later.pop(0) if self._later else []

    def _done(self, made: Sequence[Call]) -> list[Message]:
        return [Message(role="tool", content=_result(self._world, call)) for call in made]

    async def close(self) -> None:
        return None


def judge(prompt: Prompt, messages: Sequence[Message]) -> Reward:
    """1 where every turn leaves the gold's state behind and has its results seen, on fresh objects.

    Raises:
        DataError: the prompt's gold is no such thing, or ``bfcl-eval`` is not installed.
    """
    gold, turns = gold_turns(prompt), len(prompt.metadata["later"]) + 1
    model = played(messages, turns)
    if model.too_long:
        return Reward(0.0, f"turn {len(model.turns) + 1} takes more than {MOST_STEPS} steps")
    if len(model.turns) != len(gold):
        return Reward(0.0, f"ended after {len(model.turns)} of {len(gold)} turns")
    mine, theirs, seen = start(prompt), start(prompt), list[str]()
    for number, (steps, wanted) in enumerate(zip(model.turns, gold, strict=True), 1):
        seen += [_result(mine, call) for step in steps for call in step]
        if wrong := _wrong(mine, theirs, seen, wanted, acted=bool(steps)):
            return Reward(0.0, f"turn {number}: {wrong}")
    return Reward(1.0, "every turn as wanted")


def _result(world: World, call: Call) -> str:
    return world.call(call.name, (), call.arguments)


def _wrong(mine: World, theirs: World, seen: Sequence[str], wanted: Sequence[GoldCall], *, acted: bool) -> str:
    """Why a turn is wrong; nothing where it is right. A turn that wants no calls is not looked at, as upstream's.

    Args:
        seen: results of the model's calls in all turns so far.
        acted: whether the model made calls in this one.
    """
    if not wanted:
        return ""
    results = [theirs.call(call.name, call.given, call.named) for call in wanted]
    if not acted:
        return "no call"
    if differs := mine.difference(theirs):
        return f"another state of {differs}"
    left = list(seen)
    for result in results:
        if result not in left:
            return f"a result is missing: {result[:120]}"
        left.remove(result)
    return ""
