"""Rows of the blend as prompts, and the gold calls of a prompt."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.rows import messages, request
from m2rl_core.types import Prompt
from m2rl_domain_agent.calls import Call
from m2rl_domain_agent.workplace import TOOLS

__all__ = ["ROUTES", "allowed", "gold_calls", "responses_tool", "row_prompt"]

ROUTES = frozenset({"seed_session", "verify", "aggregate_metrics", "reverify_mode"})
"""Routes of a resources server that are no tools."""
_OWN = frozenset({"responses_create_params", "ground_truth"})


def row_prompt(key: str, domain: str, place: str, row: Mapping[str, Any]) -> Prompt:
    """A row of the blend; what it has besides question, tools and gold is ``metadata["row"]``.

    Raises:
        DataError: no question, malformed tools, or gold as :func:`gold_calls` says; it names the row.
    """
    asked = request(place, row)
    listed = asked.get("tools") or []
    if not isinstance(listed, list):
        raise DataError(f"{place} has malformed tools", found=repr(listed)[:80], allowed="a list of functions")
    tools = tuple(_chat_tool(place, tool) for tool in listed)
    rest = {name: value for name, value in row.items() if name not in _OWN}
    metadata = {"row": rest, "parallel_tool_calls": bool(asked.get("parallel_tool_calls", False))}
    prompt = Prompt(key, domain, messages(place, row), row.get("ground_truth"), metadata, tools)
    gold_calls(prompt, place)
    return prompt


def _chat_tool(place: str, tool: Any) -> Mapping[str, Any]:
    """A tool in the style of chat templates, from that of the Responses API or the same."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name.isidentifier() or name in ROUTES:
        raise DataError(
            f"{place} has a malformed tool", found=repr(tool)[:120], allowed=f"a function with a name, not {ROUTES}"
        )
    kept = ("name", "description", "parameters")
    return {"type": "function", "function": {each: function[each] for each in kept if each in function}}


def responses_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same tool in the style of the Responses API."""
    return {"type": "function", "strict": False, **tool.get("function", tool)}


def allowed(prompt: Prompt) -> Collection[str]:
    """Names of the tools that the prompt offers; all 27 where it lists none."""
    return {str(tool.get("function", tool)["name"]) for tool in prompt.tools} or TOOLS.keys()


def gold_calls(prompt: Prompt, place: str = "") -> tuple[Call, ...]:
    """The calls that a prompt holds to be right; none where nothing is to be done.

    They are a list of ``{name, arguments}`` or such a list as JSON text; ``arguments`` is an object, or one as JSON.

    Raises:
        DataError: no such list, a tool that the prompt does not offer, or arguments that are no object.
    """
    place = place or f"prompt '{prompt.id}'"
    listed = _parsed(prompt.ground_truth)
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise DataError(
            f"{place} has no gold calls",
            found=repr(prompt.ground_truth)[:80],
            allowed="a list of {name, arguments} in ground_truth; [] where nothing is to be done",
        )
    return tuple(_gold_call(place, each, allowed(prompt)) for each in listed)


def _gold_call(place: str, value: Mapping[str, Any], names: Collection[str]) -> Call:
    name, arguments = value.get("name"), _parsed(value.get("arguments"))
    if not isinstance(name, str) or name not in names:
        raise DataError(f"{place} has a gold call of an unknown tool", found=repr(name), allowed=sorted(names))
    if not isinstance(arguments, dict):
        raise DataError(
            f"{place} has a gold call of '{name}' with malformed arguments",
            found=repr(value.get("arguments"))[:80],
            allowed="an object, or one as JSON text",
        )
    return Call(name, arguments)


def _parsed(value: Any) -> Any:
    """JSON text as what it says, other values as they are, and text that is no JSON as ``None``."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
