"""Rows of the blend's schema (``nvidia/Nemotron-3-Nano-RL-Training-Blend``), as domains read them from a local file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.files import numbered_rows
from m2rl_core.types import Message

__all__ = ["gold", "messages", "rows"]

FORMS = "'generated', or the path of a local .jsonl file in the blend's schema"


def rows(source: str, datasets: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) for every row that is one of ``datasets`` or names no data set; the place is for messages.

    Raises:
        DataError: no such file, a line that is no JSON object, or an unresolved placeholder row. After a bad row the
            iterator goes on with the next one, so that all of them can be listed.
    """
    path = Path(source)
    if path.suffix != ".jsonl" or not path.is_file():
        raise DataError("no rows to read", found=repr(source), allowed=FORMS)

    def is_wanted(numbered: tuple[int, Mapping[str, Any]]) -> bool:
        dataset = numbered[1].get("dataset")
        return dataset is None or dataset in datasets

    def placed(numbered: tuple[int, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        number, row = numbered
        place = f"{path}, row {number}"
        if row.get("_hf_placeholder"):
            raise DataError(f"{place} holds a placeholder instead of its question", then="resolve the blend first")
        return place, row

    return map(placed, filter(is_wanted, numbered_rows(path)))  # generators would end with the first error


def messages(place: str, row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation that ``responses_create_params.input`` starts, or else ``question`` as the user's message.

    Raises:
        DataError: neither is there in the right shape.
    """
    asked = (row.get("responses_create_params") or {}).get("input") or row.get("question")
    if isinstance(asked, str) and asked.strip():
        asked = [{"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked or not all(map(_is_message, asked)):
        raise DataError(f"{place} asks nothing", allowed="messages in responses_create_params.input, or a question")
    return tuple(Message(role=each["role"], content=each["content"]) for each in asked)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def gold(place: str, row: Mapping[str, Any]) -> str:
    """``expected_answer`` as text.

    Raises:
        DataError: it is missing or empty. A row without gold would reward an empty answer.
    """
    answer = row.get("expected_answer")
    text = str(answer).strip() if isinstance(answer, str | int | float) and not isinstance(answer, bool) else ""
    if not text:
        raise DataError(f"{place} has no gold answer", found=repr(answer), allowed="text in expected_answer")
    return text
