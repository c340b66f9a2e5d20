"""``sentence:``: how the sentences of a text follow one another."""

from __future__ import annotations

import re
import string
from itertools import pairwise

from m2rl_domain_if.ifbench.table import TABLE, Phrase, PositiveInt
from m2rl_domain_if.ifbench.text import bare_words
from m2rl_domain_if.sentences import sentences

__all__: list[str] = []


@TABLE.add("sentence:keyword", word=Phrase, N=PositiveInt)
def keyword(text: str, word: str, N: int) -> bool:
    """The N-th sentence has the word, whole and in any case."""
    found = sentences(text)
    return len(found) >= N and bool(re.search(rf"\b{re.escape(word)}\b", found[int(N) - 1], re.IGNORECASE))


@TABLE.add("sentence:increment", small_n=PositiveInt)
def increment(text: str, small_n: int) -> bool:
    """Each sentence has so many more words than the one before it; there are two."""
    lengths = [len(bare_words(sentence)) for sentence in sentences(text)]
    return len(lengths) > 1 and all(later - earlier == small_n for earlier, later in pairwise(lengths))


@TABLE.add("sentence:alliteration_increment")
def alliteration_increment(text: str) -> bool:
    """Each sentence has more words in alliterations than the one before it; there are two."""
    lengths = [_alliterating(sentence) for sentence in sentences(text)]
    return len(lengths) > 1 and all(earlier < later for earlier, later in pairwise(lengths))


def _alliterating(sentence: str) -> int:
    """Words whose neighbour starts with the same letter."""
    starts = [word[0] for word in (piece.lstrip(string.punctuation) for piece in sentence.lower().split()) if word]
    same = [False, *(one == other for one, other in pairwise(starts)), False]
    return sum(before or after for before, after in pairwise(same))
