"""The prompts of the suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.types import Message, Prompt, Suite
from m2rl_domain_agent.bfcl import single, turns
from m2rl_domain_agent.bfcl.categories import CATEGORIES, FREE, MULTI_TURN, SUITE, language, weights
from m2rl_domain_agent.bfcl.files import INSTALL, INSTALLED, Files, Row
from m2rl_domain_agent.bfcl.tools import tools
from m2rl_domain_agent.bfcl.world import check_package

__all__ = ["PUBLISHED", "prompts"]

PUBLISHED = Suite(
    "gorilla-llm/Berkeley-Function-Calling-Leaderboard",
    "BFCL v3: the mean of its non-live, live and multi-turn scores",
    missing=f"run `{INSTALL}`, whose data '{INSTALLED}' names in place of a path; or download the folder",
)
"""K as in the paper's table 4; of temperature and length the paper is silent, so they are the defaults."""
_ROLES = ("system", "user", "assistant")


def prompts(folder: str, domain: str) -> Iterator[Prompt]:
    """The prompts of all categories, in upstream's order; their weighted mean is v3's overall score.

    Args:
        folder: with upstream's files, or ``bfcl-eval`` for those inside the installed package.
        domain: whose prompts they are.

    Raises:
        DataError: no such folder, a missing or empty category, a row that is no prompt (it names the row); at the
            first multi-turn row, that ``bfcl-eval`` is not installed or of another version than the files.
    """
    files = Files(folder)
    rows = {category: files.rows(category) for category in CATEGORIES}
    if empty := [category for category, found in rows.items() if not found]:
        raise DataError(f"BFCL in {files.folder} has no rows of {', '.join(empty)}")
    return _all(files, domain, rows)


def _all(files: Files, domain: str, rows: Mapping[str, Sequence[Row]]) -> Iterator[Prompt]:
    weight = weights({category: len(found) for category, found in rows.items()})
    for category, found in rows.items():
        if category in MULTI_TURN:
            check_package(files.version)
        for row in found:
            try:
                prompt = _several(files, category, row) if category in MULTI_TURN else _one(category, row)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise DataError(f"{row.place} is no entry of {category}: {error!r}") from error
            except DataError as error:
                raise DataError(f"{row.place}: {error}") from error
            yield dataclasses.replace(prompt, domain=domain, weight=weight[category])


def _one(category: str, row: Row) -> Prompt:
    """A row of one turn, which may begin with a system message or an earlier exchange."""
    [asked] = row.fields["question"]
    functions = row.fields["function"]
    metadata = {"suite": SUITE, "category": category, "functions": functions}
    gold = {"call": FREE[category]} if category in FREE else row.gold
    prompt = Prompt(_key(row), "", _messages(asked), gold, metadata, tools(functions, language(category)))
    single.gold_calls(prompt)
    return prompt


def _several(files: Files, category: str, row: Row) -> Prompt:
    """A row of several turns; functions that are held back come with the user's turn of their number."""
    fields = row.fields
    described = {each["name"]: each for name in fields["involved_classes"] for each in files.functions(name)}
    held = {int(turn): names for turn, names in fields.get("missed_function", {}).items()}
    late = {name for names in held.values() for name in names}
    first, *later = fields["question"]
    shown = tools((each for name, each in described.items() if name not in late), "python")
    coming = {turn: tools((described[name] for name in names), "python") for turn, names in held.items()}
    metadata = {
        "suite": SUITE,
        "category": category,
        "classes": fields["involved_classes"],
        "config": fields["initial_config"],
        "later": [_turn(said, coming.get(number, ())) for number, said in enumerate(later, 1)],
    }
    prompt = Prompt(_key(row), "", _messages(first), row.gold, metadata, shown)
    called = {call.name for turn in turns.gold_turns(prompt) for call in turn}
    if unknown := called - described.keys():
        raise DataError(f"prompt '{prompt.id}' has gold calls of unknown functions", found=", ".join(sorted(unknown)))
    return prompt


def _turn(said: Sequence[Mapping[str, Any]], coming: Sequence[Mapping[str, Any]]) -> list[Message]:
    if coming and said:
        raise DataError("functions come in a turn in which the user says something else", found=repr(said)[:80])
    return [turns.added(coming)] if coming else list(_messages(said))


def _key(row: Row) -> str:
    return f"{SUITE}/{row.fields['id']}"


def _messages(said: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Chat messages of which the last is the user's.

    Raises:
        DataError: there are no such messages.
    """
    messages = tuple(Message(role=each["role"], content=each["content"]) for each in said)
    known = all(each["role"] in _ROLES and isinstance(each["content"], str) for each in messages)
    if not known or not messages or messages[-1]["role"] != "user":
        raise DataError("a question that is no chat", found=repr(said)[:120], allowed="messages, the last the user's")
    return messages
