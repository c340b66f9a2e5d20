"""A system-call filter: what no solution of a programming task needs, and what reaches around namespaces or limits."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import NamedTuple

__all__ = ["MACHINES", "forbid"]


class _Machine(NamedTuple):
    """Numbers of one architecture (Linux, ``arch/*/include/**/unistd*``)."""

    audit: int
    clone: int
    socket: tuple[int, ...]
    forbidden: tuple[int, ...]


# io_uring, the mount API, pidfd_getfd, memfd_secret: the same numbers everywhere
_SHARED = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 447)
# ptrace, process_vm_*, mount, umount2, pivot_root, chroot, unshare, setns, bpf, perf_event_open, userfaultfd;
# add_key, request_key, keyctl, memfd_create, shmget, shmat, shmctl, msgget, semget, mq_open, kcmp;
# kexec_*, *_module, reboot, swap*, open_by_handle_at
_X86_64 = (
    *(101, 310, 311, 165, 166, 155, 161, 272, 308, 321, 298, 323),
    *(248, 249, 250, 319, 29, 30, 31, 68, 64, 240, 312),
    *(246, 320, 175, 313, 176, 169, 167, 168, 304),
)
_AARCH64 = (
    *(117, 270, 271, 40, 39, 41, 51, 97, 268, 280, 241, 282),
    *(217, 218, 219, 279, 194, 196, 195, 186, 190, 180, 272),
    *(104, 294, 105, 273, 106, 142, 224, 225, 265),
)
MACHINES = {
    "x86_64": _Machine(0xC000003E, 56, (41, 53), (*_X86_64, *_SHARED)),
    "aarch64": _Machine(0xC00000B7, 220, (198, 199), (*_AARCH64, *_SHARED)),
}
"""Architectures that the filter knows."""

_CLONE3 = 435
_NEW_NAMESPACE = 0x7E020000
_AF_UNIX = 1
_X32 = 0x40000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; little-endian low words
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _fail(number: int, code: int) -> list[bytes]:
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, _FAIL | code)]


def _program(machine: _Machine) -> bytes:
    """Berkeley packet filter over ``struct seccomp_data``."""
    steps = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, machine.audit, 1, 0), _step(_RETURN, _KILL)]
    steps += [_step(_LOAD, _NUMBER), _step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _FAIL | errno.ENOSYS)]
    steps += _fail(_CLONE3, errno.ENOSYS)  # its flags cannot be looked at; the C library then takes clone
    for number in machine.forbidden:
        steps += _fail(number, errno.EPERM)
    steps += [_step(_EQUAL, machine.clone, 0, 4), _step(_LOAD, _FIRST_ARGUMENT)]
    steps += [_step(_ANY_BIT, _NEW_NAMESPACE, 0, 1), _step(_RETURN, _FAIL | errno.EPERM), _step(_RETURN, _ALLOW)]
    for number in machine.socket:  # AF_VSOCK, AF_ALG and others know no network namespace
        steps += [_step(_EQUAL, number, 0, 4), _step(_LOAD, _FIRST_ARGUMENT), _step(_EQUAL, _AF_UNIX, 1, 0)]
        steps += [_step(_RETURN, _FAIL | errno.EAFNOSUPPORT), _step(_RETURN, _ALLOW)]
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


_FILTERS = {name: _program(machine) for name, machine in MACHINES.items()}
_libc = ctypes.CDLL(None, use_errno=True)


def forbid() -> None:
    """From here on, in this process and all that it starts. Needs no_new_privileges.

    Raises:
        OSError: the kernel refused the filter, or the architecture is not in :data:`MACHINES`.
    """
    code = _FILTERS.get(platform.machine())
    if code is None:
        raise OSError(errno.ENOSYS, f"no system-call filter for {platform.machine()}")
    given = _Filter(len(code) // 8, code)
    if _libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(given)) < 0:
        raise OSError(ctypes.get_errno(), "the system-call filter was refused")
