"""The files and pipes of one run: what a program is fed, what it says, and the outcome that follows from it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import tempfile
import time
from collections.abc import Callable
from types import TracebackType

from m2rl_domain_coding.sandbox.backend import Limits, Outcome, Program, SandboxError, Status
from m2rl_domain_coding.sandbox.capture import Capture
from m2rl_domain_coding.sandbox.guest.handles import HANDLES, LENGTH, STARTED

__all__ = ["Exchange"]

TAIL = 2000
"""Characters of standard error that are kept."""
ERRORS = 8
"""A program may write so many times more to standard error than to standard output."""
START = 20.0
"""Seconds until a program has to start."""
DRAIN = 2.0
"""Seconds to read what a program left in its pipes."""
_ENDED: dict[str, Status] = {"output": "output", "timeout": "timeout", "memory": "memory"}
_OUT_OF_TIME = 128 + 24
"""Exit code after SIGXCPU."""
_KILLED = 128 + 9
"""Exit code after SIGKILL."""


class Exchange:
    """Descriptors for one run, as a context manager.

    Raises:
        OSError: no descriptors left, or too much input for the limit on file sizes.
    """

    def __init__(self, program: Program, limits: Limits) -> None:
        self.limits, self.called = limits, program.call is not None
        self._cleanup = contextlib.ExitStack()
        payload = json.dumps({"source": program.source, "call": program.call}).encode()
        with contextlib.ExitStack() as cleanup:
            self._cleanup = cleanup
            self.theirs = {"payload": self._file(payload), "stdin": self._file(_encode(program.stdin))}
            self.captures = {
                "stdout": self._pipe("stdout", limits.output, limits.output + 1),
                "stderr": self._pipe("stderr", ERRORS * limits.output, 4 * TAIL),
                "status": self._pipe("status", TAIL, TAIL),
                "result": self._pipe("result", limits.output, limits.output + 1),
            }
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handed_over()
        self._cleanup.close()

    def _file(self, data: bytes) -> int:
        """A descriptor of a file in memory with ``data``, that nobody can change."""
        with tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else os.fdopen(_memory(), "wb") as file:
            file.write(data)
            file.flush()
            return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    def _pipe(self, name: str, limit: int, keep: int) -> Capture:
        reader, self.theirs[name] = os.pipe()
        self._cleanup.callback(os.close, reader)
        os.set_blocking(reader, False)
        return Capture(reader, limit, keep)

    @property
    def handles(self) -> list[int]:
        """What a zygote is sent."""
        return [self.theirs[name] for name in HANDLES]

    def handed_over(self) -> None:
        """The other side has its descriptors: ours are closed."""
        while self.theirs:
            os.close(self.theirs.popitem()[1])

    def pump(self, ended: int, seconds: float, stop: Callable[[], None]) -> str:
        """Read until ``ended`` becomes readable, then what is left.

        Args:
            ended: a descriptor.
            seconds: limit, from the moment at which the program starts.
            stop: ends the program, after it has written too much.

        Returns:
            ``""``, ``"output"`` or ``"timeout"``; after the latter the program still runs.
        """
        cause, deadline, started = "", time.monotonic() + START, False
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            for capture in self.captures.values():
                selector.register(capture.handle, selectors.EVENT_READ, capture)
            while (left := deadline - time.monotonic()) > 0:
                events = selector.select(left)
                if self._take(selector, events):
                    self._drain(selector)
                    return cause
                if not started and self.started:
                    started, deadline = True, time.monotonic() + seconds
                if not cause and any(capture.excessive for capture in self.captures.values()):
                    cause = "output"
                    stop()
        return "timeout"

    def _take(self, selector: selectors.BaseSelector, events: list[tuple[selectors.SelectorKey, int]]) -> bool:
        """Read from all that have something; whether the end has come."""
        over = False
        for key, _ in events:
            if key.data is None:
                over = True
            elif not key.data.read():
                selector.unregister(key.fileobj)
        return over

    def _drain(self, selector: selectors.BaseSelector) -> None:
        deadline = time.monotonic() + DRAIN
        ended = next(key.fileobj for key in selector.get_map().values() if key.data is None)
        selector.unregister(ended)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            self._take(selector, selector.select(left))

    @property
    def started(self) -> bool:
        """The first line of the program was about to run."""
        said: bytes = bytes(self.captures["status"].data)
        return said == STARTED

    def outcome(self, cause: str, code: int, seconds: float) -> Outcome:
        """What came of it.

        Args:
            cause: why the program was ended: ``"output"``, ``"timeout"``, ``"memory"`` or ``""``.
            code: its exit code, 128 and the signal's number after a signal.

        Raises:
            SandboxError: the program has not run at all.
        """
        if not self.started:
            said = self.captures["status"].data.decode(errors="replace").removeprefix("!")
            raise SandboxError(f"the program did not start: {said or self._errors() or f'exit code {code}'}")
        returned = self._returned()
        status = self._status(cause, code)
        errors = self._errors()
        if status == "finished" and self.called and returned is None:
            status, errors = "error", errors + "the program ended without returning a value\n"
        is_killed = not cause and code == _KILLED and seconds < self.limits.seconds
        return Outcome(status, self._output(), errors[-TAIL:], returned, seconds, is_killed)

    def _status(self, cause: str, code: int) -> Status:
        """The first that applies."""
        if ended := _ENDED.get(cause):
            return ended
        if any(self.captures[name].excessive for name in ("stdout", "stderr", "result")):
            return "output"
        if code == _OUT_OF_TIME:
            return "timeout"
        if code and self._errors().rstrip().rpartition("\n")[2].startswith("MemoryError"):
            return "memory"
        return "error" if code else "finished"

    def _errors(self) -> str:
        return self.captures["stderr"].data.decode(errors="replace")[-TAIL:]

    def _output(self) -> str:
        return self.captures["stdout"].data[: self.limits.output].decode(errors="replace")

    def _returned(self) -> str | None:
        """The one frame that the harness writes; a second one, or half of one, is somebody else's."""
        data = bytes(self.captures["result"].data)
        if not self.called or len(data) < LENGTH.size or len(data) != LENGTH.size + LENGTH.unpack_from(data)[0]:
            return None
        try:
            text = data[LENGTH.size :].decode("ascii")
            json.loads(text)
        except (ValueError, RecursionError):
            return None
        return text


def _memory() -> int:
    return os.memfd_create("m2rl", os.MFD_CLOEXEC)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")
