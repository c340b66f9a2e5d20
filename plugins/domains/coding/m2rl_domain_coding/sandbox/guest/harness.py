"""Runs one program in this process, and ends the process."""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import io
import json
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn

from .handles import LENGTH
from .plain import dump

__all__ = ["run", "streams", "tidy"]

_PROGRAM = "program.py"


def streams() -> None:
    """Fresh standard streams over the descriptors 0, 1 and 2."""
    sys.stdin = sys.__stdin__ = _stream(0, "r", "strict")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "w", "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "w", "backslashreplace")  # type: ignore[misc]


def _stream(handle: int, mode: str, errors: str) -> io.TextIOWrapper:
    stream = open(handle, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
    assert isinstance(stream, io.TextIOWrapper)
    if handle == 2:
        stream.reconfigure(line_buffering=True)
    return stream


def run(payload: bytes, result: int) -> NoReturn:
    """Execute the program, or call its function and write what that returns to ``result``.

    The program sees neither arguments of ours nor an environment, and has everything that an ordinary start gives it.
    """
    leave, write, process = os._exit, os.write, os.getpid()  # before the program can change them
    given = json.loads(payload)
    if given["call"] is None:
        os.close(result)
    code = 1
    try:
        space = _module("__main__" if given["call"] is None else "program")
        exec(compile(given["source"], _PROGRAM, "exec", dont_inherit=True), space)
        if given["call"] is not None:
            text = _call(space, *given["call"]).encode()
            if os.getpid() == process:  # a child that the program forked has nothing to say
                _write_all(write, result, LENGTH.pack(len(text)) + text)
        code = 0
    except BaseException as error:
        code = _end(error)
    try:
        code = _finish(code)
    finally:
        leave(code)


def tidy() -> None:
    """What site and the command line would have set up; and nothing of ours in sight. Before :func:`run`."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    sys.argv = [_PROGRAM]
    os.environ.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == __name__.partition(".")[0]]:
        del sys.modules[name]


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    space = vars(module)
    space["__builtins__"] = builtins
    space["__file__"] = _PROGRAM
    return space


def _call(space: dict[str, Any], name: str, arguments: list[Any]) -> str:
    return dump(_find(space, name)(*arguments))


def _find(space: dict[str, Any], name: str) -> Callable[..., Any]:
    """The function ``name``, ``Class.method``, or a method of the class ``Solution``."""
    first, *rest = name.split(".")
    if first not in space and "Solution" in space:
        first, rest = "Solution", [name]
    if first not in space:
        raise NameError(f"the program defines no {name!r}")
    found = space[first]
    if rest and isinstance(found, type):
        found = found()
    for attribute in rest:
        found = getattr(found, attribute)
    return found  # type: ignore[no-any-return]


def _write_all(write: Callable[[int, Any], int], handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[write(handle, rest) :]


def _end(error: BaseException) -> int:
    """The exit code after ``error``, which is reported as the interpreter does."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return int(error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)  # noqa: T201
        return 1
    try:
        trace = error.__traceback__
        sys.excepthook(type(error), error.with_traceback(trace.tb_next if trace else None), error.__traceback__)
    except BaseException:  # the program's own hook, or a closed stream
        return 1
    return 1


def _finish(code: int) -> int:
    """Join threads, run exit functions, flush; an answer that cannot be written is an error."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        code = code or 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            code = code or 120
    return code
