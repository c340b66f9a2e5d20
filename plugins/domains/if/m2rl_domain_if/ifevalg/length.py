"""How much there must be: words, sentences."""

from __future__ import annotations

import re

from m2rl_domain_if.arguments import Positive, Relation, compare
from m2rl_domain_if.folding import visible
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.sentences import sentences

__all__: list[str] = []


@TABLE.add("length_constraints:number_words", num_words=Positive, relation=Relation)
def number_words(text: str, num_words: int, relation: str) -> bool:
    """Words are runs of letters, digits and underscores that can be seen."""
    return compare(len(re.findall(r"\w+", visible(text))), relation, num_words)


@TABLE.add("length_constraints:number_sentences", num_sentences=Positive, relation=Relation)
def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return compare(len(sentences(text)), relation, num_sentences)
