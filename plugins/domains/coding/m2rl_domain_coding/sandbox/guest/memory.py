"""What processes hold, from /proc."""

from __future__ import annotations

import os

__all__ = ["held", "own_address_space"]

_OWN = (b"RssAnon:", b"RssShmem:")


def own_address_space() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def held(processes: int, each: int = 0, count_first: bool = False) -> int:
    """Bytes that all processes in there hold for themselves, the first and ``each`` process's inheritance apart."""
    pids = [name for name in os.listdir(processes) if name.isdigit() and (count_first or name != "1")]
    return sum(max(0, _held(processes, pid) - each) for pid in pids)


def _held(processes: int, pid: str) -> int:
    try:
        handle = os.open(f"{pid}/status", os.O_RDONLY, dir_fd=processes)
    except OSError:  # it has ended
        return 0
    try:
        lines = os.read(handle, 4096).splitlines()
    except OSError:
        return 0
    finally:
        os.close(handle)
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_OWN))
