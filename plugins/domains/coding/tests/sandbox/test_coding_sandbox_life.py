"""Processes of the sandbox: none is missed, none is left, and what kills them is not the program's fault."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from m2rl_domain_coding import Coding
from m2rl_domain_coding.sandbox import Limits, Outcome, Program, SandboxError, open_backend
from m2rl_domain_coding.sandbox.namespace import Namespace
from m2rl_domain_coding.sandbox.selftest import examine
from m2rl_domain_coding.sandbox.spawned import Rlimit

GOOD = Program("print(int(input()) + 1)", "41\n")
LIMITS = Limits(seconds=10.0, memory=256 << 20)
NAMED = "import ctypes\nctypes.CDLL(None).prctl(15, b'm2rl-sleeper')\n"
SLEEPER = f"{NAMED}import time; time.sleep(60)"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    backend = Namespace()
    yield backend
    backend.close()


def right(backend: Namespace) -> bool:
    return backend.run(GOOD, LIMITS).stdout == "42\n"


def children(of: int | None = None) -> list[int]:
    """Processes below this one or another, the youngest last."""
    found, left = [], [of or os.getpid()]
    while left:
        for task in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
                below = list(map(int, task.read_text().split()))
                found += below
                left += below
    return found


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def groups(process: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/m2rl-sandbox-{process}-*"))


def test_a_zygote_is_used_again(namespace: Namespace) -> None:
    assert right(namespace)
    before = children()
    assert right(namespace)
    assert children() == before


def test_a_zygote_that_is_told_to_stop_too_late_goes_on(namespace: Namespace) -> None:
    assert right(namespace)
    before = children()
    for zygote in namespace._idle:
        zygote._stop()  # as a run does whose program has ended by itself in the meantime
    assert right(namespace)
    assert children() == before


def test_closing_leaves_nothing() -> None:
    before, files, others = children(), len(os.listdir("/proc/self/fd")), groups(os.getpid())
    backend = Namespace()
    assert right(backend)
    backend.close()
    assert children() == before
    assert groups(os.getpid()) == others
    assert len(os.listdir("/proc/self/fd")) == files
    with pytest.raises(SandboxError, match="closed"):
        backend.run(GOOD, LIMITS)


def test_runs_leave_no_descriptors(namespace: Namespace) -> None:
    assert right(namespace)
    files = len(os.listdir("/proc/self/fd"))
    for source in ("print(1)", "1 / 0", "print('x' * (1 << 21))", "def f(: pass"):
        namespace.run(Program(source), LIMITS)
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("which", [0, -1])
def test_a_killed_zygote_is_replaced(namespace: Namespace, which: int) -> None:
    before = set(children())
    assert right(namespace)
    ours = [process for process in children() if process not in before]
    assert len(ours) == 2
    os.kill(ours[which], signal.SIGKILL)
    assert right(namespace)
    assert not set(ours) & set(children())


def test_a_zygote_killed_at_work_is_no_fault_of_the_program(
    namespace: Namespace, named: Callable[[str], list[int]]
) -> None:
    before, outcomes = set(children()), list[Outcome]()
    source = Program(f"{NAMED}import time; time.sleep(1); print(input())", "right\n")
    thread = threading.Thread(target=lambda: outcomes.append(namespace.run(source, LIMITS)))
    thread.start()
    assert wait_for(lambda: named("m2rl-sleeper"))
    os.kill(min(set(children()) - before), signal.SIGKILL)
    thread.join()
    assert [(found.status, found.stdout) for found in outcomes] == [("finished", "right\n")]


def test_a_namespace_that_an_outsider_ends_is_no_fault_of_the_program(
    namespace: Namespace, named: Callable[[str], list[int]]
) -> None:
    outcomes = list[Outcome]()
    source = Program(f"{NAMED}import time; time.sleep(1); print(input())", "right\n")
    thread = threading.Thread(target=lambda: outcomes.append(namespace.run(source, LIMITS)))
    thread.start()
    assert wait_for(lambda: named("m2rl-sleeper"))
    stat = Path(f"/proc/{named('m2rl-sleeper')[0]}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    thread.join()
    assert [(found.status, found.stdout) for found in outcomes] == [("finished", "right\n")]


def test_a_zygote_that_dies_every_time_is_the_sandbox_at_fault(
    namespace: Namespace, named: Callable[[str], list[int]]
) -> None:
    before, faults, done = set(children()), list[str](), threading.Event()

    def attempt() -> None:
        try:
            faults.append(repr(namespace.run(Program(SLEEPER), LIMITS)))
        except SandboxError as error:
            faults.append(str(error))
        finally:
            done.set()

    thread = threading.Thread(target=attempt)
    thread.start()
    while not done.is_set():
        if named("m2rl-sleeper") and (ours := set(children()) - before):
            kill(min(ours))  # not the program itself, whose death would be its own affair
        time.sleep(0.02)
    thread.join()
    assert "failed 3 times: the zygote died" in faults[0]
    assert right(namespace)


def kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_several_threads_at_once(namespace: Namespace) -> None:
    wrong = list[str]()

    def work(number: int) -> None:
        for turn in range(8):
            found = namespace.run(Program("print(int(input()) * 2)", f"{number * 100 + turn}\n"), LIMITS)
            if found.stdout != f"{2 * (number * 100 + turn)}\n":
                wrong.append(repr(found))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_zygote_outlives_the_thread_that_started_it(namespace: Namespace) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(right, namespace).result()
    before = children()
    assert right(namespace)
    assert children() == before


WORKER = """
import resource, sys
from m2rl_domain_coding.sandbox import Limits, Program, open_backend
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, resource.RLIM_INFINITY))
backend = open_backend(sys.argv[1], allow_weak_isolation=True)
print(backend.run(Program(sys.stdin.read()), Limits(seconds=60.0, memory=256 << 20)).stdout, end="")
backend.close()
"""


def worker(name: str = "namespace") -> subprocess.Popen[str]:
    """A process with limits like those of a verifier worker, and a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_limits_of_the_worker_are_not_those_of_programs() -> None:
    source = "import time\nwhile time.process_time() < 1.5: pass\nx = bytearray(200 << 20)\nprint('done')"
    with worker() as process:
        said, _ = process.communicate(source, timeout=60)
    assert said == "done\n"


