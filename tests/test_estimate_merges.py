"""What merges take of the disk, beside real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from m2rl_core.config import Study, grounded, load_study
from m2rl_core.estimate import Machine, MergeCost, machine, merge_costs
from m2rl_core.merge import merge_models
from m2rl_core.plugins import load_plugins
from m2rl_core.testing.family import family

DEVICE = replace(machine("cpu").device, reading=1e6)


def study_of(folder: Path, *, trains: bool = False, **merge: Any) -> Study:
    """A merge of the family in ``folder``, whose experts may be trained by the study instead."""
    trained = {"kind": "rl", "init": "base", "domains": ["math"], "algorithm": "grpo", "steps": 2}
    stages: dict[str, Any] = {"base": {"kind": "model", "path": "base"}}
    for name in ("math", "science"):
        stages[name] = trained if trains else {"kind": "model", "path": name}
    stages["merged"] = {"kind": "merge", "base": "base", "experts": ["math", "science"], **merge}
    tree = {"name": "test", "domains": {"math": {"use": "math"}}, "stages": stages}
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    return grounded(load_study(folder / "study.yaml"), folder)


def cost(study: Study) -> MergeCost:
    [found] = merge_costs(study, load_plugins(), Machine(DEVICE))
    return found


@pytest.mark.parametrize(
    ("merger", "dtype", "tied"),
    [("average", None, False), ("task-arithmetic", "float32", True), ("sce", None, True), ("ties", None, True)],
)
def test_bytes_are_those_of_a_real_merge(tmp_path: Path, merger: str, dtype: str | None, tied: bool) -> None:
    """Exact for what is read; a file has its header beside the weights."""
    folders = family(tmp_path, tied=tied)
    base, read = folders.pop("base"), list[tuple[int, int]]()
    made = load_plugins().create("merger", {"use": merger}, "test")
    merge_models(
        made, base=base, experts=folders, out=tmp_path / "out", dtype=dtype, report=lambda *done: read.append(done)
    )
    found = cost(study_of(tmp_path, merger=merger, **({"dtype": dtype} if dtype else {})))
    assert found.models == 3
    assert found.readings * found.read == read[-1][1]
    header = 8 + int.from_bytes((tmp_path / "out" / "model.safetensors").read_bytes()[:8], "little")
    assert found.written == (tmp_path / "out" / "model.safetensors").stat().st_size - header
    assert found.most == found.written
    assert found.seconds == read[-1][1] / 1e6


def test_a_search_reads_for_every_batch_and_once_more(tmp_path: Path) -> None:
    family(tmp_path)
    plain = cost(study_of(tmp_path, trains=True, merger="task-arithmetic"))
    search = {"grid": {"scale": [0.2, 0.4, 0.6, 0.8]}, "batch": 2}
    found = cost(study_of(tmp_path, trains=True, merger="task-arithmetic", search=search))
    assert (plain.readings, found.readings) == (1, 4)  # five candidates with the stage's own settings
    assert found.most == 2 * found.written == 2 * plain.written
    assert found.read == plain.read == 5 * found.written  # stages write float32, and the base is bfloat16


def test_an_unknown_model_is_said_to_be_one(tmp_path: Path) -> None:
    folders = family(tmp_path)
    (folders["base"] / "config.json").unlink()
    assert "config.json cannot be read" in cost(study_of(tmp_path, merger="average")).unknown
