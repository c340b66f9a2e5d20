"""Runs nodes in parallel worker processes, forked from a server that has imported everything once.

The process that schedules imports no torch. Killed workers lose nothing but their latest steps, so that stopping is
always done by SIGKILL.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, Protocol

from m2rl_core import errors
from m2rl_core.config import RlStage, SftStage
from m2rl_core.errors import M2rlError, joined
from m2rl_core.run.memory import remedies
from m2rl_core.study import warm, worker
from m2rl_core.study.graph import Node
from m2rl_core.study.worker import Job

__all__ = ["Progress", "devices", "run_here", "run_parallel"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one thread per process: results must not depend on how many there are
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # they would fill output.log, and their lock outlives a worker that is killed
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether there is a GPU must not start CUDA, which no fork survives
}


class Progress(Protocol):
    """Who watches a study. ``stage`` is a node's id."""

    def cached(self, stage: str) -> None:
        """It was done before."""
        ...

    def started(self, stage: str) -> None: ...

    def event(self, stage: str, fields: Mapping[str, Any]) -> None:
        """What a stage reports: ``step``, ``steps``, ``reward``, ``text``, …; a ``note`` must not be missed."""
        ...

    def finished(self, stage: str, seconds: float) -> None:
        """It is done, at a cost of ``seconds`` of wall time."""
        ...

    def failed(self, stage: str, message: str) -> None: ...


def run_here(nodes: Sequence[Node], job: Callable[[Node], Job], progress: Progress) -> None:
    """Run the nodes one after the other in this process, for tests and debuggers; exceptions pass as they are."""
    for node in nodes:
        progress.started(node.id)
        progress.finished(node.id, worker.perform(job(node), partial(progress.event, node.id)))


def run_parallel(
    nodes: Sequence[Node], job: Callable[[Node], Job], progress: Progress, *, width: int | None, preload: Sequence[str]
) -> None:
    """Run the nodes, each as soon as those that it needs are done; the longest way to the end goes first.

    Args:
        nodes: those to be run; all others that they need are done.
        width: most workers at a time; default: one per GPU, or one per core where there is no GPU.
        preload: modules that the fork server imports.

    Raises:
        StageError, UserError: stages failed; all that do not need them have been finished.
        KeyboardInterrupt: Ctrl-C or SIGTERM; no worker is left.
    """
    scheduler = _Scheduler(nodes, job, progress, width)
    with _asked_to_end() as asked:
        _start_server(preload)
        try:
            scheduler.run(asked)
        finally:
            scheduler.kill()
    if scheduler.failures:
        raise joined(scheduler.failures)


