"""Types of the arguments that rows give to instructions, as pydantic understands them.

They take what upstream's own rows hold and nothing looser: a threshold that upstream would replace by a random one
(missing, empty, negative) is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = [
    "Character",
    "Count",
    "Keyword",
    "Keywords",
    "Language",
    "Positive",
    "Relation",
    "Text",
    "Word",
    "compare",
]

LONGEST_KEYWORD = 1_000
LONGEST_TEXT = 200_000
"""Characters."""
_CODES = (
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro"
    " ru sk sl so sq sv sw ta te th tl tr uk ur vi zh zh-cn zh-tw"
)
LANGUAGES = frozenset(_CODES.split())
"""What langdetect tells apart, by ISO 639-1 code, and ``zh`` for either Chinese."""


def _whole(value: Any) -> Any:
    """Numbers only: JSON written by data frames holds ``4.0``, but ``true`` and ``"4"`` are mistakes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a whole number is needed")
    return value


def _first(value: Any) -> Any:
    """Some rows put their one word into a list."""
    return value[0] if isinstance(value, list) and value else value


def _said(value: str) -> str:
    if not value.strip():
        raise ValueError("some text is needed")
    return value


def _known(value: str) -> str:
    if value not in LANGUAGES:
        raise ValueError(f"a language is one of {', '.join(sorted(LANGUAGES))}")
    return value


Relation = Literal["less than", "at least"]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
"""A number that something must equal or not exceed."""
Positive = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
"""A threshold: "at least 0" asks nothing and "less than 0" cannot be met."""
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_said)]
Keyword = Annotated[str, Field(max_length=LONGEST_KEYWORD), AfterValidator(_said)]
"""A regular expression, or literal text where it is none."""
Keywords = Annotated[list[Keyword], Field(min_length=1, max_length=100)]
Word = Annotated[Keyword, BeforeValidator(_first)]
Character = Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_said)]
Language = Annotated[str, AfterValidator(_known)]


def compare(count: int, relation: str, threshold: int) -> bool:
    """Whether ``count`` stands in ``relation`` to ``threshold``."""
    return count < threshold if relation == "less than" else count >= threshold
