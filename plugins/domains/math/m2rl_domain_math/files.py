"""Prompts from local files: rows of the RL blend, and copies of the published suites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m2rl_core.rows import messages, rows
from m2rl_core.types import Prompt, Suite
from m2rl_domain_math.gold import answer

__all__ = ["PUBLISHED", "published", "training"]

DATASETS = frozenset({"nano_v3_sft_profiled_dapo17k", "nano_v3_sft_profiled_skywork_no_omni"})
PUBLISHED = {
    "aime24": Suite("HuggingFaceH4/aime_2024", "AIME 2024: 30 problems, Avg@64", k=64),
    "aime25": Suite("math-ai/aime25", "AIME 2025: 30 problems, Avg@64", k=64),
}
"""Suite → the data set that it is a local copy of. K follows from the rounding of the scores in the paper's tables 3
and 4; of temperature, top-p and length of the evaluation the paper is silent, so they are the defaults."""

ASKED = "Please reason step by step, and put your final answer within \\boxed{}."
"""What published copies of a bare ``problem`` leave out: how to state the answer."""


def training(name: str, source: str) -> Iterator[Prompt]:
    """The blend's mathematics rows of the file ``source``, for the domain ``name``.

    Raises:
        DataError: no such file, or a row without a question or exactly one gold answer. After a bad row the iterator
            goes on with the next one.
    """

    def prompt(numbered: tuple[int, tuple[str, Mapping[str, Any]]]) -> Prompt:
        index, (place, row) = numbered
        return Prompt(f"train/{index:06d}", name, messages(place, row), answer(place, row.get("expected_answer")))

    return map(prompt, enumerate(rows(source, DATASETS)))


def published(name: str, suite: str, path: str) -> Iterator[Prompt]:
    """The rows of the suite's file: a ``prompt`` as it stands, or a ``problem`` or ``question``; and an ``answer``.

    Raises:
        DataError: as for :func:`training`.
    """

    def prompt(numbered: tuple[int, tuple[str, Mapping[str, Any]]]) -> Prompt:
        index, (place, row) = numbered
        asked = messages(place, {**row, "question": _question(row)})
        expected = answer(place, row.get("answer", row.get("expected_answer")))
        return Prompt(f"{suite}/{index:06d}", name, asked, expected, {"suite": suite})

    return map(prompt, enumerate(rows(path, DATASETS)))


def _question(row: Mapping[str, Any]) -> object:
    if row.get("prompt"):
        return row["prompt"]
    bare = row.get("problem") or row.get("question")
    return f"{bare}\n{ASKED}" if isinstance(bare, str) and bare.strip() and "\\boxed" not in bare else bare
