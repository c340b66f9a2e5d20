"""Limits and rights of the process that a program runs in."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
from typing import NamedTuple

from . import seccomp, syscalls

__all__ = ["PROCESSES", "Rules", "become", "confine", "ease", "stranger"]

PROCESSES = 32
"""Processes and threads of one program."""
STACK, FILE_SIZE, FILES = 64 << 20, 64 << 20, 256
SPARE = 1
"""Seconds from SIGXCPU to SIGKILL."""


class Rules(NamedTuple):
    """What one program may use."""

    seconds: float
    memory: int
    user: int | None = None
    """Whom to become; needs root."""
    isolated: bool = True
    """In namespaces of its own; else only limits apply."""


def ease() -> None:
    """Forget the soft limits and the signal mask of whoever started this interpreter."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def confine(rules: Rules, base: int) -> None:
    """For good.

    Args:
        base: bytes of address space that the interpreter holds already.

    Raises:
        OSError: the kernel refused a step; nothing of the program may run then.
    """
    if rules.user is not None:
        become(rules.user)
    if rules.isolated:  # in a user namespace of its own, RLIMIT_NPROC counts this program's processes only
        _new_user_namespace(needed=rules.user is None)
        syscalls.dumpable(False)  # the host may hand core dumps to a program outside
    _limit(rules, base)
    syscalls.drop_capabilities()
    syscalls.no_new_privileges()
    seccomp.forbid()


def stranger() -> int:
    """A user ID that nobody else has, or where this machine has too few of them, the one that owns nothing."""
    with open("/proc/self/uid_map") as file:
        first, _, count = map(int, file.read().splitlines()[-1].split())
    unique = (1 << 30) + os.getpid()
    return unique if unique < first + count else 65534


def become(user: int) -> None:
    """Give up root for ``user``."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _new_user_namespace(needed: bool) -> None:
    with contextlib.nullcontext() if needed else contextlib.suppress(OSError):
        syscalls.unshare(syscalls.NEWUSER)


def _limit(rules: Rules, base: int) -> None:
    cpu = math.ceil(rules.seconds)
    _set(resource.RLIMIT_CPU, cpu, cpu + SPARE)
    _set(resource.RLIMIT_AS, rules.memory + base)
    _set(resource.RLIMIT_STACK, STACK)
    _set(resource.RLIMIT_FSIZE, FILE_SIZE)
    _set(resource.RLIMIT_NOFILE, FILES)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    if rules.isolated:  # elsewhere it would count everything that this user runs
        _set(resource.RLIMIT_NPROC, PROCESSES)


def _set(kind: int, soft: int, hard: int | None = None) -> None:
    """At most what is allowed already."""
    _, ceiling = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    top = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    resource.setrlimit(kind, (min(soft, top), top))
