r"""What a final answer claims.

Two forms **state** a claim and must all agree: ``\boxed{X}`` and ``Answer: X``. Only where neither occurs does the
sentence "the answer is X" count, and only where there is none either, :func:`otherwise`. There is no last resort such
as "the last number of the text", which would reward guessing, and X is always the whole box or the whole rest of the
line: "204 or maybe 205" is not 204.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Claims", "UnreadableError", "claims", "otherwise"]

LONGEST_TEXT = 100_000
"""Characters of a final answer, reasoning excluded."""
LONGEST_CLAIM = 1_000
"""Characters of one claim."""
MOST_CLAIMS = 32


class UnreadableError(ValueError):
    """The model's text makes no claim that could be right. A verifier answers *wrong* to it, not *failed*."""


class Claims(NamedTuple):
    """What a text puts forward as its result, in order and without repetitions."""

    stated: tuple[str, ...]
    r"""From ``\boxed{X}`` and ``Answer: X``."""
    said: tuple[str, ...]
    """From "the answer is X". A denial ("is not X") claims nothing."""


class _Box(NamedTuple):
    start: int
    stop: int
    content: str


_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LABEL = re.compile(r"(?<![^\W_])answer(?![^\W_])[ \t*_]*(?:(?:is[ \t*_]*)?(?P<stated>[:：])|is\b)", re.IGNORECASE)
_OTHER = re.compile(
    r"\b(?:answer[ \t]+(?:must[ \t]+be|equals)"
    r"|(?:answer|correct|right|best)[ \t]+(?:choice|option)[ \t*_]*(?:is\b[:：]?|[:：]))",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"(?:not|neither|never|none|no)\b", re.IGNORECASE)
_FILLER = re.compile(r"(?:(?:the|my|our|so|thus|hence|therefore|correct|final)\b\W*)+", re.IGNORECASE)
_ADVERB = re.compile(r"\A(?:therefore|thus|then|hence|clearly|simply|indeed|exactly|just)\b[ \t,:]*", re.IGNORECASE)
_EMPHASIS = re.compile(r"(?<![\w)}*`])(?P<mark>\*{1,3}|`)(?=\S)(?P<inside>[^*`\n]*[^*`\s])(?P=mark)(?![\w({*`])")
_MARKS = " \t\r*`_"
_OPENED = re.compile(r"\\[A-Za-z]+\s*\{[^{}\n]*\Z")
_PARAGRAPH = re.compile(r"\n\s*((?:[^\S\n]*\S[^\n]*(?:\n|\Z))*)")
_HOPE = re.compile(r"\s*I hope it is correct\.?$")
_HEDGE = re.compile(
    r"[\s$.,;)\]\\*]{0,16}\b(?:or(?!\s+equivalently\b)|maybe|perhaps|possibly"
    r"|(?:is|was)\s+(?:wrong|incorrect)|(?:is|was)(?:n't|\s+not)\s+(?:the\s+)?(?:right|correct|answer))\b",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|cannot)|n't)(?:\s+(?:be|equal(?:\s+to)?)\b)?[\s$*:(\[\\]*$", re.IGNORECASE
)
BEFORE = 40
"""Characters before a box in which a denial is looked for."""


def claims(text: str) -> Claims:
    r"""Every claim of ``text``.

    Raises:
        UnreadableError: a ``\boxed`` that is malformed, hedged ("or maybe ...") or denied ("not ..."), or a text beyond
            the limits.
    """
    if len(text) > LONGEST_TEXT:
        raise UnreadableError(f"an answer of {len(text)} characters")
    boxes = list(_boxes(text))
    stated = [box.content for box in boxes if box.content]  # "put it into \\boxed{}" claims nothing
    said: list[str] = []
    for label, stop in _labels(text):
        if any(label.end() <= box.start < stop or box.start < label.start() < box.stop for box in boxes):
            continue
        claim = _behind(text, label, stop)
        if not claim or _FILLER.fullmatch(claim):
            continue
        if label["stated"]:
            stated.append(claim)
        elif not _DENIAL.match(claim):
            said.append(claim)
    if stated:  # then what is only said does not matter, however long it is
        said = [claim for claim in said if len(claim) <= LONGEST_CLAIM]
    if any(len(claim) > LONGEST_CLAIM for claim in stated + said):
        raise UnreadableError(f"a claim of more than {LONGEST_CLAIM} characters")
    return Claims(tuple(dict.fromkeys(stated)), tuple(dict.fromkeys(said)))


