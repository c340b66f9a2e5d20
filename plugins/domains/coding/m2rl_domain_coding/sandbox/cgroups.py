"""Control groups (version 1 or 2) that bound what a program's processes hold together, where they can be made."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from m2rl_domain_coding.sandbox.guest.lockdown import PROCESSES

__all__ = ["ControlGroup", "control_group"]

OWN_MEMORY, OWN_PROCESSES = 64 << 20, 8
"""Room for the zygote itself."""
_PREFIX = "m2rl-sandbox-"
_LIMITS = ("memory.limit_in_bytes", "memory.max")
_EVENTS = ("memory.oom_control", "memory.events")
_PATIENCE = 2.0
_numbers = itertools.count()


class ControlGroup:
    """One group for memory and processes.

    Raises:
        OSError: none can be made here.
    """

    def __init__(self) -> None:
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self._folders: list[Path] = []
        self._memory = 0
        try:
            for base in _bases():
                _sweep(base)
                (base / name).mkdir()
                self._folders.append(base / name)
            self._write("pids.max", PROCESSES + OWN_PROCESSES)
            self.limit(OWN_MEMORY)
        except OSError:
            self.close()
            raise

    @property
    def folders(self) -> tuple[str, ...]:
        """Where it is, one for each controller."""
        return tuple(dict.fromkeys(map(str, self._folders)))

    @property
    def entrance(self) -> list[str]:
        """Arguments before a command's, so that it starts in here."""
        joins = [f"echo $$ > {shlex.quote(str(folder / 'cgroup.procs'))}" for folder in self._folders]
        return ["/bin/sh", "-c", " && ".join([*joins, 'exec "$@"']), "sh"]

    def join(self, process: int) -> None:
        """Put ``process``, and all that it starts from now on, in here."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(process))

    def limit(self, memory: int) -> None:
        """Bytes that a program may hold."""
        if memory != self._memory:
            self._write(next(name for name in _LIMITS if self._find(name)), memory + OWN_MEMORY)
            self._memory = memory

    @property
    def kills(self) -> int:
        """Processes that the kernel has killed for want of memory."""
        text = next(file for name in _EVENTS if (file := self._find(name))).read_text()
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    def _find(self, name: str) -> Path | None:
        return next((folder / name for folder in self._folders if (folder / name).exists()), None)

    def _write(self, name: str, value: int) -> None:
        if (file := self._find(name)) is None:
            raise FileNotFoundError(f"no {name} in {[str(folder) for folder in self._folders]}")
        file.write_text(str(value))

    def close(self) -> None:
        """Remove it; its processes must be at their end."""
        deadline = time.monotonic() + _PATIENCE
        for folder in self._folders:
            while not _remove(folder) and time.monotonic() < deadline:
                time.sleep(0.005)


def control_group() -> ControlGroup | None:
    """A new one; ``None`` where none can be made: the other limits hold, but memory then for each process alone."""
    try:
        return ControlGroup()
    except OSError:
        return None


def _remove(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def _sweep(base: Path) -> None:
    """Groups of processes that were killed before they could remove them."""
    for folder in base.glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            _remove(folder)


def _bases() -> list[Path]:
    """Where this process is: one folder per controller (version 1), or one for both (version 2)."""
    found = [path for name in ("memory", "pids") for path in _first(name)]
    if len(found) == 2:
        return found
    (unified,) = _unified()
    enabled = (unified / "cgroup.subtree_control").read_text().split()
    if not {"memory", "pids"} <= set(enabled):
        (unified / "cgroup.subtree_control").write_text("+memory +pids")
    return [unified]


def _memberships() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        yield controllers, path.lstrip("/")


def _mounts(kind: str) -> Iterator[tuple[Path, list[str]]]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, found, options, *_ = line.split()
        if found == kind:
            yield Path(target), options.split(",")


def _first(controller: str) -> list[Path]:
    mounts = [target for target, options in _mounts("cgroup") if controller in options]
    paths = [path for controllers, path in _memberships() if controller in controllers.split(",")]
    return [target / path for target in mounts[:1] for path in paths[:1]]


def _unified() -> list[Path]:
    """Of version 2.

    Raises:
        FileNotFoundError: it is not mounted.
    """
    paths = [path for controllers, path in _memberships() if not controllers]
    if not (found := [target / path for target, _ in _mounts("cgroup2") for path in paths]):
        raise FileNotFoundError("no control groups are mounted")
    return found[:1]
