"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

__all__ = ["die_with_parent"]


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the thread that started it ends, however it ends. Nothing but Linux can.

    Args:
        parent: id of that thread's process, which may have ended already; then this one ends at once. By default it is
            the process that :mod:`multiprocessing` started this one for, perhaps through a fork server.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if parent is not None:
        ended = os.getppid() != parent
    else:
        starter = multiprocessing.parent_process()
        ended = starter is not None and not starter.is_alive()
    if ended:  # before it could be watched
        os._exit(1)
