"""Studies of the repository that need no data, run as their files say, from their first stage to the report.

The miniature is run in test_end_to_end.py. Nothing is learned here: what is overridden are counts of steps, prompts and
samples, and the sizes of models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from m2rl_core.cli import app
from m2rl_core.config import Study, load_study
from m2rl_core.study import one_study

pytestmark = pytest.mark.slow

STUDIES = Path(__file__).resolve().parents[1] / "studies"


def run(file: Path, runs: Path, changes: Mapping[str, object]) -> tuple[Study, Path]:
    """The study as it was run, nothing left out, and its folder."""
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    done = CliRunner().invoke(app, ["run", str(file), "--runs", str(runs), *sets])
    assert done.exit_code == 0, done.stderr
    [folder] = [path for path in runs.iterdir() if path.is_dir()]
    study, nodes = one_study([folder])
    assert set(study.stages) == set(load_study(file).stages)
    assert [node.id for node in nodes if not (node.folder / "DONE").exists()] == []
    assert (folder / "report" / "index.html").is_file()
    return study, folder


def test_the_cascade_runs_whole(tmp_path: Path) -> None:
    """Every stage goes on from the one before it, and the repair is taught by all five."""
    few = {"steps": 1, "prompts": 5, "group": 2}
    learning = ("math", "coding", "science", "agent", "if", "repair", "multi")
    changes = {
        **{f"stages.init.{key}": value for key, value in {"hidden": 32, "layers": 2, "ffn": 64}.items()},
        "stages.sft.conversations": 64,
        **{f"stages.{stage}.{key}": value for stage in learning for key, value in few.items()},
        "stages.evals.limit": 1,
        "stages.evals.max_tokens": 16,
    }
    study, folder = run(STUDIES / "cascade.yaml", tmp_path / "runs", changes)
    drawn = {name: [json.loads(line)["domain"] for line in lines(folder, name)] for name in learning}
    assert {name: set(domains) for name, domains in drawn.items()} == {
        **{name: {name} for name in learning[:5]},
        **{name: set(study.domains) for name in ("repair", "multi")},
    }
    assert "repair" in (folder / "report" / "findings.md").read_text()


def lines(folder: Path, stage: str) -> list[str]:
    return (folder / stage / "rollouts.jsonl").read_text().splitlines()


def test_models_trained_elsewhere_are_merged_measured_and_analysed(
    write_brief: Callable[..., None], tmp_path: Path
) -> None:
    """Small models in the places of the experts, and one prompt of every suite."""
    studies, models = tmp_path / "studies", tmp_path / "models"
    studies.mkdir()
    file = Path(shutil.copy(STUDIES / "bring-your-own-experts.yaml", studies))
    write_brief(models / "start", ["What is 12 + 30? Box it.", "Write a program that adds.", "Say it."], 0)
    for seed, name in enumerate(("math", "coding", "if")):
        shutil.copytree(models / "start", models / name)
        moved(models / name / "model.safetensors", seed)
    study, folder = run(file, tmp_path / "runs", {"stages.evals.limit": 1})
    merged = [name for name, stage in study.stages.items() if stage.kind == "merge"]
    assert len(merged) == 5
    for name in merged:
        assert (folder / name / "checkpoint" / "model.safetensors").is_file()
        assert len(list((folder / "evals" / name).iterdir())) == 6, "two suites of each domain"
    tables = json.loads((folder / "weight-shift" / "findings.json").read_text())["tables"]
    assert tables
    assert all(table["rows"] for table in tables.values())
    assert "Jaccard" in (folder / "report" / "index.html").read_text()


def moved(weights: Path, seed: int) -> None:
    """As if trained on something of its own; a model with its start's weights is no expert."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {k: t + 0.01 * torch.randn(t.shape, generator=draw).to(t.dtype) for k, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
