"""What the text, or each of its sentences, begins and ends with."""

from __future__ import annotations

import re

from m2rl_domain_if.arguments import Positive, Text, Word
from m2rl_domain_if.folding import visible
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.statements import statements
from m2rl_domain_if.tokens import tokens

__all__: list[str] = []


@TABLE.add("first_word:first_word_answer", first_word=Word)
def first_word_answer(text: str, first_word: str) -> bool:
    """The first word, with the marks that adjoin it, in any case."""
    return _first(text) == first_word.strip().lower()


@TABLE.add("first_word:first_word_sent", first_word=Word)
def first_word_sent(text: str, first_word: str) -> bool:
    return all(_first(each) == first_word.strip().lower() for each in statements(text))


@TABLE.add("last_word:last_word_answer", last_word=Word)
def last_word_answer(text: str, last_word: str) -> bool:
    """The last word, without the marks in it, in any case."""
    return _last(text) == last_word.strip().lower()


@TABLE.add("last_word:last_word_sent", last_word=Word)
def last_word_sent(text: str, last_word: str) -> bool:
    return all(_last(each) == last_word.strip().lower() for each in statements(text))


def _first(text: str) -> str:
    return (text.split() or [""])[0].lower()


def _last(text: str) -> str:
    return re.sub(r"[^\w\s]", "", (text.split() or [""])[-1]).lower()


@TABLE.add("keywords:keyword_specific_position", keyword=Word, n=Positive, m=Positive)
def keyword_specific_position(text: str, keyword: str, n: int, m: int) -> bool:
    """Token ``m`` of sentence ``n`` is the keyword, in its case."""
    found = statements(text)[n - 1 : n]
    return bool(found) and tokens(found[0])[m - 1 : m] == [keyword.strip()]


@TABLE.add("keywords:start_end")
def start_end(text: str) -> bool:
    """The first and the last of at least two tokens are the same word, in any case; a final mark is a token too."""
    found = tokens(text)
    return len(found) > 1 and found[0].lower() == found[-1].lower() and any(map(str.isalnum, found[0]))


@TABLE.add("startend:end_checker", end_phrase=Text)
def end_checker(text: str, end_phrase: str) -> bool:
    """The text, without double quotes around it, ends with the phrase, in any case."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@TABLE.add("startend:quotation")
def quotation(text: str) -> bool:
    """Something stands between double quotes that begin and end the text."""
    return len(text) > 1 and text[0] == text[-1] == '"' and bool(visible(text[1:-1]).strip())
