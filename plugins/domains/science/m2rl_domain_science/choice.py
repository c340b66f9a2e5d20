r"""Which option a text chooses.

All claims of a text are read together: those that the row's own pattern finds, every ``\boxed{X}`` and every
``Answer: X``; only where these choose nothing, the sentence "the answer is X", and then what stands below an "Answer:".
What names several letters chooses none.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from m2rl_core.answers import UnreadableError, claims, fold, otherwise, plain

__all__ = ["LETTERS", "chosen", "is_pattern", "letters"]

LETTERS = "ABCDEFGHIJ"
"""The options of a question that lists none."""
PATTERN_SECONDS = 0.5
"""For all matches of a row's pattern: it is untrusted and may backtrack for ever."""
LONGEST_PATTERN = 1_000
"""Characters."""
MOST_MATCHES = 100
"""Of a row's pattern."""
LONGEST_LINE = 1_000
"""Characters behind a match that are looked at."""

_FONT = r"(?:\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)\b\s*)?"
_DRESS = r"[\s*\"'`$(\[{_<]*"
_CLAIM = re.compile(
    rf"{_DRESS}{_FONT}{_DRESS}(?:(?:option|choice|letter)\s+)?{_DRESS}"
    r"(?P<letter>[A-Za-z])(?![A-Za-z0-9\u0300-\u036f]|['_^+-]\w|\+\+|\s*=)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_CLOSING = " \t\r\n*\"'`$()[]{}<>_.:;,!–—-"
_SEVERAL = re.compile(rf"\s*([{LETTERS}]{{2,}})[\s.]*")
_ARTICLE = r"(?! (?!(?:or|and|is|are|may|might|could|because|since|which|from|with)\b)[a-z])"
_MENTION = re.compile(rf"(?<![A-Za-z0-9'^_\\])(?<!\bnot )(?:[B-HJ-Z]|[AI]{_ARTICLE})(?![A-Za-z0-9]|'[a-z])")
_HEDGE = re.compile(
    r"(?:or|and|maybe|perhaps|possibly)\b|\?|(?:is|was|seems|looks)(?:n't|\s+(?:not|wrong|incorrect|false|impossible))\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\\\\|\\[()\[\]]")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")
_INDEX = re.compile(r"([\^_])\s*\{\s*([^{}\s]*)\s*\}")


def chosen(text: str, options: Mapping[str, str], patterns: Sequence[str] = ()) -> set[str]:
    """The letters that ``text`` chooses: it answers where there is exactly one.

    Args:
        text: a final answer.
        options: letter → text; empty where unknown.
        patterns: the row's ``output_regex``; the first group of each is the letter.

    Raises:
        UnreadableError: a malformed or hedged box, or a text beyond the limits.
    """
    text = fold(text)
    stated, said = claims(text)
    found = [*(each for pattern in patterns for each in _matches(pattern, text)), *stated]
    return _all(found, options) or _all(said, options) or _all(otherwise(text), options)


def _all(found: Iterable[str], options: Mapping[str, str]) -> set[str]:
    return {letter for claim in found for letter in letters(claim, options)}


def _matches(pattern: str, text: str) -> Iterator[str]:
    """What the row's pattern finds: its group, with the rest of the line unless the pattern itself goes on after it."""
    import regex

    try:
        for number, match in enumerate(regex.finditer(pattern, text, flags=regex.IGNORECASE, timeout=PATTERN_SECONDS)):
            if number == MOST_MATCHES:
                raise UnreadableError(f"more than {MOST_MATCHES} matches of the row's pattern")
            start, end = match.span(1 if match.re.groups else 0)
            if start >= 0:
                line = text[start : start + LONGEST_LINE].partition("\n")[0]
                yield text[start:end] if text[end : match.end()].strip() else line
    except TimeoutError:
        return


def is_pattern(pattern: object) -> bool:
    """Whether ``pattern`` is a regular expression that can be used.

    It must be one of Python's ``re``, which upstream runs; ``(?R)`` of ``regex``, which does here, takes any memory.
    """
    import regex

    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(re.compile(pattern) and regex.compile(pattern))
    except (re.error, regex.error, OverflowError, RecursionError):
        return False


def letters(claim: str, options: Mapping[str, str]) -> set[str]:
    """The letters that one claim names: ``C``, ``(C)``, ``C) text`` or an option's whole text; ``A or B`` names two.

    A word that merely begins with a letter names none, and so do the article "A" and the pronoun "I".
    """
    claim = _FENCE.sub(" ", claim)
    if several := _SEVERAL.fullmatch(claim):
        return set(several[1])
    found = _CLAIM.fullmatch(claim)
    if not found:
        named = _named(claim, options)
        return named if len(named) == 1 else set()
    letter, body = found["letter"].upper(), found["rest"].strip(_CLOSING)
    if not body or _named(body, options) == {letter}:
        return {letter}
    if named := _named(body, options):
        return {letter, *named}
    mentions = {*LETTERS, *options} & set(_MENTION.findall(claim, found.start("letter")))
    if letter != found["letter"] or letter not in mentions:
        return set()
    other = {"?"} if _HEDGE.match(body) else set()
    return {letter, *other, *(mentions & set(options or LETTERS))}


def _named(text: str, options: Mapping[str, str]) -> set[str]:
    """Letters of the options whose text this is."""
    wanted = _normal(text)
    return {letter for letter, option in options.items() if wanted and _normal(option) == wanted}


def _normal(text: str) -> str:
    text = _INDEX.sub(r"\1\2", _WRAPPED.sub(r"\1", plain(fold(text))))
    return " ".join(text.replace("$", "").casefold().split()).strip(_CLOSING)
