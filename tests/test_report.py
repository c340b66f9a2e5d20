"""The report of a small made-up run: everything is there in three forms, nothing is loaded, nothing can be executed."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from m2rl_core.config import Study
from m2rl_core.errors import UserError
from m2rl_core.files import append_jsonl, read_jsonl
from m2rl_core.report import training, write_report
from m2rl_core.report.arms import effort, expert_of, start_of, way_of
from m2rl_core.report.evidence import Cost, Evidence
from m2rl_core.report.figures import PALETTE, draw, standalone
from m2rl_core.report.pages import TEMPLATES, write_pages
from m2rl_core.report.samples import browsed
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Link, Measured, markdown, number, shown, to_csv
from m2rl_core.report.verdict import verdict
from m2rl_core.run import NodeView
from m2rl_core.types import Figure, Table

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

EXPERT = {"kind": "rl", "init": "sft", "algorithm": "grpo", "steps": 10, "prompts": 16, "group": 8}
MERGE = {"kind": "merge", "base": "sft", "experts": ["math", "science"]}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>`|\n</style>[x](javascript:alert(3))"
ABILITY = {
    "sft": (44.0, 51.0),
    "math": (70.0, 47.0),
    "science": (46.0, 75.0),
    "average": (57.0, 62.0),
    "task-arithmetic": (68.0, 72.0),
    "multi": (60.0, 64.0),
    "multi@10": (50.0, 56.0),
    "mt-opd": (66.0, 72.0),
}
"""Model → points in math and in science."""
SUITES = {"math-easy": ("math", 6), "math-hard": ("math", -18), "science-easy": ("science", 4)}
"""Suite → domain and how much easier than the domain it is."""


# ── a made-up run ────────────────────────────────────────────────────────────────────────────────────────────────────


def study(seeds: Sequence[int] = (17,), *, distil: bool = False) -> Study:
    """Two domains and every way to combine them."""
    both = ["math", "science"]
    stages: dict[str, Any] = {
        "init": {"kind": "init", "domains": both},
        "sft": {"kind": "sft", "init": "init", "domains": both, "conversations": 640, "batch": 64},
        "math": {**EXPERT, "domains": ["math"]},
        "science": {**EXPERT, "domains": ["science"]},
        "multi": {**EXPERT, "domains": both, "steps": 30, "keep_every": 10},
        "average": {**MERGE, "merger": {"use": "average"}},
        "task-arithmetic": {**MERGE, "merger": {"use": "task-arithmetic"}},
        "evals": {"kind": "eval", "models": ["*", "multi@10"]},
        "report": {"kind": "report"},
    }
    if distil:
        stages["mt-opd"] = {**EXPERT, "domains": both, "teachers": {d: d for d in both}, "steps": 5}
    domains = {name: {"use": name, "config": {}} for name in both}
    return Study.model_validate({"name": "toy", "seeds": list(seeds), "domains": domains, "stages": stages})


def nodes(plan: Study, root: Path) -> Iterator[NodeView]:
    for seed in plan.seeds or []:
        home = root / f"seed-{seed}"
        for name, stage in plan.stages.items():
            if stage.kind == "eval":
                for model in (m for m in ABILITY if m.partition("@")[0] in plan.stages):
                    yield from (
                        NodeView(name, name, "eval", home / name / model / suite, seed, (), "") for suite in SUITES
                    )
            elif stage.kind != "report":
                yield NodeView(name, name, stage.kind, home / name, seed, (), "")
    yield NodeView("report", "report", "report", root / "report", plan.seed, (), "")


def fill(piece: NodeView, plan: Study, prompts: int, shift: float, reason: str) -> None:
    """Write what the node would have left."""
    piece.folder.mkdir(parents=True)
    chance = random.Random(f"{piece.stage} {piece.seed}")
    if piece.kind == "eval":
        evaluation(piece, prompts, shift, reason)
    else:
        stage = plan.stages[piece.stage]
        steps = stage.steps if stage.kind == "rl" else 0
        append_jsonl(piece.folder / "times.jsonl", (times(chance, step) for step in [*range(steps), None]))
        if stage.kind == "rl":
            append_jsonl(piece.folder / "metrics.jsonl", (metrics(chance, i, stage.domains) for i in range(steps)))
    (piece.folder / "DONE").touch()


def evaluation(piece: NodeView, prompts: int, shift: float, reason: str) -> None:
    model, suite = piece.folder.parts[-2:]
    domain, ease = SUITES[suite]
    hardness, luck = random.Random(suite), random.Random(f"{model}{suite}{piece.seed}")
    points = ABILITY[model][domain == "science"] + ease + shift * (model == "multi")
    rows = []
    for i in range(prompts):
        p = min(0.98, max(0.02, (points + hardness.gauss(0, 20)) / 100))
        for k in range(2):
            reward = None if i == k == 0 and reason else float(luck.random() < p)
            row = {"prompt": f"{suite}/{i}{EVIL}", "sample": k, "weight": 1.0, "reward": reward, "reason": reason}
            rest = {
                "domain": domain,
                "suite": suite,
                "verdict": "failed" if reward is None else "right",
                "finish": "stop",
            }
            said = {
                "messages": [{"role": "user", "content": EVIL}],
                "response": [{"role": "assistant", "content": EVIL}],
            }
            rows.append(row | rest | said)
    append_jsonl(piece.folder / "samples.jsonl", rows)
    append_jsonl(piece.folder / "times.jsonl", [times(luck, None)])
    scores = {"model": model, "suite": suite, "domain": domain, "k": 2, "prompts": prompts, "failed": int(bool(reason))}
    (piece.folder / "scores.json").write_text(json.dumps(scores))


def times(chance: random.Random, step: int | None) -> dict[str, Any]:
    seconds = {"rollout": 0.5, "train": 0.75 * chance.uniform(0.9, 1.1), "sync": 0.25}
    seconds["total"] = sum(seconds.values()) + 0.5
    cpu_seconds = {kind: 2 * value for kind, value in seconds.items()} | {"verify/math": 0.0}
    return {"step": step, "seconds": seconds | {"verify/math": 0.125}, "cpu_seconds": cpu_seconds}


def metrics(chance: random.Random, step: int, domains: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step}
    for i, domain in enumerate(domains):
        row |= {f"reward/{domain}": 0.4 + 0.1 * i + 0.01 * step, f"zero_variance/{domain}": chance.uniform(0.2, 0.5)}
        row |= {f"length/{domain}": 30.0, f"truncated/{domain}": 0.01, f"samples/{domain}": 100}
        row |= {f"verifier_failures/{domain}": 0.01}
    return row


def make(
    root: Path,
    *,
    seeds: Sequence[int] = (17,),
    distil: bool = False,
    prompts: int = 40,
    shift: float = 0.0,
    reason: str = "",
) -> tuple[Study, list[NodeView]]:
    """A finished run below ``root``; ``shift`` makes the mixed model better, ``reason`` makes some verdicts fail."""
    plan = study(seeds, distil=distil)
    pieces = list(nodes(plan, root))
    for piece in pieces[:-1]:
        fill(piece, plan, prompts, shift, reason)
    return plan, pieces


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[NodeView], Path]:
    """Two seeds, all three ways, and some verdicts that failed with a hostile reason."""
    root = tmp_path_factory.mktemp("run")
    plan, pieces = make(root, seeds=(1, 2), distil=True, reason=EVIL)
    write_report(plan, pieces, root / "report")
    return plan, pieces, root / "report"


class Page(HTMLParser):
    """Tags, attributes and tables of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self._cell: list[str] | None = None
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        found = dict(attrs)
        if (found.get("id") or "").startswith("table-"):
            self._rows = self.tables[str(found["id"]).removeprefix("table-")] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._rows[-1].append("".join(self._cell))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        if self._cell is not None:
            self._cell.append(data)


