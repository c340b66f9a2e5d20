"""What a sandbox does: run one program under limits, and say what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Backend", "Limits", "Outcome", "Program", "SandboxError", "Status"]

Status = Literal["finished", "error", "timeout", "memory", "output"]
"""How a program ended. ``error``: a non-zero exit, a signal, or an exception; ``output``: more than the limit."""


@dataclass(frozen=True, slots=True)
class Program:
    """Python source, and what it is fed."""

    source: str
    stdin: str = ""
    call: tuple[str, tuple[Any, ...]] | None = None
    """A function (a method of a class ``Solution`` is found, too) and its arguments, of JSON's types."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use."""

    seconds: float = 10.0
    """CPU time."""
    memory: int = 512 * 2**20
    """Bytes."""
    output: int = 2**20
    """Bytes of standard output."""

    @property
    def wall(self) -> float:
        """Seconds of wall time: a program must not be wrong because others work on this machine, too."""
        return 2 * self.seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a program."""

    status: Status
    stdout: str = ""
    stderr: str = ""
    """The last characters only."""
    returned: str | None = None
    """JSON text of what the call returned."""
    seconds: float = 0.0
    """Wall time."""
    killed: bool = False
    """By SIGKILL, from the program itself or from outside, within its limits: worth another try."""


class SandboxError(Exception):
    """The sandbox is at fault and not the program: the verdict is *failed*, never 0."""


class Backend(Protocol):
    """Runs programs apart from everything else."""

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run ``program``, from any thread.

        Raises:
            SandboxError: the sandbox failed, after retries.
        """
        ...

    def close(self) -> None:
        """End every process and remove every file of the sandbox."""
        ...
