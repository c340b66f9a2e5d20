"""Capital and small letters, and the language."""

from __future__ import annotations

from m2rl_domain_if.arguments import Language, Positive, Relation, compare
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.languages import is_language
from m2rl_domain_if.tokens import tokens

__all__: list[str] = []


@TABLE.add("change_case:capital_word_frequency", capital_frequency=Positive, capital_relation=Relation)
def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """Tokens whose letters are all capitals."""
    return compare(sum(map(str.isupper, tokens(text))), capital_relation, capital_frequency)


@TABLE.add("change_case:english_capital")
def english_capital(text: str) -> bool:
    """English as written and in small letters: langdetect takes capitals of any language for English."""
    return text.isupper() and is_language(text, "en") and is_language(text.lower(), "en")


@TABLE.add("change_case:english_lowercase")
def english_lowercase(text: str) -> bool:
    return text.islower() and is_language(text, "en")


@TABLE.add("language:response_language", language=Language)
def response_language(text: str, language: str) -> bool:
    return is_language(text, language)
