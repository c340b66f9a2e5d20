"""The blend's schema: which rows are whose, what they ask, and what they hold to be right."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.rows.conversations import is_unicode
from m2rl_core.rows.sources import Numbered, numbered
from m2rl_core.types import Message

__all__ = ["gold", "messages", "request", "rows"]


def rows(source: str, datasets: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) for every row that is one of ``datasets`` or names no data set; the place is for messages.

    Args:
        source: a local .jsonl or .parquet file, a folder of such files (read in the order of their names), a folder
            that ``datasets`` has written with ``save_to_disk``, or a data set of the hub, ``OWNER/NAME@COMMIT`` or
            ``OWNER/NAME@COMMIT:SPLIT``; without a split it is ``train``. From the hub, rows are streamed while they are
            asked for, not before.

    Raises:
        DataError: no such file, or a hub id without the commit that pins it; a line that is no JSON object, or an
            unresolved placeholder row. After a bad row the iterator goes on with the next one, so that all of them can
            be listed.
    """

    def is_wanted(row: Numbered) -> bool:
        dataset = row[2].get("dataset")
        return dataset is None or dataset in datasets

    return map(_placed, filter(is_wanted, numbered(source)))  # generators would end with the first error


def _placed(numbered: Numbered) -> tuple[str, dict[str, Any]]:
    origin, number, row = numbered
    place = f"{origin}, row {number}"
    if row.get("_hf_placeholder"):
        raise DataError(f"{place} holds a placeholder instead of its question", then=_filling(origin))
    return place, row


def _filling(origin: str) -> str:
    """The command that fills in placeholders. The script lies beside the blend's train.jsonl, and reads JSON lines."""
    file = origin if origin.endswith(".jsonl") else "train.jsonl"
    whole = f"{file.removesuffix('.jsonl')}-complete.jsonl"
    return (
        f"fill them in with the script that comes with the blend, 'python create_nanov3_jsonl.py --input {file} "
        f"--output {whole}', and name {whole} as the source"
    )


def request(place: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """``responses_create_params``; empty where a row has none.

    Raises:
        DataError: it is no object.
    """
    found = row.get("responses_create_params") or {}
    if not isinstance(found, Mapping):
        raise DataError(
            f"{place} has malformed responses_create_params", found=repr(found)[:80], allowed="an object with input"
        )
    return found


def messages(place: str, row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation that ``responses_create_params.input`` starts, or else ``question`` as the user's message.

    Raises:
        DataError: neither is there in the right shape, or a message is no Unicode.
    """
    asked = request(place, row).get("input") or row.get("question")
    if isinstance(asked, str) and asked.strip():
        asked = [{"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked or not all(map(_is_message, asked)):
        raise DataError(f"{place} asks nothing", allowed="messages in responses_create_params.input, or a question")
    if lone := [each["content"] for each in asked if not is_unicode(each["content"])]:
        raise DataError(f"{place} asks what no tokenizer takes, for it is no Unicode", found=ascii(lone[0])[:80])
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
