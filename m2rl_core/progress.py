"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere.

Both have the methods of :class:`m2rl_core.study.Progress`. Neither starts a thread, because the study forks its workers
from the process that they live in; the table is drawn again whenever something is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["Lines", "LiveTable", "Value", "open_progress"]

Value = float | int | str | None
Fields = Mapping[str, Value]


def open_progress(console: Console) -> Lines:
    """The form that suits ``console``; to be used in a ``with`` block."""
    return LiveTable(console) if console.is_terminal else Lines(console)


class Running:
    """A stage at work: what it reported, and how long the rest will take at the pace so far."""

    def __init__(self, now: float) -> None:
        self.began = self.reported = now
        self.fields: dict[str, Value] = {}
        self._first: tuple[float, int] | None = None

    def update(self, fields: Fields, now: float) -> None:
        """Take in a report; keys that it lacks keep their values."""
        self.fields |= fields
        self.reported = now
        if self._first is None and (done := self.count("step")) is not None:
            self._first = now, done

    def count(self, key: str) -> int | None:
        """A field as a whole number, if it is one."""
        value = self.fields.get(key)
        return int(value) if isinstance(value, int | float) else None

    @property
    def left(self) -> float | None:
        """Seconds to the last step; ``None`` while the pace is unknown."""
        step, steps = self.count("step"), self.count("steps")
        if step is None or steps is None or self._first is None or step <= self._first[1]:
            return None
        began, first = self._first
        return max(0, steps - step) * (self.reported - began) / (step - first)

    @property
    def steps(self) -> str:
        """``"12/400"``, or what is known of it."""
        step, steps = self.count("step"), self.count("steps")
        return "" if step is None else f"{step}/{steps}" if steps else f"{step}"

    @property
    def result(self) -> str:
        """How well it goes: the reward, the loss or the stage's own words."""
        for key in ("reward", "loss"):
            if isinstance(value := self.fields.get(key), int | float):
                return f"{key} {value:.3f}"
        return str(self.fields.get("text") or "")

    @property
    def rate(self) -> str:
        """``"3,210 tokens/s"``."""
        value = self.fields.get("tokens_per_second")
        return f"{value:,.0f} tokens/s" if isinstance(value, int | float) else ""

    def summary(self) -> str:
        """All of it in one line."""
        left = "" if self.left is None else f"{span(self.left)} left"
        return ", ".join(filter(None, (f"step {self.steps}" if self.steps else "", self.result, self.rate, left)))


class Lines:
    """One line when a stage starts and ends, and one every few seconds in between.

    Args:
        console: where to.
        clock: seconds from any zero.
    """

    every: ClassVar[float] = 5.0
    """Seconds between two reports of one stage that are shown."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.running: dict[str, Running] = {}
        self._shown: dict[str, float] = {}
        self._cached: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show_cached()

    def started(self, stage: str) -> None:
        """A stage has begun."""
        self._show_cached()
        self.running[stage] = Running(self.clock())
        self._begin(stage)

    def event(self, stage: str, fields: Fields) -> None:
        """A stage reports: ``step``, ``steps``, ``reward``, ``loss``, ``tokens_per_second``, ``text``; a ``note`` is
        shown at once and stays."""
        if note := fields.get("note"):
            self._line("!", stage, str(note), "yellow")
        if stage in self.running:
            now = self.clock()
            self.running[stage].update(fields, now)
            if now - self._shown.get(stage, -self.every) >= self.every:
                self._shown[stage] = now
                self._change(stage)

    def finished(self, stage: str, seconds: float) -> None:
        """A stage is done after ``seconds`` of wall time."""
        known = self.running.pop(stage, None)
        result = f", {known.result}" if known and known.result else ""
        self._line("✓", stage, f"finished in {span(seconds)}{result}", "green")

    def cached(self, stage: str) -> None:
        """A stage was done before. Several in a row are shown in one line."""
        self._cached.append(stage)

    def failed(self, stage: str, message: str) -> None:
        """A stage has stopped."""
        self.running.pop(stage, None)
        self._line("✗", stage, f"failed: {message}", "red")

    def _begin(self, stage: str) -> None:
        self._shown[stage] = self.clock()
        self._line("·", stage, "started")

    def _change(self, stage: str) -> None:
        if summary := self.running[stage].summary():
            self._line("·", stage, summary)

    def _show_cached(self) -> None:
        if self._cached:
            stages, self._cached = self._cached, []
            self._line("=", f"{len(stages)} done before", ", ".join(stages), "dim")

    def _line(self, sign: str, stage: str, text: str, style: str = "") -> None:
        self._show_cached()
        line = Text(f"{time.strftime('%H:%M:%S')} {sign} {stage}: {text}", style=style)
        self.console.print(line, soft_wrap=True)


class LiveTable(Lines):
    """The same lines for what is over, and below them a table of what is running."""

    every: ClassVar[float] = 0.1

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        # Workers inherit sys.stdout: it must stay the real one.
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._live.stop()

    def _begin(self, stage: str) -> None:
        self._draw()

    def _change(self, stage: str) -> None:
        self._draw()

    def _line(self, sign: str, stage: str, text: str, style: str = "") -> None:
        super()._line(sign, stage, text, style)
        self._draw()

    def _draw(self) -> None:
        self._live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """What is running, a row each."""
        table = Table.grid(padding=(0, 2))
        for stage, known in self.running.items():
            step, steps = known.count("step"), known.count("steps")
            bar = ProgressBar(total=steps or 1, completed=step or 0, width=20) if steps else ""
            left = "" if known.left is None else f"{span(known.left)} left"
            elapsed = span(self.clock() - known.began)
            table.add_row(Text(stage, style="bold"), bar, known.steps, known.result, known.rate, elapsed, left)
        return table


def span(seconds: float) -> str:
    """``"12s"``, ``"3m 12s"`` or ``"1h 04m"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"
