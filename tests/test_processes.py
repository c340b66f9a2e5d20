"""A process that ends with the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext

import pytest

from m2rl_core.processes import die_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")

CHILD = """
import os, sys, time
from m2rl_core.processes import die_with_parent
die_with_parent(int(sys.argv[1]))
print("watched", flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())]).wait()
"""


def test_a_killed_parent_takes_its_child_along() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "watched\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == "", "the child holds the pipe open for as long as it lives"


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    nobody = str(os.getpid() + 1)
    done = subprocess.run([sys.executable, "-c", CHILD, nobody], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def _answer(connection: Connection) -> None:
    die_with_parent()
    connection.send("alive")


@pytest.mark.parametrize("context", [get_context("spawn"), get_context("forkserver")], ids=["spawn", "forkserver"])
def test_a_child_of_multiprocessing_lives_while_its_starter_does(context: SpawnContext | ForkServerContext) -> None:
    here, there = context.Pipe()
    child = context.Process(target=_answer, args=(there,))
    child.start()
    there.close()
    assert here.recv() == "alive"
    child.join()
    assert child.exitcode == 0
