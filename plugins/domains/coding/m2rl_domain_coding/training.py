"""Prompts from rows: of the RL blend, of NeMo-Gym, and of SandboxFusion's data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m2rl_core.rows import messages, rows
from m2rl_core.types import Prompt
from m2rl_domain_coding.unit_tests import unit_tests

__all__ = ["training"]

DATASETS = frozenset(
    {"nano_v3_sft_profiled_comp_coding_50tests", "apps", "code_contests", "open-r1/codeforces", "taco"}
)
"""The blend's, and where NeMo-Gym's rows and the blend's own problems come from."""
_ASK = (
    "Write a Python program that reads the input from standard input and prints the answer to standard output. "
    "Put it into one block that begins with ```python and ends with ```."
)


def training(name: str, source: str) -> Iterator[Prompt]:
    """The coding rows of ``source``, for the domain ``name``.

    Raises:
        DataError: no such source, or a row without a question or without sound tests. After a bad row the iterator
            goes on with the next one.
    """

    def prompt(numbered: tuple[int, tuple[str, Mapping[str, Any]]]) -> Prompt:
        index, (place, row) = numbered
        tests = _tests(row)
        unit_tests(place, tests)
        return Prompt(f"train/{index:06d}", name, messages(place, _asked(row)), None, {"unit_tests": tests})

    return map(prompt, enumerate(rows(source, DATASETS)))


def _tests(row: Mapping[str, Any]) -> object:
    metadata = row.get("verifier_metadata")
    if isinstance(metadata, Mapping):
        return metadata.get("unit_tests")
    return {"inputs": [], "outputs": [], "packed": row["test"]} if "test" in row else None


def _asked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """SandboxFusion calls the question ``content``; some of them do not say how to answer."""
    content = row.get("content")
    if not isinstance(content, str) or not content.strip():
        return row
    return {"question": content if "```" in content else f"{content.rstrip()}\n\n{_ASK}"}
