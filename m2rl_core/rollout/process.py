"""A verifier worker as its parent sees it: start it, hand it trajectories, watch its limits, end it.

The other side of the socket is :mod:`m2rl_core.rollout.worker`. Everything in here happens on one event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

from m2rl_core.rollout.worker import BUILD_SECONDS, MAX_RESULT, Recipe, frame, frames
from m2rl_core.types import Reward, Trajectory

__all__ = ["Owner", "Task", "Verdicts", "WorkerProcess"]

TICK = 0.25
"""Seconds between two looks at a busy worker."""
FAREWELL, REAP = 0.5, 5.0
"""Seconds that a worker has to exit after the connection is gone, and that a killed one has to vanish."""


class Verdicts(NamedTuple):
    """A reward and what it cost."""

    reward: Reward
    seconds: float
    """Wall time that the verification took, without the time in the queue."""


@dataclass(eq=False, slots=True)
class Task:
    """One trajectory on its way through a worker."""

    number: int
    domain: str
    trajectory: Trajectory
    answer: Future[Verdicts]
    retried: bool = False


class Owner(Protocol):
    """Who is told what happens to a worker."""

    def answered(self, task: Task, verdicts: Verdicts) -> None:
        """The worker has verified ``task``."""

    def changed(self) -> None:
        """The worker is ready, or has room for more tasks, or has become :attr:`WorkerProcess.slow`."""

    def lost(self, worker: WorkerProcess) -> None:
        """The worker died, or must: :meth:`WorkerProcess.end` it."""


class WorkerProcess(asyncio.Protocol):
    """One worker process.

    Args:
        owner: is told what happens.
        recipes: how to build each domain.
        plugins: local files that offer components.
        warm: domains to build before the worker is ready; the others are built when they are needed.

    Raises:
        OSError: no more processes or file descriptors.
    """

    def __init__(
        self, owner: Owner, recipes: Mapping[str, Recipe], plugins: Sequence[str], warm: Iterable[str] = ()
    ) -> None:
        self.tasks: deque[Task] = deque()
        """Handed over and not answered; the worker is on the first."""
        self.ready = False
        self.answered = 0
        self.overran = False
        """It exceeded a limit: no use in trying again."""
        self._owner, self._recipes = owner, recipes
        self._greeting = frame(pickle.dumps((dict(recipes), tuple(plugins), tuple(warm))))
        self._built: set[str] = set()
        self._fault = ""
        self._buffer = bytearray()
        self._process, channel, self._errors = _spawn()
        self._loop = asyncio.get_running_loop()
        self._connection = self._loop.create_task(self._loop.create_unix_connection(lambda: self, sock=channel))
        self._timer: asyncio.TimerHandle | None = None
        self._restart_clock()
        self._watch()

    @property
    def elapsed(self) -> float:
        """Seconds that the worker has been on its first task, or on getting ready."""
        return self._loop.time() - self._since

    @property
    def slow(self) -> bool:
        """Half of the time of its first task is over."""
        return bool(self.tasks) and self.elapsed > self._limit / 2

    def take(self, task: Task) -> None:
        """Verify ``task`` after those that it has. Only when ready.

        Raises:
            Exception: from pickle, where the trajectory holds more than plain data.
        """
        self._transport.write(frame(pickle.dumps((task.number, task.domain, task.trajectory))))
        self.tasks.append(task)
        if len(self.tasks) == 1:
            self._restart_clock()
        if self._timer is None:
            self._watch()

    async def end(self) -> str:
        """Hang up, kill the whole process group, reap its leader, and say what the matter was."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.wait({self._connection})
        self._transport.abort()
        hung = not await _within(0.0 if self._fault else FAREWELL, self._gone)
        with suppress(ProcessLookupError, PermissionError):  # all gone already
            os.killpg(self._process.pid, signal.SIGKILL)
        await _within(REAP, self._gone)
        with self._errors:
            return self._fault or self._cause(hung)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open: greet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker died or hung up."""
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        """Verdicts, or news of a domain that was built."""
        if self._fault:  # too late
            return
        self._buffer += data
        try:
            for payload in frames(self._buffer, MAX_RESULT):
                self._receive(json.loads(payload))
        except Exception:  # there are many ways to forge a message
            self._fail("the verifier worker broke the protocol")
        else:
            self._owner.changed()

    def _receive(self, message: dict[str, Any]) -> None:
        if "built" in message:
            self._built.update(message["built"])
            self.ready = True
        else:
            if not self.tasks or self.tasks[0].number != message["id"]:
                raise ValueError("not the verdict that was due")
            value, metrics = message["value"], message["metrics"]
            reward = Reward(
                None if value is None else float(value),
                str(message["reason"]),
                {str(name): float(number) for name, number in metrics.items()},
            )
            self.answered += 1
            self._owner.answered(self.tasks.popleft(), Verdicts(reward, float(message["seconds"])))
        self._restart_clock()

    def _restart_clock(self) -> None:
        """The limit on the wall clock: generous, since the machine may be busy; CPU time is the worker's own affair."""
        self._since = self._loop.time()
        self._limit = BUILD_SECONDS
        if self.tasks and (domain := self.tasks[0].domain) in self._built:
            self._limit = 2 * self._recipes[domain][1]

    def _watch(self) -> None:
        self._timer = self._loop.call_later(min(TICK, self._limit - self.elapsed), self._look, self._loop.time())

    def _look(self, last: float) -> None:
        """Watch the limit, and whether the worker lives: a child of its own may hold the socket open."""
        self._timer = None
        if self.ready and not self.tasks:
            return
        stall = self._loop.time() - max(last, self._since) - TICK
        if stall > TICK:  # this process slept, or somebody held its lock: a verdict may be waiting to be read
            self._since += stall
        if self.elapsed >= self._limit:
            self.overran = True
            self._fail(f"{self._doing} exceeded {self._limit:g} s")
        elif self._gone():
            self._owner.lost(self)
        else:
            self._watch()
            if self.slow:
                self._owner.changed()

    def _fail(self, fault: str) -> None:
        self._fault = fault
        self._owner.lost(self)

    @property
    def _doing(self) -> str:
        return "verifier" if self.tasks and self.tasks[0].domain in self._built else "building the domain"

    def _gone(self) -> bool:
        return self._process.poll() is not None

    def _cause(self, hung: bool) -> str:
        """What a worker died of that was not found at fault."""
        code = self._process.returncode
        if hung or code is None:
            return "the verifier worker hung up"
        if code == -signal.SIGXCPU:
            self.overran = True
            seconds = self._recipes[self.tasks[0].domain][1] if self._doing == "verifier" else BUILD_SECONDS
            return f"{self._doing} exceeded {seconds:g} s of CPU time"
        if code < 0:
            return f"the verifier worker died: {signal.strsignal(-code) or f'signal {-code}'}{self._last_words()}"
        return f"the verifier worker exited with code {code}{self._last_words()}"

    def _last_words(self) -> str:
        """The last line of its standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        tail = os.pread(self._errors.fileno(), 2000, max(0, size - 2000)).decode(errors="replace").strip()
        return f" ({tail.splitlines()[-1][-300:]})" if tail else ""


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket, BinaryIO]:
    """Start a worker: its process, our end of the socket, and the file that holds its standard error.

    It gets a session of its own, so that all its descendants can be killed together. Its parent-death signal follows
    the thread that calls this, so that thread must live as long as the worker.
    """
    with ExitStack() as cleanup:
        ours, theirs = map(cleanup.enter_context, socket.socketpair())
        errors = cleanup.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "m2rl_core.rollout.worker", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            start_new_session=True,
        )
        cleanup.pop_all()
        theirs.close()
    return process, ours, errors


def _environment() -> dict[str, str]:
    """What a verifier may know of ours: no credentials; and sets iterate in the same order in every worker."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "LANG"} or name.startswith(("PYTHON", "M2RL_"))
        if not any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))
    }
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


async def _within(seconds: float, happened: Callable[[], bool]) -> bool:
    """Wait at most so long for something that nobody tells us of."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(0.001)
    return True
