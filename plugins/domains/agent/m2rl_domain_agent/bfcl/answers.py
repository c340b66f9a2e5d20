"""A right answer made of a row's own gold, by which data are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m2rl_core.types import Prompt
from m2rl_domain_agent.bfcl import single
from m2rl_domain_agent.bfcl.categories import FREE, JUDGED, language
from m2rl_domain_agent.bfcl.tools import shown_name
from m2rl_domain_agent.calls import Call, text_of

__all__ = ["gold"]


def gold(prompt: Prompt) -> str | None:
    """The gold calls of a prompt with the first of the accepted values each, or that none of the functions helps.

    ``None`` where one answer does not say it: several turns; Java's and JavaScript's literals, which the gold holds
    as values; a prompt for which any call is right.
    """
    category = prompt.metadata["category"]
    if FREE.get(category) is False:
        return "None of the functions can do this."
    if category not in JUDGED or language(category) != "python":
        return None
    return text_of(_call(function, answers) for function, answers in single.gold_calls(prompt))


def _call(function: Mapping[str, Any], answers: Mapping[str, Sequence[Any]]) -> Call:
    """What may be left out is."""
    required = function["parameters"].get("required", ())
    given = {name: values for name, values in answers.items() if "" not in values or name in required}
    return Call(shown_name(function["name"]), {name: _first(each) for name, each in given.items()})


def _first(values: Sequence[Any]) -> Any:
    value = next((each for each in values if each != ""), "")
    if isinstance(value, dict):
        return _filled(value)
    if isinstance(value, list):
        return [_filled(each) if isinstance(each, dict) else each for each in value]
    return value


def _filled(answer: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A dictionary whose keys have accepted values, with the first of each."""
    return {key: choices[0] for key, choices in answer.items() if "" not in choices}
