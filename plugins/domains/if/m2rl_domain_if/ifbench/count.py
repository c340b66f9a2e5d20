"""``count:``: how many words, numbers, names and signs of some kind a text has."""

from __future__ import annotations

import re

from m2rl_domain_if.ifbench.table import TABLE, Phrase, PositiveInt
from m2rl_domain_if.ifbench.text import EDGES, bare, folded, spaced, words
from m2rl_domain_if.ifbench.vocabulary import CONJUNCTIONS, NAMES, PRONOUNS
from m2rl_domain_if.tokens import tokens

__all__: list[str] = []

_DIGITS = re.compile(r"\d+")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_INTERROBANG = re.compile(r"\?!|!\?")


@TABLE.add("count:word_count_range", min_words=int, max_words=int)
def word_count_range(text: str, min_words: int, max_words: int) -> bool:
    return min_words <= len(words(text)) <= max_words


@TABLE.add("count:unique_word_count", N=PositiveInt)
def unique_word_count(text: str, N: int) -> bool:
    return len(set(spaced(text.lower()))) >= N


@TABLE.add("count:conjunctions", small_n=PositiveInt)
def conjunctions(text: str, small_n: int) -> bool:
    """ "And" and "and," are the same conjunction."""
    return len(CONJUNCTIONS & set(spaced(text.lower()))) >= small_n


@TABLE.add("count:person_names", N=PositiveInt)
def person_names(text: str, N: int) -> bool:
    return sum(bool(re.search(rf"\b{name}\b", text)) for name in NAMES) >= N


@TABLE.add("count:numbers", N=PositiveInt)
def numbers(text: str, N: int) -> bool:
    """Exactly so many; the decimal point and the commas of a number belong to it."""
    return len(_DIGITS.findall(bare(text))) == N


@TABLE.add("count:pronouns", N=PositiveInt)
def pronouns(text: str, N: int) -> bool:
    """At least so many; "she/her" are two."""
    return sum(token in PRONOUNS for token in tokens(text.lower().replace("/", " "))) >= N


@TABLE.add("count:punctuation")
def punctuation(text: str) -> bool:
    """An interrobang, and each of ``. , ! ? ; :`` besides."""
    if "‽" not in text and not _INTERROBANG.search(text):
        return False
    first = "?!" if "?!" in text else "!?"
    return set(".,!?;:") <= set(text.replace(first, "", 1))


@TABLE.add("count:words_japanese", N=PositiveInt)
def words_japanese(text: str, N: int) -> bool:
    """Every N-th word but numbers, and at least one."""
    due = [word.strip(EDGES) for word in text.split()[int(N) - 1 :: int(N)]]
    judged = [bool(_JAPANESE.search(word)) for word in due if word and not word.isdigit()]
    return bool(judged) and all(judged)


@TABLE.add(
    "count:keywords_multiple", keyword1=Phrase, keyword2=Phrase, keyword3=Phrase, keyword4=Phrase, keyword5=Phrase
)
def keywords_multiple(text: str, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str) -> bool:
    """Once, twice, three, five and seven times, inside other words too, and however they are disguised."""
    text = folded(text)
    wanted = {keyword1: 1, keyword2: 2, keyword3: 3, keyword4: 5, keyword5: 7}
    return all(text.count(folded(keyword.strip())) == times for keyword, times in wanted.items())
