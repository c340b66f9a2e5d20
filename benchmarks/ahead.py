"""Seconds per RL step with rollouts on policy and one step ahead (``staleness: 1``), in turns, on one model.

``python benchmarks/ahead.py MODEL_FOLDER``, with OMP_NUM_THREADS=1; needs two cores and the plugins math, grpo and mis.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from m2rl_core.config import Study
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun
from m2rl_core.train_rl import train_rl

STEPS, TURNS = 10, 3
KINDS = ("total", "sync", "rollout", "score", "train", "idle", "sampler")


def study(staleness: int) -> Study:
    stage = {
        "kind": "rl", "init": "start", "domains": ["math"], "algorithm": {"use": "grpo", "importance": "mis"},
        "steps": STEPS, "prompts": 16, "group": 16, "max_tokens": 64, "lr": 1e-4, "tokens_per_device": 8192,
        "staleness": staleness, "checkpoint_every": STEPS,
    }  # fmt: skip
    domains = {"math": {"use": "math"}}
    return Study.model_validate(
        {"name": "ahead", "model": {"dtype": "float32"}, "domains": domains, "stages": {"rl": stage}}
    )


def measured(model: Path, staleness: int, folder: Path) -> list[dict[str, Any]]:
    """Times of all steps but the first two, which warm up, and the last, beside which nothing is drawn."""
    one = study(staleness)
    run: StageRun[Any] = StageRun(
        name="rl", stage=one.stages["rl"], study=one, seed=1, folder=folder, models={"start": model},
        registry=load_plugins(),
    )  # fmt: skip
    train_rl(run)
    metrics = list(read_jsonl(folder / "metrics.jsonl"))
    rows = list(read_jsonl(folder / "times.jsonl"))[2 : STEPS - 1]
    print("rewards", [round(line["reward"], 3) for line in metrics], "length", round(metrics[-1]["length"], 1))
    tell(staleness, rows)
    return rows


def tell(staleness: int, rows: list[dict[str, Any]]) -> None:
    """The medians, and the fastest step."""
    seconds = {kind: round(median(row["seconds"].get(kind, 0.0) for row in rows), 3) for kind in KINDS}
    cpu = {f"cpu_{kind}": round(median(row["cpu_seconds"].get(kind, 0.0) for row in rows), 3) for kind in KINDS[:5]}
    told = {
        "staleness": staleness,
        "steps": len(rows),
        "fastest": min(row["seconds"]["total"] for row in rows),
        **seconds,
        **cpu,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(told), flush=True)


def main(model: Path) -> None:
    rows: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    for turn in range(TURNS):
        for staleness in (0, 1):
            with tempfile.TemporaryDirectory() as folder:
                rows[staleness] += measured(model, staleness, Path(folder) / f"{turn}")
    for staleness, found in rows.items():
        tell(staleness, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
