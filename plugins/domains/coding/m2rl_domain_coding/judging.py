"""Judging a program: every test in a sandbox of its own, until one fails."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence

from m2rl_core.types import Reward
from m2rl_domain_coding.comparison import same_text, same_value
from m2rl_domain_coding.sandbox.backend import Backend, Limits, Outcome, Program
from m2rl_domain_coding.unit_tests import UnitTest

__all__ = ["judge", "with_prelude"]

_ENDS = {
    "error": "ended with an error",
    "timeout": "out of time",
    "memory": "out of memory",
    "output": "too much output",
}
_FUTURE = re.compile(r"^[ \t]*from[ \t]+__future__[ \t]+import", re.MULTILINE)
_PRELUDE = (
    "import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys; "
    "from typing import *; from string import *; from collections import *; from heapq import *; from bisect import *; "
    "from functools import *; from itertools import *; from operator import *; from math import *; "
    "from builtins import *\n"
)


def with_prelude(source: str) -> str:
    """``source`` with the names at hand that judges of such problems provide: ``List`` is used, never imported.

    A program that begins with ``from __future__`` is left alone: nothing may stand before that.
    """
    return source if _FUTURE.search(source) else _PRELUDE + source


def judge(source: str, tests: Sequence[UnitTest], backend: Backend, limits: Limits, total: float) -> Reward:
    """1 where ``source`` passes all ``tests``, else 0. The tests after the first that fails are not run.

    Args:
        limits: of one test.
        total: seconds that all tests may take together; a program that needs more is wrong.

    Raises:
        SandboxError: the sandbox is at fault, so nothing is known about the program.
    """
    number = 0
    for number, reason in enumerate(_reasons(source, tests, backend, limits, total), 1):
        if reason:
            return Reward(0.0, f"test {number} of {len(tests)}: {reason}")
    return Reward(1.0, f"{number} tests")


def _reasons(source: str, tests: Sequence[UnitTest], backend: Backend, limits: Limits, total: float) -> Iterator[str]:
    """Why each test is not passed, ``""`` where it is."""
    left = total
    for test in tests:
        if left <= 0.0:
            yield f"the {total:g} s of all tests are over"
        own = dataclasses.replace(limits, seconds=min(limits.seconds, left), output=_room(limits.output, test))
        outcome = _run(Program(source, test.stdin, test.call), own, backend)
        left -= outcome.seconds
        yield _reason(outcome, test)


def _run(program: Program, limits: Limits, backend: Backend) -> Outcome:
    """What came of it; of the second run where somebody has killed it: perhaps an outsider, short of memory."""
    outcome = backend.run(program, limits)
    return backend.run(program, limits) if outcome.killed else outcome


def _room(usual: int, test: UnitTest) -> int:
    """Bytes that a program may write: twice what is expected where that is much, or long outputs were never right."""
    expected = test.expected if test.call is None else json.dumps(test.expected)
    return max(usual, 2 * len(expected.encode("utf-8", "replace")))


def _reason(outcome: Outcome, test: UnitTest) -> str:
    """Why the test is not passed, or nothing."""
    if outcome.status != "finished":
        return _ENDS[outcome.status]
    if test.call is None:
        return "" if same_text(test.expected, outcome.stdout) else "other output"
    is_right = outcome.returned is not None and same_value(test.expected, outcome.returned)
    return "" if is_right else "other value"
