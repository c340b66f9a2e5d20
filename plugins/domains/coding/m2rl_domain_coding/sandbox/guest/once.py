"""One program in an interpreter of its own, which somebody else has put into namespaces, or nobody."""

from __future__ import annotations

import os
from typing import NoReturn

from . import harness, syscalls
from .handles import arrange, excuse, read, started
from .lockdown import Rules, confine, ease

__all__ = ["main"]


def main(rules: Rules, base: int, payload: int, status: int, result: int) -> NoReturn:
    """The standard streams are the program's already; see :data:`~.handles.HANDLES` for the rest."""
    leave = os._exit
    try:
        ease()
        if not rules.isolated:
            syscalls.die_with_parent()
        given = read(payload)
        status, result = arrange([0, 1, 2, status, result])
        harness.tidy()
        confine(rules, base)
        harness.streams()
        started(status)
        harness.run(given, result)
    except BaseException as error:
        excuse(status, error)
    finally:
        leave(1)
