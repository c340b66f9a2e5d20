"""Where sentences end: the Punkt decisions (Kiss and Strunk, 2006) with small tables of our own, not trained ones.

Upstream asks nltk's ``sent_tokenize`` with the model trained on the Wall Street Journal. The decisions here are the
same, word by word; what that model learnt about thousands of words is replaced by the lists below. They keep what is
odd in it, since checks count sentences: "e.g.", "i.e." and "etc." end one, a letter in ``_INITIALS`` does not.
"""

from __future__ import annotations

import re
from itertools import pairwise, zip_longest

from m2rl_domain_if.wordlists import listed

__all__ = ["sentences"]

_ABBREVIATIONS = listed(
    "mr mrs ms dr prof rep reps sen gen lt maj adm messrs jr sr st ft bros co corp cos inc ltd cie vs ave sw mg ok",
    "ore jan feb aug sep sept oct nov dec tues wed fri ala ariz calif colo conn fla ga ill kan ky mich minn nev okla",
    "pa tenn va vt wash wis u.s u.k u.n u.s.a u.s.s.r d.c l.a n.y n.j n.h n.c s.c p.m ph.d m.b.a a.d yr ct a.m col",
    "w.w",
)
_INITIALS = frozenset("cdefghklmnprstvw")
_MAYBE = frozenset("abj")
"""Initials where a name follows: anything with a capital that is no usual start of a sentence."""
_STARTERS = listed(
    "according although among both but despite even he however i if in indeed instead it many meanwhile moreover most",
    "nevertheless nonetheless nor separately similarly since so some the there these they this though thus under when",
    "while yet",
)
_OPENERS = _STARTERS | listed(
    "your mine ours him her hers them someone nothing here soon always still tomorrow yesterday thus therefore hence",
    "very sometimes finally suddenly slowly quietly surely certainly such unless whenever wherever above along behind",
    "beneath besides beyond except inside into onto through throughout together upon within without please yes okay",
    "does were being think need try imagine consider remember follow",
)
"""After an abbreviation or three dots, a capital on one of these means that a sentence starts."""

_SIGNS = frozenset(";:,.!?")
_BREAKS = r")\";}\]*:@'({\[?!‘’“”«»"
_WORD = re.compile(r"\S+")
_END = re.compile(rf"[.?!](?=[{_BREAKS}]|\Z)")
_PIECE = re.compile(
    r"-{2,}|\.{2,}"
    rf"|[^\s(\"`{{\[:;&#*@)}}\]\-,]\S*?(?=\s|\Z|[{_BREAKS}]|-{{2,}}|\.{{2,}}|,(?=\s|\Z|[{_BREAKS}]|-{{2,}}|\.{{2,}}))"
    r"|\S"
)
_CLOSING = re.compile(r"[\"')\]}‘’“”«»]+?(?:\s+|(?=--)|$)", re.MULTILINE)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")


def sentences(text: str) -> list[str]:
    """The sentences of ``text``, each without the white space around it."""
    found: list[str] = []
    spans = _spans(text)
    taken = 0  # up to here, the next sentence has been given to the one before it
    for (start, end), (next_start, next_end) in zip(spans, [*spans[1:], (len(text), len(text))], strict=True):
        start = max(start, taken)
        if closing := _CLOSING.match(text, next_start, next_end):
            taken = closing.end()
            end = closing.start() + len(closing[0].rstrip())
        if sentence := text[start:end].strip():
            found.append(sentence)
    return found


def _spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, before closing quotes and brackets are given to the one that they close."""
    spans = []
    start = 0
    found = list(_WORD.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        word, after = match[0], following[0] if following else ""
        for end in _candidates(word, bool(after)):
            inside = end < len(word)
            pieces = _PIECE.findall(word[: end + 1] if inside else f"{word} {after}")
            if any(_ends(piece, upcoming) for piece, upcoming in pairwise(pieces)):
                spans.append((start, match.start() + end))
                start = match.start() + end if inside or not following else following.start()
    return [*spans, (start, len(text.rstrip()))]


def _candidates(word: str, followed: bool) -> list[int]:
    """Where a sentence may end in ``word``: past its last sign for that, and past one that it begins with."""
    ends = [match.end() for match in _END.finditer(word) if followed or match.end() < len(word)]
    return sorted({end for end in ends if end in (1, ends[-1])})


def _ends(piece: str, upcoming: str) -> bool:
    """Whether a sentence ends between two neighbouring pieces of text."""
    if piece in ("?", "!"):
        return True
    stem = piece[:-1].lower()
    if not piece.endswith(".") or not stem:
        return piece == "."
    if stem.endswith("."):
        return _starts(upcoming)
    if _NUMBER.fullmatch(stem):
        return not (upcoming[0].islower() or upcoming in _SIGNS)
    if len(stem) == 1 and stem.isalpha():
        return stem not in _INITIALS and upcoming not in _SIGNS and not _names(stem, upcoming)
    if stem in _ABBREVIATIONS or stem.rpartition("-")[2] in _ABBREVIATIONS:
        return _starts(upcoming)
    return True


def _names(letter: str, upcoming: str) -> bool:
    """Whether a letter and a full stop are the initial of the name that follows, or no end for another reason."""
    word = upcoming.lower().rstrip(".")
    return upcoming[0].islower() or (
        upcoming[0].isupper() and (len(word) == 1 or letter in _MAYBE) and word not in _STARTERS
    )


def _starts(piece: str) -> bool:
    """Whether a capital here can only mean that a sentence starts."""
    return piece[0].isupper() and piece.lower().rstrip(".") in _OPENERS
