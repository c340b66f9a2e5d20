"""The code blocks of a Markdown page, as the tests see them.

A comment right before a block says why it is not run, ``<!-- not run: it needs a GPU -->``. Such a block is still read:
its commands must be ones that the command line takes. ``<!-- ends with 2: … -->`` says that the last command of a block
ends with this exit code, and why. A block titled "output" is what the one before it prints, with ``…`` for anything;
one titled "recorded" is what it printed once, with numbers that another run need not have.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "blocks", "commands", "unprinted"]

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>\w*)(?: +title=\"(?P<title>[^\"]+)\")?[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)
NOTE = re.compile(r"<!-- (?P<key>[\w ]+): (?P<value>(?:(?!-->).)+) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    """Of its fence, from 1."""
    language: str
    text: str
    title: str = ""
    """The file that a reader saves it as."""
    not_run: str = ""
    """Why the tests do not run it."""
    code: int = 0
    """Exit code of its last command."""

    def __str__(self) -> str:
        return f"{self.page.parent.name}/{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order.

    Raises:
        ValueError: a block without a language, or a note that is not known.
    """
    text = page.read_text()
    return [_block(page, text, found) for found in FENCE.finditer(text)]


def _block(page: Path, text: str, found: re.Match[str]) -> Block:
    line = text.count("\n", 0, found.start()) + 1
    note = NOTE.search(text[: found.start()])
    said = note["key"] if note else "not run"
    if said not in ("not run", "ends with 1", "ends with 2"):
        raise ValueError(f"{page}:{line}: unknown note '{said}' (allowed: not run, ends with 1, ends with 2)")
    if not found["language"]:
        raise ValueError(f"{page}:{line}: say the block's language; text where it is none")
    indent = len(found["indent"])
    body = "".join(each[indent:] if each.strip() else each for each in found["text"].splitlines(keepends=True))
    not_run = note["value"] if note and said == "not run" else ""
    code = int(said[-1]) if note and not not_run else 0
    return Block(page, line, found["language"], body, found["title"] or "", not_run, code)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a bash block as words: comments left out, continued lines joined.

    Raises:
        ValueError: a line that a shell would not take.
    """
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def unprinted(block: Block, printed: str) -> str | None:
    """The first line of an output that ``printed`` lacks, or has before the lines above it; ``None`` where none is."""
    flat = " ".join(printed.split())
    at = 0
    for line in filter(None, map(str.strip, block.text.splitlines())):
        pattern = ".*?".join(re.escape(" ".join(part.split())) for part in line.split("…"))
        if (match := re.compile(pattern).search(flat, at)) is None:
            return line
        at = match.end()
    return None
