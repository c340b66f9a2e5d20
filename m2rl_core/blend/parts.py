"""One source of a blend on the disk: its rows as JSON lines, where each begins, and how they were counted.

Two readings of a source that is sampled, one of any other; nothing is held but a few rows. A part is there whole or
not at all, so that a blend which was interrupted goes on with the source that it was at.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from m2rl_core.blend.permutation import permuted
from m2rl_core.config import BlendSource
from m2rl_core.errors import DataError
from m2rl_core.files import atomic_file, jsonl_line, write_text
from m2rl_core.rows import Questions, UnusableError, conversation, local_files, numbered
from m2rl_core.types import Message

__all__ = ["Part", "Tally", "Told", "prepared", "read_again"]

Told = Callable[[str], None]
Spoken = tuple[tuple[Message, ...], tuple[Mapping[str, Any], ...]]

OFFSET = struct.Struct("<Q")
SAID_EVERY = 100_000
"""Rows between two words of progress."""


@dataclass(slots=True)
class Tally:
    """How the rows of a source were counted."""

    read: int = 0
    kept: int = 0
    """Rows that the part holds, each once."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Why a row is unusable → how many."""

    @property
    def usable(self) -> int:
        return self.read - sum(self.dropped.values())


class Part:
    """The rows of one source that a blend takes."""

    def __init__(self, folder: Path, name: str, section: BlendSource, tally: Tally) -> None:
        self.name, self.section, self.tally = name, section, tally
        self._rows, self._index = (folder / f"{name}{suffix}" for suffix in (".jsonl", ".index"))

    def __len__(self) -> int:
        """Conversations of one epoch."""
        return self.tally.kept * (self.section.repeat or 1)

    def row(self, number: int) -> dict[str, Any]:
        """The row ``number``, repetitions counted: its ``messages`` and ``tools``."""
        with self._index.open("rb") as index, self._rows.open("rb") as rows:
            index.seek(number % self.tally.kept * OFFSET.size)
            rows.seek(OFFSET.unpack(index.read(OFFSET.size))[0])
            found: dict[str, Any] = json.loads(rows.readline())
        return found


def prepared(folder: Path, name: str, section: BlendSource, seed: int, tell: Told) -> Part:
    """The part of one source, made now unless an earlier run has made it from the same files.

    Raises:
        DataError: nothing to read, a row that is no JSON object, or fewer usable rows than are to be sampled.
        RunError: the disk is full.
    """
    if (found := read_again(folder, name, section, seed)) is not None:
        return found
    card = folder / f"{name}.json"
    card.unlink(missing_ok=True)
    made = _fingerprint(name, section, seed)
    tally = _written(folder, name, section, seed, tell)
    write_text(card, json.dumps({"made": made, "rows": asdict(tally)}, indent=2))
    return Part(folder, name, section, tally)


def read_again(folder: Path, name: str, section: BlendSource, seed: int) -> Part | None:
    """The part that is there; ``None`` where it is not, or was made from something else."""
    card = folder / f"{name}.json"
    if not card.is_file():
        return None
    found = json.loads(card.read_text())
    if found["made"] != _fingerprint(name, section, seed):
        return None
    return Part(folder, name, section, Tally(**found["rows"]))


def _written(folder: Path, name: str, section: BlendSource, seed: int, tell: Told) -> Tally:
    total = None
    if section.sample is not None:
        total = _counted(name, section, tell)
    tally, dropped, begin = Tally(), Counter[str](), 0
    with ExitStack() as files:
        rows, index = (files.enter_context(atomic_file(folder / f"{name}{suffix}")) for suffix in (".jsonl", ".index"))
        for usable, spoken in enumerate(_usable(name, section, tally, dropped, tell, "writing")):
            if total is None or permuted(usable, total, seed) < (section.sample or 0):
                begin += _put(rows, index, begin, spoken)
                tally.kept += 1
    tally.dropped = dict(sorted(dropped.items()))
    if not tally.kept:
        raise DataError(f"blend source '{name}' has no usable row", found=_told(tally))
    return tally


def _put(rows: BinaryIO, index: BinaryIO, begin: int, spoken: Spoken) -> int:
    """Bytes written for a row that begins at ``begin``."""
    index.write(OFFSET.pack(begin))
    return rows.write(jsonl_line({"messages": spoken[0], **({"tools": spoken[1]} if spoken[1] else {})}))


def _counted(name: str, section: BlendSource, tell: Told) -> int:
    """Usable rows of a source that is to be sampled."""
    tally, dropped = Tally(), Counter[str]()
    total = sum(1 for _ in _usable(name, section, tally, dropped, tell, "counting"))
    if total < (section.sample or 0):
        tally.dropped = dict(dropped)
        raise DataError(
            f"blend source '{name}' has too few usable rows to sample {section.sample} of them",
            found=_told(tally),
            then="lower 'sample', or use all of them with 'repeat'",
        )
    return total


def _told(tally: Tally) -> str:
    why = "".join(f", {count} with {reason}" for reason, count in tally.dropped.items())
    return f"{tally.usable} usable of {tally.read}{why}"


def _usable(
    name: str, section: BlendSource, tally: Tally, dropped: Counter[str], tell: Told, doing: str
) -> Iterator[Spoken]:
    """What is said in every usable row, in the order of the source; all rows are counted."""
    questions = Questions(section.questions)
    for _, _, row in numbered(section.source):
        tally.read += 1
        if tally.read % SAID_EVERY == 0:
            tell(f"{doing} {name}: {tally.read:,} rows")
        try:
            spoken = conversation(questions.filled(row))
        except UnusableError as error:
            dropped[str(error)] += 1
        else:
            yield spoken


def _fingerprint(name: str, section: BlendSource, seed: int) -> str:
    """Of what a part is made from. Local files count with their size and the time of their last change."""
    chosen = section.model_dump(include={"source", "sample", "questions"})
    sources = (section.source, *section.questions.values())
    try:
        found = [path for each in sources for path in local_files(each)]
    except DataError as error:
        raise DataError(f"blend source '{name}': {error}") from error
    files = [(str(p), (s := p.stat()).st_size, s.st_mtime_ns) for p in found]
    covered = [name, chosen, files, seed if section.sample is not None else 0]
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()
