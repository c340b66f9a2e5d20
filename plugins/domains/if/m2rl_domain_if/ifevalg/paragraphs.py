"""Paragraphs, which two line breaks or the markdown divider ``***`` separate, and what is in them."""

from __future__ import annotations

import re

from m2rl_core.errors import DataError
from m2rl_domain_if.arguments import Positive, Word
from m2rl_domain_if.folding import visible
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.statements import statements
from m2rl_domain_if.tokens import tokens

__all__: list[str] = []

DIVIDER = re.compile(r"\s?\*\*\*\s?")
BLANK = re.compile(r"\n\n")


def _paragraphs(separator: re.Pattern[str], text: str) -> list[str] | None:
    """What the separator separates; the ends may be empty and then do not count. None where another one is empty."""
    parts = [visible(part).strip() for part in separator.split(text)]
    last = len(parts) - 1
    kept = [part for index, part in enumerate(parts) if part or index not in (0, last)]
    return kept if all(kept) else None


def _number(separator: re.Pattern[str], text: str) -> int | None:
    found = _paragraphs(separator, text)
    return None if found is None else len(found)


@TABLE.add("length_constraints:number_paragraphs", num_paragraphs=Positive)
def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Exactly so many between ``***``."""
    return _number(DIVIDER, text) == num_paragraphs


@TABLE.add("paragraphs:paragraphs")
def paragraphs(text: str) -> bool:
    """Two, with ``***`` between them."""
    return _number(DIVIDER, text) == 2


@TABLE.add("paragraphs:paragraphs2")
def paragraphs2(text: str) -> bool:
    """Two, with two line breaks between them."""
    return _number(BLANK, text) == 2


@TABLE.add(
    "length_constraints:nth_paragraph_first_word", num_paragraphs=Positive, nth_paragraph=Positive, first_word=Word
)
def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs between two line breaks, empty ones left out, of which one begins with the word.

    Raises:
        DataError: that one is beyond the last.
    """
    if nth_paragraph > num_paragraphs:
        raise DataError("nth_paragraph is beyond num_paragraphs", found=f"{nth_paragraph} of {num_paragraphs}")
    parts = [visible(part).strip() for part in BLANK.split(text)]
    if sum(map(bool, parts)) != num_paragraphs or not parts[nth_paragraph - 1]:
        return False
    found = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"').lower()
    return re.split(r"[.,?!'\"]", found)[0] == first_word.strip().lower()


@TABLE.add("count:counting_composition", n_sent=Positive, n_words=Positive)
def counting_composition(text: str, n_sent: int, n_words: int) -> bool:
    """Three paragraphs between ``***``, each of so many sentences, each of so many tokens, marks included."""
    parts = [statements(part) for part in DIVIDER.split(text)]
    return len(parts) == 3 and all(
        len(part) == n_sent and all(len(tokens(each)) == n_words for each in part) for part in parts
    )
