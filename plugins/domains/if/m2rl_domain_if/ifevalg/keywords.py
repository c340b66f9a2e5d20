"""Which words must, may and must not occur."""

from __future__ import annotations

import re
from itertools import pairwise

from m2rl_domain_if.arguments import Character, Keyword, Keywords, Positive, Relation, compare
from m2rl_domain_if.folding import fold, strictest, visible
from m2rl_domain_if.ifevalg.brevity import is_brief
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.patterns import found, occurrences

__all__: list[str] = []

SHORTEST_PALINDROME = 3
"""Characters, in a brief text: every "a" reads the same both ways."""


@TABLE.add("keywords:existence", keywords=Keywords)
def existence(text: str, keywords: list[str]) -> bool:
    """Every keyword occurs, inside another word too."""
    return all(found(keyword, text) for keyword in keywords)


@TABLE.add("keywords:forbidden_words", forbidden_words=Keywords)
@strictest
def forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    """None occurs as a whole word."""
    return not any(found(word, text, whole=True) for word in forbidden_words)


@TABLE.add("keywords:exclude_word_harder", keyword=Keyword)
@strictest
def exclude_word_harder(text: str, keyword: str) -> bool:
    """The keyword, literally, does not occur as a whole word, in any case; "well-known" and "it's" are other words."""
    return not found(rf"(?<!\w['’-]){re.escape(keyword.strip())}(?!['’-]\w)", text, whole=True)


@TABLE.add("keywords:frequency", keyword=Keyword, frequency=Positive, relation=Relation)
@TABLE.add("keywords:word_count_different_numbers", keyword=Keyword, frequency=Positive, relation=Relation)
@strictest
def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return compare(occurrences(keyword.strip(), text), relation, frequency)


@TABLE.add("keywords:word_once", keyword=Keyword)
@strictest
def word_once(text: str, keyword: str) -> bool:
    return occurrences(keyword.strip(), text) == 1


@TABLE.add("count:count_increment_word", keyword1=Keyword, keyword2=Keyword)
@strictest
def count_increment_word(text: str, keyword1: str, keyword2: str) -> bool:
    """The first keyword once, the second twice."""
    return occurrences(keyword1.strip(), text) == 1 and occurrences(keyword2.strip(), text) == 2


@TABLE.add("keywords:letter_frequency", letter=Character, let_frequency=Positive, let_relation=Relation)
@TABLE.add("letters:letter_counting2", letter=Character, let_frequency=Positive, let_relation=Relation)
@strictest
def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compare(text.lower().count(letter.lower()), let_relation, let_frequency)


@TABLE.add("letters:letter_counting", N=Positive, relation=Relation)
def letter_counting(text: str, N: int, relation: str) -> bool:
    """At least so many English letters; or fewer letters, of whatever script."""
    english = len(re.findall(r"[A-Za-z]", text))
    return compare(sum(map(str.isalpha, text)) if relation == "less than" else english, relation, N)


@TABLE.add("keywords:no_adjacent_consecutive")
def no_adjacent_consecutive(text: str) -> bool:
    """No word begins with the letter of the alphabet that follows the one which the word before begins with."""
    return all(_apart(view) for view in {text, fold(text)})


def _apart(text: str) -> bool:
    initials = [word[0].lower() for word in text.split()]
    if any(len(initial) != 1 for initial in initials):
        return False
    return all(ord(after) - ord(before) != 1 for before, after in pairwise(initials))


@TABLE.add("keywords:palindrome")
def palindrome(text: str) -> bool:
    """A word that reads the same both ways, as it is written; in a brief text, one of three letters or digits.

    In a longer one "a" is a word like any other, as upstream has it.
    """
    words = visible(text).split()
    if is_brief(text):
        words = [word for word in words if word.isalnum() and len(word) >= SHORTEST_PALINDROME]
    return any(word == word[::-1] for word in words)
