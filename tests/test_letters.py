"""Whole studies, tiny and real, on the domains of ``letters_plugin.py``: a sixth domain, and domains in sequence."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study, combines, expert_domain, load_study, start_model
from m2rl_core.files import read_jsonl
from m2rl_core.report.arms import along, effort
from m2rl_core.report.evidence import Evidence
from m2rl_core.study import run_study

HERE = Path(__file__).parent
SIZES = {"vocab": 272, "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 32, "context": 128}
RL = {
    "kind": "rl", "init": "sft", "algorithm": "letters", "steps": 2, "prompts": 4, "group": 4, "max_tokens": 4,
    "tokens_per_device": 512, "lr": 0.01,
}  # fmt: skip
SFT = {"kind": "sft", "init": "init", "conversations": 40, "batch": 4, "lr": 0.01, "max_length": 128}
EVALS = {"kind": "eval", "max_tokens": 4, "limit": 2}
Tree = dict[str, Any]


class Count:
    """Takes down which nodes ran; fails where one does."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def cached(self, stage: str) -> None: ...

    def started(self, stage: str) -> None: ...

    def event(self, stage: str, fields: object) -> None: ...

    def finished(self, stage: str, seconds: float) -> None:
        self.ran.append(stage)

    def failed(self, stage: str, message: str) -> None:
        pytest.fail(f"{stage}: {message}")


def tree(domains: Iterable[str], stages: Tree) -> Tree:
    names = list(domains)
    shared = {"init": {"kind": "init", "domains": names, **SIZES}, "sft": {**SFT, "domains": names}}
    return {
        "name": "letters",
        "model": {"dtype": "float32"},
        "plugins": ["letters_plugin.py"],
        "domains": {n: {"use": "letters", "suite": f"{n}-heldout", "reasoning": "off"} for n in names},
        "stages": shared | stages,
    }


def run(study: Tree, folder: Path) -> tuple[Path, list[str]]:
    """The run's folder, and the nodes that ran."""
    count = Count()
    source, runs = folder / "study.yaml", folder / "runs"
    root = run_study(Study.model_validate(study), source=source, runs=runs, progress=count)
    return root, count.ran


@pytest.fixture
def home(tmp_path: Path) -> Path:
    shutil.copy(HERE / "letters_plugin.py", tmp_path)
    return tmp_path


# ── a sixth domain ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_sixth_domain_retrains_none_of_the_five_experts(home: Path) -> None:
    five = ["math", "coding", "science", "if", "agent"]
    study = tree(
        five,
        {
            **{name: {**RL, "domains": [name]} for name in five},
            "multi": {**RL, "domains": list(five), "mixture": "worst-task"},
            "average": {"kind": "merge", "base": "sft", "experts": list(five), "merger": "average"},
            "evals": {**EVALS, "models": ["math", "average"]},
        },
    )
    root, first = run(study, home)
    assert len(first) == 2 + 5 + 2 + 2 * 5
    before = {name: (root / name / "DONE").stat().st_mtime_ns for name in ("init", "sft", *five)}
    code = (home / "letters_plugin.py").read_text().replace('ClassVar[str] = "letters"', 'ClassVar[str] = "sixth"')
    (home / "sixth.py").write_text(code.replace('"letters-taught"', '"sixth-taught"'))
    study["plugins"].append("sixth.py")
    study["domains"]["tables"] = {
        "use": "sixth",
        "suite": "tables-heldout",
        "liked": "24abcfghijklm",
        "reasoning": "off",
    }
    study["stages"]["tables"] = {**RL, "domains": ["tables"]}
    study["stages"]["multi"]["domains"].append("tables")
    study["stages"]["average"]["experts"].append("tables")
    _, again = run(study, home)
    new = {f"evals/average/{name}-heldout" for name in (*five, "tables")} | {"evals/math/tables-heldout"}
    assert set(again) == {"tables", "multi", "average"} | new
    assert len(again) == len(set(again))
    assert {name: (root / name / "DONE").stat().st_mtime_ns for name in before} == before
    assert run(study, home)[1] == []


# ── distillation off policy ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_experts_right_rollouts_teach_a_student_off_policy(home: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    both = ["math", "science"]
    study = tree(
        both,
        {
            **{name: {**RL, "domains": [name]} for name in both},
            "student": {
                **SFT,
                "init": "sft",
                "domains": both,
                "conversations": 2,
                "batch": 1,
                "rollouts": {n: n for n in both},
            },
            "evals": {**EVALS, "models": ["sft", *both, "student"]},
            "report": {"kind": "report"},
        },
    )
    root, _ = run(study, home)
    right = [r for name in both for r in read_jsonl(root / name / "rollouts.jsonl") if r["verdict"] == "right"]
    learned = list(read_jsonl(root / "student" / "metrics.jsonl"))
    assert {record["domain"] for record in right} == set(both)
    assert [row["conversations"] for row in learned] == [1, 1]
    assert max(row["tokens"] for row in learned) <= RL["max_tokens"], "what was sampled counts, not the prompts"
    with (root / "report" / "tables" / "arms.csv").open(newline="") as file:
        ways = {row["model"]: row["way"] for row in csv.DictReader(file)}
    assert ways["student"] == "distil"
    study["stages"]["science"]["steps"] = 3  # a teacher that goes on teaches anew
    assert {node.partition("/")[0] for node in run(study, home)[1]} == {"science", "student", "evals", "report"}


