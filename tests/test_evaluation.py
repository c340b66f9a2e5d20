"""``m2rl eval``: one model on suites without a study file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from m2rl_core.cli import app
from m2rl_core.errors import ConfigError
from m2rl_core.evaluation import evaluation
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import Registry, load_plugins

LETTERS = Path(__file__).parent / "letters_plugin.py"
CHANGES = {"domains": {"letters": {"suite": "held", "reasoning": "off"}}, "seed": 3}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_plugins([LETTERS])


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments), "--plugin", str(LETTERS)])


def test_it_is_a_study_of_one_stage(registry: Registry) -> None:
    found = evaluation("/m", ["letters:held:5"], registry, CHANGES, limit=2)
    assert found["stages"] == {
        "model": {"kind": "model", "path": "/m"},
        "evals": {"kind": "eval", "models": ["model"], "suites": {"held": 5}, "limit": 2},
    }
    assert found["domains"] == {"letters": {"use": "letters", "suite": "held", "reasoning": "off"}}
    assert found["seed"] == 3
    for whole in ("letters", "letters:held"):
        assert evaluation("/m", [whole], registry, CHANGES)["stages"]["evals"]["suites"] == {"held": 2}


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (":held", "a suite is named as DOMAIN"),
        ("letters:held:x", "a suite is named as DOMAIN"),
        ("letters:held:0", "a suite is named as DOMAIN"),
        ("letters:hedl", "there is no suite 'hedl'. Did you mean 'held'?"),
    ],
)
def test_what_is_no_suite_is_refused(registry: Registry, suite: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        evaluation("/m", [suite], registry, CHANGES)


def test_a_model_is_scored_and_nothing_is_drawn_twice(tmp_path: Path, tiny_model: Path) -> None:
    given = ("--suite", "letters:held:3", "--set", "domains.letters.suite=held", "--set", "stages.evals.max_tokens=4")
    out = tmp_path / "out"
    result = m2rl(tiny_model, *given, "--out", out, "--limit", 2, "--json")
    assert result.exit_code == 0, result.stderr
    [found] = json.loads(result.stdout)
    assert (found["suite"], found["domain"], found["k"], found["prompts"]) == ("held", "letters", 3, 2)
    rows = list(read_jsonl(out / "eval" / "evals" / "model" / "held" / "samples.jsonl"))
    assert found["score"] == pytest.approx(100 * sum(row["reward"] for row in rows) / 6)
    again = m2rl(tiny_model, *given, "--out", out, "--limit", 2)
    assert again.exit_code == 0, again.stderr
    assert "done before" in again.stdout
    assert "held" in again.stdout
    gone = m2rl(tmp_path / "gone", *given, "--out", out)
    assert gone.exit_code == 2
    assert "there is no folder" in gone.stderr
