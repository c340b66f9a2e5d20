"""Words and signs as the Penn Treebank separates them: "don't" is "do" and "n't", a full stop is a token of its own.

Upstream asks nltk's ``word_tokenize``. Only what a check can notice is kept of it: signs count as tokens, but which
kind of quotation mark one is does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from m2rl_domain_if.ifbench.sentences import sentences

__all__ = ["tokens", "word_tokens"]

_APART = re.compile(r"\.{2,}|--|''|``|`|[«»“”‘’„;@#$%&?!*\[\](){}<>\"\u2012-\u2015]|[:,](?!\d)")
_FULL_STOP = re.compile(r"(?<=[^.])\.(?=[\])}>\"'»”’ ]*\Z)")
_CLITIC = re.compile(r"(?<=[^'])(?:'[sS]|'[mM]|'[dD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T|')\Z")
_OPENING = re.compile(r"(?i)(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)")
_MERGED = {"cannot": 3, "gonna": 3, "gotta": 3, "gimme": 3, "lemme": 3, "wanna": 3}
"""Where two words are written as one."""


def tokens(text: str) -> list[str]:
    """All tokens of ``text``, sentence by sentence."""
    return [token for sentence in sentences(text) for token in _split(sentence)]


def word_tokens(sentence: str) -> list[str]:
    """The tokens of one sentence that have a letter or a digit."""
    return [token for token in tokens(sentence) if any(char.isalnum() for char in token)]


def _split(sentence: str) -> Iterator[str]:
    apart = _APART.sub(r" \g<0> ", _FULL_STOP.sub(" . ", _OPENING.sub("' ", sentence)))
    for piece in apart.split():
        clitic = _CLITIC.search(piece)
        at = clitic.start() if clitic else _MERGED.get(piece.lower(), len(piece))
        yield piece[:at]
        if piece[at:]:
            yield piece[at:]
