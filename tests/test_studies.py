"""Every study of the repository: it loads, resolves all that needs no download, and says where it differs from the paper.

What a study uses and no plugin of this repository offers is left out of it first; an offered one must be installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from m2rl_core.cli import app
from m2rl_core.config import check_components, grounded, load_study, split_reference
from m2rl_core.drift import Drift, drift
from m2rl_core.errors import DataError
from m2rl_core.paper import TABLE_1
from m2rl_core.plugins import Registry, load_plugins

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
PARTS = {"merge": "merger", "analyze": "analyzer"}


@pytest.fixture(scope="module")
def installed() -> Registry:
    return load_plugins()


def uses(value: Any) -> Iterator[str]:
    """Names of a component and of those within it, as ``{use: dare, then: ties}``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from uses(value["use"])
        yield from (name for key, below in value.items() if key == "then" for name in uses(below))


def offered(kind: str, name: str) -> bool:
    return (ROOT / "plugins" / f"{kind}s" / name.replace("-", "_")).is_dir()


def prepared(study: Path, registry: Registry, folder: Path) -> Path:
    """A copy of a study without the stages whose component is not offered, and with an engine that works here."""
    tree = yaml.safe_load(study.read_text())
    if tree.get("engine") and "vllm" not in registry.names("engine"):
        del tree["engine"]
    gone = set()
    for name, stage in tree["stages"].items():
        if (kind := PARTS.get(stage["kind"])) is not None:
            missing = [each for each in uses(stage[kind]) if not offered(kind, each)]
            gone |= {name} if missing else set()
    tree["stages"] = {name: stage for name, stage in tree["stages"].items() if name not in gone}
    for name, stage in list(tree["stages"].items()):
        if models := stage.get("models"):
            stage["models"] = [each for each in models if split_reference(each)[0] not in gone]
            if not stage["models"]:
                del tree["stages"][name]
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / study.name
    copy.write_text(yaml.safe_dump({k: v for k, v in tree.items() if not k.startswith("x-")}, sort_keys=False))
    return copy


@pytest.fixture
def make_study(tmp_path: Path, installed: Registry, tiny_model: Path) -> Any:
    def make(name: str) -> Path:
        if name == "bring-your-own-experts":
            for model in ("start", "math", "coding", "if"):
                shutil.copytree(tiny_model, tmp_path / "models" / model)
        return prepared(ROOT / "studies" / f"{name}.yaml", installed, tmp_path / "studies")

    return make


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def drifts(study: Path, registry: Registry, *overrides: str) -> dict[tuple[str, str], Drift]:
    loaded = grounded(load_study(study, overrides), study.parent)
    return {(each.claim.role, each.claim.text): each for each in drift(loaded, registry)}


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [study.stem for study in STUDIES])
def test_a_study_resolves_all_that_needs_no_download(make_study: Any, installed: Registry, name: str) -> None:
    study = make_study(name)
    data: list[DataError] = []
    check_components(grounded(load_study(study), study.parent), installed, data)
    for error in data:
        assert "no rows to read" in str(error) or "there is no" in str(error) or "is no folder" in str(error), error


@pytest.mark.parametrize("name", ["miniature", "cascade", "bring-your-own-experts"])
def test_studies_without_data_are_ready(make_study: Any, tmp_path: Path, name: str) -> None:
    result = m2rl("check", make_study(name), "--runs", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("name", ["qwen3-4b", "released-code", "one-gpu"])
def test_missing_data_is_told_after_everything_else(make_study: Any, tmp_path: Path, name: str) -> None:
    result = m2rl("check", make_study(name), "--runs", tmp_path / "runs", "--device", "h100x8")
    assert result.exit_code == 2
    assert "device-hours" in result.stdout
    assert "unknown" not in result.stdout, "the sizes of the start are known before it is downloaded"
    assert result.stderr.count("train-complete.jsonl") == {"one-gpu": 3}.get(name, 5)
    assert ("paper's GPU hours" in result.stdout) == ("Drift from the paper" in result.stdout) == (name != "one-gpu")
