"""How much there must be: words, sentences."""

from __future__ import annotations

import re

from m2rl_domain_if.arguments import Positive, Relation, compare
from m2rl_domain_if.folding import fold, visible
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.sentences import sentences

__all__: list[str] = []


@TABLE.add("length_constraints:number_words", num_words=Positive, relation=Relation)
def number_words(text: str, num_words: int, relation: str) -> bool:
    """Words are runs of letters, digits and underscores that can be seen; underscores alone are no word to demand."""
    found = re.findall(r"\w+", visible(text))
    said = [word for word in found if word.strip("_")]
    return compare(len(found if relation == "less than" else said), relation, num_words)


@TABLE.add("length_constraints:number_sentences", num_sentences=Positive, relation=Relation)
def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    """At least so many with a letter or digit; or fewer, whatever their full stops look like."""
    found = sentences(text)
    if relation == "at least":
        return sum(any(map(str.isalnum, each)) for each in found) >= num_sentences
    return max(len(found), len(sentences(fold(text.replace("…", " "))))) < num_sentences
