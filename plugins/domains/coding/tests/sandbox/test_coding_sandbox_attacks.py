"""Programs that attack what is around them. Each test ends with a program that must still be judged right."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from m2rl_domain_coding.sandbox import Outcome

Run = Callable[..., Outcome]

NAMED = "import ctypes\nctypes.CDLL(None).prctl(15, b'm2rl-intruder')\n"
TRY = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(act):
    try:
        result = act()
    except (OSError, AttributeError) as error:
        return type(error).__name__
    if isinstance(result, int) and result < 0:
        return "OSError"
    return result
"""


@pytest.fixture(autouse=True)
def _the_next_program_is_judged_right(run: Run) -> Iterator[None]:
    yield
    after = run("print(sum(map(int, input().split())))", "1 2 3\n")
    assert (after.status, after.stdout) == ("finished", "6\n")


def attempt(run: Run, *acts: str) -> list[str]:
    """What each expression evaluates to; or the name of its error."""
    lines = "".join(f"print(attempt(lambda: {act}))\n" for act in acts)
    outcome = run(TRY + lines)
    assert outcome.status == "finished", outcome
    return outcome.stdout.splitlines()


@pytest.mark.parametrize("child", ["pass", "os.setsid()"])
def test_a_fork_bomb_is_held(run: Run, child: str) -> None:
    source = f"import os\nwhile True:\n    try:\n        if not os.fork(): {child}\n    except OSError: pass\n"
    began = time.monotonic()
    assert run(source, seconds=0.5).status in ("timeout", "memory")
    assert time.monotonic() - began < 5.0


def test_a_fork_bomb_that_waits_cannot_use_up_processes(run: Run) -> None:
    source = "import os, time\nn = 0\nwhile n < 500:\n    if not os.fork(): time.sleep(60)\n    n += 1\n"
    found = run(source)
    assert found.status == "error"
    assert "BlockingIOError" in found.stderr


def test_threads_are_bounded(run: Run) -> None:
    source = "import threading, time\nfor n in range(500): threading.Thread(target=time.sleep, args=(60,)).start()\n"
    found = run(source, seconds=0.5)
    assert found.status in ("error", "timeout")
    assert "can't start new thread" in found.stderr


def test_a_memory_bomb_is_held(run: Run) -> None:
    assert run("x = []\nwhile True: x.append(bytearray(1 << 24))").status == "memory"


def test_several_processes_share_one_allowance(run: Run, request: pytest.FixtureRequest) -> None:
    if "bwrap of nobody" in request.node.name:
        pytest.skip("without a control group, bubblewrap limits each process alone")
    source = (
        "import os, time\n"
        "for _ in range(8):\n"
        "    if not os.fork():\n"
        "        x = bytearray(b'x') * (80 << 20)\n"
        "        time.sleep(2); os._exit(0)\n"
        "for _ in range(8): os.wait()\n"
    )
    assert run(source).status == "memory"


@pytest.mark.parametrize("handle", [1, 2])
def test_endless_output_is_cut(run: Run, handle: int) -> None:
    found = run(f"import os\nwhile True: os.write({handle}, b'x' * 65536)", output=1 << 16, seconds=20.0)
    assert found.status == "output"
    assert len(found.stdout) <= 1 << 16
    assert len(found.stderr) <= 1 << 16
    assert found.seconds < 10.0


def test_the_scratch_folder_is_small(run: Run) -> None:
    many = "i = 0\nwhile True:\n    open(f'{place}/x{{i}}', 'wb').write(b'x' * {size}); i += 1"
    assert run(many.format(place="/dev/shm", size=1 << 24)).status in ("error", "memory")
    assert run(many.format(place="/tmp", size=0), seconds=0.5).status in (
        "error",
        "timeout",
    )  # bubblewrap counts no files


def test_descriptors_are_bounded(run: Run) -> None:
    assert "Too many open files" in run("import os\nwhile True: os.dup(1)").stderr


def test_no_memory_beside_the_limits(run: Run) -> None:
    found = attempt(run, "os.memfd_create('x')", "libc.shmget(0, 1 << 20, 0o1600)", "libc.msgget(0, 0o1600)")
    assert found == ["PermissionError", "OSError", "OSError"]


def test_no_network(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0m2rl-{os.getpid()}")
        abstract.listen()
        server.setblocking(False)
        abstract.setblocking(False)
        found = attempt(
            run,
            f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)",
            "socket.create_connection(('1.1.1.1', 80), 2)",
            f"socket.socket(socket.AF_UNIX).connect(chr(0) + 'm2rl-{os.getpid()}')",
            "socket.socket(socket.AF_VSOCK)",
            "socket.socket(socket.AF_NETLINK)",
            "socket.if_nameindex()[1:] or 'nothing but lo'",
        )
        for listening in (server, abstract):
            with pytest.raises(BlockingIOError):
                listening.accept()
    assert not any("socket" in line or line == "None" for line in found), found


