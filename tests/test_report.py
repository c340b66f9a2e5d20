"""The report of a small made-up run: everything is there in three forms, nothing is loaded, nothing can be executed."""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from m2rl_core.config import Study
from m2rl_core.errors import UserError
from m2rl_core.files import append_jsonl
from m2rl_core.report import write_report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

EXPERT = {"kind": "rl", "init": "sft", "steps": 40, "prompts": 16, "group": 16}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>`|\n[x](javascript:alert(3))"


@dataclass(frozen=True)
class Piece:
    """A node of the stage graph."""

    stage: str
    kind: str
    folder: Path
    seed: int


def study(distil: bool = False) -> Study:
    """Two domains, every way to combine them."""
    stages: dict[str, Any] = {
        "init": {"kind": "init", "domains": ["math", "science"]},
        "sft": {"kind": "sft", "init": "init", "domains": ["math", "science"], "conversations": 6400, "batch": 64},
        "math": {**EXPERT, "domains": ["math"]},
        "science": {**EXPERT, "domains": ["science"]},
        "multi": {**EXPERT, "domains": ["math", "science"], "steps": 100, "keep_every": 20},
        "average": {"kind": "merge", "base": "sft", "experts": ["math", "science"], "merger": {"use": "average"}},
        "task-arithmetic": {
            "kind": "merge",
            "base": "sft",
            "experts": ["math", "science"],
            "merger": {"use": "task-arithmetic"},
        },
        "evals": {"kind": "eval", "models": ["*", "multi@40", "multi@80"]},
        "report": {"kind": "report"},
    }
    if distil:
        teachers = {"math": "math", "science": "science"}
        stages["mt-opd"] = {**EXPERT, "domains": ["math", "science"], "teachers": teachers, "steps": 20}
    domains = {"math": {"use": "math", "config": {}}, "science": {"use": "science", "config": {}}}
    return Study.model_validate({"name": "toy", "domains": domains, "stages": stages})


# (math, science) ability of every model in points; suites are easier or harder by the second number.
ABILITY = {
    "sft": (44.0, 51.0), "math": (68.0, 47.0), "science": (46.0, 73.0), "average": (57.0, 62.0),
    "task-arithmetic": (67.0, 71.0), "multi": (64.0, 70.0), "multi@40": (55.0, 62.0), "multi@80": (63.0, 68.0),
    "mt-opd": (66.0, 71.5),
}  # fmt: skip
SUITES = {"math-easy": ("math", 6.0), "math-hard": ("math", -18.0), "science-easy": ("science", 4.0), "science-hard": ("science", -15.0)}  # fmt: skip


def nodes(study: Study, root: Path, seeds: Sequence[int]) -> Iterator[Piece]:
    for seed in seeds:
        home = root / f"seed-{seed}" if len(seeds) > 1 else root
        for name, stage in study.stages.items():
            if stage.kind == "eval":
                for model in (m for m in ABILITY if m.partition("@")[0] in study.stages):
                    for suite in SUITES:
                        yield Piece(name, "eval", home / name / model / suite, seed)
            elif stage.kind != "report":
                yield Piece(name, stage.kind, home / name, seed)


def fill(piece: Piece, study: Study, *, prompts: int = 60, k: int = 4) -> None:
    """Write what the node would have left."""
    chance = random.Random(f"{piece.folder}")
    piece.folder.mkdir(parents=True)
    if piece.kind == "eval":
        model, suite = piece.folder.parts[-2:]
        evaluation(piece, model, suite, prompts, k)
    else:
        stage = study.stages[piece.stage]
        steps = getattr(stage, "steps", 100 if piece.kind == "sft" else 1)
        append_jsonl(piece.folder / "times.jsonl", [times(chance, step, piece.kind) for step in [*range(steps), None]])
        if piece.kind == "rl":
            rows = [metrics(chance, step, list(stage.domains), steps) for step in range(steps)]
            append_jsonl(piece.folder / "metrics.jsonl", rows)
    (piece.folder / "DONE").touch()


def evaluation(piece: Piece, model: str, suite: str, prompts: int, k: int) -> None:
    domain, ease = SUITES[suite]
    hardness, luck = random.Random(suite), random.Random(f"{model}{suite}{piece.seed}")
    ability = ABILITY[model][domain == "science"] + ease + luck.gauss(0, 1.5)
    rows = []
    for i in range(prompts):
        chance = min(0.98, max(0.02, (ability + hardness.gauss(0, 25)) / 100))
        for sample in range(k):
            failed = luck.random() < 0.002
            reward = None if failed else float(luck.random() < chance)
            row = {"prompt": f"{suite}/{i}", "sample": sample, "reward": reward, "weight": 1.0, "reason": "timed out"}
            rows.append(row | {"domain": domain, "suite": suite, "response": [{"role": "assistant", "content": EVIL}]})
    append_jsonl(piece.folder / "samples.jsonl", rows)
    append_jsonl(piece.folder / "times.jsonl", [times(luck, None, "eval")])
    failed_count = sum(row["reward"] is None for row in rows)
    scores = {"model": model, "suite": suite, "domain": domain, "k": k, "prompts": prompts, "failed": failed_count}
    (piece.folder / "scores.json").write_text(json.dumps(scores))


def times(chance: random.Random, step: int | None, kind: str) -> dict[str, Any]:
    parts = {"rl": {"rollout": 0.5, "verify": 0.05, "train": 0.6, "sync": 0.02}, "sft": {"train": 0.15}}.get(kind, {"rollout": 2.0})
    spent = {name: seconds * chance.uniform(0.8, 1.2) for name, seconds in parts.items()}
    spent = {"total": sum(spent.values()) + 0.03, **spent}
    return {"step": step, "seconds": spent, "cpu_seconds": {name: 0.98 * seconds for name, seconds in spent.items()}}


def metrics(chance: random.Random, step: int, domains: Sequence[str], steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step}
    for i, domain in enumerate(domains):
        row[f"reward/{domain}"] = 0.45 + 0.05 * i + 0.25 * step / steps + chance.gauss(0, 0.03)
        row[f"zero_variance/{domain}"] = min(1, max(0, 0.3 + 0.3 * step / steps + chance.gauss(0, 0.06)))
        row[f"tokens/{domain}"] = 30 + 3 * i + chance.gauss(0, 1)
        row[f"truncated/{domain}"] = 0.01
        row[f"verifier_failures/{domain}"] = 0.0
        row[f"samples/{domain}"] = 128
    return row


def make(root: Path, *, seeds: Sequence[int] = (17,), distil: bool = False, prompts: int = 60) -> tuple[Study, list[Piece]]:
    plan = study(distil)
    pieces = list(nodes(plan, root, seeds))
    for piece in pieces:
        fill(piece, plan, prompts=prompts)
    return plan, pieces