@contextmanager
def _asked_to_end() -> Iterator[connection.Connection]:
    """A pipe that has something to say after Ctrl-C, SIGTERM or a closed terminal.

    An exception out of a signal's handler could come anywhere: between the start of a worker and its name in our list,
    or in a destructor, where Python drops it. Only a second signal is answered so.
    """
    asked, ask = multiprocessing.Pipe(duplex=False)

    def interrupt(number: int, frame: object) -> None:
        if asked.poll():
            raise KeyboardInterrupt
        ask.send(number)

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handled = [n for n in wanted if signal.getsignal(n) != signal.SIG_IGN]  # as nohup sets it
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, interrupt) for number in handled} if ours else {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.close()
        ask.close()


def _start_server(preload: Sequence[str]) -> None:
    """Start the process that workers are forked from, in the environment that they shall have."""
    # a worker imports this program's main module again, which is cheap where the server has it
    main = [name for name in ("m2rl_core.cli",) if name in sys.modules]
    wanted = {**ENVIRONMENT, warm.PARENT: str(os.getpid())}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        forkserver.set_forkserver_preload([warm.__name__, *preload, *main])
        forkserver.ensure_running()
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def devices() -> list[str]:
    """Names of the GPUs for ``CUDA_VISIBLE_DEVICES``, found without asking torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    return [str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def _priorities(nodes: Sequence[Node]) -> dict[str, int]:
    """Samples on the longest way from each node to the end: what holds up most should start first."""
    rest = dict.fromkeys((node.id for node in nodes), 0)
    for node in reversed(nodes):
        match node.config:
            case RlStage(steps=steps, prompts=prompts, group=group):
                own = steps * prompts * group
            case SftStage(conversations=conversations, epochs=epochs):
                own = conversations * epochs
            case _:
                own = 1
        rest[node.id] += own
        for name in node.inputs:
            if name in rest:
                rest[name] = max(rest[name], rest[node.id])
    return rest


class _Worker:
    """A node being worked on."""

    def __init__(self, node: Node, job: Job, places: list[str]) -> None:
        self.node, self.study, self.places = node, job.study, places
        self.outcome: tuple[str, Any] | None = None
        """``("finished", seconds)`` or ``("failed", …)``, once it has said so."""
        context = multiprocessing.get_context("forkserver")
        self.pipe, other = context.Pipe(duplex=False)
        self.process = context.Process(
            target=worker.main, args=(replace(job, device=",".join(filter(None, places))), other), name=node.id
        )
        self.process.start()
        other.close()

    def waits_for(self) -> list[Any]:
        return [self.process.sentinel] if self.pipe.closed else [self.process.sentinel, self.pipe]

    def ended(self) -> bool:
        return not self.process.is_alive()

    def messages(self) -> Iterator[tuple[str, Any]]:
        """What it has sent and nobody has read."""
        with suppress(EOFError, OSError):  # it has ended, perhaps in the middle of a message
            while not self.pipe.closed and self.pipe.poll():
                yield self.pipe.recv()
            return
        self.pipe.close()

    def kill(self) -> None:
        """End it and what it has started."""
        assert self.process.pid
        with suppress(ProcessLookupError):  # it has ended, or does not lead its group yet
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


class _Scheduler:
    """Keeps as many workers busy as there is work for."""

    def __init__(
        self, nodes: Sequence[Node], job: Callable[[Node], Job], progress: Progress, width: int | None
    ) -> None:
        priorities = _priorities(nodes)
        self.waiting = sorted(nodes, key=lambda node: -priorities[node.id])
        self.missing = {node.id for node in nodes}
        """Nodes whose results are not there."""
        self.running: list[_Worker] = []
        self.failures: list[M2rlError] = []
        self.job, self.progress = job, progress
        gpus, cores = devices(), len(os.sched_getaffinity(0))
        self.width = width or len(gpus) or cores
        self.on_cpu = not gpus
        self.free = [gpus[index % len(gpus)] if gpus else "" for index in range(self.width)]

    def run(self, asked: connection.Connection) -> None:
        """Work until nothing is left that can be done.

        Raises:
            KeyboardInterrupt: ``asked`` has something to say.
        """
        self._start_ready()
        while self.running:
            connection.wait([asked, *(each for one in self.running for each in one.waits_for())])
            if asked.poll():
                raise KeyboardInterrupt
            for one in list(self.running):
                ended = one.ended()  # asked first: what it sent before its end is then already there
                for kind, payload in one.messages():
                    if kind == "event":
                        self.progress.event(one.node.id, payload)
                    else:
                        one.outcome = kind, payload
                if ended:
                    self._end(one)
            self._start_ready()

    def kill(self) -> None:
        """End all workers now."""
        for one in self.running:
            one.kill()

    def _start_ready(self) -> None:
        for node in list(self.waiting):
            if self.missing.isdisjoint(node.inputs):
                job = self.job(node)
                if (places := self._places(node, job)) > len(self.free):
                    return  # the next ones, which need less, must not keep it waiting for ever
                self.waiting.remove(node)
                self.progress.started(node.id)
                self.running.append(_Worker(node, job, [self.free.pop() for _ in range(places)]))

    def _places(self, node: Node, job: Job) -> int:
        """How many workers' places a job takes. Of several machines, all work on one stage at a time."""
        if job.team is not None and job.team.nodes > 1:
            return self.width
        processes = 1 if job.team is None else job.team.count
        threads = node.config.threads if self.on_cpu and isinstance(node.config, SftStage) else 1
        return min(processes * threads, self.width)

    def _end(self, one: _Worker) -> None:
        self.running.remove(one)
        self.free += one.places
        one.process.join()
        if one.outcome is not None and one.outcome[0] == "finished":
            self.missing.discard(one.node.id)
            self.progress.finished(one.node.id, one.outcome[1])
            return
        name, message, trace = one.outcome[1] if one.outcome else ("StageError", _death(one), "")
        self.progress.failed(one.node.id, trace or message)
        self.failures.append(getattr(errors, name)(f"stage '{one.node.id}' failed: {message}"))


def _death(one: _Worker) -> str:
    """How a worker ended that could not say it itself."""
    code = one.process.exitcode or 0
    how = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
    log, then = one.node.folder / "output.log", "run the same command again, it resumes"
    if -code == signal.SIGKILL:
        how += "; too little memory is the usual cause"
        change = remedies("", one.node.stage, one.node.config, one.study.model, one.study.engine)
        then += f"; if it is killed again, {change}"
    return f"its process was {how}. Its output: {log}. Next: {then}."
