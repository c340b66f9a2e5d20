"""Verifiers run in child processes that are killed at their limits: three verdicts, and training goes on.

A verifier that hangs cannot be stopped within its process (a thread cannot be reclaimed, SIGALRM only reaches the main
thread and can be caught), so it runs in a worker that is killed with its process group. A failed verdict is a
``Reward(None, reason)``, never a reward of 0. The clock of a verification starts when a worker takes the trajectory up,
not when it was queued.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from m2rl_core.config import DomainSection
from m2rl_core.interfaces import Domain
from m2rl_core.redaction import redacted
from m2rl_core.rollout.process import Task, Verdicts, WorkerProcess
from m2rl_core.rollout.worker import Recipe, describe
from m2rl_core.types import Reward, Trajectory

__all__ = ["Spec", "Verdicts", "VerifierPool"]

RECYCLE = 10_000
"""Verifications after which a worker is replaced, since libraries leak memory."""
AHEAD, DEPTH = 0.02, 64
"""A worker is handed work for so many seconds, and at most so many tasks: fast verifiers wait for no round trip."""
STARTS = 3
"""Workers that may die in a row before they are ready; then all that is queued fails."""
ASKS = 2
"""Times that a remote verifier is asked until it answers."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How to build the verifier of one domain, in another process."""

    use: str
    config: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str] = ()
    """Local files that offer components, as in the study."""
    seconds: float = 10.0
    """Limit of one verification: CPU seconds, rounded up to whole ones, and doubled, wall seconds."""
    remote: Domain | None = None
    """The domain itself where it asks a service: awaited in the caller's event loop, under the wall limit."""

    @classmethod
    def of(cls, domain: Domain, section: DomainSection, plugins: Sequence[str] = ()) -> Spec:
        """Of a domain as a study describes it."""
        return cls(section.use, section.config, plugins, domain.verify_seconds, domain if domain.remote else None)