@pytest.mark.parametrize("name", ["namespace", "bwrap", "rlimit"])
@pytest.mark.parametrize("end", [os.kill, os.killpg])
def test_nothing_outlives_a_killed_worker(
    name: str, end: Callable[[int, int], None], named: Callable[[str], list[int]]
) -> None:
    if name == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    with worker(name) as process:
        assert process.stdin
        process.stdin.write(SLEEPER)
        process.stdin.close()
        assert wait_for(lambda: named("m2rl-sleeper"))
        end(process.pid, signal.SIGKILL)
        process.wait()
        assert wait_for(lambda: not named("m2rl-sleeper"), 3.0)
        assert wait_for(lambda: not mentions(f", {process.pid})"), 3.0)


def mentions(text: str) -> list[str]:
    """Command lines on this machine that contain ``text``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if text in line and "zygote.main" in line]


@pytest.mark.parametrize("end", [os.kill, os.killpg])
def test_groups_of_a_killed_worker_go_with_it(
    end: Callable[[int, int], None], named: Callable[[str], list[int]]
) -> None:
    with worker() as process:
        assert process.stdin
        process.stdin.write(SLEEPER)
        process.stdin.close()
        assert wait_for(lambda: named("m2rl-sleeper"))
        if not groups(process.pid):
            pytest.skip("no control group can be made here")
        end(process.pid, signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: not groups(process.pid), 3.0)


def test_groups_of_killed_workers_are_swept(namespace: Namespace, named: Callable[[str], list[int]]) -> None:
    with worker() as process:
        assert process.stdin
        process.stdin.write(SLEEPER)
        process.stdin.close()
        assert wait_for(lambda: named("m2rl-sleeper"))
        left = groups(process.pid)
        process.send_signal(signal.SIGSTOP)
        for zygote in children(process.pid):  # or they would remove the groups
            kill(zygote)
        process.kill()
        process.wait()
    assert groups(process.pid) == left
    assert wait_for(lambda: not any((group / "cgroup.procs").read_text() for group in left), 3.0)
    assert right(namespace)
    assert not groups(process.pid)


def test_weak_isolation_must_be_allowed() -> None:
    with pytest.raises(SandboxError, match=r"rlimit sandbox shows .* allow_weak_isolation: true"):
        open_backend("rlimit", allow_weak_isolation=False)
    weak = open_backend("rlimit", allow_weak_isolation=True)
    assert weak.run(GOOD, LIMITS).stdout == "42\n"
    assert weak.run(Program("while True: pass"), Limits(seconds=0.5)).status == "timeout"
    assert weak.run(Program("bytearray(1 << 30)"), LIMITS).status == "memory"
    assert weak.run(Program("while True: print('x' * 1000)"), LIMITS).status == "output"


def test_auto_takes_the_strongest() -> None:
    backend = open_backend("auto", allow_weak_isolation=True)
    assert isinstance(backend, Namespace)
    backend.close()


def test_what_holds_nothing_fails_the_self_test() -> None:
    with pytest.raises(SandboxError, match=r"a bad program is not held: .*write outside.*read the host"):
        examine(Rlimit(), isolated=True)


def test_without_an_interpreter_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    with pytest.raises(
        SandboxError, match=r"no sandbox works .*namespace: .*the zygote died.*bwrap: .*Next: allow user"
    ):
        open_backend("auto", allow_weak_isolation=False)


def test_the_doctor_runs_the_self_test_of_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = {row.what: row for row in Coding.diagnose()}
    assert list(healthy) == ["sandbox namespace", "sandbox bwrap", "sandbox rlimit"]
    assert healthy["sandbox namespace"].health == "ok"
    assert "allow_weak_isolation" in healthy["sandbox rlimit"].found
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    sick = {row.what: row for row in Coding.diagnose()}
    assert "the zygote died" in sick["sandbox namespace"].found
    assert sick["sandbox"].health == "broken"
    assert "user.max_user_namespaces" in sick["sandbox"].then


def test_soft_limits_of_this_process_are_kept(namespace: Namespace) -> None:
    before = resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)
    assert right(namespace)
    assert (resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)) == before
