"""Runs of one study with different seeds are one study with all of them; other runs are refused by what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from m2rl_core.config import Study
from m2rl_core.errors import ConfigError, RunError
from m2rl_core.study import one_study


def run(root: Path, name: str, **changed: Any) -> Path:
    """A study's folder in which nothing is done yet."""
    rl = {"kind": "rl", "init": "start", "algorithm": "grpo", "domains": ["math"]}
    stages = {"start": {"kind": "model", "path": "/models/start"}, "math": {**rl, "steps": changed.pop("steps", 4)}}
    study = Study.model_validate({"name": name, "domains": {"math": "math"}, "stages": stages, **changed})
    folder = root / name
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")), encoding="utf-8")
    return folder


def test_one_run_is_its_study(tmp_path: Path) -> None:
    folder = run(tmp_path, "a", seed=3)
    study, nodes = one_study([folder])
    assert (study.name, study.seed, study.seeds) == ("a", 3, None)
    assert [(node.stage, node.seed, node.folder) for node in nodes] == [
        ("start", 3, folder / "start"), ("math", 3, folder / "math"),
    ]  # fmt: skip


def test_runs_are_repetitions(tmp_path: Path) -> None:
    one, several = run(tmp_path, "a", seed=3), run(tmp_path, "b", seeds=[4, 5])
    study, nodes = one_study([one, several])
    assert (study.name, study.seeds) == ("a", [3, 4, 5])
    trained = {node.seed: node.folder for node in nodes if node.stage == "math"}
    assert trained == {3: one / "math", 4: several / "seed-4" / "math", 5: several / "seed-5" / "math"}


def test_another_study_is_refused_by_what_differs(tmp_path: Path) -> None:
    folders = [run(tmp_path, "a", seed=3), run(tmp_path, "b", seed=4, steps=5)]
    with pytest.raises(RunError, match=r"they differ in 'stages\.math\.steps'\. Found: 4 and 5\."):
        one_study(folders)


def test_a_seed_counts_once(tmp_path: Path) -> None:
    folders = [run(tmp_path, "a", seed=3), run(tmp_path, "b", seeds=[2, 3])]
    with pytest.raises(RunError, match=r"a and .*b have the same seed\. Found: 3\."):
        one_study(folders)


@pytest.mark.parametrize("name", ["../../elsewhere", "<script>", "a b"])
def test_stages_that_cannot_name_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    """A report names files by stages, so that a study from elsewhere must not choose where they lie."""
    folder = run(tmp_path, "a")
    study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    study["stages"][name] = study["stages"].pop("math")
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot name a folder"):
        one_study([folder])
