"""The process that one node is worked on in.

It leads a process group of its own, dies with its parent, and writes what is printed to ``output.log``.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from m2rl_core.config import Study
from m2rl_core.errors import M2rlError, RunError
from m2rl_core.files import locked, room, sweep, write_text
from m2rl_core.plugins import load_plugins
from m2rl_core.run import NodeView, StageRun
from m2rl_core.seeding import derive
from m2rl_core.study.folders import DONE
from m2rl_core.study.graph import Node

__all__ = ["Job", "die_with_parent", "main", "perform"]

Send = Callable[[Mapping[str, Any]], None]


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
    with locked(node.folder / ".lock", wait=True), room(node.folder / DONE):
        sweep(node.folder, deep=True)
        run = StageRun(
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
            send=send,
        )
        resolve_name(job.target)(run)
        run.close()
        seconds, cpu_seconds = run.spent
        facts = {"key": node.key, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
        times = {"started": _text(started), "finished": _text(datetime.now(UTC))}
        write_text(node.folder / DONE, json.dumps(facts | times) + "\n")
        shutil.rmtree(node.folder / "state", ignore_errors=True)
    return seconds


def main(job: Job, connection: Connection) -> None:
    """Entry point of the process: sends ``("event", fields)``, and last ``("finished", seconds)`` or
    ``("failed", (class, message, traceback))``."""
    log = job.node.folder / "output.log"
    os.setpgid(0, 0)
    die_with_parent()
    _print_to(log)
    if job.device:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.device
    try:
        connection.send(("finished", perform(job, lambda fields: connection.send(("event", dict(fields))))))
    except BaseException as error:
        traceback.print_exc()
        expected = isinstance(error, M2rlError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        trace = "" if expected else traceback.format_exc()
        connection.send(("failed", (type(error).__name__ if expected else "StageError", message, trace)))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if log.stat().st_size == 0:
            log.unlink()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # it ended before the call


def _print_to(path: Path) -> None:
    """Send the output of this process and of its children to a file: the terminal shows the study's progress."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
