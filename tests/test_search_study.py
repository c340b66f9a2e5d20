"""A whole study, tiny and real, whose merge searches: from rollouts that its experts have drawn to the report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.rollout.stored import stored_records
from m2rl_core.study import run_study

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("optuna")
pytestmark = pytest.mark.slow

SFT = {"kind": "sft", "init": "init", "conversations": 64, "batch": 8, "lr": 0.01, "max_length": 320}
RL = {
    "kind": "rl", "init": "sft", "algorithm": "opd", "steps": 2, "prompts": 4, "group": 2, "max_tokens": 16, "lr": 0.01,
}  # fmt: skip
OWN = {"use": "task-arithmetic", "scale": 0.1}
GRID = {"scale": [0.5, 1.0]}


class Quiet:
    """Takes progress and says nothing, but fails where a stage does."""

    def cached(self, stage: str) -> None: ...

    def started(self, stage: str) -> None: ...

    def event(self, stage: str, fields: object) -> None: ...

    def finished(self, stage: str, seconds: float) -> None: ...

    def failed(self, stage: str, message: str) -> None:
        pytest.fail(f"{stage}: {message}")


def tree() -> dict[str, Any]:
    """Two experts learn from two teachers, so that they move whatever they are rewarded with."""
    both = ["math", "science"]
    sizes = {"vocab": 320, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64, "context": 512}
    search = {"grid": GRID, "samples": 6, "rounds": 1, "batch": 2}
    return {
        "name": "searching",
        "model": {"dtype": "float32"},
        "domains": {name: {"use": name} for name in both},
        "stages": {
            "init": {"kind": "init", "domains": both, **sizes},
            "sft": {**SFT, "domains": both},
            "m-teacher": {**SFT, "init": "sft", "domains": ["math"]},
            "s-teacher": {**SFT, "init": "sft", "domains": ["science"]},
            "m": {**RL, "domains": ["math"], "teachers": {"math": "m-teacher"}},
            "s": {**RL, "domains": ["science"], "teachers": {"science": "s-teacher"}},
            "merged": {"kind": "merge", "experts": ["m", "s"], "merger": OWN, "search": search},
            "evals": {"kind": "eval", "models": ["merged"], "suites": ["math-heldout"], "limit": 2, "max_tokens": 16},
            "report": {"kind": "report"},
        },
    }


def run(study: dict[str, Any], folder: Path) -> Path:
    return run_study(Study.model_validate(study), source=folder / "study.yaml", runs=folder / "runs", progress=Quiet())


def test_a_study_searches_and_reports_the_gain_of_selection_apart(tmp_path: Path) -> None:
    study = tree()
    root = run(study, tmp_path)
    *candidates, last = read_jsonl(root / "merged" / "metrics.jsonl")
    assert [line["settings"] for line in candidates[:3]] == ["scale=0.1", "scale=0.5", "scale=1.0"]
    assert [line["round"] for line in candidates] == [0, 0, 0, 1, 1]
    assert all(line["kl"] == pytest.approx((line["kl/m/math"] + line["kl/s/science"]) / 2) for line in candidates)
    assert last["chosen"] == min(candidates, key=lambda line: float(line["kl"]))["settings"]
    assert {path.name for path in (root / "merged").iterdir()} >= {"checkpoint", "DONE", "metrics.jsonl"}
    assert not [path for path in (root / "merged").iterdir() if "candidates" in path.name]
    with (root / "report" / "tables" / "selection.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["model"] == "merged"
    assert row["chosen"] == last["chosen"]
    assert float(row["gain"]) == pytest.approx(1000 * last["gain"])
    assert float(row["gain low"]) <= float(row["gain"]) <= float(row["gain high"])
    seconds = json.loads((root / "merged" / "times.jsonl").read_text().splitlines()[0])["seconds"]
    assert seconds["score"] > 0 < seconds["merge"]

    held_out = load_plugins().create("domain", {"use": "math"}, "domains.math").prompts("math-heldout")
    evaluated = {json.dumps(prompt.messages) for prompt in held_out}
    assert len(evaluated) > 100
    assert not evaluated & {json.dumps(record["question"]) for record in stored_records(root / "m" / "checkpoint")}

    # another grid retrains nothing, and asks the same experts
    (root / "merged" / "DONE").unlink()
    before = (root / "m" / "DONE").read_bytes()
    shutil.copytree(root / "merged", tmp_path / "first")
    run(study, tmp_path)
    for name in ("metrics.jsonl", "checkpoint/model.safetensors"):
        assert (root / "merged" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    study["stages"]["merged"]["search"] = {**study["stages"]["merged"]["search"], "rounds": 0}
    run(study, tmp_path)
    assert list(read_jsonl(root / "merged" / "metrics.jsonl"))[:3] == candidates[:3]
    assert (root / "m" / "DONE").read_bytes() == before