class VerifierPool:
    """Verifies trajectories in worker processes, which are started when there is work.

    Args:
        specs: domains by the name that prompts carry.
        workers: processes that verify at the same time.
        recycle: verifications after which a process is replaced.
    """

    def __init__(self, specs: Mapping[str, Spec], workers: int = 1, *, recycle: int = RECYCLE) -> None:
        self._specs = dict(specs)
        self._numbers = itertools.count()
        self._closed = False
        self._gate = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._dispatcher = _Dispatcher(self._specs, workers, recycle)
        self._thread = threading.Thread(target=self._loop.run_forever, name="m2rl-verifiers", daemon=True)
        self._thread.start()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def verify(self, domain: str, trajectory: Trajectory) -> Verdicts:
        """Judge one trajectory; may be awaited in any event loop.

        Raises:
            KeyError: no such domain.
            RuntimeError: the pool is closed.
        """
        spec = self._specs[domain]
        if spec.remote is not None:
            return await _ask(spec.remote, domain, trajectory, 2 * spec.seconds)
        task = Task(next(self._numbers), domain, trajectory, Future())
        task.answer.set_running_or_notify_cancel()  # a caller that stops waiting does not take it back
        with self._gate:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            self._loop.call_soon_threadsafe(self._dispatcher.accept, task)
        return await asyncio.wrap_future(task.answer)

    def submit(self, domain: str, trajectory: Trajectory) -> Future[Verdicts]:
        """Judge one trajectory, without waiting for it; for callers without an event loop.

        Raises:
            RuntimeError: the pool is closed.
        """
        if self._closed:
            raise RuntimeError("the verifier pool is closed")
        return asyncio.run_coroutine_threadsafe(self.verify(domain, trajectory), self._loop)

    def verify_all(self, items: Iterable[tuple[str, Trajectory]]) -> list[Verdicts]:
        """Judge pairs of a domain and a trajectory, in their order. Not for use inside a running event loop."""

        async def judge() -> list[Verdicts]:
            return await asyncio.gather(*(self.verify(domain, trajectory) for domain, trajectory in items))

        return asyncio.run(judge())

    def close(self) -> None:
        """Kill the workers; what is still waiting fails. May be called again."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._dispatcher.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Dispatcher:
    """The queue and the workers; lives on the pool's event-loop thread. It owns the :class:`WorkerProcess` es."""

    def __init__(self, specs: Mapping[str, Spec], size: int, recycle: int) -> None:
        self.recipes: dict[str, Recipe] = {n: ({"use": s.use, **s.config}, s.seconds) for n, s in specs.items()}
        self.plugins = tuple(dict.fromkeys(path for spec in specs.values() for path in spec.plugins))
        self.size, self.recycle = size, recycle
        self.queue: deque[Task] = deque()
        self.workers: list[WorkerProcess] = []
        self.partings: set[asyncio.Task[None]] = set()
        self.pace: dict[str, float] = {}
        """Running mean of the seconds that a verification takes, for each domain that has been in use."""
        self.stillborn = 0
        """Workers in a row that died before they were ready."""
        self.closed = False

    def accept(self, task: Task) -> None:
        """Put ``task`` in the queue."""
        self.queue.append(task)
        self.changed()

    def answered(self, task: Task, verdicts: Verdicts) -> None:
        """A worker has verified ``task``."""
        pace = self.pace.setdefault(task.domain, verdicts.seconds)
        self.pace[task.domain] = 0.9 * pace + 0.1 * verdicts.seconds
        task.answer.set_result(verdicts)

    def changed(self) -> None:
        """Give work to the workers, and see that there are enough of them.

        One more is started where a worker is worn or takes suspiciously long, so that a replacement is ready when it
        goes.
        """
        if self.closed:
            return
        busy = sum(bool(worker.tasks) for worker in self.workers)
        wanted = min(self.size, busy + len(self.queue)) + any(map(self._doubtful, self.workers))
        while len(self.workers) < wanted and self._start():
            pass
        ready = sorted((worker for worker in self.workers if worker.ready), key=self._doubtful)
        for worker in ready[: self.size]:
            while self.queue and self._has_room(worker):
                self._hand(self.queue.popleft(), worker)
        for worker in ready[self.size :]:
            if self._worn(worker) and not worker.tasks:
                self.lost(worker)

    def lost(self, worker: WorkerProcess) -> None:
        """Part from a worker, whatever state it is in."""
        if worker in self.workers:
            self.workers.remove(worker)
            parting = asyncio.create_task(self._part(worker))
            self.partings.add(parting)
            parting.add_done_callback(self.partings.discard)

    async def close(self) -> None:
        """Part from all workers."""
        self.closed = True
        for worker in list(self.workers):
            self.lost(worker)
        if self.partings:
            await asyncio.wait(self.partings)
        self._fail_queue("the verifier pool was closed")

    def _worn(self, worker: WorkerProcess) -> bool:
        return worker.answered >= self.recycle

    def _doubtful(self, worker: WorkerProcess) -> bool:
        return worker.slow or self._worn(worker)

    def _has_room(self, worker: WorkerProcess) -> bool:
        expected = sum(self.pace.get(task.domain, AHEAD) for task in worker.tasks)
        return len(worker.tasks) < DEPTH and expected < AHEAD

    def _hand(self, task: Task, worker: WorkerProcess) -> None:
        try:
            worker.take(task)
        except Exception as error:  # one bad rollout is data
            task.answer.set_result(Verdicts(Reward(None, describe(error, task.domain)), 0.0))

    def _start(self) -> bool:
        try:
            self.workers.append(WorkerProcess(self, self.recipes, self.plugins, warm=self.pace))
        except OSError as error:
            self._fail_queue(f"no verifier worker can be started: {error}")
            return False
        return True

    async def _part(self, worker: WorkerProcess) -> None:
        """The task that a worker was on fails or is tried once more; those behind it go back to the queue."""
        seconds = worker.elapsed
        trouble = await worker.end()
        if worker.tasks:
            task = worker.tasks.popleft()
            self.queue.extendleft(reversed(worker.tasks))
            if worker.overran or task.retried:
                task.answer.set_result(Verdicts(Reward(None, f"{trouble} (domain {task.domain})"), seconds))
            else:
                task.retried = True
                self.queue.appendleft(task)
        self.stillborn = 0 if worker.ready else self.stillborn + 1
        if self.stillborn == STARTS:
            self.stillborn = 0
            self._fail_queue(f"no verifier worker gets ready: {trouble}")
        self.changed()

    def _fail_queue(self, reason: str) -> None:
        while self.queue:
            task = self.queue.popleft()
            task.answer.set_result(Verdicts(Reward(None, f"{reason} (domain {task.domain})"), 0.0))


async def _ask(domain: Domain, name: str, trajectory: Trajectory, limit: float) -> Verdicts:
    """Await a remote verifier for at most ``limit`` wall seconds, and once more where it has failed within them."""
    started = time.perf_counter()
    for _ in range(ASKS):
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                reward = await domain.verify_remote(trajectory)
            if not isinstance(reward, Reward):
                raise TypeError(f"verify_remote returned {type(reward).__name__}, not a Reward")
            reward = replace(reward, reason=redacted(reward.reason))
            if reward.value is not None:
                break
        except Exception as error:
            reward = Reward(None, describe(error, name))
            if clock.expired():  # it would likely take as long again
                reward = Reward(None, f"verifier exceeded {limit:g} s (domain {name})")
                break
    return Verdicts(reward, time.perf_counter() - started)
