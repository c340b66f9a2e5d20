"""What the terminal shows of a study's scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from m2rl_core.cli.scores import scores, show_scores
from m2rl_core.config import load_study
from m2rl_core.study import one_study

STUDY = """
name: two
domains: {math: {use: math}, science: {use: science}}
stages:
  init:  {kind: init, domains: [math]}
  sft:   {kind: sft, init: init, domains: [math], conversations: 8, batch: 8}
  math:  {kind: rl, init: sft, domains: [math], algorithm: grpo}
  evals: {kind: eval, suites: [math-heldout, science-heldout]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder; nothing has been done in it."""
    (tmp_path / "two.yaml").write_text(STUDY)
    folder = tmp_path / "runs" / "two"
    folder.mkdir(parents=True)
    study = load_study(tmp_path / "two.yaml").model_dump(mode="json")
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def measured(folder: Path, model: str, suite: str, score: float) -> None:
    """As an evaluation leaves it."""
    [node] = [node for node in one_study([folder])[1] if node.folder.parts[-2:] == (model, suite)]
    node.folder.mkdir(parents=True)
    (node.folder / "scores.json").write_text(json.dumps({"score": score, "prompts": 9, "domain": "math"}))
    (node.folder / "DONE").touch()


def test_there_is_no_table_without_a_score(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_scores(*one_study([folder]))
    assert capsys.readouterr().out == ""


def test_models_are_rows_and_what_is_missing_is_a_dot(folder: Path) -> None:
    measured(folder, "sft", "math-heldout", 27.0142)
    measured(folder, "math", "math-heldout", 96.0)
    measured(folder, "math", "science-heldout", 0.0)
    table = scores(*one_study([folder]))
    assert table is not None
    console = Console(width=80)
    with console.capture() as caught:
        console.print(table)
    words = [line.split() for line in caught.get().splitlines()]
    assert ["model", "math-heldout", "science-heldout"] in words
    assert words.index(["sft", "27.0", "·"]) < words.index(["math", "96.0", "0.0"])