def otherwise(text: str) -> tuple[str, ...]:
    """What a text puts forward that makes no claim: "the correct option is X", "the answer must be X", and what stands
    below a label that is alone in its line, up to the next empty line. "Answer:" above "204" is 204; above "204" and
    "205" it is neither.

    Raises:
        UnreadableError: too many labels, or more text than an answer has.
    """
    found = [
        _behind(text, label, stop) or _below(text, stop)
        for pattern in (_LABEL, _OTHER)
        for label, stop in _labels(text, pattern)
    ]
    if any(len(claim) > LONGEST_CLAIM for claim in found):
        raise UnreadableError(f"a claim of more than {LONGEST_CLAIM} characters")
    return tuple(dict.fromkeys(claim for claim in found if claim and not _DENIAL.match(claim)))


def _below(text: str, at: int) -> str:
    paragraph = _PARAGRAPH.match(text, at)
    return _bare(paragraph[1]) if paragraph else ""


def _behind(text: str, label: re.Match[str], stop: int) -> str:
    r"""What the line says behind a label, without emphasis; ``\textbf{Answer:} 5`` closes what it did not open."""
    claim = text[label.end() : stop]
    if _OPENED.search(text, max(0, label.start() - BEFORE), label.start()):
        claim = _without_closing(claim)
    claim = _HOPE.sub("", _bare(claim))
    return claim if label.group().endswith((":", "：")) else _ADVERB.sub("", claim)


def _bare(claim: str) -> str:
    return _EMPHASIS.sub(r"\g<inside>", claim).strip(_MARKS + "\n")


def _without_closing(claim: str) -> str:
    """``claim`` without the first brace that closes nothing in it."""
    depth = 0
    for brace in _BRACE.finditer(claim):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth < 0:
            return claim[: brace.start()] + claim[brace.end() :]
    return claim


def _labels(text: str, pattern: re.Pattern[str] = _LABEL) -> Iterator[tuple[re.Match[str], int]]:
    """Every label with the position where its claim ends: the next label or the end of the line."""
    found = list(pattern.finditer(text))
    if len(found) > MOST_CLAIMS:
        raise UnreadableError(f"{len(found)} answers")
    for index, label in enumerate(found):
        following = found[index + 1].start() if index + 1 < len(found) else len(text)
        newline = text.find("\n", label.end(), following)
        yield label, following if newline < 0 else newline


def _boxes(text: str) -> Iterator[_Box]:
    """Every outermost box. A box that is the whole content of another box counts as that box."""
    at = 0
    for _ in range(MOST_CLAIMS):
        if not (box := _BOX.search(text, at)):
            return
        at, content = _closing(text, box.end())
        if nested := _BOX.search(content):
            stop, inner = _closing(content, nested.end())
            if content[: nested.start()].strip() or content[stop:].strip() or _BOX.search(inner):
                raise UnreadableError("a box within a box")
            content = inner
        if _HEDGE.match(text, at) or _DENIED.search(text, max(0, box.start() - BEFORE), box.start()):
            raise UnreadableError("a hedged or denied box")
        yield _Box(box.start(), at, content.strip())
    raise UnreadableError(f"more than {MOST_CLAIMS - 1} boxes")


def _closing(text: str, at: int) -> tuple[int, str]:
    """Where the group that opens at ``at`` ends, and its content."""
    if not text.startswith("{", at):
        raise UnreadableError("a box without braces")
    depth = 0
    for brace in _BRACE.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end(), text[at + 1 : brace.start()]
    raise UnreadableError("an unclosed box")
