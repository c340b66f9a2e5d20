"""The report's own tests of the paper's findings, Tables 1 and 8, cost by domain, and waiting, on made-up runs."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from m2rl_core.config import Study, combines
from m2rl_core.files import append_jsonl
from m2rl_core.paper.claims import GPU_HOURS
from m2rl_core.paper.counterparts import counterpart, gpu_hours, role_of
from m2rl_core.report import write_report
from m2rl_core.report.core_claims import cost_claim, equal, not_below
from m2rl_core.report.data import blend
from m2rl_core.report.domain_cost import by_domain, stalls
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.merges import merges
from m2rl_core.report.published import SCORES
from m2rl_core.report.scores import scores
from m2rl_core.run import NodeView
from m2rl_core.seeding import derive
from m2rl_core.statistics.scores import Estimate
from m2rl_core.types import ClaimVerdict

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

BOTH = ["math", "science"]
RIGHT = {
    "sft": (0.3, 0.3), "math": (0.8, 0.5), "science": (0.5, 0.8), "multi": (0.8, 0.8), "opd": (0.8, 0.8),
    "ties": (0.9, 0.4), "sum": (0.5, 0.85), "rival": (0.1, 0.1),
}  # fmt: skip
"""Model → share of right answers in math and in science."""
PROMPTS = 300


def study(sft: Mapping[str, Any] | None = None) -> Study:
    expert = {"kind": "rl", "init": "sft", "algorithm": "grpo", "steps": 2, "prompts": 4, "group": 4}
    merge = {"kind": "merge", "base": "sft", "experts": BOTH}
    shown = {"kind": "sft", "init": "base", "domains": {"math": 3, "science": 1}, "conversations": 640, "batch": 64}
    stages: dict[str, Any] = {
        "base": {"kind": "model", "path": "./base"},
        "rival": {"kind": "model", "path": "./rival"},
        "sft": shown | dict(sft or {}),
        **{name: {**expert, "domains": [name]} for name in BOTH},
        "multi": {**expert, "domains": BOTH},
        "opd": {**expert, "domains": BOTH, "teachers": {d: d for d in BOTH}},
        "ties": {**merge, "merger": "ties"},
        "sum": {**merge, "merger": "task-arithmetic"},
        "evals": {"kind": "eval", "models": ["*"]},
        "report": {"kind": "report"},
    }
    return Study.model_validate({"name": "toy", "domains": {d: d for d in BOTH}, "stages": stages})


def make(root: Path, *, models: Sequence[str] = tuple(RIGHT), sft: Mapping[str, Any] | None = None) -> list[NodeView]:
    """Nodes of a run below ``root``, all of them done."""
    plan = study(sft)
    pieces = [
        NodeView(name, name, stage.kind, root / name, 17, (), "")
        for name, stage in plan.stages.items()
        if name != "evals"
    ]
    pieces += [
        NodeView("evals", "evals", "eval", root / "evals" / m / suite, 17, (), "") for m in models for suite in BOTH
    ]
    for piece in pieces:
        piece.folder.mkdir(parents=True)
        (piece.folder / "DONE").touch()
        if piece.kind == "eval":
            evaluation(piece)
        if piece.kind == "rl":
            domains = BOTH if piece.stage in ("multi", "opd") else [piece.stage]
            append_jsonl(piece.folder / "times.jsonl", times(domains))
    return pieces


def right(model: str, suite: str, i: int) -> bool:
    return random.Random(f"{suite}{i}").random() < RIGHT[model][BOTH.index(suite)]


def evaluation(piece: NodeView) -> None:
    model, suite = piece.folder.parts[-2:]
    said = {"domain": suite, "suite": suite, "verdict": "right", "finish": "stop", "messages": [], "response": []}
    rows = [
        said | {"prompt": f"{suite}/{i}", "weight": 1.0, "reward": float(right(model, suite, i)), "reason": ""}
        for i in range(PROMPTS)
    ]
    append_jsonl(piece.folder / "samples.jsonl", rows)
    scores = {"model": model, "suite": suite, "domain": suite, "k": 1, "prompts": PROMPTS, "failed": 0}
    (piece.folder / "scores.json").write_text(json.dumps(scores))


def times(domains: Sequence[str]) -> list[dict[str, Any]]:
    """Two steps; in both math is drawn in a quarter of the time, and it waits 2 and 4 seconds."""
    rows = []
    for step, wait in enumerate((2.0, 4.0)):
        seconds = {"total": 20.0, "rollout": 8.0, "train": 4.0, "verify/math": 0.5}
        seconds |= {"rollout/math": 2.0, "rollout/science": 6.0, "train/science": 4.0}
        waits = {"wait/math": wait, "wait/science": 0.0} if len(domains) > 1 else {}
        rows.append({"step": step, "seconds": seconds | waits, "cpu_seconds": {k: 2 * v for k, v in seconds.items()}})
    return rows


def table(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "report" / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_report(study(), make(folder), folder / "report")
    return folder


# ── the paper's own numbers ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_share_of_gpu_hours_is_of_totals_and_a_mixed_step_costs_more() -> None:
    experts = sum(GPU_HOURS[domain] for domain in ("math", "coding", "science", "if", "agent"))
    claim = cost_claim(GPU_HOURS["mixed"], 1000, experts, 5 * 400)
    assert claim.statistic == pytest.approx(0.637, abs=5e-4)
    assert claim.verdict == "holds"
    assert "of 1000 steps and of 2000; a step of the mixed run costs 1.27 times" in claim.note


@pytest.mark.parametrize(
    ("who", "mean"),
    [
        ("average", 53.74), ("sce", 60.70), ("ties", 61.00), ("dare+ties", 60.75), ("task-arithmetic", 60.22),
        ("dare+task-arithmetic", 60.99), ("distilled", 60.46), ("qwen3-4b", 52.94),
    ],
)  # fmt: skip
def test_the_papers_scores_have_the_means_that_its_table_4_states(who: str, mean: float) -> None:
    assert fmean(SCORES[who]) == pytest.approx(mean, abs=0.006)


def test_a_study_that_repeats_the_paper_has_its_numbers_beside_its_own(tmp_path: Path) -> None:
    plan = study().model_copy(update={"reproduces": "paper"})
    write_report(plan, make(tmp_path), tmp_path / "report")
    found = {(row["model"], row["of"]): row for row in table(tmp_path, "paper_scores")}
    assert float(found["multi", "the paper"]["mean"]) == pytest.approx(61.18, abs=0.006)
    assert 75 < float(found["multi", "this study"]["math"]) < 85
    assert found["multi", "the paper"]["math"] == ""
    assert {model for model, _ in found} == set(RIGHT) - {"rival"} - {"base"}
    cost = {row["stage"]: row for row in table(tmp_path, "paper_cost")}
    assert float(cost["math"]["device-hours"]) == pytest.approx(80 / 3600)
    assert float(cost["math"]["% of all"]) == 25
    assert float(cost["math"]["% of all there"]) == pytest.approx(100 * 4782.3 / (4782.3 + 1140.8 + 10050.6 + 967.9))


def test_the_papers_numbers_stay_out_of_other_studies(root: Path) -> None:
    assert not list((root / "report" / "tables").glob("paper_*.csv"))


def test_a_mixed_run_that_costs_more_fails() -> None:
    assert cost_claim(12.0, 10, 10.0, 20).verdict == "fails"


@pytest.mark.parametrize(
    ("low", "high", "same", "kept"),
    [
        (-1.9, 1.9, "holds", "holds"), (-2.1, 1.0, "undecided", "undecided"), (0.5, 1.5, "holds", "holds"),
        (-9.0, -2.0, "fails", "fails"), (2.0, 5.0, "fails", "holds"), (-1.0, 9.0, "undecided", "holds"),
        (float("nan"), float("nan"), "undecided", "undecided"),
    ],
)  # fmt: skip
def test_equality_takes_a_narrow_interval(low: float, high: float, same: ClaimVerdict, kept: ClaimVerdict) -> None:
    found = Estimate((low + high) / 2, low, high, 1.0)
    assert (equal(found), not_below(found)) == (same, kept)


# ── claims of scores and cost ────────────────────────────────────────────────────────────────────────────────────────


def test_claims_of_scores_say_what_the_run_was_made_to_show(root: Path) -> None:
    found = {row["finding"]: row for row in table(root, "core_claims")}
    says = {name: row["in this study"] for name, row in found.items()}
    assert says["Each expert is the best of the experts in its own domain"] == "holds"
    assert says["The reasoning domains improve each other"] == "holds"
    assert says["Mixing does as well as experts that are merged"] == "fails"
    assert says["Merging weights keeps the experts' performance in their own domains"] == "fails"
    assert says["Merged experts do as well as rival"] == "holds"
    same = "Mixing costs no domain its expert's performance: there is little interference"
    assert (says[same], float(found[same]["statistic"])) == ("not measurable", 0.0)
    cost = found["The mixed run takes less device time than the experts together"]
    assert (float(cost["statistic"]), cost["in this study"]) == (0.5, "holds")
    gap = found["The reasoning domains improve each other"]
    assert float(gap["statistic low"]) < float(gap["statistic"]) < float(gap["statistic high"])


def test_claims_of_the_report_stand_in_the_papers_list(root: Path) -> None:
    listed = {row["finding"]: row for row in table(root, "claims")}
    for row in table(root, "core_claims"):
        assert listed[row["finding"]]["in this study"] == row["in this study"]
        assert listed[row["finding"]]["tested by"] == "this report"
    untested = [row for row in listed.values() if row["in this study"] == "not tested"]
    assert "The other domains neither help nor harm the agent's tasks" in {row["finding"] for row in untested}


def test_accuracy_along_training_is_missing_where_no_step_was_kept(root: Path) -> None:
    text = (root / "report" / "report.md").read_text(encoding="utf-8")
    assert "Missing: no kept step is evaluated" in text


# ── tables 1, 3 and 8 ────────────────────────────────────────────────────────────────────────────────────────────────


def disjoint(models: Sequence[str]) -> float:
    """By hand: each half of the prompts is scored by the model that is best on the other."""
    points: dict[str, dict[str, list[list[float]]]] = {}
    for model in models:
        points[model] = {suite: [[], []] for suite in BOTH}
        for suite in BOTH:
            for i in range(PROMPTS):
                half = derive("half", f"{suite}/{i}") % 2
                points[model][suite][half].append(100.0 * right(model, suite, i))
    winners = [max(models, key=lambda m: fmean(fmean(points[m][s][1 - half]) for s in BOTH)) for half in (0, 1)]
    return fmean(fmean(points[winners[0]][s][0] + points[winners[1]][s][1]) for s in BOTH)


def test_merging_is_the_best_of_the_merges_with_an_unbiased_choice_beside_it(root: Path) -> None:
    found = table(root, "scores")
    assert not {"ties", "sum", "rival"} & set(found[0])
    means = {row["model"]: float(row["mean"]) for row in table(root, "merges") if row["model"] != "opd"}
    best = max(means, key=lambda name: means[name])
    mean = next(row for row in found if row["suite"] == "mean")
    assert float(mean[f"Merging: {best}"]) == means[best]
    assert float(mean["Merging, disjoint choice"]) == pytest.approx(disjoint(("ties", "sum")))


def test_a_single_merge_keeps_its_name(tmp_path: Path) -> None:
    write_report(study(), make(tmp_path, models=[m for m in RIGHT if m != "sum"]), tmp_path / "report")
    columns = table(tmp_path, "scores")[0]
    assert "ties" in columns
    assert not [name for name in columns if name.startswith("Merging")]


def test_the_blend_is_shown_with_shares(root: Path) -> None:
    rows = [(r["source"], r["kind"], r["conversations"], r["%"]) for r in table(root, "blend")]
    shown = [("math", "demonstrations", "480", "75"), ("science", "demonstrations", "160", "25")]
    assert rows == [*shown, ("total", "", "640", "100")]


def test_a_blend_that_has_not_been_shown_is_missing(tmp_path: Path) -> None:
    pieces = make(tmp_path)
    (tmp_path / "sft" / "DONE").unlink()
    write_report(study(), pieces, tmp_path / "report")
    assert {r["conversations"] for r in table(tmp_path, "blend")} == {""}


def test_the_repeats_of_a_blend_are_counted(tmp_path: Path) -> None:
    sources = {"drawn": {"source": "a.jsonl", "sample": 30}, "again": {"source": "b.jsonl", "repeat": 10}}
    pieces = make(tmp_path)
    (tmp_path / "sft" / "blend").mkdir()
    for name, kept in {"drawn": 30, "again": 7}.items():
        (tmp_path / "sft" / "blend" / f"{name}.json").write_text(json.dumps({"rows": {"kept": kept}}))
    section = blend(Evidence(study({"domains": {}, "blend": sources}), pieces, tmp_path / "report"))
    assert section is not None
    rows = [row[1:5] for row in section.tables["blend"].rows]
    assert rows == [["drawn", "data set", 30, 30.0], ["again", "data set", 70, 70.0], ["total", None, 100, 100.0]]


def test_the_arms_stand_beside_imported_models(root: Path) -> None:
    rows = {row["model"]: row for row in table(root, "imported")}
    merged = next(name for name in rows if name.endswith("(merge)"))
    arms = ["multi (mix)", "mix − rival", merged, "merge − rival", "opd (distil)", "distil − rival"]
    assert list(rows) == ["rival", *arms]
    gap = rows["mix − rival"]
    for suite in (*BOTH, "mean"):
        assert float(gap[suite]) == pytest.approx(float(rows["multi (mix)"][suite]) - float(rows["rival"][suite]))
        assert float(gap[f"{suite} low"]) > 0


# ── merges of some experts (Table 6) ─────────────────────────────────────────────────────────────────────────────────


def three_experts() -> Study:
    """Two merges of all experts and one of two."""
    plan = study()
    expert = plan.stages["math"]
    merge = {"kind": "merge", "base": "sft", "merger": "ties"}
    more = {
        "if": expert.model_copy(update={"domains": ["if"]}),
        "all": {**merge, "experts": ["math", "science", "if"]},
        "dare": {**merge, "experts": ["math", "science", "if"], "merger": {"use": "dare", "then": "ties"}},
        "pair": {**merge, "experts": ["math", "if"]},
    }
    kept = {name: stage for name, stage in plan.stages.items() if name not in ("ties", "sum")}
    domains = {name: {"use": name} for name in (*BOTH, "if")}
    return Study.model_validate({"name": "toy", "domains": domains, "stages": kept | more})


def test_a_merge_of_some_experts_is_no_answer_to_the_study() -> None:
    plan = three_experts()
    assert {name: combines(plan, name) for name in ("all", "dare", "pair", "multi", "opd", "math")} == {
        "all": "merge", "dare": "merge", "pair": None, "multi": "mix", "opd": "distil", "math": None,
    }  # fmt: skip
    pieces = [
        NodeView("evals", "evals", "eval", Path("evals") / model / "math", 17, (), "")
        for model in ("sft", "math", "all", "pair")
    ]
    evidence = Evidence(plan, pieces, Path("report"))
    found = merges(evidence)
    assert found is not None
    assert {name: [row[0] for row in table.rows] for name, table in found.tables.items()} == {
        "merges": ["all"],
        "some_merges": ["pair"],
    }
    compared = scores(evidence)
    assert compared is not None
    assert compared.tables["scores"].columns == ["domain", "suite", "sft", "math", "all"]


def test_who_a_stage_is_in_the_paper() -> None:
    plan = three_experts()
    names = {name: counterpart(plan, name) for name in plan.stages}
    known = {
        "base": "base",
        "sft": "start",
        "math": "math",
        "if": "if",
        "multi": "mixed",
        "opd": "distilled",
        "all": "ties",
    }
    assert {name: who for name, who in names.items() if who} == known | {"science": "science", "dare": "dare+ties"}
    assert [role_of(plan, name) for name in ("math", "multi", "opd", "pair", "base")] == [
        "expert", "mixed", "distilled", "merge", None,
    ]  # fmt: skip
    stages = {**plan.stages, "rival": plan.stages["rival"].model_copy(update={"path": "Qwen/Qwen3-4B"})}
    assert counterpart(plan.model_copy(update={"stages": stages}), "rival") == "qwen3-4b"
    stated = gpu_hours(plan)
    assert stated == {
        "math": 4782.3, "science": 1140.8, "multi": 10050.6, "opd": 967.9, "if": 1180.0,
    }  # fmt: skip


# ── cost by domain ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_cost_is_split_by_domain(root: Path) -> None:
    rows = {(r["stage"], r["domain"]): r for r in table(root, "domain_cost")}
    one = rows["multi", "science"]
    assert [float(one[key]) for key in ("rollout", "train", "together", "% of all")] == [
        24,
        16,
        40,
        pytest.approx(500 / 6),
    ]
    assert float(one["CPU-seconds per step"]) == 20
    assert float(rows["multi", "math"]["verifier seconds"]) == 1.0
    assert one["score"] == rows["sft", "math"]["together"] == ""


def test_gpu_seconds_of_a_domain_are_clock_seconds_of_all_gpus(tmp_path: Path) -> None:
    pieces = make(tmp_path)
    rows = [row | {"gpus": 8} for row in times(BOTH)]
    (tmp_path / "multi" / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = by_domain(Evidence(study(), pieces, tmp_path / "report"), "GPU")
    [row] = [row for row in found.rows if row[:2] == ["multi", "math"]]
    assert row[2:] == [32.0, None, None, 32.0, pytest.approx(100 / 6), 16.0, 1.0]


def test_the_stall_of_a_slow_domain_is_what_the_others_wait(tmp_path: Path) -> None:
    found = stalls(Evidence(study(), make(tmp_path), tmp_path / "report"))
    assert found is not None
    rows = {(row[0], row[1]): row[2:] for row in found.rows}
    assert rows["multi", "math"] == [3.0, 37.5, 0.0, 0.0]
    assert rows["multi", "science"] == [0.0, 0.0, 100.0, 3.0]
    assert ("math", "math") not in rows
