"""Is there room to learn, and is it learned? The miniature study for several seeds, as a table.

    python benchmarks/calibrate.py [--study studies/miniature.yaml] [--seeds 17 18 19] [--runs runs/calibrate]

After ``sft`` every domain should stand between 25% and 75% with at least 30% of its groups mixed (of 16 samples neither
all right nor all wrong), and every expert should gain at least 15 points on its own held-out prompts.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from m2rl_core.config import EvalStage, RlStage, Study, load_study
from m2rl_core.files import read_jsonl
from m2rl_core.progress import open_progress
from m2rl_core.study import run_study

GROUP = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("studies/miniature.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--runs", type=Path, default=Path("runs/calibrate"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    study = load_study(given.study, [*given.set, f"seeds={given.seeds}"])
    study = with_groups(study)
    console = Console()
    with open_progress(console) as progress:
        folder = run_study(study, source=given.study, runs=given.runs, progress=progress)
    console.print(table(study, folder, given.seeds))


def experts(study: Study) -> dict[str, str]:
    """Domain → the reinforcement-learning stage that trains on it alone."""
    stages = {name: stage for name, stage in study.stages.items() if isinstance(stage, RlStage)}
    return {next(iter(stage.domains)): name for name, stage in stages.items() if len(stage.domains) == 1}


def with_groups(study: Study) -> Study:
    """The study with one more evaluation: groups of 16 from the model that the experts start from."""
    start = next(stage.init for stage in study.stages.values() if isinstance(stage, RlStage))
    suites = {f"{domain}-heldout": GROUP for domain in experts(study)}
    groups = EvalStage(kind="eval", models=[start], suites=suites, limit=128)
    return study.model_copy(update={"stages": {**study.stages, "groups": groups}})


def mixed(samples: Path) -> float:
    """Share of prompts whose samples are neither all right nor all wrong, in percent."""
    rewards = defaultdict(set)
    for record in read_jsonl(samples):
        rewards[record["prompt"]].add(record["reward"])
    return 100 * sum(len(values) > 1 for values in rewards.values()) / len(rewards)


def rows(study: Study, folder: Path, seed: int, many: bool) -> Iterator[list[str]]:
    base = folder / f"seed-{seed}" if many else folder
    evals = next(name for name, stage in study.stages.items() if isinstance(stage, EvalStage))
    for domain, expert in experts(study).items():
        start = study.stages[expert].init  # type: ignore[union-attr]
        found = {}
        for model in (start, expert):
            scores = json.loads((base / evals / model / f"{domain}-heldout" / "scores.json").read_text())
            found[model] = (scores["score"], scores["interval"], scores["prompts"])
        (before, low_high, prompts), (after, _, _) = found[start], found[expert]
        share = mixed(base / "groups" / start / f"{domain}-heldout" / "samples.jsonl")
        met = 25 <= before <= 75 and share >= 30 and after - before >= 15
        half = (low_high[1] - low_high[0]) / 2
        yield [
            str(seed), domain, str(prompts), f"{before:.1f} ± {half:.1f}", f"{share:.0f}%", f"{after:.1f}",
            f"{after - before:+.1f}", "yes" if met else "no",
        ]  # fmt: skip


def table(study: Study, folder: Path, seeds: list[int]) -> Table:
    made = Table("seed", "domain", "prompts", "after sft", "mixed groups", "expert", "gain", "met", title="Calibration")
    for seed in seeds:
        for row in rows(study, folder, seed, many=True):
            made.add_row(*row)
    return made


if __name__ == "__main__":
    main()
