"""Text as a reader sees it, so that a forbidden word or mark cannot hide behind another code point.

Checks that forbid or limit something look at the text as written *and* folded, and both must follow. Checks that demand
something look at the text as written: a look-alike does not meet a demand.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import Any

__all__ = ["fold", "has_mark", "strictest", "visible"]

_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and symbols that show as nothing."""
_LOOKALIKES = {
    ord(char): plain
    for shown, letters in [
        ("асеорхуіјѕһԁԛԝкАВСЕКМНОРТУХІЈЅԌԚԜ", "aceopxyijshdqwkABCEKMHOPTYXIJSGQW"),
        ("тпьѵӏЬӀѴ", "tnbvlbIV"),
        ("αονρυκιχγηΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aovpukixynABEZHIKMNOPTYX"),
        ("βετωσςζμ", "betwoczu"),
        ("օսհոցՕՍ", "ouhngOU"),
        ("ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᏀᏃᏏᏚᏞᏟᏢᏦᏴꭵ", "DRTiAJEWMHGZbSLCPKBi"),
        ("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "BPDTGKJCZFMNLSRVHWXYAEIOU"),
        ("ıɑɡǀǃꓹ‚ƅ†", "iagl!,,bt"),
    ]
    for char, plain in zip(shown, letters, strict=True)
}
"""Cyrillic, Greek, Armenian, Cherokee, Lisu and a few other characters that look like ASCII ones."""
_LATIN = re.compile(r"\bLATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL )?([A-Z])(?: WITH .+)?")
_ACCENTS = re.compile(r"(?<=[A-Za-z])[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_MARKS = {",": ("COMMA", "CEDILLA"), ".": ("FULL STOP",), "!": ("EXCLAMATION MARK",)}
_WHITE = "\t\n\v\f\r\x85"
"""Control characters that show, as a gap."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_JOINERS = "\u034f\u17b4\u17b5"


def visible(text: str) -> str:
    """``text`` without what does not show: controls, format characters, variation selectors; fillers are spaces."""
    if text.isascii() and not _CONTROL.search(text):
        return text
    return "".join(" " if char in _FILLERS else char for char in text if not _is_hidden(char))


def _is_hidden(char: str) -> bool:
    hidden = unicodedata.category(char) in ("Cf", "Cc", "Cs") or "\ufe00" <= char <= "\ufe0f" or char in _JOINERS
    return hidden and char not in _WHITE


def fold(text: str) -> str:
    """``text`` in plain letters: compatible forms, accents off Latin letters, look-alikes of other scripts as Latin."""
    if (text := visible(text)).isascii():
        return text
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).translate(_LOOKALIKES))
    return "".join(map(_as_latin, unicodedata.normalize("NFC", bare)))


@functools.lru_cache(maxsize=65536)
def _as_latin(char: str) -> str:
    """The letter that another sort of Latin letter shows: stroked, small capital, squared."""
    found = None if char.isascii() else _LATIN.search(unicodedata.name(char, ""))
    if not found:
        return char
    return found[1] if char.isupper() and "SMALL" not in found[0] else found[1].lower()


def has_mark(text: str, mark: str) -> bool:
    """Whether ``text`` has ``mark``, one of ``, . !``, in any script or width, or a sign that looks like it."""
    if text.isascii():
        return mark in text
    return mark in text or mark in fold(text) or any(_is_mark(each, mark) for each in set(text))


@functools.lru_cache(maxsize=65536)
def _is_mark(char: str, mark: str) -> bool:
    """Combining marks, such as the comma below of ș, are part of a letter."""
    return unicodedata.category(char)[0] in "PS" and any(name in unicodedata.name(char, "") for name in _MARKS[mark])


def strictest(check: Callable[..., bool]) -> Callable[..., bool]:
    """``check`` of the text and its arguments as written, and of both folded; both must follow."""

    @functools.wraps(check)
    def both(text: str, **arguments: Any) -> bool:
        if not check(text, **arguments):
            return False
        folded = fold(text)
        return folded == text or check(folded, **{name: _folded(value) for name, value in arguments.items()})

    return both


def _folded(value: Any) -> Any:
    if isinstance(value, list):
        return [_folded(each) for each in value]
    return fold(value) if isinstance(value, str) else value
