"""Scales: named sets of changes within a study file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from m2rl_core.config import RlStage, Study, load_study, schema
from m2rl_core.errors import ConfigError

STUDY = """\
name: mini
domains:
  math: {use: quiz, level: 2}
x-few: &few {steps: 2, optim: {clip: 2.0}}
x-expert: &expert {kind: rl, init: base, domains: [math], algorithm: grpo, steps: 20, optim: {beta1: 0.5}}
model: {base: org/start}
stages:
  math: *expert
  other: *expert
  evals: {kind: eval, models: [math, other], suites: {quiz: 4}}
scales:
  smoke:
    domains: {math: {level: 1}}
    stages:
      math: *few
      evals: {models: [math], suites: [quiz]}
  wide:
    name: wide
    stages:
      math: {prompts: 64}
"""

Read = Callable[..., Study]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """``read(old, new, overrides=[...])``: the study with one piece of text replaced."""

    def read(old: str = "", new: str = "", overrides: list[str] | None = None) -> Study:
        assert old in STUDY
        file = tmp_path / "study.yaml"
        file.write_text(STUDY.replace(old, new, 1) if old else STUDY)
        return load_study(file, overrides or ())

    return read


def refused(call: Callable[[], object]) -> str:
    """What a ConfigError says, without the file's folder."""
    with pytest.raises(ConfigError) as caught:
        call()
    return re.sub(r"\S*/(?=study\.yaml)", "", str(caught.value))


def rl(study: Study, name: str) -> RlStage:
    stage = study.stages[name]
    assert isinstance(stage, RlStage)
    return stage


def test_without_a_scale_the_study_is_as_it_stands(read: Read) -> None:
    study = read()
    assert (study.name, rl(study, "math").steps, study.domains["math"].config) == ("mini", 20, {"level": 2})


def test_mappings_are_merged_and_everything_else_is_replaced(read: Read) -> None:
    study = read(overrides=["scale=smoke"])
    math, other = rl(study, "math"), rl(study, "other")
    assert (math.steps, math.algorithm, math.optim.clip, math.optim.beta1) == (2, {"use": "grpo"}, 2.0, 0.5)
    assert (other.steps, other.optim.clip) == (20, 1.0), "stages share a block, and only one of them is changed"
    assert study.domains["math"].config == {"level": 1}
    evals = study.stages["evals"].model_dump()
    assert (evals["models"], evals["suites"]) == (["math"], ["quiz"])


def test_a_scaled_study_has_a_name_of_its_own(read: Read) -> None:
    assert read(overrides=["scale=smoke"]).name == "mini-smoke"
    assert read(overrides=["scale=wide"]).name == "wide"
    assert read(overrides=["name=mine", "scale=smoke"]).name == "mine"


def test_a_file_may_choose_its_own_scale(read: Read) -> None:
    assert rl(read("name: mini", "name: mini\nscale: smoke"), "math").steps == 2
    assert rl(read("name: mini", "name: mini\nscale: smoke", ["scale=wide"]), "math").prompts == 64
    assert rl(read("name: mini", "name: mini\nscale: smoke", ["scale=null"]), "math").steps == 20


def test_other_overrides_come_after_the_scale(read: Read) -> None:
    assert rl(read(overrides=["stages.math.steps=7", "scale=smoke"]), "math").steps == 7


def test_a_scaled_study_survives_its_own_dump(read: Read) -> None:
    study = read(overrides=["scale=smoke"])
    assert Study.model_validate(study.model_dump()) == study


@pytest.mark.parametrize(
    ("old", "new", "override", "message"),
    [
        ("", "", "smok", "--set scale=smok: there is no scale 'smok'. Did you mean 'smoke'? Allowed: smoke, wide."),
        ("name: mini", "name: mini\nscale: big", "", "study.yaml:2: there is no scale 'big'. Allowed: smoke, wide."),
        ("scales:", "x-scales:", "smoke", "there is no scale 'smoke'. Next: declare it below 'scales:'"),
        ("      math: *few", "      mth: *few", "smoke", "scales.smoke: stages has no 'mth'. Did you mean 'math'?"),
        ("domains: {math: {l", "domains: {maths: {l", "smoke", "scales.smoke: domains has no 'maths'."),
        ("{prompts: 64}", "{promts: 64}", "wide", "study.yaml:20: stages.math.promts: unknown key. Did you mean"),
        ("{prompts: 64}", "{prompts: 0}", "wide", "study.yaml:20: stages.math.prompts: should be greater than 0"),
        ("[math], suites", "[math, x], suites", "smoke", "study.yaml:16: stages.evals.models[1]: there is no model"),
        ("steps: 20", "steps: 0", "wide", "study.yaml:5: stages.math.steps, stages.other.steps: should be"),
        ("  wide:", "  wide: 3\n  wider:", "wide", "--set scale=wide: scales.wide should be a mapping. Found: 3."),
    ],
)
def test_a_wrong_scale_is_named(read: Read, old: str, new: str, override: str, message: str) -> None:
    assert message in refused(lambda: read(old, new, [f"scale={override}"] if override else []))


def test_what_another_scale_says_does_not_matter(read: Read) -> None:
    assert read("{prompts: 64}", "{promts: 64}", ["scale=smoke"]).name == "mini-smoke"


def test_the_schema_knows_scales() -> None:
    assert {"scale", "scales"} <= set(schema()["properties"])
