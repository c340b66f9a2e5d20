"""Every sandbox that claims isolation, as this user and, where this is root, as an ordinary one."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import m2rl_domain_coding.sandbox as package
from m2rl_domain_coding.sandbox import Backend, Limits, Outcome, Program, SandboxError, open_backend

SECRET = "hunter2-in-the-environment"
os.environ["M2RL_TEST_SECRET"] = SECRET
PACKAGE = Path(package.__file__).parents[1]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
LENGTH = struct.Struct(">I")

SERVER = f"""
import pickle, struct, sys, types
parent = types.ModuleType("m2rl_domain_coding")  # without what the rest of the plugin needs
parent.__path__ = [{str(PACKAGE)!r}]
sys.modules["m2rl_domain_coding"] = parent
from m2rl_domain_coding.sandbox import open_backend
def say(answer):
    data = pickle.dumps(answer)
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
    sys.stdout.buffer.flush()
def attempt(act):
    try:
        say(act())
    except Exception as error:
        say(str(error))
attempt(lambda: globals().update(backend=open_backend(sys.argv[1], allow_weak_isolation=False)))
while header := sys.stdin.buffer.read(4):
    program, limits = pickle.loads(sys.stdin.buffer.read(*struct.unpack(">I", header)))
    attempt(lambda: backend.run(program, limits))
backend.close()
"""


class Unprivileged:
    """A backend in a process of the user nobody, with the system's interpreter: this one may be root's alone."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [*NOBODY, "/usr/bin/python3", "-B", "-c", SERVER, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self._answer()

    def _answer(self) -> Any:
        stream: BinaryIO = self.process.stdout  # type: ignore[assignment]
        header = stream.read(LENGTH.size)
        assert header, "the process of nobody is gone"
        answer = pickle.loads(stream.read(*LENGTH.unpack(header)))
        if isinstance(answer, str):
            raise SandboxError(answer)
        return answer

    def run(self, program: Program, limits: Limits) -> Outcome:
        data = pickle.dumps((program, limits))
        assert self.process.stdin
        self.process.stdin.write(LENGTH.pack(len(data)) + data)
        self.process.stdin.flush()
        outcome = self._answer()
        assert isinstance(outcome, Outcome)
        return outcome

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def _can_be_nobody() -> bool:
    probe = f"import sys, os; assert sys.version_info >= (3, 11); os.listdir({str(PACKAGE)!r})"
    if os.geteuid() != 0 or shutil.which("setpriv") is None or not Path("/usr/bin/python3").exists():
        return False
    return subprocess.run([*NOBODY, "/usr/bin/python3", "-c", probe], capture_output=True).returncode == 0


BACKENDS = [
    "namespace",
    pytest.param("bwrap", marks=pytest.mark.slow),
    pytest.param("namespace of nobody", marks=pytest.mark.slow),
    pytest.param("bwrap of nobody", marks=pytest.mark.slow),
]


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name, _, nobody = request.param.partition(" of ")
    if name == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if nobody and not _can_be_nobody():
        pytest.skip("needs root, setpriv, and a Python 3.11 that everybody may run")
    opened = Unprivileged(name) if nobody else open_backend(name, allow_weak_isolation=False)
    yield opened
    opened.close()


Run = Callable[..., Outcome]


@pytest.fixture
def run(backend: Backend) -> Run:
    """Runs a program under small limits."""

    def attempt(source: str, stdin: str = "", call: Any = None, **limits: Any) -> Outcome:
        return backend.run(Program(source, stdin, call), Limits(**{"seconds": 5.0, "memory": 256 << 20, **limits}))

    return attempt


def command_of(process: int) -> str:
    """The name of a process of the host; empty where there is none."""
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.fixture
def named() -> Callable[[str], list[int]]:
    """Finds processes of the host by name."""
    return lambda name: [
        int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and command_of(int(p.name)) == name
    ]
