"""Function calls for a sandbox that runs scripts only: the script makes the call and prints what comes of it.

The script says what the embedded sandbox's harness says, plain JSON types and no subclass of them. It knows the
arguments and not the expected value, so whatever a program prints in its name is no more than an answer.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from importlib.resources import files

from m2rl_domain_coding.sandbox.backend import Outcome, Program

__all__ = ["calling", "returned"]

_SCRIPT = """
import json, os, sys, types

def _load(source):
    module = sys.modules["program"] = types.ModuleType("program")
    module.__file__ = "program.py"
    exec(compile(source, "program.py", "exec", dont_inherit=True), vars(module))
    return vars(module)

def _find(space, name):
    first, *rest = name.split(".")
    if first not in space and "Solution" in space:
        first, rest = "Solution", [name]
    found = space[first]
    if rest and isinstance(found, type):
        found = found()
    for attribute in rest:
        found = getattr(found, attribute)
    return found

def _main(given, marker, dump=dump, write=os.write):
    source, name, arguments = json.loads(given)
    text = dump(_find(_load(source), name)(*arguments))
    sys.stdout.flush()
    left = ("\\n" + marker + text + marker + "\\n").encode()
    while left:
        left = left[write(1, left):]

"""


def calling(program: Program) -> tuple[str, str]:
    """A script that calls the program's function, and the marker around what it prints of it."""
    assert program.call is not None
    name, arguments = program.call
    marker = f"<{secrets.token_hex(8)}>"
    given = json.dumps([program.source, name, arguments])
    plain = (files("m2rl_domain_coding") / "sandbox" / "guest" / "plain.py").read_text(encoding="utf-8")
    return f"{plain}{_SCRIPT}_main({given!r}, {marker!r})\n", marker


def returned(outcome: Outcome, marker: str) -> Outcome:
    """``outcome`` with what the call returned; an error where it has returned nothing."""
    if outcome.status != "finished":
        return outcome
    before, found, rest = outcome.stdout.rpartition(marker)
    printed, opened, value = before.rpartition(marker)
    if not found or not opened:
        return dataclasses.replace(outcome, status="error", stderr=outcome.stderr + "nothing was returned\n")
    return dataclasses.replace(outcome, stdout=printed + rest, returned=value)
