"""LiveCodeBench from a local copy of its files on the hub: nothing is downloaded, and no problem is here.

Source of the format: https://huggingface.co/datasets/livecodebench/code_generation_lite. Private tests stay packed
until a verifier needs them: unpacked, a release takes gigabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.rows import rows
from m2rl_core.types import Message, Prompt, Suite
from m2rl_domain_coding.packed import unpacked
from m2rl_domain_coding.unit_tests import unit_tests

__all__ = ["MEMORY", "PUBLISHED", "SECONDS", "TOTAL", "published"]

SECONDS, TOTAL = 6.0, 300.0
"""Of one test, as LiveCodeBench has it, and of all tests of one program."""
MEMORY = 1 << 30
"""Bytes."""
_HUB = "livecodebench/code_generation_lite"
PUBLISHED = {
    "lcb-v5": Suite(
        _HUB,
        "LiveCodeBench v5: 279 problems of contests from August 2024 to January 2025",
        k=8,
        missing=f"copy test.jsonl to test5.jsonl of https://huggingface.co/datasets/{_HUB} (release_v5) into a folder",
    ),
    "lcb-v6": Suite(
        _HUB,
        "LiveCodeBench v6: the 175 problems that release_v6 added",
        k=2,
        missing=f"copy test6.jsonl of https://huggingface.co/datasets/{_HUB} (release_v6)",
    ),
}
"""K of v5 as in QwQ's evaluation; that of v6 follows from the rounding of the scores in the paper's tables 3 and 4."""

_WINDOW = ("2024-08-01", "2025-02-01")
"""Dates of v5's contests: from the first, before the second."""
_ASK_STDIN = (
    "Write a Python program that reads the input from standard input and prints the answer to standard output. "
    "Put the whole program into one block:\n\n```python\n# your program\n```"
)
_ASK_CALL = (
    "Write a Python program that completes the code below, with the same names. Put the whole program into one block, "
    "as here:\n\n```python\n{}\n```"
)


def published(suite: str, source: str, domain: str) -> Iterator[Prompt]:
    """The prompts of a suite of :data:`PUBLISHED`; of v5 only those in its window.

    Args:
        source: its local copy.
        domain: whose prompts they are.

    Raises:
        DataError: no such copy, or a row that is no problem with tests; it names the row. After a bad row the iterator
            goes on with the next one.
    """
    numbers = count()

    def prompt(placed: tuple[str, Mapping[str, Any]]) -> Prompt:
        return _prompt(f"{suite}/{next(numbers):06d}", suite, domain, *placed)

    placed = rows(source, ())
    return map(prompt, filter(_in_window, placed) if suite == "lcb-v5" else placed)


def _in_window(placed: tuple[str, Mapping[str, Any]]) -> bool:
    place, row = placed
    first, end = _WINDOW
    return first <= _text(place, row, "contest_date") < end


def _prompt(key: str, suite: str, domain: str, place: str, row: Mapping[str, Any]) -> Prompt:
    starter = str(row.get("starter_code") or "").strip()
    ask = _ASK_CALL.format(starter) if starter else _ASK_STDIN
    content = f"{_text(place, row, 'question_content')}\n\n{ask}"
    metadata = {"suite": suite, "unit_tests": _tests(place, row, bool(starter)), "difficulty": row.get("difficulty")}
    return Prompt(key, domain, (Message(role="user", content=content),), None, metadata)


def _tests(place: str, row: Mapping[str, Any], has_starter: bool) -> dict[str, Any]:
    """The public tests, then the private ones as they are."""
    public = unpacked(place, _text(place, row, "public_test_cases")).pairs
    name = _metadata(place, row).get("func_name") if has_starter else None
    if has_starter and not name:
        raise DataError(f"{place} has starter code without a func_name", found=repr(row.get("metadata"))[:80])
    tests = {
        "inputs": [given for given, _ in public],
        "outputs": [expected for _, expected in public],
        "packed": _text(place, row, "private_test_cases"),
    } | ({"fn_name": name} if name else {})
    unit_tests(place, tests)
    return tests


def _metadata(place: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        metadata = json.loads(_text(place, row, "metadata"))
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise DataError(f"{place} has metadata that are no JSON object", found=repr(row.get("metadata"))[:80])
    return metadata


def _text(place: str, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place} has no '{column}'", found=repr(value)[:80], allowed="text")
    return value
