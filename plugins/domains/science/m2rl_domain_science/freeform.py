r"""Whether a free-form answer is the gold answer: the same text in one spelling, or the same exact number.

No tolerance, no units, no algebra: what says the same in other words is for a judge (:mod:`m2rl_domain_science.judge`).
"""

from __future__ import annotations

import re
import unicodedata

from m2rl_core.answers import claims, compact, fold, otherwise, plain, rational

__all__ = ["answers", "same", "single"]

_FONT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|emph)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][a-z'-]+|[A-Z]{4,}")
"""A word whose case means nothing. ``CO`` and ``Co``, ``x`` and ``X`` differ."""


def answers(text: str) -> tuple[str, ...]:
    r"""What a final answer puts forward: ``\boxed{X}`` and ``Answer: X``, or else "the answer is X".

    Failing these, what stands below an "Answer:" that is alone in its line.

    Raises:
        UnreadableError: a malformed or hedged box, or a text beyond the limits.
    """
    text = fold(text)
    stated, said = claims(text)
    return stated or said or otherwise(text)


def single(claimed: tuple[str, ...]) -> str | None:
    """The one answer that all claims repeat; ``None`` where they differ or there is none."""
    return claimed[0] if claimed and all(same(claimed[0], other) for other in claimed) else None


def same(gold: str, claim: str) -> bool:
    """Whether both are the same text in one spelling, or the same exact number."""
    left, right = _spelt(gold), _spelt(claim)
    if not left or not right:
        return False
    numbers = rational(left), rational(right)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    return left == right or _words(left) == _words(right)


def _spelt(text: str) -> str:
    bare = unicodedata.normalize("NFC", fold(text)).strip(" \t\r\n*`")
    return compact(plain(_FONT.sub(r"\1", bare)))


def _words(text: str) -> list[str]:
    return [word.casefold() if _WORD.fullmatch(word) else word for word in re.split(r"[ ,]+", text)]
