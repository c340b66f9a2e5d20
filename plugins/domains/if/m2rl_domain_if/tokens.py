"""Words and signs as the Penn Treebank separates them: "don't" is "do" and "n't", a full stop is a token of its own.

Stands for nltk's ``word_tokenize``, without data files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from m2rl_domain_if.sentences import sentences

__all__ = ["tokens", "word_tokens"]

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


def tokens(text: str) -> list[str]:
    """Treebank tokens: marks and the halves of contractions are words of their own (``do`` ``n't``)."""
    return [word for sentence in sentences(text) for word in _words(sentence)]


def word_tokens(text: str) -> list[str]:
    """Those tokens that have a letter or a digit."""
    return [word for word in tokens(text) if any(char.isalnum() for char in word)]


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
