"""Keywords of rows are regular expressions, as upstream, but under a limit of time: rows are untrusted."""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any

__all__ = ["found", "occurrences", "pieces"]

SECONDS = 0.5
"""For one search of one text."""


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str, before: str = "", after: str = "", *, case: bool = False) -> Any:
    """``pattern`` between two fixed parts; literally where it is no expression.

    One of Python's ``re``, that is, which upstream runs: ``(?R)`` of ``regex``, which runs here, takes any memory.
    """
    import regex

    flags = 0 if case else regex.IGNORECASE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            re.compile(pattern)
            return regex.compile(f"{before}(?:{pattern}){after}", flags)
        except (re.error, regex.error, RecursionError, OverflowError):
            return regex.compile(f"{before}{regex.escape(pattern)}{after}", flags)


def found(pattern: str, text: str, *, whole: bool = False) -> bool:
    """Whether ``pattern`` occurs, in any case; ``whole`` demands that no letter or digit adjoins it.

    An underscore may: it is markdown's emphasis.

    Raises:
        TimeoutError: the pattern backtracks for too long.
    """
    compiled = _compiled(pattern, r"(?<![^\W_])", r"(?![^\W_])") if whole else _compiled(pattern)
    return compiled.search(text, timeout=SECONDS) is not None


def occurrences(pattern: str, text: str) -> int:
    """How often ``pattern`` occurs, in any case, without overlaps.

    Raises:
        TimeoutError: the pattern backtracks for too long.
    """
    return sum(1 for _ in _compiled(pattern).finditer(text, timeout=SECONDS))


def pieces(pattern: str, after: str, text: str) -> int:
    """Into how many pieces ``pattern`` followed by ``after``, in this case, cuts ``text``.

    Raises:
        TimeoutError: the pattern backtracks for too long.
    """
    return 1 + sum(1 for _ in _compiled(pattern, "", after, case=True).finditer(text, timeout=SECONDS))
