"""Kill a study with signal 9 again and again, and compare what it writes with an undisturbed run, byte for byte.

    python benchmarks/kill.py studies/miniature.yaml --kills 50 [--stage math] [--set a.b=c ...]

The study runs undisturbed once. Then it is started, its process group killed after a random (seeded) time, and started
again by the same command, until it ends; a study that ends before enough kills have hit it begins anew. Every
``metrics.jsonl``, ``rollouts.jsonl``, ``samples.jsonl`` and ``scores.json`` must then be the same. Exits with 1 where
one is not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

COMPARED = {"metrics.jsonl", "rollouts.jsonl", "samples.jsonl", "scores.json"}
PATIENCE = 1.5
"""Factor on the longest wait after a kill before which nothing was gained, so that the study gets ahead at all."""


@dataclass
class Trial:
    """One study in one runs folder."""

    command: list[str]
    runs: Path
    stages: Counter[str] = field(default_factory=Counter)
    """Stage → kills that hit it at work."""

    def start(self) -> subprocess.Popen[str]:
        """The command in a process group of its own."""
        return subprocess.Popen(
            [*self.command, "--runs", str(self.runs)],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def undisturbed(self) -> float:
        """Run to the end.

        Returns:
            Wall seconds.
        """
        begin = time.perf_counter()
        _expect_success(self.start())
        return time.perf_counter() - begin

    def disturbed(self, kills: int, delays: random.Random, longest: float) -> int:
        """Run to the end with at most ``kills`` kills, each some ``longest`` seconds after a start at most.

        Returns:
            How many hit a stage at work.
        """
        done, wait, gained = 0, longest, self.progress()
        while done < kills:
            process, begin = self.start(), time.time()
            try:
                process.wait(delays.uniform(0.0, wait))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                hit = self.at_work(begin)
                done += bool(hit)
                self.stages.update(hit or ["none: before the first had begun"])
                before, gained = gained, self.progress()
                wait = longest if gained > before else wait * PATIENCE
            else:
                _expect_success(process)
                return done
        self.undisturbed()
        return done

    def at_work(self, since: float) -> list[str]:
        """Nodes that have begun since then and not ended; a worker writes its lock when it begins."""
        locks = (path for path in self.runs.rglob(".lock") if path.stat().st_mtime >= since)
        folders = (
            path.parent for path in locks if (path.parent / "KEY").exists() and not (path.parent / "DONE").exists()
        )
        return [folder.relative_to(self.runs).as_posix().partition("/")[2] for folder in folders]

    def progress(self) -> int:
        """Grows with every finished node and every saved state."""
        steps = (int(path.name.partition("-")[2]) for path in self.runs.rglob("state/step-*"))
        return 1_000_000 * len(list(self.runs.rglob("DONE"))) + sum(steps)

    def results(self) -> dict[str, bytes]:
        """All files that must not depend on kills, by their place."""
        return {
            path.relative_to(self.runs).as_posix(): path.read_bytes()
            for path in sorted(self.runs.rglob("*"))
            if path.name in COMPARED
        }


def _expect_success(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args!r} ended with {process.returncode}:\n{errors}")


def differences(whole: dict[str, bytes], killed: dict[str, bytes]) -> list[str]:
    """A sentence for every file that is not the same."""
    found = [f"{name}: only in one of the two" for name in sorted(whole.keys() ^ killed.keys())]
    for name in sorted(whole.keys() & killed.keys()):
        if whole[name] != killed[name]:
            pairs = zip(whole[name].splitlines(), killed[name].splitlines(), strict=False)
            line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), "the last")
            found.append(f"{name}: first difference in line {line}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stage", help="only this stage and what it needs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="handed on to m2rl run")
    given = parser.parse_args()
    command = [str(Path(sys.executable).with_name("m2rl")), "run", str(given.study)]
    command += ["--only", given.stage] if given.stage else []
    command += [part for text in given.set for part in ("--set", text)]
    delays = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="m2rl-kill-") as folder:
        whole = Trial(command, Path(folder) / "whole")
        seconds = whole.undisturbed()
        expected = whole.results()
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files", flush=True)
        killed, kills = Trial(command, Path(folder) / "killed"), 0
        wrong: list[str] = []
        while kills < given.kills and not wrong:
            shutil.rmtree(killed.runs, ignore_errors=True)
            kills += killed.disturbed(given.kills - kills, delays, longest=max(10.0, seconds / 8))
            wrong = differences(expected, killed.results())
            print(f"{kills} kills so far: {len(wrong)} files differ", flush=True)
    for stage, count in sorted(killed.stages.items()):
        print(f"  {count:3} kills hit {stage}")
    for line in wrong:
        print(f"  DIFFERENT {line}")
    print("verdict:", "NOT the same" if wrong else f"the same, byte for byte, after {kills} kills")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
