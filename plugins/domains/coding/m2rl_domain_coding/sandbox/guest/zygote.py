"""The clean process that every program is forked from; nothing of a program or a test is ever in its memory."""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from . import harness, jail, syscalls
from .handles import ALL, HANDLES, arrange, excuse, read, started
from .lockdown import Rules, confine, ease, stranger
from .memory import held, own_address_space
from .vacate import Group, groups, vacate

__all__ = ["main"]

_MODULES = """
    array bisect builtins cmath collections copy ctypes dataclasses datetime decimal enum fractions functools hashlib
    heapq inspect io itertools json math numbers operator os queue random re statistics string struct textwrap
    threading time traceback types typing
"""
_RESERVE = 512 << 20
"""Bytes of address space that a program may ask for beyond its memory where what it holds is watched: stacks of threads
are reserved whole and hardly touched."""
_LOOK = 0.02
"""Seconds between two looks at what a program holds."""
_NEW = syscalls.NEWNS | syscalls.NEWNET | syscalls.NEWIPC | syscalls.NEWUTS


def main(control: int, folders: Sequence[str], parent: int) -> NoReturn:
    """Serve requests on ``control`` until it closes or ``parent`` ends; then remove the control groups ``folders``."""
    channel = socket.socket(fileno=control)
    try:
        ease()
        os.setsid()  # who kills the parent's group ends this by ending the parent: there is something left to do
        channel.recv(1)  # now in its control group
        user = stranger()
        watched, left = os.pidfd_open(parent), groups(folders)
        privileged = jail.detach_world(user)
        if not (child := os.fork()):
            syscalls.die_with_parent()
            for group in left:
                os.close(group.above)
            Zygote(channel, user if privileged else None).serve()
    except BaseException as error:
        _say(channel, {"fault": f"{type(error).__name__}: {error}"})
        os._exit(1)
    channel.close()
    _attend(watched, child, left)


def _attend(watched: int, child: int, left: Sequence[Group]) -> NoReturn:
    """Until the parent or the child has ended; the groups go then, too, since a killed parent cannot remove them."""
    select.select([watched, os.pidfd_open(child)], [], [])
    os.kill(child, signal.SIGKILL)  # and with it, as the first of its namespace, everything below
    os.waitpid(child, 0)
    vacate(left)
    os._exit(0)


def _say(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.send(json.dumps(message).encode())


class Zygote:
    """The first process of a PID namespace, one program at a time."""

    def __init__(self, channel: socket.socket, user: int | None) -> None:
        self.channel, self.user = channel, user
        for name in _MODULES.split():
            importlib.import_module(name)
        self.base = own_address_space()
        self.processes = jail.build()
        if self.processes is not None:
            self.base += _RESERVE
        self.itself = os.pidfd_open(os.getpid())
        self.anonymous = held(self.processes, count_first=True) if self.processes is not None else 0
        harness.tidy()
        gc.collect()
        gc.freeze()

    def serve(self) -> NoReturn:
        """Answer requests."""
        _say(self.channel, {"ready": True, "memory_watched": self.processes is not None})
        while True:
            request, handles, _, _ = socket.recv_fds(self.channel, 4096, len(HANDLES))
            if not request:
                os._exit(0)
            if not handles:  # asked to end a program that had ended
                continue
            try:
                report = self.execute(json.loads(request), handles)
            except OSError as error:
                report = {"fault": str(error)}
            _say(self.channel, report)

    def execute(self, request: dict[str, Any], handles: Sequence[int]) -> dict[str, Any]:
        """Run one program to its end, or to the end of its time."""
        rules = Rules(request["seconds"], request["memory"], self.user)
        began = time.monotonic()
        child = self.fork(rules, handles)
        watched = os.pidfd_open(child)
        cause = self.watch(watched, rules, began + request["wall"])
        if cause:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(watched)
        code = os.waitstatus_to_exitcode(status)
        return {"cause": cause, "code": code, "seconds": time.monotonic() - began}

    def fork(self, rules: Rules, handles: Sequence[int]) -> int:
        """The first process of a new PID namespace."""
        try:
            syscalls.unshare(syscalls.NEWPID)
            child = os.fork()
            if not child:
                self.begin(rules, dict(zip(HANDLES, handles, strict=True)))
            syscalls.rejoin(self.itself, syscalls.NEWPID)
        finally:
            for handle in handles:
                os.close(handle)
        return child

    def watch(self, child: int, rules: Rules, deadline: float) -> str:
        """Wait for the end; or say why it has to come now."""
        while (left := deadline - time.monotonic()) > 0:
            pause = left if self.processes is None else min(left, _LOOK)
            ready, _, _ = select.select([child, self.channel.fileno()], [], [], pause)
            if child in ready:
                return ""
            if ready:
                return "asked" if self.channel.recv(1) else os._exit(0)
            if self.processes is not None and held(self.processes, self.anonymous) > rules.memory:
                return "memory"
        return "timeout"

    def begin(self, rules: Rules, handles: dict[str, int]) -> NoReturn:
        """Namespaces and a scratch folder; then wait for the program, as the first process of its namespace."""
        try:
            os.setsid()
            syscalls.unshare(_NEW)
            syscalls.mount("tmpfs", "/tmp", syscalls.NOSUID | syscalls.NODEV, jail.SCRATCH)
            os.chdir("/tmp")
            self.volunteer()
            syscalls.dumpable(False)
            if not (program := os.fork()):
                start(rules, self.base, handles)
            os.closerange(0, ALL)
            _mirror(program)
        except BaseException as error:
            excuse(handles["status"], error)
        finally:
            os._exit(1)

    def volunteer(self) -> None:
        """Where memory runs out, the program goes before this zygote does."""
        if self.processes is not None:
            handle = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=self.processes)
            os.write(handle, b"1000")
            os.close(handle)


def _mirror(program: int) -> NoReturn:
    """Reap orphans; end as ``program`` does, as a shell would say it."""
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def start(rules: Rules, base: int, handles: dict[str, int]) -> NoReturn:
    """In the program's own process: nothing stays open but its streams, then the limits, then the program."""
    leave, status = os._exit, handles["status"]
    try:
        payload = read(handles["payload"])
        status, result = arrange([handles[name] for name in HANDLES[1:]])
        confine(rules, base)
        harness.streams()
        started(status)
        harness.run(payload, result)
    except BaseException as error:
        excuse(status, error)
    finally:
        leave(1)
