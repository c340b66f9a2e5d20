"""The same through the real laboratory: a small model is asked in the words of the prompts, by the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m2rl_analyzer_self_verification import SelfVerification
from m2rl_core.analyze import Laboratory
from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.files import append_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.run import NodeView, StageRun

CONFIG = SelfVerification.Config(k=3, max_tokens=8)


def evaluated(folder: Path, model: str) -> NodeView:
    """A finished evaluation of four answers, two of them right."""
    place = folder / "evals" / model / "sums"
    place.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {
            "prompt": str(i), "domain": "math", "suite": "sums", "sample": 0, "reward": float(i < 2), "verdict": "",
            "reason": "", "weight": 1.0, "tokens": 3, "finish": "stop",
            "messages": [{"role": "user", "content": f"What is {i} + 1?"}],
            "response": [{"role": "assistant", "content": f"<think>count</think>{i + 1 if i < 2 else 7}"}],
        }
        for i in range(4)
    ]  # fmt: skip
    append_jsonl(place / "samples.jsonl", rows)
    return NodeView(f"evals/{model}/sums", "evals", "eval", place, 1, (), f"key of {model}")


@pytest.fixture
def lab(tmp_path: Path, tiny_model: Path, other_model: Path) -> Laboratory:
    stages = {"judges": {"kind": "analyze", "analyzer": "none", "tokens_per_device": 256}}
    study = Study.model_validate({"name": "small", "model": {"dtype": "float32"}, "stages": stages})
    stage, models = study.stages["judges"], {"one": tiny_model, "two": other_model}
    assert isinstance(stage, AnalyzeStage)
    run = StageRun(
        name="judges", stage=stage, study=study, seed=1, folder=tmp_path / "judges", models=models,
        registry=load_plugins([]), nodes=tuple(evaluated(tmp_path, model) for model in models), key="k",
    )  # fmt: skip
    return Laboratory(run, start="one")


def test_untrained_models_cannot_judge(lab: Laboratory) -> None:
    """Random weights say no verdict at all: everything is unclear and wrong, and nothing is measurable."""
    found = SelfVerification(CONFIG).run(lab)
    rates = found.tables["judging"]
    at = {name: list(rates.columns).index(name) for name in ("agreement", "unclear", "always yes", "verdicts")}
    assert len(rates.rows) == 4
    for row in rates.rows:
        assert [row[at[name]] for name in ("agreement", "unclear", "always yes", "verdicts")] == [
            0.0,
            100.0,
            50.0,
            12.0,
        ]
    assert found.tables["self-verification"].rows[1][1:4] == [50.0, "not measurable", "not measurable"]


def test_the_same_laboratory_repeats_itself(lab: Laboratory) -> None:
    assert SelfVerification(CONFIG).run(lab) == SelfVerification(CONFIG).run(lab)
