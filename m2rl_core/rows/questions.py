"""Questions that rows only point at: "-" and (dataset, split, index), as in NVIDIA's Competitive-Programming data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m2rl_core.rows.conversations import PLACEHOLDER
from m2rl_core.rows.sources import numbered

__all__ = ["Questions"]


class Questions:
    """The questions of other data sets, all in memory: some ten thousands of short texts.

    Args:
        sources: ``DATASET/SPLIT`` → where its rows are, in their own order.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._texts = {name: [_question(row) for _, _, row in numbered(source)] for name, source in sources.items()}

    def filled(self, row: dict[str, Any]) -> dict[str, Any]:
        """``row`` with the question that it points at; as it is where it points at none that is there."""
        listed = row.get("messages")
        if not self._texts or not isinstance(listed, list) or not any(map(_is_placeholder, listed)):
            return row
        text = self._text(row)
        return {**row, "messages": [{**each, "content": text} if _is_placeholder(each) else each for each in listed]}

    def _text(self, row: Mapping[str, Any]) -> str:
        texts = self._texts.get(f"{row.get('dataset')}/{row.get('split')}", [])
        try:
            index = int(row["index"])
        except (KeyError, TypeError, ValueError):
            return PLACEHOLDER
        return (texts[index] if 0 <= index < len(texts) else "") or PLACEHOLDER


def _is_placeholder(message: object) -> bool:
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return False
    return str(message.get("content", "")).strip() == PLACEHOLDER


def _question(row: Mapping[str, Any]) -> str:
    """``question`` of TACO and APPS, ``description`` of CodeContests, and that of Codeforces with its formats."""
    if isinstance(question := row.get("question"), str):
        return question
    parts = [str(row.get("description") or "")]
    for title, field in (("Input", "input_format"), ("Output", "output_format")):
        if row.get(field):
            parts += [title, str(row[field])]
    for example in row.get("examples") or ():
        parts += ["Example input", str(example.get("input", "")), "Example output", str(example.get("output", ""))]
    if row.get("note"):
        parts += ["Note", str(row["note"])]
    return "\n\n".join(parts) if parts[0] else ""
