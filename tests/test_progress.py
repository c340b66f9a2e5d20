"""What a person sees while a study runs, with a clock that the tests set."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from m2rl_core.progress import Lines, LiveTable, Running, open_progress, span


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(progress: Lines) -> list[str]:
    """What was printed so far, without the times of day."""
    file = progress.console.file
    assert isinstance(file, io.StringIO)
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in file.getvalue().splitlines()]


def plain() -> Lines:
    return Lines(Console(file=io.StringIO(), width=40), Clock())


def test_the_form_follows_the_output() -> None:
    assert type(open_progress(Console(file=io.StringIO()))) is Lines
    assert type(open_progress(Console(file=io.StringIO(), force_terminal=True))) is LiveTable


def test_a_stage_in_plain_lines() -> None:
    progress = plain()
    clock = progress.clock
    assert isinstance(clock, Clock)
    progress.started("math")
    for step in range(1, 13):
        clock.now += 1
        progress.event("math", {"step": step, "steps": 100, "reward": step / 100, "tokens_per_second": 3210.4})
    progress.finished("math", 192.2)
    assert lines_of(progress) == [
        "· math: started",
        "· math: step 5/100, reward 0.050, 3,210 tokens/s, 1m 35s left",
        "· math: step 10/100, reward 0.100, 3,210 tokens/s, 1m 30s left",
        "✓ math: finished in 3m 12s, reward 0.120",
    ]


def test_stages_do_not_hold_each_other_back() -> None:
    progress = plain()
    clock = progress.clock
    assert isinstance(clock, Clock)
    progress.started("a")
    progress.started("b")
    clock.now = 6
    progress.event("a", {"step": 1})
    progress.event("b", {"step": 2})
    assert lines_of(progress)[2:] == ["· a: step 1", "· b: step 2"]


def test_done_stages_stand_in_one_line() -> None:
    with plain() as progress:
        progress.cached("init")
        progress.cached("sft")
        progress.started("math")
        progress.cached("evals/math/hard")
    assert lines_of(progress) == ["= 2 done before: init, sft", "· math: started", "= 1 done before: evals/math/hard"]


def test_notes_and_failures_are_shown_at_once_and_as_they_are() -> None:
    """No line is wrapped or read as markup, however long."""
    progress = plain()
    progress.started("math")
    progress.event("math", {"note": "[bold]an observer failed[/bold] " + "x" * 80})
    progress.failed("math", "[red] disk full")
    assert lines_of(progress)[1:] == [
        "! math: [bold]an observer failed[/bold] " + "x" * 80,
        "✗ math: failed: [red] disk full",
    ]
    assert progress.running == {}


def test_reports_of_nobody_are_ignored() -> None:
    progress = plain()
    progress.event("ghost", {"step": 1})
    progress.finished("ghost", 1)
    assert lines_of(progress) == ["✓ ghost: finished in 1s"]


def test_the_time_left_follows_the_pace_of_this_run() -> None:
    """A resumed stage starts at step 50: what was done before says nothing about the pace."""
    running = Running(now=100)
    assert running.left is None
    running.update({"step": 50, "steps": 60}, 110)
    assert running.left is None, "no pace yet"
    running.update({"step": 52}, 130)
    assert running.left == pytest.approx(80)
    running.update({"step": 60}, 150)
    assert running.left == 0


def test_what_is_not_known_is_left_out() -> None:
    running = Running(now=0)
    assert running.summary() == ""
    running.update({"text": "3 of 9 tensors", "reward": None}, 1)
    assert running.summary() == "3 of 9 tensors"
    running.update({"loss": 2, "step": 4}, 2)
    assert running.summary() == "step 4, loss 2.000"


def test_the_live_table_shows_what_runs_and_keeps_what_ended() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    threads = threading.active_count()
    with LiveTable(console) as progress:
        progress.started("math")
        progress.event("math", {"step": 3, "steps": 10, "reward": 0.25, "tokens_per_second": 1000})
        progress.started("science")
        assert threading.active_count() == threads, "the study forks: no thread may run"
        sheet = Console(file=io.StringIO(), width=100)
        sheet.print(progress.table())
        file = sheet.file
        assert isinstance(file, io.StringIO)
        first, second = file.getvalue().splitlines()
        assert re.fullmatch(r"math +━+ +3/10 +reward 0\.250 +1,000 tokens/s +0s *", first)
        assert second.split() == ["science", "0s"]
        progress.finished("math", 5)
        assert list(progress.running) == ["science"]
    assert isinstance(console.file, io.StringIO)
    assert "✓ math: finished in 5s, reward 0.250" in console.file.getvalue()
    assert "\x1b[?25h" in console.file.getvalue(), "the cursor is back"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m 00s"), (3599, "59m 59s"), (3840, "1h 04m"), (90000, "25h 00m")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