def test_two_runs_cannot_meet(run: Run) -> None:
    place = "chr(0) + 'm2rl-meeting'"
    listening = f"s = socket.socket(socket.AF_UNIX); s.bind({place}); s.listen()\n"
    listening += "if os.fork(): os._exit(0)\nimport time; time.sleep(60)"
    assert run(TRY + listening).status == "finished"
    assert attempt(run, f"socket.socket(socket.AF_UNIX).connect({place})") == ["ConnectionRefusedError"]


def test_host_files_are_not_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    (tmp_path / "secret").chmod(0o644)
    paths = [
        str(tmp_path / "secret"),
        "/etc/passwd",
        "/home",
        "/proc/self/environ",
        "/proc/1/cmdline",
        "/sys",
        "/var",
        __file__,
    ]
    found = attempt(run, *(f"os.listdir({p!r}) if os.path.isdir({p!r}) else open({p!r}).read()" for p in paths))
    assert set(found) <= {"FileNotFoundError", "PermissionError"}, found


def test_the_environment_is_empty(run: Run) -> None:
    secret = os.environ["M2RL_TEST_SECRET"]
    source = "import os, ctypes\nprint(dict(os.environ), ctypes.CDLL(None).getenv(b'M2RL_TEST_SECRET'))"
    assert secret
    assert run(source).stdout == "{} 0\n"


def test_nothing_outside_can_be_written(run: Run) -> None:
    library = Path(os.__file__).read_bytes()
    found = attempt(
        run,
        "open(os.__file__, 'a')",
        "open('/x', 'w')",
        "open('/usr/x', 'w')",
        "open('/dev/x', 'w')",
        "os.mkdir('/home')",
        "os.remove(os.__file__)",
        "os.chmod('/', 0o777)",
        "open(os.path.dirname(os.__file__) + '/site-packages/x.py', 'w')",
        "os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))",
    )
    assert set(found) <= {"OSError", "PermissionError", "FileNotFoundError"}, found
    assert Path(os.__file__).read_bytes() == library


def test_runs_share_no_files(run: Run) -> None:
    run("open('/tmp/left', 'w').write('x'); open('here', 'w').write('x')")
    assert run("import os\nprint(os.listdir('/tmp'), os.listdir('.'), os.listdir('/dev/shm'))").stdout == "[] [] []\n"


def test_signals_reach_nobody_else(run: Run) -> None:
    source = (
        "import os\n"
        "for target in [-1, 0, 1, os.getppid(), *range(2, 70000)]:\n"
        "    if target not in (0, os.getpid()):\n"
        "        for number in (2, 15, 9):\n"
        "            try: os.kill(target, number)\n"
        "            except OSError: pass\n"
        "print('alive', flush=True)\n"
        "os.kill(0, 9)\n"
    )
    found = run(source)
    assert (found.status, found.stdout) == ("error", "alive\n")


def test_a_daemon_does_not_outlive_its_program(run: Run, named: Callable[[str], list[int]]) -> None:
    source = NAMED + (
        "import os, time\n"
        "if os.fork(): print('left')\n"
        "else:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    time.sleep(600)\n"
    )
    found = run(source)
    assert (found.status, found.stdout) == ("finished", "left\n")
    assert found.seconds < 4.0
    assert not _soon_gone(named, "m2rl-intruder")


