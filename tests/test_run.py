"""StageRun: what it writes, what it comes back to, and what it survives."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import RlStage, Study
from m2rl_core.files import read_jsonl
from m2rl_core.hookspecs import hookimpl
from m2rl_core.registry import Registry
from m2rl_core.run import StageRun

STUDY = Study.model_validate(
    {
        "name": "toy",
        "stages": {"math": {"kind": "rl", "init": "x", "domains": ["math"], "algorithm": "toy", "steps": 6}},
    }
)


class Walk:
    """A part with a state: a random walk."""

    def __init__(self) -> None:
        self.random, self.value = random.Random(7), 0.0

    def step(self) -> float:
        self.value += self.random.gauss(0, 1)
        return self.value

    def save_state(self, folder: Path) -> None:
        (folder / "walk.json").write_text(json.dumps([self.value, self.random.getstate()]))

    def load_state(self, folder: Path) -> None:
        self.value, (version, inner, gauss) = json.loads((folder / "walk.json").read_text())
        self.random.setstate((version, tuple(inner), gauss))


class Watcher:
    """Takes progress."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def __call__(self, fields: Mapping[str, Any]) -> None:
        self.events.append(dict(fields))

    @property
    def notes(self) -> list[str]:
        return [event["note"] for event in self.events if "note" in event]


def open_run(
    folder: Path, *, key: str = "k", watcher: Watcher | None = None, registry: Registry | None = None
) -> StageRun[RlStage]:
    stage = STUDY.stages["math"]
    assert isinstance(stage, RlStage)
    return StageRun(
        name="math",
        stage=stage,
        study=STUDY,
        seed=1,
        folder=folder,
        models={},
        registry=registry or Registry(),
        key=key,
        send=watcher or Watcher(),
    )


def train(run: StageRun[RlStage], *, until: int = 6) -> None:
    """A stage of 6 steps with a state every 2; ends early after ``until`` steps, as if killed."""
    walk = Walk()
    for step in range(run.restore(walk), until):
        with run.clock("train"):
            value = walk.step()
        run.log(step, {"value": value}, samples=[{"sample": i, "value": value + i} for i in range(2)])
        run.keep(step + 1, lambda folder: walk.save_state(folder), every=3)
        run.checkpoint(step + 1, walk, every=2)
    if until == run.stage.steps:
        run.finish(walk.save_state)
        run.close()


def deterministic(folder: Path) -> dict[str, bytes]:
    files = ["metrics.jsonl", "rollouts.jsonl", "checkpoint/walk.json", "kept/000003/walk.json"]
    return {name: (folder / name).read_bytes() for name in files}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    train(open_run(tmp_path / "whole"))
    return deterministic(tmp_path / "whole")


