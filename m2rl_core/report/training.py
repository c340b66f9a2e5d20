"""How the models were made: settings, cost, reward curves, and the health of the training signal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from m2rl_core.config import AnalyzeStage, EvalStage, MergeStage, RlStage, SftStage
from m2rl_core.report.domain_cost import by_domain, stalls
from m2rl_core.report.evidence import KINDS, Cost, Evidence, node_cost, unit_of
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link
from m2rl_core.types import Figure, Table

POINTS, CROWDED = 150, 30
"""Most points of a curve, alone and beside others; longer runs are averaged in bins."""

Rows = Sequence[Mapping[str, Any]]


def cost(evidence: Evidence) -> Section:
    """Table 2 of the paper, measured."""
    unit = unit_of(evidence)
    stages = {n: s for n, s in evidence.study.stages.items() if isinstance(s, SftStage | RlStage | MergeStage)}
    costs = {name: evidence.cost(name) for name in stages}
    costs |= {
        name: evidence.cost(name)
        for name, s in evidence.study.stages.items()
        if isinstance(s, EvalStage | AnalyzeStage)
    }
    label = {name: Link(name, evidence.stage_link(name, "times.jsonl")) for name in costs}
    settings = [_settings(label[name], stage, costs[name]) for name, stage in stages.items()]
    split = [_split(label[name], found) for name, found in costs.items()]
    tables = {
        "settings": Table(
            "Training settings and cost",
            ["stage", "domains", "batch", "group", "steps", f"{unit}-seconds", "per step"],
            settings,
            "Batch: prompts per step, or conversations per update. Means over seeds.",
        ),
        "cost": Table(
            f"Where the {unit}-seconds went",
            ["stage", "total", *KINDS, "other", "clock seconds"],
            split,
            _overlap(evidence),
        ),
    }
    tables["domain_cost"] = by_domain(evidence, unit)
    if waiting := stalls(evidence):
        tables["stalls"] = waiting
    return Section(
        "cost", "Training settings and cost", "What each stage took (Table 2 of the paper, measured).", tables
    )


def curves(evidence: Evidence) -> Section | None:
    """Figure 9 of the paper: rewards along every stage of reinforcement learning."""
    figures = {
        f"reward-{name}": _curve(evidence, name, "reward", f"{name}: training reward") for name in evidence.rl_stages()
    }
    figures |= {
        f"share-{name}": _curve(evidence, name, "share", f"{name}: share of the prompts")
        for name, stage in evidence.rl_stages().items()
        if stage.mixture is not None
    }
    text = "Mean reward of each step's samples, per domain, over seeds and, in long runs, some steps (Figure 9)."
    return Section("rewards", "Training rewards", text, {}, figures) if figures else None


def signal(evidence: Evidence) -> Section | None:
    """Whether there was anything to learn from: groups of one opinion teach nothing."""
    rows: list[list[Cell]] = []
    if not evidence.rl_stages():
        return None
    for name, stage in evidence.rl_stages().items():
        seeds = [r for r in evidence.metrics(name).values() if r]
        label = Link(name, evidence.stage_link(name, "metrics.jsonl"))
        rows += [[label, domain, *_signal(seeds, domain)] for domain in stage.domains]
    columns = [
        "stage",
        "domain",
        "first reward",
        "last reward",
        "zero variance, %",
        "cut off, %",
        "tokens",
        "failed, %",
        "staleness",
    ]
    note = (
        "Rewards: means over the first and the last tenth of the steps. Zero variance: groups whose samples all got "
        "the same reward. Cut off: samples that reached the token limit. Failed: verdicts that were not given. "
        "Staleness: steps between the weights that drew a token and those trained on it, measured, the mean over steps."
    )
    figures = {
        f"zero-variance-{name}": _curve(evidence, name, "zero_variance", f"{name}: zero-variance groups")
        for name in evidence.rl_stages()
    }
    text = "Groups whose samples all got the same reward carry no signal; their share says how much of a batch is idle."
    return Section(
        "signal", "Training signal", text, {"signal": Table("Training signal", columns, rows, note)}, figures
    )


def failures(evidence: Evidence) -> Section:
    """Verdicts that failed, which are counted and never scored."""
    rows = [[domain, *_failures(evidence, domain)] for domain in evidence.study.domains]
    columns = [
        "domain",
        "training verdicts",
        "training failed",
        "evaluation verdicts",
        "evaluation failed",
        "seconds each",
        "most frequent reason",
    ]
    note = "A failed verdict leaves its group or its average; it is never a 0. Seconds: in the verifier, per verdict."
    table = Table("Verifier failures", columns, rows, note)
    return Section("failures", "Verifier failures", "", {"failures": table})


def _failures(evidence: Evidence, domain: str) -> list[Cell]:
    """Numbers of one domain, over all stages and seeds."""
    trained = [
        (row.get(f"samples/{domain}", 0), row.get(f"verifier_failures/{domain}", 0.0))
        for name in evidence.rl_stages()
        for lines in evidence.metrics(name).values()
        for row in lines
    ]
    runs = [e for e in evidence.evaluations if e.scores["domain"] == domain]
    reasons = Counter(reason for e in runs for _, _, reward, reason in e.samples if reward is None)
    verdicts = sum(n for n, _ in trained), sum(len(e.samples) for e in runs)
    nodes = [n for n in evidence.nodes if n.kind == "rl"] + [e.node for e in runs]
    seconds = sum(cost.verifiers.get(domain, 0.0) for node in nodes if (cost := node_cost(node)))
    return [
        verdicts[0],
        round(sum(n * share for n, share in trained)),
        verdicts[1],
        sum(e.scores["failed"] for e in runs),
        seconds / sum(verdicts) if sum(verdicts) else None,
        next((reason[:200] for reason, _ in reasons.most_common(1)), ""),
    ]


def _settings(name: str, stage: SftStage | RlStage | MergeStage, cost: Cost | None) -> list[Cell]:
    seconds = cost.device if cost else None
    if isinstance(stage, MergeStage):
        return [name, f"{stage.merger['use']} of {', '.join(stage.experts)}", None, None, None, seconds, None]
    data = ", ".join(stage.domains)
    if isinstance(stage, RlStage):
        batch, group, steps = stage.prompts, stage.group, stage.steps
    else:
        batch, group, steps = stage.batch, None, stage.updates
        data = data or f"blend of {', '.join(stage.blend)}"
    each = seconds / steps if seconds is not None and steps else None
    return [name, data, batch, group, steps, seconds, each]


def _overlap(evidence: Evidence) -> str:
    """What ``rollout`` means where it happens beside training."""
    ahead = ", ".join(name for name, stage in evidence.rl_stages().items() if stage.staleness)
    what = (
        "the GPUs' time while training waited" if unit_of(evidence) == "GPU" else "all that the sampler's process took"
    )
    return f"Rollouts of {ahead} were drawn beside training; rollout is {what}." if ahead else ""


def _split(name: str, cost: Cost | None) -> list[Cell]:
    if cost is None:
        return [name, *[None] * (len(KINDS) + 3)]
    return [name, cost.device, *(cost.kinds.get(kind, 0.0) for kind in KINDS), cost.other, cost.wall]


def _curve(evidence: Evidence, name: str, metric: str, title: str) -> Figure:
    """A metric of one stage, a series per domain of the study, the mean over seeds."""
    seeds = [rows for rows in evidence.metrics(name).values() if rows]
    steps = max((len(rows) for rows in seeds), default=0)
    bins = _bins(steps, POINTS if len(evidence.rl_stages()[name].domains) == 1 else CROWDED)
    series = {
        domain: [_mean([row.get(f"{metric}/{domain}") for rows in seeds for row in rows[a:b]]) for a, b in bins]
        for domain in evidence.study.domains
    }
    label = {"reward": "mean reward", "zero_variance": "share of groups", "share": "share of prompts"}[metric]
    return Figure(title, "lines", [(a + b - 1) / 2 + 1 for a, b in bins], series, "step", label)


def _bins(steps: int, most: int) -> list[tuple[int, int]]:
    """Steps in at most so many bins of equal width."""
    width = max(1, math.ceil(steps / most))
    return [(a, min(a + width, steps)) for a in range(0, steps, width)]


def _signal(seeds: Sequence[Rows], domain: str) -> list[float | None]:
    """Numbers of one stage and domain, the mean over its seeds."""

    def mean(metric: str, rows: Sequence[Rows]) -> float | None:
        return _mean([row.get(f"{metric}/{domain}") for lines in rows for row in lines])

    def percent(metric: str) -> float | None:
        found = mean(metric, seeds)
        return None if found is None else 100 * found

    first = [lines[: math.ceil(len(lines) / 10)] for lines in seeds]
    last = [lines[-math.ceil(len(lines) / 10) :] for lines in seeds]
    shares = [percent("zero_variance"), percent("truncated"), mean("length", seeds), percent("verifier_failures")]
    return [mean("reward", first), mean("reward", last), *shares, mean("staleness", seeds)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None