def _soon_gone(named: Callable[[str], list[int]], name: str) -> list[int]:
    deadline = time.monotonic() + 2.0
    while (left := named(name)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.mark.parametrize(
    "source", ["while True: pass", "import time; time.sleep(600)", "import os; os.kill(os.getpid(), 19)"]
)
def test_time_runs_out(run: Run, source: str, named: Callable[[str], list[int]]) -> None:
    found = run(NAMED + source, seconds=0.5)
    assert found.status == "timeout"
    assert 0.4 < found.seconds < 3.0
    assert not _soon_gone(named, "m2rl-intruder")


def test_ignored_signals_do_not_help(run: Run) -> None:
    source = (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass\n"
    )
    assert run(source, seconds=0.5).status == "timeout"


def test_many_threads_get_no_more_cpu_time(run: Run) -> None:
    source = "import os\nfor _ in range(4): os.fork()\nwhile True: pass"
    assert run(source, seconds=0.5).seconds < 3.0


def test_no_way_to_other_rights(run: Run) -> None:
    found = attempt(
        run,
        "os.setuid(0)",
        "os.setgroups([0])",
        "libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
        "libc.umount2(b'/tmp', 2)",
        "os.chroot('/tmp')",
        "libc.unshare(0x10000000)",
        "libc.unshare(0x20000)",
        "libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0)",
        "libc.setns(0, 0)",
        "libc.ptrace(16, os.getppid(), 0, 0)",
        "libc.syscall(310, 1, 0, 0, 0, 0, 0)",
        "libc.syscall(425, 1, 0)",
        "libc.prctl(38, 0, 0, 0, 0)",
        "libc.sethostname(b'x', 1)",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "os.nice(-5)",
    )
    assert set(found) <= {"OSError", "PermissionError"}, found


def test_no_process_is_to_be_seen(run: Run) -> None:
    found = attempt(run, "os.listdir('/proc')", "os.readlink('/proc/self')", "os.getppid() <= 2", "os.getpid() <= 3")
    assert found[0] in ("[]", "FileNotFoundError")
    assert found[1:] == ["FileNotFoundError", "True", "True"]


def test_only_its_own_descriptors_are_open(run: Run) -> None:
    source = TRY + "print([n for n in range(1024) if attempt(lambda: os.fstat(n) and 1) == 1])"
    assert run(source).stdout == "[0, 1, 2]\n"


def test_its_input_cannot_be_changed(run: Run) -> None:
    assert attempt(run, "os.write(0, b'x')", "os.ftruncate(0, 1 << 30)") == ["OSError", "OSError"]


def test_nothing_of_an_earlier_program_is_in_memory(run: Run) -> None:
    run("text = 'left-' + 'behind'", "left-behind", ("str", ("left-behind",)))
    source = (
        "import gc, sys\ngc.unfreeze()\n"
        "frame, seen = sys._getframe(), []\n"
        "while frame:\n"
        "    seen += [repr(frame.f_locals), repr(frame.f_globals)]; frame = frame.f_back\n"
        "seen += [repr(thing) for thing in gc.get_objects()]\n"
        "needle = 'left-' + 'behin'\n"
        "print(len(seen) > 100, sum(needle + 'd' in text for text in seen if 'needle' not in text))\n"
    )
    assert run(source).stdout == "True 0\n"


def test_an_exit_returns_nothing(run: Run) -> None:
    leave = "import os\ndef f(): os._exit(0)"
    assert (run(leave, call=("f", ())).status, run(leave, call=("f", ())).returned) == ("error", None)
    assert run("import os\nprint(1)\nos._exit(0)").stdout == ""


FORGED = """
import os, struct
def forge(text):
    for n in range(3, 64):
        try: os.write(n, text)
        except OSError: pass
"""


@pytest.mark.parametrize(
    "body",
    [
        "forge(b'6\\n'); os._exit(0)",
        'forge(b\'{"ok": true, "result": 6}\'); os._exit(0)',
        "forge(struct.pack('>I', 1) + b'6'); return 5",
        "forge(struct.pack('>I', 9) + b'6'); return 5",
        "forge(struct.pack('>I', 3) + b'x6x'); os._exit(0)",
        "forge(struct.pack('>I', 90000) + b'[' * 90000); os._exit(0)",
    ],
)
def test_a_forged_result_is_none(run: Run, body: str) -> None:
    found = run(f"{FORGED}def f(): {body}", call=("f", ()))
    assert (found.status, found.returned) == ("error", None)


@pytest.mark.parametrize(
    "value",
    [
        "type('X', (), {'__eq__': lambda s, o: True, '__hash__': None})()",
        "type('X', (int,), {'__repr__': lambda s: '6'})(5)",
        "type('X', (str,), {})('6')",
        "[type('X', (float,), {})(6)]",
        "{'a': type('X', (list,), {})()}",
        "{type('X', (str,), {})('a'): 1}",
        "type('X', (__import__('collections').Counter,), {'items': lambda s: [('a', 1)]})()",
        "{6}",
        "b'6'",
        "6j",
        "lambda: 6",
    ],
)
def test_only_plain_values_come_back(run: Run, value: str) -> None:
    found = run(f"def f(): return {value}", call=("f", ()))
    assert (found.status, found.returned) == ("error", None)
    assert "TypeError" in found.stderr


def test_patched_modules_change_no_value(run: Run) -> None:
    source = (
        "import json, builtins, os, sys\n"
        "json.dumps = json.dump = lambda *a, **k: '6'\n"
        "json.JSONEncoder.encode = lambda *a: '6'\n"
        "builtins.repr = builtins.str = builtins.type = builtins.isinstance = lambda *a: '6'\n"
        "os._exit = sys.exit = lambda *a: None\n"
        "def f(): return [5, 'a', None]\n"
    )
    assert run(source, call=("f", ())).returned == '[5,"a",null]'


def test_no_zombies_pile_up(run: Run) -> None:
    for _ in range(3):
        run("import os\nfor _ in range(10):\n    if not os.fork(): os._exit(0)")
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    states = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children]
    assert "Z" not in states