def page(out: Path) -> Page:
    return Page((out / "index.html").read_text(encoding="utf-8"))


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ── three forms ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_table_is_there_in_three_forms(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    in_html, text = page(out).tables, (out / "report.md").read_text(encoding="utf-8")
    in_csv = {path.stem for path in (out / "tables").iterdir()}
    expected = {"arms", "margins", "equal", "scores", "merges", "kept_gain", "settings", "cost", "signal", "failures"}
    expected |= {"claims", "core_claims", "blend", "domain_cost", "stalls", "files", "evaluations"}
    assert set(in_html) == in_csv == expected
    assert set(re.findall(r"\(tables/([\w-]+)\.csv\)", text)) == in_csv
    for name, rows in in_html.items():
        with (out / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.reader(file))) == len(rows) > 1


def test_every_figure_is_there_in_three_forms(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    files = {path.stem for path in (out / "figures").iterdir()}
    stages = ("math", "science", "multi", "mt-opd")
    expected = {f"{kind}-{stage}" for kind in ("reward", "zero-variance") for stage in stages}
    assert files == expected | {"graph", "kept_gain", "accuracy-multi"}
    text = (out / "report.md").read_text(encoding="utf-8")
    assert set(re.findall(r"!\[[^]]*\]\(figures/([\w-]+)\.svg\)", text)) == files
    drawn = [value for tag, name, value in page(out).attributes if (tag, name) == ("svg", "role")]
    assert len(drawn) == len(files)
    for path in (out / "figures").iterdir():
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_scores_are_what_the_samples_say(finished: tuple[Study, list[NodeView], Path]) -> None:
    _, pieces, out = finished
    by_seed = []
    for piece in pieces:
        if piece.folder.parts[-2:] == ("multi", "math-hard"):
            items: dict[str, list[float]] = {}
            for row in read_jsonl(piece.folder / "samples.jsonl"):
                if row["reward"] is not None:
                    items.setdefault(row["prompt"], []).append(row["reward"])
            by_seed.append(100 * fmean(map(fmean, items.values())))
    row = next(row for row in table(out, "scores") if row["suite"] == "math-hard")
    assert float(row["multi"]) == pytest.approx(fmean(by_seed))
    assert float(row["multi low"]) < float(row["multi"]) < float(row["multi high"])
    cells = {r[1]: r for r in page(out).tables["scores"]}
    column = cells["suite"].index("multi")
    assert cells["math-hard"][column].startswith(f"{fmean(by_seed):.1f}")


def test_the_findings_answer_the_studys_questions(finished: tuple[Study, list[NodeView], Path]) -> None:
    plan, pieces, out = finished
    text = (out / "findings.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Mix, merge or distil?",
        "What share of the experts' gain does each way keep?",
        "Do domains help or hurt each other?",
        "Who is ahead at equal steps, prompts and cost?",
        "What the paper says, here",
    ]
    assert "](" not in text, "the page may be kept where the run's files are not"
    grids = Evidence(plan, pieces, out).grids
    homes = {"math-easy": "math", "math-hard": "math", "science-easy": "science"}

    def mean(*models: str) -> float:
        """In the experts' own domains; of the experts without an argument."""
        return fmean(grids[models[0] if models else expert][suite].score for suite, expert in homes.items())

    share = 100 * (mean("average") - mean("sft")) / (mean() - mean("sft"))
    row = next(line for line in text.splitlines() if line.startswith("| average | merge | +"))
    assert row.split("|")[4].split()[0] == number(share)
    across = text[text.index("What training on one domain does to all") :]
    row = next(line for line in across.splitlines() if line.startswith("| math |"))
    assert row.split("|")[3].split()[0] == number(
        grids["math"]["science-easy"].score - grids["sft"]["science-easy"].score, signed=True
    )


def test_findings_say_what_is_missing(tmp_path: Path) -> None:
    plan = study()
    write_report(plan, list(nodes(plan, tmp_path)), tmp_path / "report")
    text = (tmp_path / "report" / "findings.md").read_text(encoding="utf-8")
    assert "Missing: experts and their start" in text
    assert "Missing: two experts and their start" in text


def test_few_samples_are_taken_from_some_of_many_files(finished: tuple[Study, list[NodeView], Path]) -> None:
    plan, pieces, out = finished
    evidence = Evidence(plan, pieces, out)
    assert len(browsed(evidence)) > 3
    assert 1 <= len(browsed(evidence, 3)) <= 3


def test_the_example_report_stands_alone(finished: tuple[Study, list[NodeView], Path], tmp_path: Path) -> None:
    *_, out = finished
    place = Path(__file__).resolve().parents[1] / "docs" / "example_report.py"
    spec = importlib.util.spec_from_file_location("example_report", place)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    (tmp_path / "index.html").write_text(example.unlinked((out / "index.html").read_text(encoding="utf-8")))
    found = page(tmp_path)
    assert [value for _, name, value in found.attributes if name == "href"]
    assert all(str(value).startswith("#") for _, name, value in found.attributes if name == "href")


def test_two_reports_of_one_run_are_the_same_bytes(finished: tuple[Study, list[NodeView], Path]) -> None:
    plan, pieces, out = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "figures" / "old.svg").touch()
    write_report(plan, pieces, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# ── nothing loads, nothing runs ──────────────────────────────────────────────────────────────────────────────────────


def test_the_page_loads_nothing_and_links_to_files_that_exist(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    found = page(out)
    assert found.tags.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form"})
    links = [value for _, name, value in found.attributes if name in ("href", "src", "xlink:href", "action", "srcset")]
    assert any(link.startswith("../seed-1/evals/") for link in links)
    for link in links:
        assert link.startswith("#") or (out / unquote(link)).exists(), link
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_number_leads_to_the_runs_files(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    cells = re.findall(r"<td class=\"([^\"]*)\">(.*?)</td>", (out / "index.html").read_text(encoding="utf-8"))
    numbers = [inside for kinds, inside in cells if "number" in kinds.split() and re.search(r"\d", inside)]
    assert len(numbers) > 100
    assert [inside for inside in numbers if not inside.startswith('<a href="')] == []


def harmless(out: Path) -> None:
    """No markup of :data:`EVIL` has become markup of the report."""
    found = page(out)
    assert "img" not in found.tags
    assert found.scripts[1:] == [(TEMPLATES / "browser.js").read_text(encoding="utf-8")][: len(found.scripts) - 1]
    assert all(json.loads(samples) for samples in found.scripts[:1])
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert not [value for _, name, value in found.attributes if "href" in name and value.startswith("javascript:")]
    text = (out / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert "](javascript:" not in text.replace(r"\]", "")
    for path in out.rglob("*.svg"):
        names = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).getroot().iter()}
        assert names.isdisjoint({"script", "img", "foreignObject"})


def test_what_models_and_verifiers_say_is_escaped(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    harmless(out)
    assert "<script>alert(1)</script>" in page(out).tables["failures"][1][-1]


def test_hostile_tables_and_figures_are_escaped(finished: tuple[Study, list[NodeView], Path], tmp_path: Path) -> None:
    plan, pieces, _ = finished
    hostile = Table(EVIL, [EVIL, "n"], [[EVIL, 1.0], [Link(EVIL, "a%20b?x=(1)"), Measured(2.0, (1.0, 3.0))]], EVIL)
    figures = {
        kind: Figure(EVIL, kind, [EVIL, "b"], {EVIL: [1.0, None], "_b": [None, 2.0]}, EVIL, EVIL, EVIL)
        for kind in ("lines", "bars", "heatmap", "scatter")
    }
    evidence = Evidence(plan, pieces, tmp_path / "report")
    section = Section("evil", EVIL, EVIL, {"evil": hostile}, figures)
    write_pages(evidence, verdict(evidence), [section])
    harmless(tmp_path / "report")
    assert page(tmp_path / "report").tables["evil"][0][0] == EVIL


def test_the_gain_of_a_search_stands_apart(tmp_path: Path) -> None:
    """The last line of a merge that has chosen, of every seed; what was no number is missing."""
    plan, pieces = make(tmp_path, seeds=(1, 2), prompts=4)
    said = {"candidates": 3, "kl": 0.002, "kl_own": 0.005, "gain": 0.003, "gain_low": 0.001, "gain_high": 0.005}
    for seed, line in (
        (1, {**said, "chosen": EVIL}),
        (2, {**said, "chosen": "scale=1.0", "kl_own": None, "gain": None}),
    ):
        folder = tmp_path / f"seed-{seed}" / "task-arithmetic"
        append_jsonl(folder / "metrics.jsonl", [{"step": 0, "settings": "scale=0.5", "kl": 0.1}, {"step": 3, **line}])
    write_report(plan, pieces, tmp_path / "report")
    first, second = table(tmp_path / "report", "selection")
    assert first["model"] == "task-arithmetic, seed 1"
    assert [float(first[name]) for name in ("own settings", "chosen settings", "gain", "gain low", "gain high")] == [
        pytest.approx(value) for value in (5.0, 2.0, 3.0, 1.0, 5.0)
    ]
    assert (second["chosen"], second["own settings"], second["gain"]) == ("scale=1.0", "", "")
    harmless(tmp_path / "report")


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("shift", "answer"), [(20.0, "Mix."), (-20.0, "Merge."), (8.0, "Undecided.")])
def test_the_answer_follows_the_intervals(tmp_path: Path, shift: float, answer: str) -> None:
    plan, pieces = make(tmp_path, shift=shift, prompts=60)
    found = verdict(Evidence(plan, pieces, tmp_path / "report"))
    assert found.answer == answer
    [margin] = found.margins
    assert margin.gap.decided == (answer != "Undecided.")
    assert ("cannot be told apart" in found.reasons[0]) == (answer == "Undecided.")
    assert "One seed" in found.section.text
    if answer == "Undecided.":
        assert f"A true difference of {number(margin.gap.detectable)}" in found.reasons[0]


def test_a_distilled_arm_joins_the_comparison(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    pairs = [{*row["comparison"].split(" − ")} for row in table(out, "margins")]
    assert pairs == [{"mix", "merge"}, {"mix", "distil"}, {"merge", "distil"}]
    assert all((row["says"] == "undecided") == (float(row["margin low"]) <= 0) for row in table(out, "margins"))


def test_missing_arms_are_shown_as_missing(tmp_path: Path) -> None:
    plan, pieces = make(tmp_path)
    for piece in pieces:
        if piece.folder.parts[-2:] == ("multi", "math-hard") or piece.stage == "average":
            (piece.folder / "DONE").unlink()
    write_report(plan, pieces, tmp_path / "report")
    tables = page(tmp_path / "report").tables
    assert [row[:3] for row in tables["missing"][1:]] == [["average", "—", "1"], ["evals", "multi", "1"]]
    scores = {row["suite"]: row for row in table(tmp_path / "report", "scores")}
    assert scores["math-hard"]["multi"] == scores["mean"]["multi"] == ""
    assert scores["math-easy"]["multi"] != ""
    arms = {row[1]: row for row in tables["arms"]}
    assert arms["multi"][2] == "—"
    assert ["distil", *["—"] * 7] in tables["arms"]
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Not answered." in text
    assert "No arm that mixes is evaluated on every suite yet: multi missing." in text


def test_a_smaller_evaluation_of_a_model_does_not_hide_the_whole_one(tmp_path: Path) -> None:
    plan, pieces = make(tmp_path)
    whole = verdict(Evidence(plan, pieces, tmp_path / "report")).answer
    looks = [
        NodeView("look", "look", "eval", tmp_path / "seed-17" / "look" / "sft" / suite, 17, (), "") for suite in SUITES
    ]
    for look in looks:
        fill(look, plan, prompts=8, shift=0.0, reason="")
    for order in ([*pieces, *looks], [*looks, *pieces]):
        evidence = Evidence(plan, order, tmp_path / "report")
        assert {len(grid.items) for grid in evidence.grids["sft"].values()} == {40}
        assert verdict(evidence).answer == whole


def test_a_run_that_has_not_begun_can_be_reported(tmp_path: Path) -> None:
    plan = study()
    write_report(plan, list(nodes(plan, tmp_path)), tmp_path / "report")
    assert "Not answered." in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_ways_experts_and_the_start_are_recognised(finished: tuple[Study, list[NodeView], Path]) -> None:
    plan, pieces, out = finished
    evidence = Evidence(plan, pieces, out)
    ways = {name: way_of(evidence, name) for name in plan.stages}
    assert {name: way for name, way in ways.items() if way} == {
        "multi": "mix",
        "average": "merge",
        "task-arithmetic": "merge",
        "mt-opd": "distil",
    }
    assert [expert_of(evidence, name) for name in ("math", "science", "multi", "mt-opd", "sft")] == [
        "math", "science", None, None, None,
    ]  # fmt: skip
    assert start_of(evidence) == "sft"


def test_fine_tuning_on_experts_samples_is_distillation(tmp_path: Path) -> None:
    plan = study()
    off_policy = plan.stages["sft"].model_copy(update={"init": "sft", "rollouts": {"math": "math"}})
    evidence = Evidence(plan.model_copy(update={"stages": {**plan.stages, "off": off_policy}}), [], tmp_path)
    assert [way_of(evidence, name) for name in ("off", "sft")] == ["distil", None]


def test_models_from_elsewhere_say_what_they_were_trained_on() -> None:
    """A study that trains nothing: its start is what its merges depart from."""
    elsewhere = {"kind": "model", "path": "somewhere"}
    stages = {
        "start": elsewhere,
        "one": {**elsewhere, "domains": ["math"]},
        "other": {**elsewhere, "domains": ["science"]},
        "both": {**elsewhere, "domains": ["math", "science"]},
        "average": {"kind": "merge", "base": "start", "experts": ["one", "other"], "merger": "average"},
    }
    domains = {"math": {"use": "math"}, "science": {"use": "science"}}
    evidence = Evidence(Study.model_validate({"name": "byo", "domains": domains, "stages": stages}), [], Path())
    assert [expert_of(evidence, name) for name in stages] == [None, "math", "science", None, None]
    assert [way_of(evidence, name) for name in stages] == [None, None, None, "mix", "merge"]
    assert start_of(evidence) == "start"


def test_an_arms_work_counts_experts_and_teachers(finished: tuple[Study, list[NodeView], Path]) -> None:
    plan, pieces, out = finished
    evidence = Evidence(plan, pieces, out)

    def seconds(stage: str, until: int | None = None) -> float:
        """The mean over two seeds of all CPU-seconds."""
        found = [r for s in (1, 2) for r in read_jsonl(out.parent / f"seed-{s}" / stage / "times.jsonl")]
        return sum(r["cpu_seconds"]["total"] for r in found if until is None or (r["step"] or 99) < until) / 2

    for seed, dropped in ((1, 3), (2, 5)):  # groups that were drawn again count as prompts, on average over seeds
        lines = out.parent / f"seed-{seed}" / "multi" / "metrics.jsonl"
        first, *rest = read_jsonl(lines)
        lines.write_text("".join(json.dumps(row) + "\n" for row in ({**first, "dropped": dropped}, *rest)))
    merged, distilled, kept = (effort(evidence, name) for name in ("average", "mt-opd", "multi@10"))
    assert (merged.steps, merged.prompts, merged.samples) == (20, 320, 2560)
    assert (distilled.steps, distilled.prompts, distilled.samples) == (25, 400, 3200)
    assert (kept.steps, kept.prompts, kept.samples) == (10, 164, 1312)
    assert merged.cost is not None
    assert merged.cost.device == pytest.approx(seconds("math") + seconds("science") + seconds("average"))


def test_arms_are_compared_at_their_own_budgets(finished: tuple[Study, list[NodeView], Path]) -> None:
    *_, out = finished
    rows = [row for row in table(out, "equal") if row["at equal"] == "RL steps"]
    assert [tuple(row[c] for c in ("arm", "budget", "mixed run", "used", "to be added")) for row in rows] == [
        ("merge: task-arithmetic", "20", "multi@10", "10", "multi@20"),
        ("distil: mt-opd", "25", "multi", "30", "multi@25"),
    ]
    assert "At equal RL steps: multi@10 − task-arithmetic" in (out / "index.html").read_text(encoding="utf-8")


def test_cost_is_split_by_kind_of_work() -> None:
    cost = Cost()
    cost.add(times(random.Random(0), 0) | {"seconds": {"total": 9.0, "rollout": 4.0, "verify/math": 3.0}})
    assert cost.wall == 9.0
    assert cost.verifiers == {"math": 3.0}
    assert cost.kinds["verify"] == 3.0
    gpu = Cost()
    gpu.add({"gpus": 8, "seconds": {"total": 9.0, "rollout": 4.0, "train": 3.0, "verify/math": 3.0}, "cpu_seconds": {}})
    assert (gpu.device, gpu.kinds, gpu.other) == (72.0, {"rollout": 32.0, "train": 24.0}, 16.0)


@pytest.mark.parametrize("gpus", [{}, {"gpus": 8}])
def test_a_domains_part_of_the_work_is_not_counted_twice(gpus: dict[str, int]) -> None:
    row = {"total": 9.0, "rollout": 4.0, "train": 3.0, "idle": 2.0, "verify/math": 3.0}
    parts = {"rollout/math": 3.0, "rollout/science": 1.0, "train/math": 3.0}
    whole, split = Cost(), Cost()
    whole.add({**gpus, "seconds": row, "cpu_seconds": row})
    split.add({**gpus, "seconds": row | parts, "cpu_seconds": row | parts})
    assert split == whole
    assert split.verifiers == {"math": 3.0}


# ── tables and figures ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_in_three_forms_by_hand() -> None:
    one = Table(
        "t", ["model", "score", "n"], [["a|b", Measured(61.04, (59.8, 62.25), best=True), 1200], ["=1+1", None, 7]]
    )
    assert markdown(one) == (
        "| model | score | n |\n| --- | ---: | ---: |\n"
        "| a\\|b | **61.0** (59.8–62.2) | 1\u202f200 |\n| =1+1 | — | 7 |\n"
    )
    assert to_csv(one) == "model,score,score low,score high,n\na|b,61.04,59.8,62.25,1200\n'=1+1,,,,7\n"
    assert [cell.text for cell in shown(one)[0]] == ["a|b", "61.0", "1\u202f200"]


@pytest.mark.parametrize(
    ("value", "decimals", "signed", "text"),
    [
        (0.0, 1, True, "0.0"), (-0.04, 1, True, "0.0"), (0.06, 1, True, "+0.1"), (-3.25, 1, False, "−3.2"),
        (1234567.8, 0, False, "1\u202f234\u202f568"), (float("nan"), 1, False, "—"),
    ],
)  # fmt: skip
def test_numbers_are_printed_for_reading(value: float, decimals: int, signed: bool, text: str) -> None:
    assert number(value, decimals, signed=signed) == text


def test_columns_have_one_number_of_decimals() -> None:
    rows = [[1.0, 0.5, 1500.4, 3.25, None], [20, 0.25, 2.0, 0.0, float("inf")]]
    texts = [[cell.text for cell in row] for row in shown(Table("t", list("abcde"), rows))]
    assert texts == [["1", "0.500", "1\u202f500", "3.25", "—"], ["20", "0.250", "2", "0", "—"]]


def test_bars_too_many_to_be_told_apart_become_a_heat_map() -> None:
    suites, arms = [f"suite {i}" for i in range(10)], {f"arm {j}": [0.1 * j] * 10 for j in range(9)}
    svg = draw(Figure("f", "bars", suites, arms, "suite", "cosine"), "f")
    texts = ["".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]
    assert set(suites) | set(arms) | {"cosine", "suite"} <= set(texts)
    assert texts.count("0.80") == 10
    few = draw(Figure("f", "bars", suites, {name: arms[name] for name in ("arm 1", "arm 2")}), "f")
    assert "0.20" not in re.findall(r">([^<>]+)</text>", few)


def test_lines_of_one_colour_differ_in_stroke_and_the_legend_has_room() -> None:
    def drawn(count: int) -> str:
        return draw(Figure("f", "lines", [0, 1], {f"a long name {i}": [i, i + 1] for i in range(count)}), "f")

    def height(svg: str) -> float:
        return float(re.findall(r'viewBox="0 0 \S+ (\S+)"', svg)[0])

    assert "stroke-dasharray" not in drawn(8)
    assert "stroke-dasharray" in drawn(9)
    assert height(drawn(15)) > height(drawn(4)) == height(drawn(1))


def test_lines_go_on_where_a_value_is_missing() -> None:
    def path(values: list[float | None]) -> str:
        svg = draw(Figure("f", "lines", [0, 15, 30], {"a": values}), "f")
        return str(re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {PALETTE[0]}', svg)[0])

    whole, broken = path([1.0, 2.0, 3.0]), path([1.0, None, 3.0])
    assert (whole.count("L"), broken.count("L")) == (2, 1)
    assert whole.split("L")[0] == broken.split("L")[0]


def test_curves_of_several_domains_have_fewer_points(tmp_path: Path) -> None:
    plan = study()
    long = {name: plan.stages[name].model_copy(update={"steps": 100}) for name in ("math", "multi")}
    pieces: Any = []
    for name, stage in long.items():
        rows = [{"step": i, **{f"reward/{domain}": i / 100 for domain in stage.domains}} for i in range(100)]
        (tmp_path / name).mkdir()
        append_jsonl(tmp_path / name / "metrics.jsonl", rows)
        pieces.append(NodeView(name, name, "rl", tmp_path / name, 17, (), ""))
    found = training.curves(Evidence(plan.model_copy(update={"stages": plan.stages | long}), pieces, tmp_path))
    assert found is not None
    alone, beside = found.figures["reward-math"], found.figures["reward-multi"]
    assert (len(alone.x), len(beside.x)) == (100, 25)
    assert beside.series["math"][0] == pytest.approx(fmean(i / 100 for i in range(4)))
    assert beside.x[0] == 2.5


@pytest.mark.parametrize("kind", ["lines", "bars", "heatmap", "scatter"])
def test_figures_take_the_pages_colours_and_leave_out_what_is_missing(kind: Any) -> None:
    one = Figure("f", kind, [1.0, 2.0, 30.0], {"a": [1.0, None, -2.0], "_b": [None, None, None]}, "x", "y")
    svg = draw(one, "some name")
    assert "currentColor" in svg
    assert not re.search(r"#0+[0-3]*;|#000|#fff", svg)
    assert "nan" not in svg.lower()
    ids = re.findall(r'\bid="([^"]+)', svg)
    assert ids
    assert all(name.startswith("some-name-") for name in ids)
    assert svg == draw(one, "some name")
    root = ElementTree.fromstring(standalone(svg).encode())
    assert root.get("aria-label") == "f"


def test_second_values_of_cells_stand_below_the_first_with_their_signs() -> None:
    one = Figure("f", "heatmap", ["a", "b"], {"m": [0.25, None]}, beneath={"m": [3.0, -4.0]})
    texts = re.findall(r"<text [^>]*?y=\"([\d.]+)\"[^>]*>([^<]+)</text>", draw(one, "f"))
    height = {text: float(y) for y, text in texts}
    assert height["0.250"] == height["—"] < height["+3.00"] == height["−4.00"]


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = study()
    for name in ("matplotlib", "jinja2"):
        with monkeypatch.context() as gone:
            gone.setitem(sys.modules, name, None)
            with pytest.raises(UserError, match=r"pip install 'm2rl-core\[report\]'"):
                write_report(plan, list(nodes(plan, tmp_path)), tmp_path / "report")


def test_the_report_imports_no_torch_and_no_plotting_until_it_draws() -> None:
    code = "import sys, m2rl_core.report; print(sorted({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_rollouts_beside_training_are_explained(tmp_path: Path) -> None:
    plan, pieces = make(tmp_path)
    assert training.cost(Evidence(plan, pieces, tmp_path)).tables["cost"].note == ""
    plan.stages["math"] = plan.stages["math"].model_copy(update={"staleness": 1})
    note = training.cost(Evidence(plan, pieces, tmp_path)).tables["cost"].note
    assert note == "Rollouts of math were drawn beside training; rollout is all that the sampler's process took."


def test_shares_that_a_mixture_sets_are_drawn(tmp_path: Path) -> None:
    plan = study()
    multi = plan.stages["multi"].model_copy(update={"mixture": {"use": "worst-task"}})
    rows = [{"step": i, "share/math": 0.5 - i / 10, "share/science": 0.5 + i / 10} for i in range(3)]
    append_jsonl(tmp_path / "metrics.jsonl", rows)
    stages = {**plan.stages, "multi": multi}
    made: Any = [NodeView("multi", "multi", "rl", tmp_path, 17, (), "")]
    found = training.curves(Evidence(plan.model_copy(update={"stages": stages}), made, tmp_path))
    assert found is not None
    assert [name for name in found.figures if name.startswith("share-")] == ["share-multi"]
    assert found.figures["share-multi"].series == {"math": [0.5, 0.4, 0.3], "science": [0.5, 0.6, 0.7]}
