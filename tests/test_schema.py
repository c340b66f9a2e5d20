"""The JSON Schema of study files: it takes what ``load_study`` takes, and refuses what an editor should underline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from m2rl_core.cli import app
from m2rl_core.config import schema
from m2rl_core.plugins import load_plugins

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def installed() -> Draft202012Validator:
    found = schema(load_plugins())
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def study(**changes: Any) -> dict[str, Any]:
    """A study that is right, with other stages or sections in the place of its own."""
    rl = {"kind": "rl", "init": "base", "domains": ["math"], "algorithm": "grpo"}
    return {"name": "mine", "domains": {"math": "math"}, "stages": {"rl": rl}, **changes}


def trained(algorithm: object) -> dict[str, Any]:
    return study(stages={"rl": {"kind": "rl", "init": "base", "domains": ["math"], "algorithm": algorithm}})


def merged(merger: object) -> dict[str, Any]:
    return study(stages={"m": {"kind": "merge", "experts": ["a", "b"], "merger": merger}})


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_studies_of_the_repository_are_valid(file: Path, installed: Draft202012Validator) -> None:
    assert not list(installed.iter_errors(yaml.safe_load(file.read_text())))


@pytest.mark.parametrize(
    "right",
    [
        study(),
        study(**{"x-anything": [1, 2]}, plugins=["./mine.py"], domains={"mine": {"use": "mine", "level": 3}}),
        study(domains={"math": {"use": "math", "reasoning": "off", "levels": [1]}}),
        study(scale="smoke", scales={"smoke": {"stages": {"rl": {"steps": 2}}}}),
        study(engine={"use": "not-installed", "memory": 0.4}),
        trained({"use": "grpo", "importance": "mis"}),
        trained({"use": "grpo", "advantage": {"std": False}, "reduction": "constant"}),
        trained({"use": "grpo", "loss": {"use": "gspo"}, "kl": 0.001}),
        trained({"use": "grpo", "advantage": [{"use": "group"}, {"use": "teacher", "weight": 0.5}]}),
        merged({"use": "dare", "then": "ties"}),
        merged({"use": "dare", "then": {"use": "ties", "density": 0.5}}),
        merged({"use": "ties", "preset": "released-code"}),
    ],
    ids=lambda tree: json.dumps(tree)[-60:],
)
def test_what_users_write_is_valid(right: dict[str, Any], installed: Draft202012Validator) -> None:
    assert not list(installed.iter_errors(right))


@pytest.mark.parametrize(
    "wrong",
    [
        study(sead=17),
        study(domains={"math": {"use": "math", "levles": [1]}}),
        study(domains={"math": {"use": "math", "reasoning": "sometimes"}}),
        study(stages={"rl": {"kind": "rl", "init": "base", "domains": ["math"], "algorithm": "grpo", "groups": 16}}),
        study(stages={"rl": {"kind": "train"}}),
        trained({"use": "grpo", "kl": -1}),
        trained({"use": "grpo", "clip": 0.2}),
        trained({"use": "grpo", "loss": {"use": "gspo", "cliping": 0.1}}),
        trained({"kl": 0.1}),
        merged({"use": "ties", "density": "much"}),
        merged({"use": "ties", "preset": "papers"}),
        merged({"use": "dare", "then": {"use": "ties", "density": "much"}}),
    ],
    ids=lambda tree: json.dumps(tree)[-60:],
)
def test_a_wrong_study_is_not_valid(wrong: dict[str, Any], installed: Draft202012Validator) -> None:
    assert list(installed.iter_errors(wrong))


def test_settings_are_explained(installed: Draft202012Validator) -> None:
    defs = installed.schema["$defs"]
    assert "Samples per prompt. Table 2." in defs["RlStage"]["properties"]["group"]["description"]
    assert {"enum": load_plugins().names("merger")} in defs["merger"]["anyOf"][0]["anyOf"]
    settings = defs["merger.ties"]["properties"]
    assert "default" in settings["density"]
    assert settings["use"]["const"] == "ties"
    assert settings["preset"]["enum"] == ["paper", "released-code"]


def test_without_plugins_every_component_takes_any_settings() -> None:
    bare = Draft202012Validator(schema())
    assert not list(bare.iter_errors(merged({"use": "ties", "density": "much"})))
    assert list(bare.iter_errors(study(sead=17)))


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == schema(load_plugins())
