"""Rows of supervised fine-tuning: what is said in them, in the words that a policy will be sampled in.

Rows have ``messages`` of ``role`` and ``content``, the assistant's also with ``reasoning_content`` and ``tool_calls``;
``tools`` are JSON schemas. Lists may be JSON text, as in parquet files that were made for one schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from m2rl_core.types import Message

__all__ = ["PLACEHOLDER", "UnusableError", "conversation", "is_unicode"]

PLACEHOLDER = "-"
"""A user's content where the question may not be handed on, but can be looked up."""


class UnusableError(Exception):
    """A row that teaches nothing; the text says why, in words that rows are counted by."""


def conversation(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], tuple[Mapping[str, Any], ...]]:
    """(messages, tools) of a row. Reasoning and calls become part of what the assistant says.

    Raises:
        UnusableError: no messages, a turn without content or of what is no Unicode, no turn of the assistant or two in
            a row, or a placeholder instead of a question.
    """
    listed = _listed(row.get("messages"))
    if not listed:
        raise UnusableError("no messages")
    said = tuple(_message(each) for each in listed)
    roles = [message["role"] for message in said]
    if "assistant" not in roles:
        raise UnusableError("no assistant turn")
    if roles[0] == "assistant" or ("assistant", "assistant") in pairwise(roles):
        raise UnusableError("an assistant turn that answers nothing")
    if any(message["role"] == "user" and message["content"].strip() == PLACEHOLDER for message in said):
        raise UnusableError("a placeholder instead of a question")
    return said, tuple(tool for tool in _listed(row.get("tools")) if isinstance(tool, Mapping))


def is_unicode(text: str) -> bool:
    r"""False with half of a surrogate pair in it, as JSON's ``"\ud800"`` spells one: tokenizers refuse such text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _message(value: object) -> Message:
    if not isinstance(value, Mapping) or not isinstance(role := value.get("role"), str):
        raise UnusableError("a message without a role")
    content = value.get("content") or ""
    if not isinstance(content, str):
        raise UnusableError("content that is no text")
    if role == "assistant":
        content = _said(content, value.get("reasoning_content"), _listed(value.get("tool_calls")))
    if not content.strip() and role in ("user", "assistant"):
        raise UnusableError("an empty turn")
    if not is_unicode(content):
        raise UnusableError("text that is no Unicode")
    return Message(role=role, content=content)


def _said(content: str, reasoning: object, calls: Sequence[Any]) -> str:
    """As the Qwen templates write it: ``<think>``, the content, one ``<tool_call>`` for each call."""
    parts = [content] if content.strip() else []
    for call in calls:
        parts.append(f"<tool_call>\n{_call(call)}\n</tool_call>")
    text = "\n".join(parts)
    if isinstance(reasoning, str) and reasoning.strip() and "</think>" not in content:
        return f"<think>\n{reasoning.strip()}\n</think>\n\n{text}"
    return text


def _call(value: object) -> str:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnusableError("a call without a name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise UnusableError("a call whose arguments are no JSON") from None
    return json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)


def _listed(value: object) -> Sequence[Any]:
    """A list, or one in JSON; of the public data some is encoded twice."""
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    return value if isinstance(value, list) else ()
