"""A multi-turn row as plain data: what the user says, which functions come with it, and the gold calls of each turn."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.types import Message, Prompt
from m2rl_domain_agent.bfcl.categories import UNWINNABLE
from m2rl_domain_agent.bfcl.world import World
from m2rl_domain_agent.calls import Call, CallError, calls

__all__ = ["MOST_STEPS", "GoldCall", "Played", "gold_turns", "played", "read", "said_later", "start"]

MOST_STEPS = 20
"""Steps with calls in one turn; upstream ends the conversation, and fails it, with the next one."""


@dataclass(frozen=True, slots=True)
class GoldCall:
    """One gold call, parsed."""

    name: str
    given: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Played:
    """What a model did: the steps of each turn that it ended."""

    turns: tuple[tuple[tuple[Call, ...], ...], ...]
    too_long: bool
    """It went on beyond :data:`MOST_STEPS`."""


def start(prompt: Prompt) -> World:
    """The objects as the conversation finds them."""
    metadata = prompt.metadata
    long_context = "long_context" in metadata["category"]
    return World(metadata["classes"], metadata["config"], long_context=long_context)


def said_later(prompt: Prompt) -> list[list[Message]]:
    """What the user says in each turn but the first, which is the prompt."""
    return [list(turn) for turn in prompt.metadata["later"]]


def gold_turns(prompt: Prompt) -> list[list[GoldCall]]:
    """The gold calls of each turn.

    Raises:
        DataError: no such list, another number of turns than the user has, or text that is no call.
    """
    gold = prompt.ground_truth
    if not isinstance(gold, list) or not all(isinstance(turn, list) for turn in gold) or not any(gold):
        raise DataError(f"prompt '{prompt.id}' has no gold turns", found=repr(gold)[:80], allowed="lists of calls")
    turns = len(prompt.metadata["later"]) + 1
    if len(gold) != turns and prompt.id not in UNWINNABLE:
        raise DataError(f"prompt '{prompt.id}' has {turns} turns", found=f"gold for {len(gold)}")
    return [[_parsed(prompt, text) for text in turn] for turn in gold]


def _parsed(prompt: Prompt, text: Any) -> GoldCall:
    """``name(1, two='three')`` as what it says; nothing is evaluated."""
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("no call of a function")
        given = tuple(ast.literal_eval(each) for each in call.args)
        named = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise DataError(
            f"prompt '{prompt.id}' has a gold call that is none: {error}", found=repr(text)[:120]
        ) from error
    return GoldCall(call.func.id, given, named)


def read(turn: str) -> tuple[Call, ...]:
    """The calls of an assistant turn; none where they cannot be read, which ends the user's turn as upstream has it."""
    try:
        return calls(turn)
    except CallError:
        return ()


def played(messages: Iterable[Message], turns: int) -> Played:
    """The model's calls, grouped as the conversation was; what comes after its end does not count.

    A turn ends with the first assistant message without calls. One that the messages do not end is not among them.
    """
    ended: list[tuple[tuple[Call, ...], ...]] = []
    steps: list[tuple[Call, ...]] = []
    for message in messages:
        if message["role"] != "assistant" or len(ended) == turns:
            continue
        if made := read(message["content"]):
            steps.append(made)
            if len(steps) > MOST_STEPS:
                return Played(tuple(ended), True)
        else:
            ended.append(tuple(steps))
            steps = []
    return Played(tuple(ended), False)


def added(functions: Sequence[Mapping[str, Any]]) -> Message:
    """How functions are shown that come later than the others: the list of tools is fixed, so the user names them."""
    listed = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    text = f"These functions can be called as well from now on:\n{listed}\nPlease go on with what I asked for."
    return Message(role="user", content=text)
