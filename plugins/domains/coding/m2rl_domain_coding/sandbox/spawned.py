"""A fresh interpreter for every program: behind bubblewrap, or under nothing but resource limits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from m2rl_domain_coding.sandbox.backend import Limits, Outcome, Program, SandboxError
from m2rl_domain_coding.sandbox.cgroups import ControlGroup, control_group
from m2rl_domain_coding.sandbox.exchange import Exchange
from m2rl_domain_coding.sandbox.guest.jail import DEVICES, SCRATCH_BYTES
from m2rl_domain_coding.sandbox.guest.lockdown import Rules, stranger
from m2rl_domain_coding.sandbox.interpreter import ENVIRONMENT, GUEST, command

__all__ = ["Bwrap", "Rlimit"]

TRIES = 3
"""Times that a program is run until the sandbox is found at fault."""
START = 20.0
"""Seconds that an interpreter has to say where it is."""
_INSIDE = "/sandbox"


class _Spawned:
    """See :class:`~m2rl_domain_coding.sandbox.backend.Backend`."""

    name = "spawned"
    isolated = False
    folder = str(GUEST)

    def __init__(self) -> None:
        self.host = _describe()
        self.user = stranger() if self.isolated and os.geteuid() == 0 else None

    def prefix(self) -> list[str]:
        """Arguments before the interpreter's."""
        return []

    def close(self) -> None:
        """Nothing outlives a run."""

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run ``program`` in a new interpreter."""
        for left in reversed(range(TRIES)):
            try:
                return self._run(program, limits)
            except (SandboxError, OSError) as error:
                if not left:
                    raise SandboxError(f"the {self.name} sandbox failed {TRIES} times: {error}") from error
        raise AssertionError("unreachable")

    def _run(self, program: Program, limits: Limits) -> Outcome:
        with contextlib.ExitStack() as cleanup:
            group = control_group() if self.isolated else None
            if group:
                cleanup.callback(group.close)
                group.limit(limits.memory)
            exchange = cleanup.enter_context(Exchange(program, limits))
            process = cleanup.enter_context(_ended(self._start(exchange, limits, group)))
            exchange.handed_over()
            began = time.monotonic()
            cause = exchange.pump(process.ended, limits.wall, process.kill)
            process.kill()
            code = process.wait()
            if group and group.kills:
                cause = "memory"
            return exchange.outcome(cause, code, time.monotonic() - began)

    def _start(self, exchange: Exchange, limits: Limits, group: ControlGroup | None) -> subprocess.Popen[bytes]:
        theirs = exchange.theirs
        rules = tuple(Rules(limits.seconds, limits.memory, self.user, self.isolated))
        passed = [theirs[name] for name in ("payload", "status", "result")]
        numbers = ", ".join(map(str, (self.host.base, *passed)))
        call = command(f"once.main(once.Rules(*{rules!r}), {numbers})", self.folder)
        return subprocess.Popen(
            [*(group.entrance if group else ()), *self.prefix(), *call],
            stdin=theirs["stdin"],
            stdout=theirs["stdout"],
            stderr=theirs["stderr"],
            pass_fds=passed,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )


class Bwrap(_Spawned):
    """Behind bubblewrap, which makes the namespaces.

    Raises:
        SandboxError: it is not installed.
    """

    name, isolated, folder = "bwrap", True, _INSIDE

    def __init__(self) -> None:
        if (path := shutil.which("bwrap")) is None:
            raise SandboxError("bubblewrap is not installed (Debian and Ubuntu: apt-get install bubblewrap)")
        self.path = path
        super().__init__()

    def prefix(self) -> list[str]:
        """A read-only root with the interpreter and its library, a small /tmp, and no network."""
        parts = [self.path, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
        parts += ["--new-session", "--hostname", "sandbox"]
        if self.user is None:
            parts += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
        else:  # the guest gives them up when it becomes that user
            parts += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        for path in _above([*self.host.visible, "/dev/null", f"{_INSIDE}/guest"]):
            parts += ["--perms", "0755", "--dir", path]
        for path in self.host.visible:
            parts += ["--ro-bind", os.path.realpath(path), path]
        for path in self.host.masked:
            parts += ["--size", "4096", "--tmpfs", path, "--remount-ro", path]
        parts += ["--ro-bind", f"{GUEST}/guest", f"{_INSIDE}/guest"]
        for name in DEVICES:
            parts += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        parts += ["--symlink", "/tmp", "/dev/shm", "--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"]
        return [*parts, "--remount-ro", "/", "--chdir", "/tmp", "--"]


def _above(paths: list[str]) -> list[str]:
    """All folders that they lie in, the outer ones first; bubblewrap would make some of them private."""
    return sorted({str(parent) for path in paths for parent in Path(path).parents} - {"/"}, key=len)


class Rlimit(_Spawned):
    """No namespaces: a program sees the host's files, processes and network. For code that you trust."""

    name = "rlimit"


class _Host(NamedTuple):
    visible: list[str]
    masked: list[str]
    base: int


def _describe() -> _Host:
    """What the bare interpreter needs, and how large it is.

    Raises:
        SandboxError: it does not start.
    """
    call = command("jail.describe()")
    done = subprocess.run(call, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, timeout=START, check=False)
    if done.returncode:
        raise SandboxError(f"{call[0]} -S does not start: {done.stderr.strip()[-500:]}")
    return _Host(**json.loads(done.stdout))


class _Process(NamedTuple):
    ended: int
    kill: Callable[[], None]
    wait: Callable[[], int]


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[_Process]:
    """With a descriptor that becomes readable at its end; its group does not outlive the block."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def wait() -> int:
        code = process.wait()
        return code if code >= 0 else 128 - code

    handle = os.pidfd_open(process.pid)
    try:
        yield _Process(handle, kill, wait)
    finally:
        kill()
        process.wait()
        os.close(handle)
