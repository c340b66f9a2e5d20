"""System calls that Python 3.11 does not offer, through ctypes."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = [
    "NEWIPC",
    "NEWNET",
    "NEWNS",
    "NEWPID",
    "NEWUSER",
    "NEWUTS",
    "bind",
    "detach",
    "die_with_parent",
    "drop_capabilities",
    "dumpable",
    "mount",
    "no_new_privileges",
    "pivot",
    "read_only",
    "rejoin",
    "unshare",
]

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
"""Kinds of namespaces."""

NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PDEATHSIG, _DUMPABLE, _NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds: int) -> None:
    """New namespaces for this process; of the kind ``NEWPID``, for its next child."""
    _check(_libc.unshare(kinds), f"unshare({kinds:#x})")


def rejoin(handle: int, kinds: int) -> None:
    """Enter namespaces of the process behind a pidfd."""
    _check(_libc.setns(handle, kinds), "setns")


def mount(kind: str, target: str, flags: int = 0, options: str = "") -> None:
    """A new file system of ``kind`` at ``target``."""
    arguments = (kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(_libc.mount(*arguments), f"mount {kind} on {target}")


def bind(source: str, target: str) -> None:
    """Show ``source`` at ``target``, too."""
    flags = ctypes.c_ulong(BIND | REC)
    _check(_libc.mount(source.encode(), target.encode(), None, flags, None), f"bind {source} to {target}")


def make_private(target: str) -> None:
    """Mounts below ``target`` no longer travel to other namespaces, nor from them."""
    _check(_libc.mount(None, target.encode(), None, ctypes.c_ulong(REC | PRIVATE), None), f"make {target} private")


def detach(target: str) -> None:
    """Unmount ``target`` and all below; what is open stays so."""
    _check(_libc.umount2(target.encode(), _DETACH), f"unmount {target}")


def pivot(new: str, old: str) -> None:
    """``new`` becomes the root, the root moves to ``old``."""
    number = _PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(ctypes.c_long(number), new.encode(), old.encode()), "pivot_root")


def read_only(target: str, devices: bool = False) -> None:
    """Everything below ``target`` can no longer be written to; Linux 5.12 or newer."""
    allowed = 0 if devices else _ATTR_NODEV
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY | _ATTR_NOSUID | allowed, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    _check(result, f"make {target} read-only")


def host_name(name: str) -> None:
    """Rename the machine, in this namespace."""
    _check(_libc.sethostname(name.encode(), ctypes.c_size_t(len(name))), "sethostname")


def _prctl(option: int, value: int) -> None:
    zeros = (ctypes.c_ulong(0),) * 3
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), *zeros), f"prctl({option})")


def die_with_parent() -> None:
    """SIGKILL when the thread that started this process ends."""
    _prctl(_PDEATHSIG, _SIGKILL)


def dumpable(allowed: bool) -> None:
    """Whether this process leaves core dumps, and others of the same user may look into it."""
    _prctl(_DUMPABLE, int(allowed))


def no_new_privileges() -> None:
    """No program started from here on gains rights by being set-user-ID."""
    _prctl(_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Effective, permitted and inheritable; the ambient ones go with them."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(none)), "capset")
