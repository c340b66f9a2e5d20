"""Statements: sentences as the rules of IFEval cut them, whose idea of a sentence differs from Punkt's.

Source of the rules: google-research's instruction_following_eval, ``split_into_sentences``.
"""

from __future__ import annotations

import re

__all__ = ["statements"]

_INNER = re.compile(
    r"""(?:Mr|Mrs|Ms|Dr|St)\.
    | \.(?:com|net|org|io|gov|edu|me)
    | [0-9]\.[0-9]
    | Ph\.D\.
    | (?:[A-Za-z]\.){2,3}
    | (?<=\ )(?:[A-Za-z]|Inc|Ltd|Jr|Sr|Co)\.""",
    re.VERBOSE,
)
"""Full stops inside these end nothing."""
_MAY_END = re.compile(r"(?:[A-Z]\.){2,3}|(?:Inc|Ltd|Jr|Sr|Co)\.")
_BEGINS = re.compile(
    r" (?:Mrs?|Ms|Dr|Prof|Capt|Cpt|Lt|Wherever|(?:He|She|It|They|Their|Our|We|But|However|That|This)\s)"
)
_DOT, _STOP = "\ue000", "\ue001"
"""A full stop that ends nothing, and the end of a statement without a mark of its own."""
_SWAPPED = {".”": "”.", '."': '".', '!"': '"!', '?"': '"?'}


def statements(text: str) -> list[str]:
    """Statements that end with ``.``, ``?``, ``!`` or an ellipsis; a quotation mark moves in front of the mark."""
    flat = f" {text}  ".replace("\n", " ")
    flat = re.sub(r"\.{2,}", lambda found: _DOT * len(found.group()) + _STOP, flat)
    flat = _INNER.sub(_protect, flat)
    for written, swapped in _SWAPPED.items():
        flat = flat.replace(written, swapped)
    parts = re.split(rf"(?<=[.?!])|{_STOP}", flat)
    found = [part.replace(_DOT, ".").replace(_STOP, "").strip() for part in parts]
    return found if found[-1] else found[:-1]


def _protect(found: re.Match[str]) -> str:
    inner = found.group().replace(".", _DOT)
    return inner + _STOP if _MAY_END.fullmatch(found.group()) and _BEGINS.match(found.string, found.end()) else inner
