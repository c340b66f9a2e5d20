"""What the checks share: how a text is cut into words, and how disguised letters are read."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping

__all__ = ["EDGES", "bare", "bare_words", "closed_pairs", "folded", "plain", "spaced", "words"]

EDGES = string.punctuation + " "
"""Stripped off a word where only its ends are cleaned: ASCII only, as upstream does."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\w+")
_MARKS = re.compile(r"[\u0300-\u036f]")
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅοανικρτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɑɡ",
    "aeopcyxijshdqwABEKMHOPCTYXIJSoavikptuxABEZHIKMNOPTYXiag",
)


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def spaced(text: str) -> list[str]:
    """What stands between white space, without the punctuation at its ends; what is only punctuation is no word."""
    return [word for word in (piece.strip(EDGES) for piece in text.split()) if word]


def bare(text: str) -> str:
    """``text`` without ASCII punctuation, inside words too."""
    return text.translate(_NO_PUNCTUATION)


def bare_words(text: str) -> list[str]:
    """What stands between white space once punctuation is gone."""
    return bare(text).split()


def plain(text: str) -> str:
    """``text`` in ASCII: accents off, other letters dropped."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def folded(text: str) -> str:
    """``text`` in lower case with its disguises off, for a check that forbids something.

    Accents, full-width forms, invisible format characters, and Cyrillic or Greek letters that look Latin.
    """
    decomposed = _MARKS.sub("", unicodedata.normalize("NFKD", text))
    visible = (char for char in decomposed if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", "".join(visible).translate(_LOOKALIKES)).lower()


def closed_pairs(text: str, pairs: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Of each pair of signs that is closed: the level at which it stands, from 1, and the levels from it inwards.

    A closing sign that does not belong to the innermost opening one ends all the nests that are open.

    Args:
        text: what is read.
        pairs: opening → closing sign, which may be the same.
    """
    closing = set(pairs.values())
    awaited: list[str] = []
    inside: list[int] = []  # levels closed inside each open pair
    for char in text:
        if awaited and char == awaited[-1]:
            awaited.pop()
            levels = inside.pop() + 1
            if inside:
                inside[-1] = max(inside[-1], levels)
            yield len(awaited) + 1, levels
        elif char in pairs:
            awaited.append(pairs[char])
            inside.append(0)
        elif char in closing:
            awaited.clear()
            inside.clear()
