"""Words and sentences without data files: offline equivalents of the tokenizers that upstream's checks use.

* :func:`words` stands for nltk's ``word_tokenize``: Penn Treebank tokens, sentence by sentence.
* :func:`sentences` stands for nltk's English Punkt model: the same decisions, with a short list of abbreviations and of
  words that begin sentences in place of its statistics of newspaper text.
* :func:`statements` follows the rule-based splitter of IFEval, whose idea of a sentence differs from Punkt's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["sentences", "statements", "words"]

# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_SPLIT_OFF = r";@#$%&?!*\[\](){}<>«»“”‘’„‒–—―"
_OPENING = re.compile(r"""^"|(?<=[ (\[{<])(?:"|'')""")
"""Double quotes that open: the rest close."""
_FULL_STOP = re.compile(r"""(?<=[^.])\.(?=[\])}>"'»”’ ]*\s*\Z)""")
_TOKEN = re.compile(
    rf"""\.{{2,}}|--|[{_SPLIT_OFF}]|``?|''|"|[:,](?!\d)|(?:[^\s{_SPLIT_OFF}`":,.'-]|[:,](?=\d)|\.(?!\.)|-(?!-)|'(?!'))+"""
)
_CLITIC = re.compile(r"(?<=[^'])(?:'(?:ll|LL|re|RE|ve|VE|[sSmMdD])?|n't|N'T)\Z")
_QUOTED = re.compile(r"'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_FUSED = re.compile(r"(can)(not)|(gim|lem)(me)|(gon|wan)(na)|(got)(ta)|(d)('ye)|(more)('n)", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Treebank tokens: marks and the halves of contractions are words of their own (``do`` ``n't``)."""
    return [word for sentence in sentences(text) for word in _words(sentence)]


def _words(sentence: str) -> Iterator[str]:
    marked = _OPENING.sub("``", sentence)
    last = next((found.start() for found in _FULL_STOP.finditer(marked)), len(marked))
    for start, part in ((0, marked[:last]), (last, marked[last : last + 1]), (last + 1, marked[last + 1 :])):
        for found in _TOKEN.finditer(part):
            token = found.group()
            if token == '"':
                yield "''"
            elif start == last or (not token[-1].isalpha() and token[-1] != "'"):
                yield token
            else:
                yield from _halves(token)


def _halves(token: str) -> Iterator[str]:
    if (quoted := _QUOTED.match(token)) and len(token) > 1:
        yield "'"
        token = token[quoted.end() :]
    if fused := _FUSED.fullmatch(token):
        yield from (half for half in fused.groups() if half)
        return
    clitic = _CLITIC.search(token)
    at = clitic.start() if clitic else 0
    yield from (half for half in (token[:at], token[at:]) if half)


# ── sentences, as a statistical splitter cuts them ───────────────────────────────────────────────────────────────────

_CHUNK = re.compile(r"\S+")
_MARK = re.compile(r"""[.?!](?=[)";}\]*:@'({\[!?]|\Z)""")
_CLOSING = re.compile(r"""["')\]}]+(?=--|\Z)""")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")
_NOT_A_START = "(\"`{[:;&#*@)}],-'"


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _listed(
    "mr mrs ms dr prof sr jr st messrs gen col lt adm maj rep sen vs u.s u.k u.n u.s.a d.c a.d a.m p.m n.y l.a ph.d"
    " inc ltd co corp bros jan feb aug sept oct nov dec ave wash calif fla mich pa va conn colo ariz ill wis minn tenn"
    " ore"
)
"""Those of newspapers. Punkt does not know ``e.g.``, ``i.e.`` and ``etc.``, so a sentence ends there."""
_STARTERS = _listed(
    "the this these it he they many most some there so in even both under among nor thus instead moreover finally"
    " therefore furthermore which your her please here such still yes but however although though yet if when while"
    " since according"
)
"""Words that begin a sentence where they are capitalised."""
_COMMON = _STARTERS | _listed(
    "a an that those she we you his its their our my one all each every no not on at by for from with to of as where"
    " what how who why after before because then and or also now once first second next another other only just"
    " meanwhile during between over through until unless despite let make use do does did is are was were can could"
    " will would should may might must have has had be well more less few several people new good great time"
)
"""Words that are no names."""


def sentences(text: str) -> list[str]:
    """What ends with ``.``, ``?`` or ``!``; the full stop of an abbreviation, initial or number may end no sentence."""
    found: list[str] = []
    start = 0
    chunks = list(_CHUNK.finditer(text))
    for chunk, following in zip(chunks, [*chunks[1:], None], strict=False):
        mark = _last_mark(chunk.group(), final=following is None)
        if mark is None:
            continue
        word, rest = chunk.group()[:mark], chunk.group()[mark:]
        if _ends(word, rest or (following.group() if following else "")):
            closing = _CLOSING.match(rest)
            stop = chunk.start() + mark + (closing.end() if closing else 0)
            found.append(text[start:stop].strip())
            start = stop
    return [sentence for sentence in (*found, text[start:].strip()) if sentence]


def _last_mark(chunk: str, *, final: bool) -> int | None:
    """Where the last mark of ``chunk`` ends that may end a sentence; the text's own end is no such place."""
    ends = [found.end() for found in _MARK.finditer(chunk)]
    if final and ends and ends[-1] == len(chunk):
        ends.pop()
    return ends[-1] if ends else None


def _ends(word: str, after: str) -> bool:
    """Whether a sentence ends behind ``word``, which ends with a mark, in front of ``after``."""
    if "?" in word or "!" in word:
        return True
    name = re.match(r"[^\W\d_]+", after)
    capital = name is not None and after[0].isupper()
    starter = name.group().lower() if name and capital else ""
    stem = word.lstrip(_NOT_A_START)[:-1].lower()
    if word.endswith("..") or stem in _ABBREVIATIONS or stem.rsplit("-", 1)[-1] in _ABBREVIATIONS:
        return starter in _STARTERS
    if len(stem) == 1 and stem.isalpha():
        return starter in _COMMON or not name
    if _NUMBER.fullmatch(stem):
        return capital or not name
    return True


# ── sentences, as IFEval's rules cut them ────────────────────────────────────────────────────────────────────────────

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
