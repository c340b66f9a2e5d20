"""Every study of the repository: it resolves all that needs no download, and says where it differs from the paper.

Those that need no data are run in test_studies_run.py, the paper's in test_paper_study.py.
What a study uses and no plugin of this repository offers is left out of it first; an offered one must be installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from m2rl_core.cli import app
from m2rl_core.config import check_components, grounded, load_study, split_reference
from m2rl_core.errors import DataError
from m2rl_core.estimate import Estimate, estimate, machine
from m2rl_core.paper.claims import GPU_HOURS, TABLE_1
from m2rl_core.paper.drift import Drift, drift
from m2rl_core.plugins import Registry, load_plugins

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
PARTS = {"merge": "merger", "analyze": "analyzer"}
SCALES = [(s.stem, scale) for s in STUDIES for scale in yaml.safe_load(s.read_text()).get("scales", ())]
"""(study, one of its scales)."""


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


CORE = {"interference"}
"""Analyzers that need no plugin."""


def offered(kind: str, name: str) -> bool:
    return name in CORE or (ROOT / "plugins" / f"{kind}s" / name.replace("-", "_")).is_dir()


def prepared(study: Path, registry: Registry, folder: Path) -> Path:
    """A copy of a study without the stages whose component is not offered, and with an engine that works here."""
    tree = yaml.safe_load(study.read_text())
    if tree.get("engine") and "vllm" not in registry.names("engine"):
        tree["engine"] = {"use": "embedded", "cache_gib": 64}
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


def papers(study: Path, registry: Registry, *overrides: str) -> dict[tuple[str, str], str]:
    """(role, claim) → verdict, of all claims that do not say the same."""
    return {key: each.verdict for key, each in drifts(study, registry, *overrides).items() if each.verdict != "same"}


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


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_scale_resolves(make_study: Any, tmp_path: Path, name: str, scale: str) -> None:
    result = m2rl("check", make_study(name), "--runs", tmp_path / "runs", "--set", f"scale={scale}")
    assert result.exit_code == 0, result.stderr


def estimates(name: str, registry: Registry, device: str) -> dict[str, Estimate]:
    """Of the file as it is: an estimate needs no engine."""
    file = ROOT / "studies" / f"{name}.yaml"
    found = estimate(grounded(load_study(file), file.parent), registry, machine(device))
    assert not [each.problems or each.unknown for each in found if each.problems or each.unknown]
    return {each.stage: each for each in found}


def test_the_estimates_are_near_table_2(installed: Registry) -> None:
    """One estimate for all experts, since it knows no lengths of responses: beside the mean of the paper's five."""
    hours = {name: each.device_hours or 0 for name, each in estimates("qwen3-4b", installed, "h100x8").items()}
    experts = [GPU_HOURS[name] for name in ("math", "coding", "science", "if", "agent")]
    assert hours["math"] == pytest.approx(sum(experts) / 5, rel=0.3)
    assert hours["multi"] == pytest.approx(GPU_HOURS["mixed"], rel=0.3)
    assert hours["mt-opd"] == pytest.approx(GPU_HOURS["distilled"], rel=0.3)


def test_one_gpu_is_enough_for_its_study(installed: Registry) -> None:
    found = estimates("one-gpu", installed, "h100x1")
    assert max(each.memory.total for each in found.values() if each.memory) < 60e9
    assert sum(each.device_hours or 0 for each in found.values()) < 24


# ── drift ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def left_out() -> set[tuple[str, str]]:
    """Claims about components that this repository does not offer yet."""
    whole = {
        ("study", "Average, SCE, Ties, TA, and the last two with DARE"): ("merger", "sce", "ties", "dare"),
        ("merge", "mask ratio 0.8"): ("merger", "dare"),
        ("analyze", "changed by more than η = 1e-3"): ("analyzer", "weight-shift"),
        ("analyze", "layer 17"): ("analyzer", "weight-shift"),
        ("analyze", "Avg@8 of verdicts"): ("analyzer", "self-verification"),
    }
    return {claim for claim, (kind, *names) in whole.items() if not all(offered(kind, name) for name in names)}


def test_the_papers_study_says_what_the_paper_says(make_study: Any, installed: Registry) -> None:
    found = papers(make_study("qwen3-4b"), installed)
    assert {key for key, verdict in found.items() if verdict == "different"} == left_out()
    silent = {text for (_, text), verdict in found.items() if verdict == "paper silent"}
    assert {"longest conversation", "ratios that are masked: below", "clip above", "reduction of the loss"} <= silent


@pytest.mark.parametrize(
    ("override", "role", "claim"),
    [
        ("stages.coding.steps=399", "expert", "400 steps"),
        ("stages.multi.steps=400", "mixed", "1000 steps"),
        ("stages.multi.domains.if=16576000", "mixed", "the data sets directly mixed [%]"),
        ("stages.if.algorithm.importance=tis", "expert", "masked importance sampling"),
        ("stages.math.optim.weight_decay=0.0", "expert", "weight decay 0.1"),
        ("stages.sft.blend.science.repeat=9", "sft", "Nemotron-Science-v1: repeat 10 times"),
        ("stages.sft.blend.math.sample=2950524", "sft", "2,950,525 rows of Math-v2"),
        ("stages.mt-opd.lr=2.0e-6", "distilled", "learning rate 1e-6"),
        ("domains.math.mode=strict", "domain", "QwQ evaluator"),
        ("domains.agent.reasoning=optional", "domain", "formatting reward"),
        ("domains.coding.sandbox={use: auto}", "domain", "SandboxFusion runs the unit tests"),
        ("stages.average.base=base", "merge", "the fine-tuned model is the anchor"),
        ("stages.evals.suites=[aime24, aime25]", "study", "nine benchmarks"),
    ],
)
def test_what_differs_is_told(make_study: Any, installed: Registry, override: str, role: str, claim: str) -> None:
    assert papers(make_study("qwen3-4b"), installed, override)[(role, claim)] == "different"


def test_the_released_code_differs_where_it_is_known_to(make_study: Any, installed: Registry) -> None:
    found = papers(make_study("released-code"), installed)
    absent = {("study", "nine benchmarks")} | {key for key in found if key[0] == "analyze"}
    assert {key for key, verdict in found.items() if verdict == "different"} == absent | left_out() | {
        ("study", "starts from Qwen3-4B-Base"),
        ("sft", "one epoch"),
        ("expert", "masked importance sampling"),
        ("mixed", "masked importance sampling"),
        ("mixed", "1000 steps"),
        ("distilled", "200 steps"),
        ("domain", "formatting reward"),
        ("domain", "QwQ evaluator"),
        ("merge", "mask ratio 0.8"),
    }


def test_values_that_differ_name_their_stages(make_study: Any, installed: Registry) -> None:
    found = drifts(make_study("qwen3-4b"), installed, "stages.coding.steps=399")[("expert", "400 steps")]
    assert found.found == "math science if agent: 400, coding: 399"


# ── what the paper states ────────────────────────────────────────────────────────────────────────────────────────────


def test_table_1_adds_up() -> None:
    total = sum(row.samples for row in TABLE_1.values())
    assert total == 14_121_873
    for row in TABLE_1.values():
        assert row.percent == pytest.approx(100 * row.samples / total, abs=0.015)  # its 16.04 is 16.03


def test_table_2_gives_the_papers_ratio() -> None:
    """The abstract's 63.7 % of the GPU hours: the mixed run against the five experts."""
    experts = sum(GPU_HOURS[name] for name in ("math", "coding", "science", "if", "agent"))
    assert GPU_HOURS["mixed"] / experts == pytest.approx(0.637, abs=0.0005)
