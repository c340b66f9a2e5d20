"""``words:``: rules that each word obeys, and where words stand."""

from __future__ import annotations

import string
from collections import Counter
from itertools import pairwise

import syllapy

from m2rl_domain_if.ifbench.table import TABLE, Phrase, PositiveInt
from m2rl_domain_if.ifbench.text import EDGES, bare_words, folded
from m2rl_domain_if.ifbench.verbs import starts_with_verb
from m2rl_domain_if.sentences import sentences
from m2rl_domain_if.tokens import tokens, word_tokens

__all__: list[str] = []

_ALPHABET = string.ascii_lowercase
_FINAL = frozenset(string.punctuation) - {'"'}
_VOWELS = frozenset("aeiou")
_CONSONANTS = frozenset(_ALPHABET) - _VOWELS
_LENGTHS = frozenset(n for n in range(2, 100) if all(n % divisor for divisor in range(2, n)))


@TABLE.add("words:alphabet")
def alphabet(text: str) -> bool:
    """Each word starts with the letter after that of the word before, "a" after "z"; there are two words."""
    starts = [_ALPHABET.find(word[0]) for word in bare_words(text.lower())]
    follows = all((earlier + 1) % len(_ALPHABET) == later for earlier, later in pairwise(starts))
    return len(starts) > 1 and -1 not in starts and follows


@TABLE.add("words:vowel")
def vowel(text: str) -> bool:
    """One paragraph with one to three of the five vowels, accents and disguises aside."""
    used = _VOWELS & set(folded(text))
    return "\n" not in text.strip() and 1 <= len(used) <= 3


@TABLE.add("words:consonants")
def consonants(text: str) -> bool:
    """Each word has two consonants in a row; "y" is one."""
    return all(_has_cluster(word) for word in text.lower().split())


def _has_cluster(word: str) -> bool:
    return any(one in _CONSONANTS and other in _CONSONANTS for one, other in pairwise(word))


@TABLE.add("words:palindrome")
def palindrome(text: str) -> bool:
    """Ten words of five letters or more, not all different, that read the same backwards."""
    return sum(len(word) >= 5 and word == word[::-1] for word in bare_words(text.lower())) >= 10


@TABLE.add("words:prime_lengths")
def prime_lengths(text: str) -> bool:
    found = bare_words(text)
    return bool(found) and all(len(word) in _LENGTHS for word in found)


@TABLE.add("words:start_verb")
def start_verb(text: str) -> bool:
    return starts_with_verb(tokens(text))


@TABLE.add("words:repeats", small_n=PositiveInt)
def repeats(text: str, small_n: int) -> bool:
    """No word, however disguised, is there more often."""
    times = Counter(bare_words(folded(text)))
    return bool(times) and max(times.values()) <= small_n


@TABLE.add("words:no_consecutive")
def no_consecutive(text: str) -> bool:
    """No two neighbours start with the same letter, however disguised."""
    starts = [word[0] for word in bare_words(folded(text))]
    return bool(starts) and all(one != other for one, other in pairwise(starts))


@TABLE.add("words:odd_even_syllables")
def odd_even_syllables(text: str) -> bool:
    """Words with an odd and with an even number of syllables by turns; there are two words."""
    parities = [syllapy.count(word) % 2 for word in bare_words(text.lower())]
    return len(parities) > 1 and all(one != other for one, other in pairwise(parities))


@TABLE.add("words:last_first")
def last_first(text: str) -> bool:
    """The last word of each sentence is the first of the next; there are two sentences."""
    found = [sentence.lower() for sentence in sentences(text)]
    linked = (one.rstrip(EDGES).split()[-1:] == other.lstrip(EDGES).split()[:1] != [] for one, other in pairwise(found))
    return len(found) > 1 and all(linked)


@TABLE.add("words:paragraph_last_first")
def paragraph_last_first(text: str) -> bool:
    """Each line ends with the word that it starts with; one has two words."""
    found = [line.strip().strip(EDGES).split() for line in text.lower().split("\n")]
    lines = [line for line in found if line]
    return any(len(line) > 1 for line in lines) and all(line[0] == line[-1] for line in lines)


@TABLE.add("words:keywords_specific_position", keyword=Phrase, n=PositiveInt, m=PositiveInt)
def keywords_specific_position(text: str, keyword: str, n: int, m: int) -> bool:
    """The m-th word of the n-th sentence; a clitic such as "'s" is a word."""
    found = sentences(text)
    place = word_tokens(found[int(n) - 1])[int(m) - 1 : int(m)] if len(found) >= n else []
    return [word.lower() for word in place] == [keyword.strip().lower()]


@TABLE.add("words:words_position", keyword=Phrase)
def words_position(text: str, keyword: str) -> bool:
    """The second word and the last but one; signs count as words, but for one that ends the text and quotes nothing."""
    found = [token.lower() for token in tokens(text)]
    if found and found[-1] in _FINAL:
        found.pop()
    return len(found) > 1 and found[1] == found[-2] == keyword.strip().lower()
