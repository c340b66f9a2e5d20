"""Several processes that train one stage together, started and watched by an agent of ``torch.distributed.run``.

The agent lives in the stage's worker; its processes are forked from a server that has imported everything once. One
that dies (killed for its memory, a machine that is gone) ends the others, and all begin again from the last
checkpoint. One that says what is wrong ends the stage.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from m2rl_core.errors import M2rlError, StageError
from m2rl_core.files import room, write_text
from m2rl_core.processes import die_with_parent
from m2rl_core.study import warm, worker
from m2rl_core.study.worker import MEETING, Job, Send, Team

__all__ = ["follow", "launch", "serve"]

RESTARTS = 3
"""Times that a stage begins again because one of its processes died."""
LINGER = 2.0
"""Seconds that a process keeps an exception to itself: if another's death is the cause, the agent sees that first."""
PATIENCE = 24 * 3600, 120
"""Seconds that the first machine waits for the others, and that these wait for the first, which has called them."""
PRELOAD = ("m2rl_core.policy", "transformers.models.qwen3.modeling_qwen3")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: seconds that were spent, or the first error that a process told."""

    spent: tuple[float, float] | None = None
    failure: tuple[str, str, str] | None = None

    @property
    def is_said(self) -> bool:
        """The failure is one that we raise on purpose; any other may follow from a death on another machine."""
        return self.failure is not None and not self.failure[2]


def launch(job: Job, send: Send) -> tuple[float, float]:
    """Run the job's stage function in ``job.team`` processes and wait for them.

    Returns:
        (wall, CPU) seconds that the stage has cost.

    Raises:
        M2rlError: what a process has said.
        StageError: processes died, again and again.
    """
    assert job.team is not None
    with _server(job):
        for attempt in range(RESTARTS + 1):
            with _announced(job, job.team, name := f"{job.node.key}-{os.getpid()}-{attempt}"):
                outcome = _attempt(job, job.team, name, send)
            if outcome.spent is not None:
                return outcome.spent
            if outcome.failure is not None and (outcome.is_said or job.team.nodes == 1 or attempt == RESTARTS):
                raise worker.told(*outcome.failure)
            if attempt < RESTARTS:
                send({"note": f"stage '{job.node.id}': a process died; all begin again from the last checkpoint"})
    raise StageError(
        f"one of {job.team.size} processes died, {RESTARTS + 1} times in a row; too little memory is the usual cause",
        found=f"its output in {job.node.folder / 'output.log'}",
        then="run the same command again, it resumes; or lower tokens_per_device",
    )


def follow(job: Job) -> None:
    """Work on a stage that the first machine has announced. How it ends is the first machine's affair."""
    assert job.team is not None
    with _server(job), suppress(Exception):  # the first machine is gone, or comes back with another announcement
        name = (job.node.folder / MEETING).read_text()
        _attempt(job, job.team, name, lambda fields: None)


@contextmanager
def _announced(job: Job, team: Team, name: str) -> Iterator[None]:
    """Tell the other machines, which see the same files, that an attempt at the stage begins."""
    announcement = job.node.folder / MEETING
    if team.nodes == 1:
        yield
        return
    write_text(announcement, name)
    try:
        yield
    finally:
        announcement.unlink(missing_ok=True)


@contextmanager
def _server(job: Job) -> Iterator[None]:
    """The server that processes are forked from; it dies with this process, and they with it."""
    os.environ[warm.PARENT] = str(os.getpid())
    try:
        forkserver.set_forkserver_preload([warm.__name__, job.target.partition(":")[0], *PRELOAD])
        forkserver.ensure_running()
    finally:
        del os.environ[warm.PARENT]
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    yield


def _attempt(job: Job, team: Team, name: str, send: Send) -> Outcome:
    """Start this machine's processes once."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    context = get_context("forkserver")
    pipes = [context.Pipe(duplex=False) for _ in range(team.count)]
    with tempfile.TemporaryDirectory(prefix="m2rl-ranks-") as folder, _heard([ours for ours, _ in pipes], send) as told:
        config = _config(team, name, Path(folder))
        place = None if team.nodes > 1 else f"{folder}/group"
        try:
            with suppress(ChildFailedError):
                elastic_launch(config, serve)(job, [theirs for _, theirs in pipes], place)
        finally:
            for _, theirs in pipes:
                theirs.close()
    return Outcome(told.get("finished"), told.get("failed"))


def _config(team: Team, name: str, folder: Path) -> Any:
    """The agent's settings. Processes of one machine meet at files: no port is opened to the outside."""
    from torch.distributed.launcher.api import LaunchConfig

    if team.nodes > 1:
        patience = PATIENCE[0 if team.node == 0 else 1]
        configs: dict[str, Any] = {"rank": team.node, "timeout": patience}
        meeting: dict[str, Any] = {"rdzv_backend": "static", "rdzv_endpoint": team.rendezvous}
    else:
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # the agent's server for them, open to everyone
        configs = {"store_type": "file"}
        meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": f"{folder}/agent", "local_addr": "127.0.0.1"}
    return LaunchConfig(
        min_nodes=team.nodes,
        max_nodes=team.nodes,
        nproc_per_node=team.count,
        run_id=name,
        rdzv_configs=configs,
        max_restarts=0,
        monitor_interval=0.1,
        start_method="forkserver",
        shutdown_timeout=5,
        **meeting,
    )


@contextmanager
def _heard(pipes: list[Connection], send: Send) -> Iterator[dict[str, Any]]:
    """Pass on what processes send while the block runs; the first ``finished`` and ``failed`` are kept."""
    told: dict[str, Any] = {}

    def listen() -> None:
        left = list(pipes)
        while left:
            for pipe in connection.wait(left):
                assert isinstance(pipe, Connection)
                try:
                    kind, payload = pipe.recv()
                except (EOFError, OSError):  # it has ended, perhaps in the middle of a message
                    left.remove(pipe)
                    continue
                if kind == "event":
                    send(payload)
                else:
                    told.setdefault(kind, payload)

    thread = threading.Thread(target=listen, name="m2rl-ranks", daemon=True)
    thread.start()
    yield told
    thread.join(10)


def serve(job: Job, pipes: list[Connection], place: str | None) -> None:
    """Entry point of each process: works on the stage, and says what comes of it."""
    die_with_parent()
    number = int(os.environ["LOCAL_RANK"])
    if job.device:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.device.split(",")[number]  # every process sees one device, its own
    if place is not None and sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    pipe = pipes[number]
    try:
        spent = _work(job, pipe, place, number)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        if not isinstance(error, M2rlError):
            time.sleep(LINGER)
        pipe.send(("failed", worker.described(error)))
        os._exit(1)
    if number == 0:
        pipe.send(("finished", spent))
    pipe.close()


def _work(job: Job, pipe: Connection, place: str | None, number: int) -> tuple[float, float]:
    from m2rl_core.policy.sharding import joined

    def send(fields: Mapping[str, Any]) -> None:
        pipe.send(("event", dict(fields)))

    with room(job.node.folder), joined(place):
        run = worker.stage_run(replace(job, team=None), send)
        worker.work(job, run)
        return run.spent
