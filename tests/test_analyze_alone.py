"""``m2rl analyze`` over bare folders of models: what can be asked of them, and what cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from m2rl_core.cli import app
from m2rl_core.findings import read_findings

PLUGIN = str(Path(__file__).parent / "even_plugin.py")


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["analyze", *map(str, arguments), "--plugin", PLUGIN])


def test_models_are_compared_with_their_base(tmp_path: Path, tiny_model: Path, other_model: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the second time over the first one's files
        done = m2rl("moved", "--base", tiny_model, "--model", f"math={other_model}", "--out", out)
        assert done.exit_code == 0, done.output
    [[expert, tokens, moved]] = read_findings(out).tables["moved"].rows
    one, two = (load_file(folder / "model.safetensors") for folder in (tiny_model, other_model))
    apart = sum((one[name] - two[name]).abs().sum().item() for name in one if name != "lm_head.weight")
    assert (expert, tokens) == ("math", tokens)
    assert moved == pytest.approx(apart, rel=1e-4)
    assert "Weights move" in done.stdout
    assert "math" in done.stdout
    assert (out / "tables" / "moved.csv").read_text().startswith("expert,tokens,weights\nmath,")
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1


def test_findings_for_programs(tmp_path: Path, tiny_model: Path, other_model: Path) -> None:
    out = tmp_path / "out"
    done = m2rl("moved", "--base", tiny_model, "--model", f"math={other_model}", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found.pop("out") == str(out)
    assert found == json.loads((out / "findings.json").read_text())


def test_a_studys_file_gives_domains_and_settings(tmp_path: Path, tiny_model: Path, other_model: Path) -> None:
    study = tmp_path / "study.yaml"
    stages = {"multi": {"kind": "rl", "init": "sft", "algorithm": "plain", "domains": ["a"]}}
    stages["sft"] = {"kind": "model", "path": str(tiny_model)}
    tree = {"name": "s", "domains": {"a": {"use": "even", "reasoning": "off"}}, "stages": stages}
    study.write_text(json.dumps({**tree, "plugins": [PLUGIN], "model": {"dtype": "float32"}}))
    models = ("--model", f"sft={tiny_model}", "--model", f"multi={other_model}")
    done = CliRunner().invoke(
        app, ["analyze", "look", "--study", str(study), *models, "--out", str(tmp_path / "out"), "--set", "tokens=3"]
    )
    assert done.exit_code == 0, done.output
    [[domain, expert, kl, _, moved, _]] = read_findings(tmp_path / "out").tables["looked"].rows
    assert (domain, expert) == ("a", "multi")
    assert kl == pytest.approx(0.0, abs=1e-5)
    assert isinstance(moved, float)
    assert moved > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["moved"], "no model to analyse"),
        (["moved", "--model", "math"], "'math' should read NAME=DIR"),
        (["moved", "--model", "math=nowhere"], "the model 'math' is no Hugging Face folder"),
        (["move", "--model", "math={model}"], "analyzer 'move' is not available. Did you mean 'moved'?"),
        (["moved", "--model", "math={model}", "--set", "aks=x"], "Did you mean 'ask'?"),
        (["moved", "--model", "math={model}", "--set", "ask=math"], "no evaluation of model 'math' to analyse"),
        (["moved", "--model", "math={model}", "--set", "ask=math"], "name a study with --study"),
        (["moved", "--model", "math={model}"], "there is no model '' to analyse"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, tiny_model: Path, arguments: list[str], message: str) -> None:
    done = m2rl(*(text.format(model=tiny_model) for text in arguments), "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out" / "findings.json").exists()
