"""How many trivial programs a second the embedded sandbox runs with full isolation, beside bubblewrap.

    python benchmarks/sandbox.py [--seconds 5] [--threads 2] [--as-nobody PYTHON]

Both take turns in short rounds, so that other work on the machine hits them alike; the medians and their ratio are
printed, and the CPU time of a run, which does not depend on such work, where control groups (version 1) can be made.
``--as-nobody`` starts all over as the user nobody, in an interpreter that everybody may run (for root only).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "plugins/domains/coding/m2rl_domain_coding"
ROUNDS = 5
CPU = Path("/sys/fs/cgroup/cpuacct")


def sandbox() -> Any:
    """The package, also for an interpreter that has nothing of what the rest of the plugin needs."""
    parent = types.ModuleType("m2rl_domain_coding")
    parent.__path__ = [str(SOURCE)]
    sys.modules.setdefault("m2rl_domain_coding", parent)
    return importlib.import_module("m2rl_domain_coding.sandbox")


class Load:
    """Threads that run the same trivial program again and again."""

    def __init__(self, package: Any, backend: Any, threads: int, group: Path) -> None:
        self.backend, self.threads, self.group = backend, threads, group
        self.program = package.Program("print(sum(map(int, input().split())))", "1 2 3\n")
        self.limits = package.Limits()
        self.rates: list[float] = []
        self.cpu: list[float] = []

    def round(self, seconds: float) -> None:
        """Measure once."""
        done, began = [0] * self.threads, time.perf_counter()

        def work(number: int) -> None:
            while time.perf_counter() < began + seconds:
                outcome = self.backend.run(self.program, self.limits)
                assert outcome.stdout == "6\n", outcome
                done[number] += 1

        before = cpu_seconds(self.group)
        workers = [threading.Thread(target=work, args=(number,)) for number in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.rates.append(sum(done) / (time.perf_counter() - began))
        self.cpu.append((cpu_seconds(self.group) - before) / sum(done))

    def __str__(self) -> str:
        cpu = f"{1000 * statistics.median(self.cpu):8.1f} ms of CPU each" if any(self.cpu) else ""
        return f"{statistics.median(self.rates):8.0f} runs/s  (best {max(self.rates):.0f}){cpu}"


@contextlib.contextmanager
def accounted(folder: Path) -> Iterator[None]:
    """This process and all it starts in a group whose CPU time can be read."""
    try:
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        yield
        return
    yield
    (folder.parent / "cgroup.procs").write_text(str(os.getpid()))
    for _ in range(100):  # the last processes are on their way out
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.02)


def cpu_seconds(folder: Path) -> float:
    """Of that group; 0 where there is none."""
    try:
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    except OSError:
        return 0.0


def measure(seconds: float, threads: int, group: Path) -> None:
    """Print the table."""
    package = sandbox()
    loads: dict[str, Load] = {}
    for name in ("namespace", "bwrap"):
        began = time.perf_counter()
        try:
            backend = package.open_backend(name, allow_weak_isolation=False)
        except package.SandboxError as error:
            print(f"{name:10} is not available: {error}")
            continue
        print(f"{name:10} opened and self-tested in {time.perf_counter() - began:.2f} s")
        loads[name] = Load(package, backend, threads, group)
    for _ in range(ROUNDS):
        for load in loads.values():
            load.round(seconds / ROUNDS)
    for name, load in loads.items():
        print(f"{name:10}{load}")
        load.backend.close()
    if len(loads) == 2:
        ours, theirs = (statistics.median(load.rates) for load in loads.values())
        print(f"namespace / bwrap: {ours / theirs:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of the two")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-nobody", metavar="PYTHON", help="for example /usr/bin/python3")
    parser.add_argument("--group", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    group = given.group or CPU / f"m2rl-benchmark-{os.getpid()}"
    with contextlib.nullcontext() if given.group else accounted(group):
        if given.as_nobody:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", given.as_nobody, "-B", __file__]
            command += ["--seconds", str(given.seconds), "--threads", str(given.threads), "--group", str(group)]
            subprocess.run(command, check=True)
            return
        print(
            f"Python {platform.python_version()}, user {os.geteuid()}, {os.cpu_count()} cores, {given.threads} threads"
        )
        measure(given.seconds, given.threads, group)


if __name__ == "__main__":
    main()
