"""The published suites, from local copies: their sources are gated, so nothing is downloaded and no item is here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from random import Random
from string import ascii_uppercase
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.rows import rows
from m2rl_core.seeding import derive
from m2rl_core.types import Message, Prompt, Suite
from m2rl_domain_science.choice import LETTERS

__all__ = ["FREE", "KINDS", "PUBLISHED", "published"]

PUBLISHED = {
    "gpqa-diamond": Suite(
        "Idavidrein/gpqa",
        "GPQA-Diamond: 198 questions, four options in a shuffled order",
        k=4,
        missing="accept the terms of https://huggingface.co/datasets/Idavidrein/gpqa, download gpqa_diamond.csv, write "
        "it as .jsonl",
    ),
    "hle": Suite(
        "cais/hle",
        "Humanity's Last Exam: the questions without an image",
        missing="accept the terms of https://huggingface.co/datasets/cais/hle, download it as .jsonl or .parquet",
    ),
}
"""Suite → the data set that it is a local copy of. K as in the paper's tables 3 and 4."""
FREE, CHOICE = "exactMatch", "multipleChoice"
KINDS = (FREE, CHOICE)
"""HLE's ``answer_type``."""

_GPQA = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_ASK_LETTER = 'Think it through, then end with one line: "Answer: " and the letter of the right option.'
_ASK_TEXT = 'Think it through, then end with one line: "Answer: " and nothing but your final answer.'
_LISTED = re.compile(r"^[ \t*]*\(?([A-Z])[.):][ \t*]*(\S.*)$", re.MULTILINE)


def published(suite: str, source: str, domain: str, seed: int) -> Iterator[Prompt]:
    """The prompts of a suite of :data:`PUBLISHED`.

    Args:
        source: its local copy.
        domain: whose prompts they are.
        seed: of the order of GPQA's options.

    Raises:
        DataError: no such copy, or a row that is no question of the suite; it names the row.
    """
    placed = rows(source, ())
    if suite == "hle":
        return map(partial(_hle, domain), count(), filter(lambda each: not each[1].get("image"), placed))
    return map(partial(_gpqa, domain, seed), count(), placed)


def _gpqa(domain: str, seed: int, index: int, placed: tuple[str, Mapping[str, Any]]) -> Prompt:
    """One row of GPQA. The order of the options depends on the seed and the question, not on the rows around it."""
    place, row = placed
    question = _text(place, row, "Question")
    right, *others = (_text(place, row, column) for column in _GPQA)
    if right in others:
        raise DataError(f"{place} lists its right answer among the wrong ones", found=repr(right))
    texts = [right, *others]
    Random(derive(seed, "gpqa-diamond", question)).shuffle(texts)
    options = dict(zip("ABCD", texts, strict=True))
    letter = next(letter for letter, text in options.items() if text == right)
    listed = "\n".join(f"{letter}) {text}" for letter, text in options.items())
    asked = f"{question}\n\n{listed}\n\n{_ASK_LETTER}"
    return Prompt(f"gpqa-diamond/{index:06d}", domain, _user(asked), letter, {"options": options})


def _hle(domain: str, index: int, placed: tuple[str, Mapping[str, Any]]) -> Prompt:
    """One row of HLE: its options, if any, are part of the question."""
    place, row = placed
    question, gold, kind = _text(place, row, "question"), _text(place, row, "answer"), row.get("answer_type")
    if kind not in KINDS:
        raise DataError(f"{place} has an unknown answer_type", found=repr(kind), allowed=KINDS)
    letter = gold.upper()
    if kind == CHOICE and letter in set(ascii_uppercase):
        gold, ask, metadata = letter, _ASK_LETTER, {"answer_type": CHOICE, "options": _options(question, letter)}
    else:
        ask, metadata = _ASK_TEXT, {"answer_type": FREE}
    return Prompt(f"hle/{index:06d}", domain, _user(f"{question}\n\n{ask}"), gold, metadata)


def _options(question: str, gold: str) -> dict[str, str]:
    """The options that a question lists line by line; without texts where it lists them in some other way."""
    listed: dict[str, str] = {}
    for letter, text in _LISTED.findall(question):
        listed = {} if letter == "A" else listed
        if letter == ascii_uppercase[len(listed) : len(listed) + 1]:
            listed[letter] = text.strip()
    last = max(gold, LETTERS[-1])
    return listed if gold in listed else dict.fromkeys(ascii_uppercase[: ascii_uppercase.index(last) + 1], "")


def _text(place: str, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not text:
        raise DataError(f"{place} has no '{column}'", found=repr(value)[:80], allowed="text")
    return text


def _user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)
