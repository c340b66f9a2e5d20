"""Arms beside the mixed run at the arms' own budgets, on a made-up run whose steps cost what the test says."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study
from m2rl_core.files import append_jsonl
from m2rl_core.report.arms import contenders
from m2rl_core.report.equal import Match, equal_table, matches, words
from m2rl_core.report.evidence import Evidence
from m2rl_core.run import NodeView

BOTH = ["math", "science"]
RIGHT = {"sft": 0.3, "math": 0.5, "science": 0.5, "multi": 0.8, "average": 0.6, "student": 0.7}
"""Model → share of right answers; a kept step's is given by each test."""
SECONDS = {"math": 1.0, "science": 1.0, "multi": 2.0, "student": 2.0}
"""CPU-seconds of a step."""


def study(steps: int = 30) -> Study:
    """The merge takes 20 steps, 80 prompts and 20 seconds, distilling 25, 90 and 30."""
    rl = {"kind": "rl", "init": "sft", "algorithm": "grpo", "prompts": 4, "group": 4, "steps": 10}
    stages: dict[str, Any] = {
        "sft": {"kind": "model", "path": "./sft"},
        **{name: {**rl, "domains": [name]} for name in BOTH},
        "multi": {**rl, "domains": BOTH, "steps": steps, "keep_every": 5},
        "average": {"kind": "merge", "base": "sft", "experts": BOTH, "merger": "average"},
        "student": {**rl, "domains": BOTH, "teachers": {d: d for d in BOTH}, "steps": 5, "prompts": 2},
        "evals": {"kind": "eval", "models": ["*"]},
    }
    return Study.model_validate({"name": "toy", "domains": {d: d for d in BOTH}, "stages": stages})


def evidence(root: Path, kept: Mapping[str, float], *, plan: Study | None = None) -> Evidence:
    """Of a finished run; ``kept`` are the mixed run's evaluated steps and their shares of right answers."""
    plan = plan or study()
    pieces = [
        NodeView(name, name, stage.kind, root / name, 17, (), "")
        for name, stage in plan.stages.items()
        if name != "evals"
    ]
    rates = {m: r for m, r in RIGHT.items() if m in plan.stages} | kept
    pieces += [
        NodeView("evals", "evals", "eval", root / "evals" / model / suite, 17, (), "")
        for model in rates
        for suite in BOTH
    ]
    for piece in pieces:
        piece.folder.mkdir(parents=True)
        (piece.folder / "DONE").touch()
        if piece.kind == "eval":
            evaluation(piece.folder, rates[piece.folder.parts[-2]])
        elif piece.stage in SECONDS:
            spent = {"seconds": {"total": 1.0}, "cpu_seconds": {"total": SECONDS[piece.stage]}}
            steps = range(getattr(plan.stages[piece.stage], "steps", 0))
            append_jsonl(piece.folder / "times.jsonl", [{"step": step, **spent} for step in steps])
        else:
            free = {"step": None, "seconds": {"total": 0.0}, "cpu_seconds": {"total": 0.0}}
            append_jsonl(piece.folder / "times.jsonl", [free])
    return Evidence(plan, pieces, root)


def evaluation(folder: Path, rate: float) -> None:
    """Prompts are as hard for one model as for another, so that models of one rate answer alike."""
    model, suite = folder.parts[-2:]
    hardness = [random.Random(f"{suite}{i}").random() for i in range(200)]
    rows = [
        {"prompt": f"{suite}/{i}", "weight": 1.0, "reward": float(hard < rate), "reason": ""}
        for i, hard in enumerate(hardness)
    ]
    append_jsonl(folder / "samples.jsonl", rows)
    scores = {"model": model, "suite": suite, "domain": suite, "k": 1, "prompts": len(rows), "failed": 0}
    (folder / "scores.json").write_text(json.dumps(scores))


def found(seen: Evidence) -> list[Match]:
    return matches(seen, contenders(seen))


def told(seen: Sequence[Match]) -> dict[tuple[str, str], tuple[str, float, str, str]]:
    return {(m.basis, m.arm.model): (m.model, m.portion, m.says, m.wanted) for m in seen}


def test_every_arm_meets_the_mixed_run_at_its_own_budget(tmp_path: Path) -> None:
    rates = {"multi@10": 0.55, "multi@15": 0.7, "multi@20": 0.6, "multi@25": 0.75}
    seen = found(evidence(tmp_path, rates))
    assert told(seen) == {
        ("RL steps", "average"): ("multi@20", 1.0, "undecided", ""),
        ("RL steps", "student"): ("multi@25", 1.0, "mix is better", ""),
        ("prompts", "average"): ("multi@20", 1.0, "undecided", ""),
        ("prompts", "student"): ("multi@20", pytest.approx(80 / 90), "distil is ahead, with more", "multi@22"),
        ("CPU-seconds", "average"): ("multi@10", 1.0, "merge is better", ""),
        ("CPU-seconds", "student"): ("multi@15", 1.0, "undecided", ""),
    }
    gaps = {(m.basis, m.arm.model): m.gap.value for m in seen}
    assert gaps["RL steps", "average"] == 0.0, "rates are equal, and so are answers"
    assert gaps["RL steps", "student"] == pytest.approx(5.0, abs=2.0)


def test_a_budget_that_nothing_meets_names_what_to_add(tmp_path: Path) -> None:
    seen = told(found(evidence(tmp_path, {})))
    assert seen["RL steps", "average"] == ("multi", 1.5, "mix is ahead, with more", "multi@20")
    assert seen["RL steps", "student"] == ("multi", 1.2, "mix is ahead, with more", "multi@25")
    assert seen["CPU-seconds", "average"] == ("multi", 3.0, "mix is ahead, with more", "multi@10")


def test_a_shorter_mixed_run_may_win_and_cannot_lose(tmp_path: Path) -> None:
    seen = told(found(evidence(tmp_path, {}, plan=study(steps=12))))
    assert seen["RL steps", "average"] == ("multi", 0.6, "mix is better, with less", "more steps of multi")
    assert seen["CPU-seconds", "student"] == ("multi", 0.8, "mix is better, with less", "more steps of multi")


def test_a_mixed_run_that_is_behind_with_more_is_beaten(tmp_path: Path) -> None:
    seen = told(found(evidence(tmp_path, {"multi@25": 0.4}, plan=study(steps=60))))
    assert seen["RL steps", "average"] == ("multi@25", 1.25, "merge is better, with less", "multi@20")
    assert seen["CPU-seconds", "average"] == ("multi@25", 2.5, "merge is better, with less", "multi@10")


def test_there_is_nothing_to_compare_without_a_mixed_run(tmp_path: Path) -> None:
    plan = study()
    apart = plan.model_copy(update={"stages": {n: s for n, s in plan.stages.items() if n != "multi"}})
    assert found(evidence(tmp_path, {}, plan=apart)) == []


def test_matches_are_told_as_a_table_and_in_words(tmp_path: Path) -> None:
    seen = found(evidence(tmp_path, {"multi@20": 0.6}))
    table = equal_table(seen)
    assert [row[1] for row in table.rows] == ["merge: average", "distil: student"] * 3
    assert table.rows[0][2:6] == [20, "multi@20", 20, 100.0]
    first = next(words(seen))
    assert first.startswith("At equal RL steps: multi@20 − average 0.0 points (0.0 to 0.0) at 20; multi@20 − student −")
    assert first.endswith("at 25, 80% of the budget, distil is ahead, with more.")