def test_what_a_stage_leaves(tmp_path: Path) -> None:
    train(open_run(tmp_path))
    metrics = list(read_jsonl(tmp_path / "metrics.jsonl"))
    assert [row["step"] for row in metrics] == list(range(6))
    walk = Walk()
    assert [row["value"] for row in metrics] == [walk.step() for _ in range(6)]
    assert [(row["step"], row["sample"]) for row in read_jsonl(tmp_path / "rollouts.jsonl")] == [
        (step, sample) for step in range(6) for sample in range(2)
    ]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["000003", "000006"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-000004", "step-000006"]


def test_times_are_beside_the_metrics(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    with run.clock("train"):
        sum(range(200_000))
    run.charge("verify", 2.0, 1.5)
    run.log(0, {"loss": 1.0})
    run.close()
    first, last = read_jsonl(tmp_path / "times.jsonl")
    assert first["step"] == 0
    assert first["seconds"]["verify"] == 2.0
    assert first["cpu_seconds"]["verify"] == 1.5
    assert 0 < first["seconds"]["train"] <= first["seconds"]["total"]
    assert last["step"] is None
    assert set(last["seconds"]) == {"total", "idle"}
    assert list(read_jsonl(tmp_path / "metrics.jsonl")) == [{"step": 0, "loss": 1.0}]


def test_what_no_clock_measured_is_idle(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for step in range(2):
        with run.clock("train"):
            time.sleep(0.02)
        time.sleep(0.05)
        run.charge("verify/math", 100.0)
        run.log(step, {})
    for row in list(read_jsonl(tmp_path / "times.jsonl")):
        seconds = row["seconds"]
        assert seconds["idle"] >= 0.05
        assert seconds["train"] + seconds["idle"] == pytest.approx(seconds["total"], abs=0.01)
        assert row["cpu_seconds"]["idle"] == 0


def test_the_seconds_of_a_child_count_once(tmp_path: Path) -> None:
    """While it runs, in the block in which it tells of them; after its end the system counts them."""
    run, spent = open_run(tmp_path), "x = 0\nwhile __import__('time').process_time() < 0.3: x += 1"
    child = subprocess.Popen([sys.executable, "-c", spent + "\ninput()"], stdin=subprocess.PIPE)
    run.log(0, {})  # the first imports tensorboard
    run.log(1, {})
    with run.clock("rollout"):
        run.running(0.3)
    run.log(2, {})
    child.communicate(b"\n")
    run.running(0.0)
    run.close()
    told, ended = [row["cpu_seconds"] for row in read_jsonl(run.folder / "times.jsonl")][2:]
    assert told["total"] >= told["rollout"] >= 0.3
    assert 0 <= ended["total"] < 0.25, "all but what it spent on its end has been counted"


def test_a_block_within_another_takes_its_seconds_out_of_it(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    with run.clock("train"):
        time.sleep(0.02)
        for _ in range(2):
            with run.clock("score"):
                time.sleep(0.1)
    run.log(0, {})
    [row] = read_jsonl(tmp_path / "times.jsonl")
    seconds = row["seconds"]
    assert 0.02 <= seconds["train"] < 0.1
    assert seconds["score"] >= 0.2
    assert seconds["train"] + seconds["score"] + seconds["idle"] == pytest.approx(seconds["total"], abs=0.01)
    assert seconds["idle"] >= 0


def test_seconds_are_shared_among_domains_by_tokens(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for kind in ("rollout", "train"):
        run.charge(kind, 4.0, 2.0)
    workload = {"rollout": {"math": 30, "science": 10}, "train": {"math": 0, "science": 0}, "sync": {"math": 1}}
    run.log(0, {}, workload=workload)
    [row] = read_jsonl(tmp_path / "times.jsonl")
    parts = {kind: (row["seconds"][kind], row["cpu_seconds"][kind]) for kind in row["seconds"] if "/" in kind}
    assert parts == {"rollout/math": (3.0, 1.5), "rollout/science": (1.0, 0.5)}
    assert row["seconds"]["rollout"] == row["seconds"]["train"] == 4.0


@pytest.mark.parametrize("until", range(6))
def test_stopped_and_resumed_writes_the_same_bytes(tmp_path: Path, whole: dict[str, bytes], until: int) -> None:
    train(open_run(tmp_path / "cut"), until=until)
    train(open_run(tmp_path / "cut"))
    assert deterministic(tmp_path / "cut") == whole
    assert [row["step"] for row in read_jsonl(tmp_path / "cut" / "times.jsonl")] == [0, 1, 2, 3, 4, 5, None]


def test_a_torn_line_is_cut(tmp_path: Path, whole: dict[str, bytes]) -> None:
    train(open_run(tmp_path / "cut"), until=5)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with (tmp_path / "cut" / name).open("a") as file:
            file.write('{"step":5,"val')
    train(open_run(tmp_path / "cut"))
    assert deterministic(tmp_path / "cut") == whole


@pytest.mark.parametrize("damage", ["flip", "cut", "no sums", "extra", "facts"])
def test_a_damaged_state_is_passed_over_aloud(tmp_path: Path, whole: dict[str, bytes], damage: str) -> None:
    folder, watcher = tmp_path / "cut", Watcher()
    train(open_run(folder), until=5)
    newest = folder / "state" / "step-000004"
    file = newest / "0-walk" / "walk.json"
    match damage:
        case "flip":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "cut":
            os.truncate(file, 10)
        case "no sums":
            (newest / "SHA256SUMS").unlink()
        case "extra":
            (newest / "stray").touch()
        case "facts":
            (newest / "facts.json").write_text("{}")
    run = open_run(folder, watcher=watcher)
    assert run.restore(Walk()) == 2
    assert len(watcher.notes) == 1
    assert "state/step-000004 is damaged" in watcher.notes[0]
    train(open_run(folder))
    assert deterministic(folder) == whole


def test_both_states_damaged_means_starting_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    train(open_run(tmp_path / "cut"), until=5)
    for state in (tmp_path / "cut" / "state").iterdir():
        (state / "0-walk" / "walk.json").write_text("")
    watcher = Watcher()
    train(open_run(tmp_path / "cut", watcher=watcher))
    assert len(watcher.notes) == 2
    assert deterministic(tmp_path / "cut") == whole


def test_a_state_whose_journal_has_shrunk_is_not_used(tmp_path: Path, whole: dict[str, bytes]) -> None:
    train(open_run(tmp_path / "cut"), until=5)
    metrics = tmp_path / "cut" / "metrics.jsonl"
    os.truncate(metrics, len(b"".join(metrics.read_bytes().splitlines(keepends=True)[:3])))
    watcher = Watcher()
    train(open_run(tmp_path / "cut", watcher=watcher))
    assert "metrics.jsonl is shorter" in watcher.notes[0]
    assert deterministic(tmp_path / "cut") == whole


def test_a_state_of_another_key_is_never_restored(tmp_path: Path) -> None:
    train(open_run(tmp_path), until=5)
    watcher = Watcher()
    assert open_run(tmp_path, key="other", watcher=watcher).restore(Walk()) == 0
    assert "other settings" in watcher.notes[0]


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    train(open_run(tmp_path), until=4)
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    state = tmp_path / "state" / "step-000004"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=state, check=True, capture_output=True)


def test_seconds_of_lost_steps_are_not_counted(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    run._journal.clock.before = (100.0, 50.0)
    run.checkpoint(1)
    run._journal.clock.before = (900.0, 900.0)
    again = open_run(tmp_path)
    assert again.restore() == 1
    seconds, cpu_seconds = again.spent
    assert 100 < seconds < 150
    assert 50 <= cpu_seconds < 100


def test_a_stage_without_steps_starts_its_journal_anew(tmp_path: Path) -> None:
    for _ in range(2):
        run = open_run(tmp_path)
        run.log(0, {"loss": 1.0})
        run.close()
    assert len(list(read_jsonl(tmp_path / "metrics.jsonl"))) == 1
    assert len(list(read_jsonl(tmp_path / "times.jsonl"))) == 2


def test_progress_says_how_far(tmp_path: Path) -> None:
    watcher = Watcher()
    train(open_run(tmp_path, watcher=watcher))
    assert [event["step"] for event in watcher.events] == [1, 2, 3, 4, 5, 6]
    assert all(event["steps"] == 6 and "value" in event for event in watcher.events)


def test_an_observer_that_raises_is_reported_once_and_harms_nobody(tmp_path: Path, whole: dict[str, bytes]) -> None:
    seen: list[tuple[str, int, float]] = []

    class Good:
        @hookimpl
        def m2rl_step_end(self, step: int, stage: str, metrics: Mapping[str, Any]) -> None:
            seen.append((stage, step, metrics["value"]))

    class Bad:
        @hookimpl
        def m2rl_step_end(self, step: int) -> None:
            raise ZeroDivisionError("observed too closely")

    registry, watcher = Registry(), Watcher()
    registry.register(Bad(), distribution="bad-plugin")
    registry.register(Good(), distribution="good-plugin")
    train(open_run(tmp_path / "watched", watcher=watcher, registry=registry))
    assert [(stage, step) for stage, step, _ in seen] == [("math", step) for step in range(6)]
    assert len(watcher.notes) == 1
    assert "bad-plugin" in watcher.notes[0]
    assert "observed too closely" in watcher.notes[0]
    assert deterministic(tmp_path / "watched") == whole


def test_tensorboard_shows_every_step_once(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for until in (3, 5, 6):
        train(open_run(tmp_path), until=until)
        newest = max((tmp_path / "tensorboard").iterdir())
        if until < 6:
            with newest.open("ab") as file:
                file.write(b"\x18\x00\x00torn")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    walk = Walk()
    assert [(event.step, event.value) for event in events.Scalars("value")] == [
        (step, pytest.approx(walk.step())) for step in range(6)
    ]


def test_running_a_stage_needs_no_torch() -> None:
    code = "import sys, m2rl_core.run; assert 'torch' not in sys.modules and 'tensorboard' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
