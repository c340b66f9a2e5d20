"""Progress of a command that reads a known number of bytes: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from m2rl_core.progress import span

__all__ = ["Lines", "reading"]

Report = Callable[[int, int], None]
"""Is told the bytes read so far, and those to be read in all."""


@contextmanager
def reading(console: Console, what: str) -> Iterator[Report]:
    """The form that suits ``console``; the bar goes when the block ends."""
    if not console.is_terminal:
        yield Lines(console, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Lines:
    """One line every few seconds.

    Args:
        console: where to.
        what: is being done.
        clock: seconds from any zero.
    """

    every = 5.0
    """Seconds."""

    def __init__(self, console: Console, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._what, self._clock = console, what, clock
        self._began = self._shown = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now - self._shown < self.every or not done:
            return
        self._shown = now
        rate = done / (now - self._began)
        text = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB, {rate / 1e6:,.0f} MB/s, {span((total - done) / rate)} left"
        self._console.print(Text(f"{time.strftime('%H:%M:%S')} · {self._what}: {text}"), soft_wrap=True)
