"""The embedded sandbox: a few zygotes, a fork per program, namespaces of its own for each."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
from typing import Any

from m2rl_domain_coding.sandbox.backend import Limits, Outcome, Program, SandboxError
from m2rl_domain_coding.sandbox.cgroups import control_group
from m2rl_domain_coding.sandbox.exchange import Exchange
from m2rl_domain_coding.sandbox.interpreter import ENVIRONMENT, command

__all__ = ["Namespace"]

START = 20.0
"""Seconds that a zygote has to get ready."""
END = 2.0
"""Seconds that it has to end after the connection is gone."""
GRACE = 5.0
"""Seconds past a program's limit after which its zygote is given up."""
TRIES = 3
"""Times that a program is run until the sandbox is found at fault."""
_MESSAGE = 1 << 16


class Namespace:
    """See :class:`~m2rl_domain_coding.sandbox.backend.Backend`."""

    def __init__(self) -> None:
        self._idle: list[Zygote] = []
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
        self._closed = False

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run ``program`` in a zygote that is free."""
        with self._room:
            for left in reversed(range(TRIES)):
                try:
                    return self._run(program, limits)
                except (SandboxError, OSError) as error:
                    if not left:
                        raise SandboxError(f"the namespace sandbox failed {TRIES} times: {error}") from error
        raise AssertionError("unreachable")

    def _run(self, program: Program, limits: Limits) -> Outcome:
        zygote = self._take()
        try:
            outcome = zygote.run(program, limits)
        except BaseException:
            zygote.close()
            raise
        self._give_back(zygote)
        return outcome

    def _take(self) -> Zygote:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if self._idle:
                return self._idle.pop()
        return Zygote()

    def _give_back(self, zygote: Zygote) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(zygote)
                return
        zygote.close()

    def close(self) -> None:
        """End all zygotes; one that is busy, when its program has ended."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for zygote in idle:
            zygote.close()


class Zygote:
    """One zygote, from outside.

    Raises:
        SandboxError: it did not get ready; the message says which step failed.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as cleanup:
            self._errors = cleanup.enter_context(tempfile.TemporaryFile())
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            cleanup.callback(self._channel.close)
            if group := control_group():
                cleanup.callback(group.close)
            self._group = group
            with theirs:
                self._process = self._start(theirs.fileno())
            cleanup.callback(self._end)
            self._welcome()
            self._cleanup = cleanup.pop_all()

    def _start(self, channel: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(f"zygote.main({channel}, {self._group.folders if self._group else ()!r}, {os.getpid()})"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[channel],
            env=ENVIRONMENT,
            cwd="/",
        )

    def _welcome(self) -> None:
        """It waits until it is in its group."""
        if self._group:
            self._group.join(self._process.pid)
        self._stop()
        self._expect(START)

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run one program.

        Raises:
            SandboxError: the zygote died or hung, or the program did not start.
            OSError: no descriptors left.
        """
        with Exchange(program, limits) as exchange:
            kills = self._limit(limits.memory)
            request = json.dumps({"seconds": limits.seconds, "wall": limits.wall, "memory": limits.memory}).encode()
            socket.send_fds(self._channel, [request], exchange.handles)
            exchange.handed_over()
            cause = exchange.pump(self._channel.fileno(), limits.wall + GRACE, self._stop)
            report = self._expect(0.0)
            cause = cause or ("memory" if self._kills > kills else report["cause"])
            if report["code"] < 0 and not cause:  # the first process of a namespace: no program can do that
                raise SandboxError(f"somebody ended the program's namespace with signal {-report['code']}")
            return exchange.outcome(cause, report["code"], report["seconds"])

    def _limit(self, memory: int) -> int:
        """Returns:
        Processes killed so far.
        """
        if self._group:
            self._group.limit(memory)
        return self._kills

    @property
    def _kills(self) -> int:
        return self._group.kills if self._group else 0

    def _stop(self) -> None:
        """End the program, or the waiting."""
        with contextlib.suppress(OSError):  # it is dead; the next read says so
            self._channel.send(b"!")

    def _expect(self, seconds: float) -> dict[str, Any]:
        """The next message."""
        ready, _, _ = select.select([self._channel], [], [], seconds)
        if not ready:
            raise SandboxError(f"the zygote has not answered in time{self._last_words()}")
        try:
            message: dict[str, Any] = json.loads(self._channel.recv(_MESSAGE))
        except (ValueError, ConnectionError):
            raise SandboxError(f"the zygote died{self._last_words()}") from None
        if "fault" in message:
            raise SandboxError(message["fault"])
        return message

    def _last_words(self) -> str:
        self._errors.seek(0)
        words = self._errors.read()[-500:].decode(errors="replace").strip()
        return f": {words}" if words else ""

    def close(self) -> None:
        """End it, and all that runs below it."""
        self._cleanup.close()

    def _end(self) -> None:
        """Hang up; the zygote's end is the end of its PID namespace."""
        self._channel.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
