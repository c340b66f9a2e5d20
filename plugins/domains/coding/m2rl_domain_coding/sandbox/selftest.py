"""What a sandbox must show before it is trusted: a good program runs, and a bad one is held."""

from __future__ import annotations

from m2rl_domain_coding.sandbox.backend import Backend, Limits, Outcome, Program, SandboxError

__all__ = ["examine"]

_LIMITS = Limits(seconds=10.0, memory=256 << 20)
_GOOD = Program(
    "import random, threading\n"
    "def total(a):\n"
    "    thread = threading.Thread(target=print, args=('thread',))\n"
    "    thread.start(); thread.join()\n"
    "    open('scratch', 'w').write(input())\n"
    "    return [sum(a), open('scratch').read()]\n",
    "a line\n",
    ("total", ([1, 2, 3],)),
)
_BAD = Program(
    """
import os, socket
def held(attack):
    try:
        attack()
    except (OSError, AttributeError):
        return True
    return False
def connect():
    probe = socket.socket()
    try:
        probe.connect(("127.0.0.1", 9))
    except ConnectionRefusedError:  # there is a network that answers
        return
def bomb():
    while True:
        if not os.fork():
            os.read(pipe, 1)
            os._exit(0)
        if (born := born_so_far()) > 200:
            return
count = 0
def born_so_far():
    global count
    count += 1
    return count
def attacks():
    global pipe
    pipe, _ = os.pipe()
    tried = {
        "write outside": lambda: open(os.__file__, "a"), "read the host": lambda: os.listdir("/home"),
        "see processes": lambda: os.listdir("/proc/1"), "network": connect, "become root": lambda: os.setuid(0),
        "signal outside": lambda: os.kill(os.getppid() if os.getppid() > 1 else 99999, 0), "fork bomb": bomb,
    }
    return [name for name, attack in tried.items() if not held(attack)]
""",
    call=("attacks", ()),
)


def examine(backend: Backend, isolated: bool) -> None:
    """Run both.

    Args:
        isolated: the backend claims to hold the bad one.

    Raises:
        SandboxError: what went wrong.
    """
    good = backend.run(_GOOD, _LIMITS)
    if (good.status, good.stdout, good.returned) != ("finished", "thread\n", '[6,"a line"]'):
        raise SandboxError(f"a good program fails: {_describe(good)}")
    if isolated and (bad := backend.run(_BAD, _LIMITS)).returned != "[]":
        raise SandboxError(f"a bad program is not held: {_describe(bad)}")


def _describe(outcome: Outcome) -> str:
    said = outcome.returned or outcome.stderr.strip().rpartition("\n")[2] or outcome.stdout
    return f"{outcome.status}, {said[:300]!r}"
