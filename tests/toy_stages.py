"""Stage functions that need no model: they write, checkpoint and read as real ones do, and die where a test says so.

A test puts ``faults/math.json`` beside the study's folder: ``["log 3", "checkpoint 4"]`` kills the worker of stage
``math`` with signal 9 in the middle of a line of step 3, then, in the next attempt, while the state after 4 steps is
written. ``"raise 2"`` and ``"refuse 2"`` raise instead, ``"hang 2"`` sleeps until somebody ends it. Every stage has a
file of its own, because stages run side by side.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from m2rl_core.config import AnyStage, MergeStage, RlStage, SftStage
from m2rl_core.errors import DataError
from m2rl_core.processes import die_with_parent
from m2rl_core.run import StageRun


class Walk:
    """A random walk: what a toy learns."""

    def __init__(self, run: StageRun[AnyStage], start: float) -> None:
        self.run, self.value, self.random = run, start, random.Random(run.seed)

    def step(self) -> float:
        self.value += self.random.gauss(0, 1)
        return self.value

    def save_state(self, folder: Path) -> None:
        (folder / "value.json").write_text(json.dumps(self.value))
        if fault(self.run, f"checkpoint {folder.parent.name.split('-')[1].split('.')[0].lstrip('0')}"):
            die()
        (folder / "random.json").write_text(json.dumps(self.random.getstate()))

    def load_state(self, folder: Path) -> None:
        self.value = json.loads((folder / "value.json").read_text())
        version, inner, gauss = json.loads((folder / "random.json").read_text())
        self.random.setstate((version, tuple(inner), gauss))


def fault(run: StageRun[AnyStage], where: str) -> bool:
    """True once where the test's list for this stage begins with ``where``."""
    name = f"faults/{run.name}.json"
    path = next((p / name for p in run.folder.parents if (p / name).exists()), None)
    faults: list[str] = json.loads(path.read_text()) if path else []
    if path is None or faults[:1] != [where]:
        return False
    path.write_text(json.dumps(faults[1:]))
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def saver(value: float) -> Callable[[Path], None]:
    """Writes a model that is one number."""

    def save(folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps(value))

    return save


def value_of(run: StageRun[AnyStage], model: str) -> float:
    return float(json.loads((run.models[model] / "model.json").read_text()))


def init(run: StageRun[AnyStage]) -> None:
    run.finish(saver(random.Random(run.seed).random()))


def train(run: StageRun[AnyStage]) -> None:
    stage = run.stage
    assert isinstance(stage, SftStage | RlStage)
    (run.folder / "device").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    walk = Walk(run, value_of(run, stage.init))
    for step in range(run.restore(walk), stage.steps if isinstance(stage, RlStage) else stage.conversations):
        value = walk.step()
        if fault(run, f"raise {step}"):
            raise ZeroDivisionError(f"step {step} went wrong")
        if fault(run, f"refuse {step}"):
            raise DataError(f"row {step} has no gold")
        if fault(run, f"hang {step}"):
            child = subprocess.Popen(["sleep", "600"], preexec_fn=die_with_parent)
            (run.folder / "hanging").write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        run.log(step, {"value": value}, samples=[{"sample": i, "text": "…" * i} for i in range(3)])
        if fault(run, f"log {step}"):
            for name in ("rollouts.jsonl", "metrics.jsonl"):
                with (run.folder / name).open("a") as file:
                    file.write('{"step":')
            die()
        if isinstance(stage, RlStage):
            run.keep(step + 1, saver(value), every=stage.keep_every)
        run.checkpoint(step + 1, walk, every=stage.checkpoint_every)
        if fault(run, f"between {step}"):
            die()
    run.finish(saver(walk.value))
    if fault(run, "finish"):
        die()


def merge(run: StageRun[AnyStage]) -> None:
    assert isinstance(run.stage, MergeStage)
    run.finish(saver(sum(value_of(run, name) for name in run.stage.experts) / len(run.stage.experts)))


def evaluate(run: StageRun[AnyStage]) -> None:
    (model,) = run.models
    scores = {"model": model, "suite": run.suite, "score": value_of(run, model)}
    (run.folder / "scores.json").write_text(json.dumps(scores))


def report(run: StageRun[AnyStage]) -> None:
    (run.folder / "report.json").write_text(json.dumps([node.id for node in run.nodes]))
