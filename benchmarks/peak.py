"""How much memory a command takes with all processes below it.

    python benchmarks/peak.py m2rl run studies/miniature.yaml

Proportional set sizes are added up, so that pages that processes share count once. They are read five times a second: a
shorter peak is missed. Linux only. The command's exit code is this one's.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")
PAUSE = 0.2
"""Seconds."""


def below(root: int) -> list[int]:
    """Ids of a process and of all that descend from it."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:  # it has ended meanwhile
                continue
            children[int(parent)].append(int(folder.name))
    found = [root]
    for process in found:
        found += children[process]
    return found


def proportional(process: int) -> int:
    """Bytes of its memory, shared pages by the number of processes that share them; 0 once it has ended."""
    try:
        lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    running = subprocess.Popen(sys.argv[1:])
    peak, processes = 0, 0
    while running.poll() is None:
        tree = below(running.pid)
        peak, processes = max(peak, sum(map(proportional, tree))), max(processes, len(tree))
        time.sleep(PAUSE)
    print(f"peak: {peak / 1e9:.2f} GB in up to {processes} processes")
    sys.exit(running.returncode)


if __name__ == "__main__":
    main()
