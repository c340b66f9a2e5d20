"""The process that one node is worked on in.

It leads a process group of its own, dies with its parent, and writes what is printed to ``output.log``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from m2rl_core import errors
from m2rl_core.config import Study
from m2rl_core.errors import M2rlError, RunError, StageError
from m2rl_core.files import locked, room, sweep
from m2rl_core.plugins import load_plugins
from m2rl_core.processes import die_with_parent
from m2rl_core.redaction import redacted
from m2rl_core.run import NodeView, StageRun
from m2rl_core.seeding import derive
from m2rl_core.study import folders
from m2rl_core.study.graph import Node

__all__ = [
    "MEETING",
    "Job",
    "Send",
    "Team",
    "described",
    "main",
    "perform",
    "stage_run",
    "told",
    "work",
]

MEETING = ".meeting"
"""In a stage's folder: the attempt that all machines are to join."""
Send = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Team:
    """Processes that train a stage together."""

    count: int = 1
    """On this machine."""
    nodes: int = 1
    """Machines; all run the same command on the same files."""
    node: int = 0
    """Which of them this is; the first does everything that is not training."""
    rendezvous: str = ""
    """``HOST:PORT`` on the first machine, where they meet."""

    @property
    def size(self) -> int:
        """On all machines."""
        return self.count * self.nodes


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs to know."""

    node: Node
    study: Study
    """What the node may see of the study."""
    target: str
    """The stage function, as ``module:function``."""
    models: Mapping[str, Path]
    nodes: tuple[NodeView, ...]
    """What the node came from."""
    device: str = ""
    """``CUDA_VISIBLE_DEVICES`` of the worker; empty leaves it as it is."""
    team: Team | None = None
    """Where several processes are to do it."""


def perform(job: Job, send: Send) -> float:
    """Do the node's work in this process and mark it as done.

    Returns:
        Wall seconds that the node cost, those of earlier, interrupted attempts included.

    Raises:
        RunError: an input model is gone, or the disk is full.
        Exception: whatever the stage function raises.
    """
    node, started = job.node, datetime.now(UTC)
    for name, path in job.models.items():
        if not path.is_dir():
            raise RunError(
                f"the model '{name}' is gone", found=f"no {path}", then="remove DONE beside it to make it again"
            )
    with room(node.folder):
        folders.begin(node)
        with locked(node.folder / ".lock", wait=True):  # until the last of a killed attempt is gone
            sweep(node.folder, deep=True)
            spent = _spend(job, send)
            folders.end(node, *spent, started)
    return spent[0]


def _spend(job: Job, send: Send) -> tuple[float, float]:
    """Have the stage function work; returns the (wall, CPU) seconds that it has cost."""
    if job.team is not None:
        from m2rl_core.study.ranks import launch

        return launch(job, send)
    run = stage_run(job, send)
    work(job, run)
    return run.spent


def stage_run(job: Job, send: Send) -> StageRun:
    """What the job's stage function is called with."""
    node = job.node
    return StageRun(
        name=node.stage,
        stage=node.config,
        study=job.study,
        seed=derive(node.seed, node.stage),
        folder=node.folder,
        models=job.models,
        registry=load_plugins(job.study.plugins),
        suite=node.suite,
        nodes=job.nodes,
        key=node.key,
        covered=node.covered,
        shared=folders.shared(node),
        send=send,
    )


def work(job: Job, run: StageRun) -> None:
    """Call the stage function, and close the journal."""
    with run.enough_memory(""):
        resolve_name(job.target)(run)
    run.close()


def main(job: Job, connection: Connection) -> None:
    """Entry point of the process: sends ``("event", fields)``, and last ``("finished", seconds)`` or
    ``("failed", (class, message, traceback))``."""
    os.setpgid(0, 0)
    die_with_parent()
    if job.device:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.device
    try:
        with _printing_to(job.node):
            seconds = perform(job, lambda fields: connection.send(("event", dict(fields))))
        connection.send(("finished", seconds))
    except BaseException as error:
        connection.send(("failed", described(error)))


def described(error: BaseException) -> tuple[str, str, str]:
    """(class of ours, message, traceback where it is not one that we raise on purpose) of an exception."""
    if isinstance(error, M2rlError):
        return error.kind, str(error), "".join(getattr(error, "__notes__", ()))
    message, trace = redacted(f"{type(error).__name__}: {error}"), redacted(traceback.format_exc())
    return StageError.__name__, message, trace


def told(name: str, message: str, trace: str) -> M2rlError:
    """The exception that :func:`described` described in another process."""
    error: M2rlError = getattr(errors, name)(message)
    if trace:
        error.add_note(trace)
    return error


@contextmanager
def _printing_to(node: Node) -> Iterator[None]:
    """Send the output of this process and of its children to a file, without secrets at last: the terminal shows the
    study's progress."""
    with room(node.folder):
        folders.begin(node)
        log = node.folder / "output.log"
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    try:
        yield
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _clean(log)


def _clean(log: Path) -> None:
    """Take out what libraries and plugins have printed of secrets; remove a log that says nothing."""
    text = log.read_bytes().decode(errors="surrogateescape")
    if (shown := redacted(text)) != text:
        log.write_bytes(shown.encode(errors="surrogateescape"))
    if not text:
        log.unlink()
