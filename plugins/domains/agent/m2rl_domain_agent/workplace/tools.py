"""The 27 tools by name, and how a call reaches one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from m2rl_domain_agent.calls import Call
from m2rl_domain_agent.workplace import analytics, calendar, customers, directory, email, tasks
from m2rl_domain_agent.workplace.failures import ToolError
from m2rl_domain_agent.workplace.tables import Workplace

__all__ = ["LONGEST_ARGUMENT", "TOOLS", "Tool", "answered", "performed", "replayed"]

LONGEST_ARGUMENT = 8_000
"""Characters of an argument. Without a limit a megabyte of search words costs upstream 13 s."""
LONGEST_ANSWER = 64_000
"""Characters of what a tool answers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function of the workplace."""

    run: Callable[..., Any]
    parameters: Mapping[str, type]
    """By name: text or, for pages, a whole number."""
    writes: bool
    """Whether it can change the workplace; a replay leaves out the others."""


def _tool(run: Callable[..., Any]) -> Tool:
    names = list(inspect.signature(run).parameters)[1:]
    reads = run.__name__.startswith(("get_", "search_", "find_")) or run.__name__.endswith("_count")
    return Tool(run, {name: int if name in ("page", "page_size") else str for name in names}, not reads)


def _of(prefix: str, module: ModuleType) -> dict[str, Tool]:
    functions = (getattr(module, name) for name in module.__all__ if name.islower())
    return {f"{prefix}_{function.__name__}": _tool(function) for function in functions}


TOOLS: Mapping[str, Tool] = {
    **_of("company_directory", directory),
    **_of("email", email),
    **_of("calendar", calendar),
    **_of("analytics", analytics),
    **_of("project_management", tasks),
    **_of("customer_relationship_manager", customers),
}


def performed(work: Workplace, call: Call, allowed: Collection[str] = TOOLS) -> Any:
    """Run one call on ``work``; returns plain JSON data.

    Raises:
        ToolError: no such tool or not one of ``allowed``, arguments that do not fit, or the tool's own refusal. The
            workplace is then as before.
    """
    tool = TOOLS.get(call.name) if call.name in allowed else None
    if tool is None:
        raise ToolError(f"Error executing tool '{call.name[:80]}': unknown tool")
    given = {name: value for name, value in call.arguments.items() if value is not None}
    for name, value in given.items():
        if problem := _problem(tool, name, value):
            raise ToolError(f"Error executing tool '{call.name}': {problem}")
    try:
        return tool.run(work, **given)
    except ToolError:
        raise
    except (ValueError, OverflowError) as error:  # e.g. no number follows on an id that was overwritten
        raise ToolError(f"Error executing tool '{call.name}': {str(error)[:200]}") from error


def _problem(tool: Tool, name: str, value: object) -> str:
    """What is wrong with one argument, or nothing."""
    kind = tool.parameters.get(name)
    if kind is None:
        return f"unexpected argument '{name[:80]}'"
    if not isinstance(value, kind) or isinstance(value, bool):
        return f"argument '{name}' must be {'text' if kind is str else 'a whole number'}"
    if isinstance(value, str) and len(value) > LONGEST_ARGUMENT:
        return f"argument '{name}' is longer than {LONGEST_ARGUMENT:,} characters"
    return ""


def answered(work: Workplace, call: Call, allowed: Collection[str] = TOOLS) -> str:
    """Run one call and say what a model is told: the body of upstream's reply, ``{"output": ...}``."""
    try:
        output = performed(work, call, allowed)
    except ToolError as error:
        output = str(error)
    text = json.dumps({"output": output}, ensure_ascii=False, separators=(",", ":"))
    if len(text) <= LONGEST_ANSWER:
        return text
    return json.dumps({"output": f"Error: {len(text):,} characters found. Narrow the search."}, separators=(",", ":"))


def replayed(work: Workplace, made: Iterable[Call], allowed: Collection[str] = TOOLS) -> tuple[Workplace, int]:
    """A fresh copy of ``work`` after the calls, and how many of them did not fail; reading calls are not run."""
    fresh, done = work.copy(), 0
    for call in made:
        if call.name in TOOLS and not TOOLS[call.name].writes:
            done += call.name in allowed
            continue
        try:
            performed(fresh, call, allowed)
            done += 1
        except ToolError:
            continue
    return fresh, done
