"""Placeholders, postscripts, and marks that must not occur."""

from __future__ import annotations

import re

from m2rl_domain_if.arguments import Keyword, Positive
from m2rl_domain_if.folding import has_mark
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.patterns import found

__all__: list[str] = []

_POSTSCRIPTS = {"P.P.S": re.compile(r"p\.\s?p\.\s?s"), "P.S.": re.compile(r"p\.\s?s\.")}


@TABLE.add("detectable_content:number_placeholders", num_placeholders=Positive)
def number_placeholders(text: str, num_placeholders: int) -> bool:
    """At least so many ``[...]``, each within a line."""
    return sum(map(_placeholders, text.split("\n"))) >= num_placeholders


def _placeholders(line: str) -> int:
    count = 0
    start = line.find("[")
    while start >= 0 and (end := line.find("]", start)) >= 0:
        count += 1
        start = line.find("[", end)
    return count


@TABLE.add("detectable_content:postscript", postscript_marker=Keyword)
def postscript(text: str, postscript_marker: str) -> bool:
    """The marker occurs, in any case; P.S. and P.P.S may be spaced."""
    marker = postscript_marker.strip()
    known = _POSTSCRIPTS.get(marker)
    return known.search(text.lower()) is not None if known else found(marker, text)


@TABLE.add("punctuation:no_comma")
def no_comma(text: str) -> bool:
    """No comma of any script."""
    return not has_mark(text, ",")


@TABLE.add("punctuation:punctuation_dot")
def punctuation_dot(text: str) -> bool:
    """No full stop of any script, and no ellipsis."""
    return not has_mark(text, ".")


@TABLE.add("punctuation:punctuation_exclamation")
def punctuation_exclamation(text: str) -> bool:
    """No exclamation mark of any script."""
    return not has_mark(text, "!")
