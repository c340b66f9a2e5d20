"""Tool calls as a model writes them: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, read strictly.

Nothing is repaired: a lenient reader is a second way to a reward. What is refused is the model's fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = ["Call", "CallError", "calls", "text_of"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK, THOUGHT = "<think>", "</think>"
LONGEST = 4 << 20
"""Characters of a turn: reading it takes a fraction of a second."""
MOST = 64
"""Calls in one turn."""


class CallError(ValueError):
    """A turn whose calls cannot be read, in words for the model's record."""


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call: plain JSON data."""

    name: str
    arguments: Mapping[str, Any]


def calls(turn: str) -> tuple[Call, ...]:
    """The calls of an assistant turn in their order; none where it merely talks.

    Reasoning, up to ``</think>``, is not looked at: a call in it is a thought. Text around the calls is free.

    Raises:
        CallError: unclosed or doubled reasoning; an unclosed, nested or stray tag; a call that is no JSON object of
            exactly ``name`` (text) and ``arguments`` (an object); duplicate keys, NaN, infinities, lone surrogates; a
            turn beyond the limits.
    """
    if len(turn) > LONGEST:
        raise CallError(f"a turn of more than {LONGEST:,} characters")
    _, closed, rest = turn.partition(THOUGHT)
    said = rest if closed else turn
    if THINK in said or THOUGHT in said:
        raise CallError("reasoning that is not closed exactly once")
    found = tuple(_call(body) for body in _bodies(said))
    if len(found) > MOST:
        raise CallError(f"more than {MOST} calls in one turn")
    return found


def _bodies(said: str) -> Iterator[str]:
    """What stands between each pair of tags."""
    before, *pieces = said.split(OPEN)
    if CLOSE in before:
        raise CallError(f"{CLOSE} without {OPEN}")
    for piece in pieces:
        body, closed, after = piece.partition(CLOSE)
        if not closed:
            raise CallError(f"{OPEN} is not closed")
        if CLOSE in after:
            raise CallError(f"{CLOSE} without {OPEN}")
        yield body


def _call(body: str) -> Call:
    try:
        value = json.loads(body, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except CallError:
        raise
    except UnicodeEncodeError:
        raise CallError("a lone surrogate in a call") from None
    except (ValueError, RecursionError) as error:
        raise CallError(f"a call that is no JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        raise CallError("a call that is no object of 'name' and 'arguments'")
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not name:
        raise CallError("a call whose 'name' is no text")
    if not isinstance(arguments, dict):
        raise CallError("a call whose 'arguments' are no object")
    return Call(name, arguments)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CallError("a key twice in a call")
    return found


def _constant(name: str) -> NoReturn:
    raise CallError(f"{name} in a call")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise CallError("a number out of range in a call")
    return value


def text_of(made: Iterable[Call]) -> str:
    """Calls as a model is to write them, each on lines of its own as in Qwen3's chat template."""
    bodies = (json.dumps({"name": c.name, "arguments": dict(c.arguments)}, ensure_ascii=False) for c in made)
    return "\n".join(f"{OPEN}\n{body}\n{CLOSE}" for body in bodies)
