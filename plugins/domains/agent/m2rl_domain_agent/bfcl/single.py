"""The rows of one turn: are the calls the gold calls, or is there a call where there should be none?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Reward
from m2rl_domain_agent.bfcl.categories import FREE, UNWINNABLE, Language, language
from m2rl_domain_agent.bfcl.tools import shown_name
from m2rl_domain_agent.bfcl.values import accepted, knows
from m2rl_domain_agent.calls import Call, CallError, calls

__all__ = ["Gold", "gold_calls", "judge"]

Gold = tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]]
"""The description of a function, and the accepted values of each of its arguments."""


def judge(prompt: Prompt, answer: str) -> Reward:
    """1 where the calls in ``answer`` are right; a call that cannot be read is wrong, even where none is wanted.

    Raises:
        DataError: the prompt's gold or functions are no such thing.
    """
    category = prompt.metadata["category"]
    wanted = gold_calls(prompt)
    try:
        made = calls(answer)
    except CallError as error:
        return Reward(0.0, f"malformed call: {error}")
    if category in FREE:
        right = bool(made) == FREE[category]
        return Reward(float(right), f"{len(made)} calls where {'some are' if FREE[category] else 'none is'} wanted")
    wrong = _mismatch(made, wanted, category)
    return Reward(0.0, wrong) if wrong else Reward(1.0, "the gold calls")


def gold_calls(prompt: Prompt) -> list[Gold]:
    """The calls that a prompt wants; none for a category without gold calls.

    Raises:
        DataError: no such calls, or calls of functions or with arguments that are not described.
    """
    category, gold = prompt.metadata["category"], prompt.ground_truth
    if category in FREE:
        if gold != {"call": FREE[category]}:
            raise _malformed(prompt, gold, f"{{'call': {FREE[category]}}}")
        return []
    if not isinstance(gold, list) or not gold:
        raise _malformed(prompt, gold, "a list of {function: {argument: [accepted values]}}")
    described = {each.get("name"): each for each in prompt.metadata["functions"]}
    return [_gold_call(prompt, each, described, language(category)) for each in gold]


def _gold_call(prompt: Prompt, gold: Any, described: Mapping[Any, Mapping[str, Any]], spoken: Language) -> Gold:
    if not isinstance(gold, Mapping) or len(gold) != 1:
        raise _malformed(prompt, gold, "{function: {argument: [accepted values]}}")
    [(name, arguments)] = gold.items()
    function = described.get(name) or (next(iter(described.values())) if len(described) == 1 else None)
    if function is None:  # one function needs no name, and upstream's gold has another for one of them
        raise _malformed(prompt, name, f"its functions: {', '.join(map(str, described))}")
    if prompt.id not in UNWINNABLE:
        _check_winnable(prompt, function, arguments)
    properties = function["parameters"]["properties"]
    for argument in arguments.keys() & properties:
        if not knows(properties[argument], spoken):
            raise _malformed(prompt, properties[argument], f"a type of {spoken} for '{argument}'")
    return function, arguments


def _check_winnable(prompt: Prompt, function: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse gold that no call fits."""
    parameters = function["parameters"]
    for argument, answers in arguments.items():
        if not isinstance(answers, list) or not answers:
            raise _malformed(prompt, answers, f"a list of accepted values of '{argument}'")
        if argument not in parameters["properties"] and "" not in answers:
            raise _malformed(prompt, argument, f"arguments of {function['name']}")
    if missing := set(parameters.get("required", ())) - arguments.keys():
        raise _malformed(prompt, sorted(arguments), f"values for {', '.join(sorted(missing))} as well")


def _malformed(prompt: Prompt, found: object, allowed: str) -> DataError:
    return DataError(f"prompt '{prompt.id}' has malformed gold", found=repr(found)[:120], allowed=allowed)


def _mismatch(made: Sequence[Call], wanted: Sequence[Gold], category: str) -> str:
    """What is wrong with the calls; nothing where they are right.

    In parallel categories their order is free, and each gold call takes the first call left that fits, as upstream's.
    """
    spoken = language(category)
    if len(made) != len(wanted):
        return f"{len(made)} calls where {len(wanted)} are wanted"
    left, wrong = list(made), ""
    for function, arguments in wanted:
        for at, call in enumerate(left):
            wrong = _wrong(call, function, arguments, spoken)
            if not wrong:
                del left[at]
                break
        else:
            return wrong
    return ""


def _wrong(call: Call, function: Mapping[str, Any], answers: Mapping[str, Sequence[Any]], spoken: Language) -> str:
    """Why a call is not the gold one; nothing where it is."""
    parameters = function["parameters"]
    properties = parameters["properties"]
    if call.name != shown_name(function["name"]):
        return f"{call.name[:80]} called where {function['name']} is wanted"
    if missing := [name for name in parameters.get("required", ()) if name not in call.arguments]:
        return f"{function['name']} without {', '.join(missing)}"
    for name, value in call.arguments.items():
        if name not in properties or name not in answers:
            return f"{function['name']} with an argument '{name[:80]}'"
        if not accepted(value, properties[name], answers[name], spoken):
            return f"{function['name']} with another '{name}' than wanted"
    if missing := [name for name, values in answers.items() if name not in call.arguments and "" not in values]:
        return f"{function['name']} without {', '.join(missing)}"
    return ""
