"""Finding the program in an answer: the last fenced block of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["LONGEST", "NoProgramError", "program"]

LONGEST = 1 << 18
"""Characters of a program."""
PYTHON = re.compile(r"\{?\.?py(?:thon)?(?:3(?:\.\d{1,2})?)?(?:[{}:,].*)?", re.IGNORECASE)
"""What a block of Python is called; some write more about it: ``{.python}``, ``python:main.py``, ``python{1,3}``."""
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([^\s`]*)([^`]*)")


class NoProgramError(Exception):
    """An answer that holds no program that could be run; it is wrong."""


@dataclass(slots=True)
class _Block:
    """A fenced block."""

    indent: str
    fence: str
    language: str
    lines: list[str]
    closed: bool = False

    def closes(self, line: str) -> bool:
        """A fence of the same sign, at least as long, at most three spaces further in, and nothing else on the line."""
        bare = line.strip(" \t\r")
        deeper = len(line) - len(line.lstrip(" \t")) - len(self.indent)
        return deeper <= 3 and len(bare) >= len(self.fence) and not bare.strip(self.fence[0])

    def text(self) -> str:
        return "".join(line.removeprefix(self.indent) + "\n" for line in self.lines)


def program(answer: str) -> str:
    """The source of the program that ``answer`` puts forward.

    It is the last block marked as Python or, where none is, the last one without a mark.

    Raises:
        NoProgramError: there is none, it is not closed, which means that the answer was cut, or it is no text that
            Python reads.
    """
    blocks = list(_blocks(answer))
    marked = [block for block in blocks if PYTHON.fullmatch(block.language)]
    candidates = marked or [block for block in blocks if not block.language]
    if not candidates:
        raise NoProgramError("no block of Python" if blocks else "no fenced block")
    if not candidates[-1].closed:
        raise NoProgramError("the block of the program is not closed")
    return _readable(candidates[-1].text().removeprefix("\ufeff"))  # as Python reads a file


def _blocks(answer: str) -> Iterator[_Block]:
    """All fenced blocks; the last one may be open."""
    block: _Block | None = None
    for line in answer.split("\n"):
        if block is None:
            if found := _FENCE.fullmatch(line):
                block = _Block(found[1], found[2], found[3], [])
        elif block.closes(line):
            block.closed = True
            yield block
            block = None
        else:
            block.lines.append(line)
    if block is not None:
        yield block


def _readable(source: str) -> str:
    if not source.strip():
        raise NoProgramError("an empty program")
    if len(source) > LONGEST:
        raise NoProgramError(f"a program of more than {LONGEST} characters")
    if "\0" in source or not _encodes(source):
        raise NoProgramError("a program with NUL or surrogate characters")
    return source


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
