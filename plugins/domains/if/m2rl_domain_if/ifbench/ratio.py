"""``ratio:``: shares of sentences, words and letter triples of some kind."""

from __future__ import annotations

from itertools import combinations

from m2rl_domain_if.ifbench.table import TABLE, Percent, Text
from m2rl_domain_if.ifbench.text import bare_words, words
from m2rl_domain_if.ifbench.vocabulary import STOP_WORDS
from m2rl_domain_if.sentences import sentences

__all__: list[str] = []

TOLERANCE = 2
"""Percentage points by which the overlap may miss."""


@TABLE.add("ratio:stop_words", percentage=Percent)
def stop_words(text: str, percentage: float) -> bool:
    found = words(text)
    stops = sum(word.lower() in STOP_WORDS for word in found)
    return bool(found) and 100 * stops / len(found) <= percentage


@TABLE.add("ratio:sentence_type")
def sentence_type(text: str) -> bool:
    """Two sentences that end with a full stop for each that ends with a question mark; there is one."""
    stops, questions, _ = _endings(text)
    return stops == 2 * questions > 0


@TABLE.add("ratio:sentence_balance")
def sentence_balance(text: str) -> bool:
    """As many statements as questions as exclamations; there is one of each."""
    stops, questions, exclamations = _endings(text)
    return 0 < stops == questions == exclamations


@TABLE.add("ratio:sentence_words")
def sentence_words(text: str) -> bool:
    """Three sentences of the same length in characters, and no word is in two of them."""
    found = sentences(text)
    own = [set(bare_words(sentence.lower())) for sentence in found]
    same_length = len({len(sentence) for sentence in found}) == 1
    return len(found) == 3 and same_length and not any(one & other for one, other in combinations(own, 2))


@TABLE.add("ratio:overlap", reference_text=Text, percentage=Percent)
def overlap(text: str, reference_text: str, percentage: float) -> bool:
    """The share of the text's different letter triples that the reference has too."""
    mine, theirs = _triples(text), _triples(reference_text)
    return bool(mine) and abs(100 * len(mine & theirs) / len(mine) - percentage) <= TOLERANCE


def _endings(text: str) -> tuple[int, int, int]:
    found = sentences(text)
    stops, questions, exclamations = (sum(sentence.endswith(sign) for sentence in found) for sign in ".?!")
    return stops, questions, exclamations


def _triples(text: str) -> set[str]:
    return {text[at : at + 3] for at in range(len(text) - 2)}