# ── domains in sequence ──────────────────────────────────────────────────────────────────────────────────────────────


def cascade() -> Tree:
    """Math, then science from math's second step, then a repair by both experts; and a mixed model beside them."""
    both = ["math", "science"]
    return tree(
        both,
        {
            "math": {**RL, "domains": ["math"], "steps": 3, "keep_every": 1},
            "science": {**RL, "domains": ["science"]},
            "cascade": {**RL, "init": "math@2", "domains": ["science"], "steps": 4},
            "repaired": {
                **RL, "init": "cascade", "domains": both, "algorithm": "letters-taught", "steps": 1,
                "teachers": {"math": "math", "science": "science"},
            },
            "multi": {**RL, "domains": both, "steps": 6},
            "evals": {**EVALS, "models": ["sft", "math", "math@1", "math@2", "cascade", "repaired", "multi"]},
            "report": {"kind": "report"},
        },
    )  # fmt: skip


def test_a_cascade_is_a_mixed_arm_and_halfway_it_is_none() -> None:
    study = cascade()
    study["domains"]["if"] = study["domains"]["math"]
    study["stages"]["third"] = {**RL, "init": "cascade", "domains": ["if"]}
    study["stages"]["polished"] = {**RL, "init": "multi", "domains": ["math"]}
    plan = Study.model_validate(study)
    roles = {name: combines(plan, name) for name in plan.stages}
    assert {name: role for name, role in roles.items() if role} == {
        "repaired": "distil", "multi": "mix", "third": "mix", "polished": "mix",
    }  # fmt: skip
    del study["stages"]["third"]
    assert combines(Study.model_validate(study), "cascade") == "mix", "a repair adds no domain"
    assert [expert_domain(plan, name) for name in ("math", "cascade", "third", "multi")] == ["math", None, None, None]
    assert start_model(plan) == "sft"


def test_a_cascades_work_is_that_of_all_its_stages(tmp_path: Path) -> None:
    evidence = Evidence(Study.model_validate(cascade()), [], tmp_path)
    steps = {name: effort(evidence, name).steps for name in ("cascade", "repaired", "multi", "math@2")}
    # the repair needs all three of math's steps as a teacher, though its own start took two
    assert steps == {"cascade": 2 + 4, "repaired": 3 + 4 + 2 + 1, "multi": 6, "math@2": 2}
    assert effort(evidence, "repaired").prompts == 10 * 4
    assert effort(evidence, "repaired").samples == 10 * 16


@pytest.mark.slow
def test_a_cascade_runs_and_is_reported_with_all_that_it_took(home: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    study = cascade()
    root, ran = run(study, home)
    assert len(ran) == 7 + 7 * 2 + 1
    records = list(read_jsonl(root / "cascade" / "rollouts.jsonl"))
    assert {record["domain"] for record in records} == {"science"}

    def table(name: str) -> list[dict[str, str]]:
        with (root / "report" / "tables" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    arms = {row["model"]: row for row in table("arms") if row["model"]}
    assert {name: row["way"] for name, row in arms.items()} == {
        "sft": "start", "cascade": "mix", "multi": "mix", "repaired": "distil",
    }  # fmt: skip
    assert [arms[name]["RL steps"] for name in ("cascade", "multi", "repaired")] == ["6", "6", "10"]

    def seconds(stage: str, until: int = 99) -> float:
        rows = read_jsonl(root / stage / "times.jsonl")
        return float(
            sum(r["cpu_seconds"]["total"] for r in rows if until == 99 or (r["step"] is not None and r["step"] < until))
        )

    assert float(arms["cascade"]["CPU-seconds"]) == pytest.approx(seconds("math", 2) + seconds("cascade"), rel=0.01)
    plan = Study.model_validate(study)
    whole = Evidence(plan, _nodes(study, home, root), root / "report")
    assert list(along(whole, "cascade")) == ["cascade", "math@1", "math@2"]
    assert json.loads((root / "evals" / "cascade" / "math-heldout" / "scores.json").read_text())["prompts"] == 2
    # a longer second leg runs that leg and what follows from it
    study["stages"]["cascade"]["steps"] = 5
    again = {node.partition("/")[0] + "/" + node.split("/")[1] if "/" in node else node for node in run(study, home)[1]}
    assert again == {"cascade", "repaired", "evals/cascade", "evals/repaired", "report"}


def _nodes(study: Tree, home: Path, root: Path) -> Any:
    from m2rl_core.config import grounded
    from m2rl_core.plugins import load_plugins
    from m2rl_core.study import plan

    return plan(grounded(Study.model_validate(study), home), load_plugins([home / "letters_plugin.py"]), root.parent)


def test_a_cascade_is_checked_like_any_study(home: Path) -> None:
    import yaml

    file = home / "study.yaml"
    file.write_text(yaml.safe_dump(cascade()))
    assert load_study(file).stages["cascade"].kind == "rl"
