"""A root of its own: the interpreter, its standard library and the system's shared libraries, all read-only."""

from __future__ import annotations

import json
import os
import sys
import sysconfig

from . import syscalls
from .lockdown import become
from .memory import own_address_space

__all__ = ["DEVICES", "SCRATCH", "SCRATCH_BYTES", "build", "describe", "detach_world", "masked", "visible"]

SCRATCH_BYTES = 64 << 20
"""Size of /tmp, the one place where a program may write."""
SCRATCH = f"size={SCRATCH_BYTES},nr_inodes=4096,mode=1777"
"""Its mount options."""
DEVICES = ("null", "zero", "full", "random", "urandom")
_KINDS = syscalls.NEWNS | syscalls.NEWPID | syscalls.NEWNET | syscalls.NEWIPC | syscalls.NEWUTS
_BASE = "/tmp"
_OLD = "/old"


def detach_world(user: int) -> bool:
    """Leave the machine's namespaces; the next child is the first process of a new one.

    Args:
        user: whom to become where root is only root by name.

    Returns:
        Whether root did it, so that a program can be given another user.

    Raises:
        OSError: the kernel allows neither; the message says which step failed.
    """
    try:
        syscalls.unshare(_KINDS)
        return True
    except PermissionError:
        if os.geteuid() == 0:
            become(user)
            syscalls.dumpable(True)  # or the maps below belong to root
    mine = os.getuid(), os.getgid()
    syscalls.unshare(_KINDS | syscalls.NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"1000 {mine[0]} 1")
    _write("/proc/self/gid_map", f"1000 {mine[1]} 1")
    return False


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def visible() -> list[str]:
    """Files and folders of the host that a program may read."""
    libraries = [f"{top}/{sysconfig.get_config_var('MULTIARCH') or ''}".rstrip("/") for top in ("/usr/lib", "/lib")]
    libraries = [path for path in libraries if path not in ("/lib", "/usr/lib")] + ["/lib64", "/usr/lib64"]
    folders = [path for path in (*sys.path, *libraries) if os.path.isdir(path)]
    return _outermost({*folders, sys.executable, *_loaded()})


def _outermost(paths: set[str]) -> list[str]:
    """Without what lies within another folder, or is missing."""
    kept: list[str] = []
    for path in sorted(filter(os.path.exists, paths), key=len):
        if not any(path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return kept


def _loaded() -> list[str]:
    """Shared libraries that this process holds."""
    with open("/proc/self/maps") as maps:
        paths = {line.split(None, 5)[-1].strip() for line in maps if ".so" in line}
    return [path for path in paths if path.startswith("/") and os.path.isfile(path)]


def masked() -> list[str]:
    """Folders in there with what the host's user has installed."""
    names = ("site-packages", "dist-packages")
    return [f"{path}/{name}" for path in sys.path for name in names if os.path.isdir(f"{path}/{name}")]


def describe() -> None:
    """Print what a sandbox of this interpreter needs, and the bytes of address space that it holds."""
    found = {"visible": visible(), "masked": masked(), "base": own_address_space()}
    sys.stdout.write(json.dumps(found))


def build() -> int | None:
    """Make that root, and leave the host's.

    Returns:
        A handle to a /proc of this PID namespace, which the tree does not show; ``None`` where the host forbids it.

    Raises:
        OSError: the kernel refused a step.
    """
    sources = [(os.path.realpath(path), path) for path in visible()]
    hidden = masked()
    syscalls.make_private("/")
    syscalls.mount("tmpfs", _BASE, syscalls.NOSUID | syscalls.NODEV, "size=1m,mode=755")
    os.mkdir(_BASE + _OLD)
    syscalls.pivot(_BASE, _BASE + _OLD)
    os.chdir("/")
    for source, target in sources:
        _show(source, target)
    for path in hidden:
        syscalls.mount("tmpfs", path, syscalls.NOSUID | syscalls.NODEV, "size=4k,mode=755")
    _devices()
    os.mkdir("/tmp")
    processes = _processes()
    syscalls.detach(_OLD)
    os.rmdir(_OLD)
    syscalls.read_only("/", devices=True)
    syscalls.host_name("sandbox")
    return processes


def _show(source: str, target: str) -> None:
    if os.path.isdir(_OLD + source):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o755))
    syscalls.bind(_OLD + source, target)
    syscalls.read_only(target)


def _devices() -> None:
    os.mkdir("/dev")
    for name in DEVICES:
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        syscalls.bind(f"{_OLD}/dev/{name}", f"/dev/{name}")
    os.symlink("/tmp", "/dev/shm")


def _processes() -> int | None:
    os.mkdir("/proc")
    try:
        syscalls.mount("proc", "/proc", syscalls.NOSUID | syscalls.NODEV | syscalls.NOEXEC)
    except PermissionError:  # in a container whose own /proc is partly hidden
        return None
    handle = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    syscalls.detach("/proc")
    return handle
