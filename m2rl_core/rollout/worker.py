"""The process that verifiers run in: ``python -m m2rl_core.rollout.worker SOCKET PARENT``.

Its parent (:mod:`m2rl_core.rollout.process`) kills it with its process group when a verification oversteps its limits.
Both speak frames over one socket: a length of four bytes and that many bytes. What the worker receives is pickled, what
it sends is JSON, so that a worker under somebody else's control cannot run code in its parent:

* first, the parent says how to build the domains;
* ``{"built": [domain, ...]}``: ready, with these domains built; later, one more domain was built;
* ``{"id", "value", "reason", "metrics", "seconds"}``: one verdict, sent before the next trajectory is looked at.

This module imports no torch.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from m2rl_core.interfaces import Domain
from m2rl_core.plugins import load_plugins
from m2rl_core.processes import die_with_parent
from m2rl_core.redaction import redacted
from m2rl_core.types import Reward, Trajectory

__all__ = ["BUILD_SECONDS", "MAX_RESULT", "Recipe", "describe", "frame", "frames"]

BUILD_SECONDS = 60.0
"""Limit for loading the plugins, and for building one domain."""
MAX_RESULT = 1 << 16
"""Longest frame [bytes] that a worker may send."""
MAX_REASON = 500
"""Longest reason [characters]."""
MEMORY = 4 << 30
"""Address space [bytes]. A soft limit, which a domain may raise for a sandbox of its own."""
FILE_SIZE = 64 << 20
"""Longest file [bytes] that a worker may write, its standard error included. A soft limit, too."""

_LENGTH = struct.Struct(">I")


Recipe = tuple[Mapping[str, Any], float]
"""``{use: NAME, **config}`` of a domain, and the limit of one verification [CPU seconds]."""


def frame(payload: bytes) -> bytes:
    """``payload`` with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


def frames(buffer: bytearray, limit: int) -> Iterator[bytes]:
    """Take the complete frames off the front of ``buffer``.

    Raises:
        ValueError: a frame is longer than ``limit``.
    """
    while len(buffer) >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(buffer)
        if size > limit:
            raise ValueError(f"a frame of {size} bytes; at most {limit} are allowed")
        end = _LENGTH.size + size
        if len(buffer) < end:
            return
        payload = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        yield payload


def describe(error: BaseException, domain: str) -> str:
    """``"ValueError: no gold (domain math)"``, whatever ``str(error)`` does; without secrets."""
    try:
        text = str(error)
    except Exception:
        text = "(no message)"
    return f"{type(error).__name__}: {redacted(text)[:MAX_REASON]} (domain {domain})"


class Worker:
    """Builds domains on first use and answers trajectories one by one."""

    def __init__(self, channel: socket.socket, recipes: Mapping[str, Recipe], plugins: tuple[str, ...]) -> None:
        self.channel, self.recipes = channel, recipes
        self.registry = load_plugins(plugins)
        self.domains: dict[str, Domain] = {}
        self.process = os.getpid()

    def build(self, name: str) -> Domain:
        """The domain called ``name`` in the study."""
        if name not in self.domains:
            _limit_cpu(BUILD_SECONDS)
            use, _ = self.recipes[name]
            self.domains[name] = self.registry.create("domain", use, f"domains.{name}")
        return self.domains[name]

    def prepare(self, names: tuple[str, ...]) -> None:
        """Build what has been in use before this worker was started, then say that it is ready."""
        for name in names:
            try:
                self.build(name)
            except Exception as error:  # comes again, and counts, when a trajectory needs the domain
                sys.stderr.write(describe(error, name) + "\n")
        self.send({"built": list(self.domains)})

    def answer(self, number: int, name: str, trajectory: Trajectory) -> None:
        """Verify one trajectory and send the verdict."""
        started = time.perf_counter()
        try:
            if name not in self.domains:
                self.build(name)
                self.send({"built": [name]})
                started = time.perf_counter()
            _, seconds = self.recipes[name]
            _limit_cpu(seconds)
            reward = self.domains[name].verify(trajectory)
            if not isinstance(reward, Reward):
                raise TypeError(f"verify returned {type(reward).__name__}, not Reward")
            verdict = _as_json(reward)
        except BaseException as error:  # SystemExit, and what a verifier's own alarm may throw
            verdict = {"value": None, "reason": describe(error, name), "metrics": {}}
        if os.getpid() != self.process:  # a child that a verifier forked came back here
            os._exit(0)
        self.send({"id": number, **verdict, "seconds": time.perf_counter() - started})

    def send(self, message: Mapping[str, Any]) -> None:
        """One JSON frame to the parent."""
        self.channel.sendall(frame(json.dumps(message).encode()))


def _as_json(reward: Reward) -> dict[str, Any]:
    """Plain data of bounded size."""
    value = None if reward.value is None else float(reward.value)
    metrics = {str(key): float(number) for key, number in reward.metrics.items()}
    verdict = {"value": value, "reason": str(reward.reason)[:MAX_REASON], "metrics": metrics}
    if (size := len(json.dumps(verdict, allow_nan=False))) > MAX_RESULT - 200:  # leaves room for id and seconds
        raise ValueError(f"a reward of {size} bytes; at most {MAX_RESULT - 200} are allowed")
    return verdict


def _receive(stream: BinaryIO) -> Any:
    """The next unpickled frame; ``None`` at the end."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    return pickle.loads(stream.read(*_LENGTH.unpack(header)))


def _limit_cpu(seconds: float) -> None:
    """From now on so many more CPU seconds, rounded up to the kernel's whole seconds; then SIGXCPU ends the process."""
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))


def _limit(kind: int, amount: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _confine(parent: int) -> None:
    """Bound memory and files, and die with the parent."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_FSIZE, FILE_SIZE)
    _limit(resource.RLIMIT_CORE, 0)
    die_with_parent(parent)


def main(handle: int, parent: int) -> None:
    """Serve until the parent hangs up."""
    _confine(parent)
    with socket.socket(fileno=handle) as channel, channel.makefile("rb") as stream:
        channel.set_inheritable(False)  # programs that a verifier starts have no business here
        recipes, plugins, names = _receive(stream)
        worker = Worker(channel, recipes, plugins)
        worker.prepare(names)
        while (task := _receive(stream)) is not None:
            worker.answer(*task)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
