"""The states that a stage can be resumed from: ``state/step-NNNNNN/``, checksummed, the newest two of them.

Processes that work together write one state: what each holds of the policy, and all else by the first of them.

A state holds one folder per part (``0-policy``, ``1-source``, …), ``facts.json``, and ``SHA256SUMS`` of all files, in
the format that ``sha256sum --check`` reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from m2rl_core.files import content_hashes
from m2rl_core.run import team

__all__ = ["Components", "Part", "States"]

KEPT = 2
SUMS, FACTS = "SHA256SUMS", "facts.json"


@runtime_checkable
class Part(Protocol):
    """Anything with a state of its own. A folder that it saved must load to the very same state.

    Where several processes train together, the first saves for all, but for a part whose ``collective`` is true: each
    process then saves its own share of it, in the same folder.
    """

    def save_state(self, folder: Path) -> None: ...

    def load_state(self, folder: Path) -> None: ...


class Components:
    """Those of some components that have a state, as one part; most have none."""

    def __init__(self, components: Sequence[object]) -> None:
        self.parts = [component for component in components if isinstance(component, Part)]

    def save_state(self, folder: Path) -> None:
        for name, part in _named(self.parts):
            (folder / name).mkdir()
            part.save_state(folder / name)

    def load_state(self, folder: Path) -> None:
        for name, part in _named(self.parts):
            part.load_state(folder / name)


class States:
    """The states in ``folder``.

    Args:
        usable: judges the facts of a state whose checksums are right; returns why it cannot be used, or nothing.
        warn: told, in a sentence, of every state that is passed over.
    """

    def __init__(self, folder: Path, usable: Callable[[Mapping[str, Any]], str], warn: Callable[[str], None]) -> None:
        self.folder, self._usable, self._warn = folder, usable, warn

    def save(self, step: int, parts: Sequence[Part], facts: Mapping[str, Any]) -> None:
        """Write the state after ``step`` steps, then drop those that are older than the one before it."""
        with team.shared_folder(self.folder / f"step-{step:06d}") as folder:
            for name, part in _named(parts):
                (folder / name).mkdir(exist_ok=True)
                if team.leads() or getattr(part, "collective", False):
                    part.save_state(folder / name)
            team.wait()
            if team.leads():
                (folder / FACTS).write_text(json.dumps(facts))
                (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in _digests(folder).items()))
        if team.leads():
            for old in self._newest_first()[KEPT:]:
                shutil.rmtree(old)

    def load(self, parts: Sequence[Part]) -> tuple[int, Mapping[str, Any]] | None:
        """Load the newest usable state: (steps done, facts), or ``None`` where there is none. Others are removed."""
        folder = team.told(self._newest_usable() if team.leads() else None)
        if folder is None:
            return None
        for name, part in _named(parts):
            part.load_state(folder / name)
        return _step(folder), json.loads((folder / FACTS).read_text())

    def _newest_usable(self) -> Path | None:
        for folder in self._newest_first():
            if not (problem := self._problem(folder)):
                return folder
            self._warn(f"{folder.parent.name}/{folder.name} is damaged ({problem}); going back to the one before it")
            shutil.rmtree(folder)
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=_step, reverse=True)

    def _problem(self, folder: Path) -> str:
        """Why the state in ``folder`` cannot be used, or nothing."""
        sums = folder / SUMS
        if not sums.is_file():
            return f"{SUMS} is missing"
        try:
            lines = (line.partition("  ") for line in sums.read_text(errors="replace").splitlines())
            expected, found = {name: digest for digest, _, name in lines}, _digests(folder)
        except OSError as error:  # a disk that is breaking
            return f"{error.filename or folder} cannot be read: {error.strerror}"
        for name in sorted({FACTS, *expected, *found}):
            if name not in found or expected.get(name) != found[name]:
                return f"wrong checksum of {name}" if name in found else f"{name} is missing"
        return self._usable(json.loads((folder / FACTS).read_text()))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _named(parts: Sequence[Part]) -> list[tuple[str, Part]]:
    return [(f"{index}-{type(part).__name__.lower()}", part) for index, part in enumerate(parts)]


def _digests(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in content_hashes(folder, hidden=True).items() if name != SUMS}
