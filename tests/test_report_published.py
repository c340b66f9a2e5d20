"""What the paper prints of its analyses, in itself and beside a made-up study that repeats it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study
from m2rl_core.files import append_jsonl
from m2rl_core.findings import plain, write_findings
from m2rl_core.report.data import blend
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.merges import merges
from m2rl_core.report.published import SCORES, SUITES, beside_paper
from m2rl_core.report.published_analyses import ALONE, JUDGED, JUDGES, OVERLAPS, PAIRS, SAID
from m2rl_core.run import NodeView
from m2rl_core.statistics.correlation import pearson
from m2rl_core.types import Findings, Table

BOTH = ["math", "coding"]
TYPES = ["Q", "K", "V", "O", "FFN-down", "FFN-up", "FFN-gate"]


# ── the paper in itself ──────────────────────────────────────────────────────────────────────────────────────────────


def test_scores_that_stand_in_two_tables_are_the_same() -> None:
    for who, row in JUDGES.items():
        known = dict(zip(SUITES, SCORES[who], strict=True))
        assert row[:: len(SAID)] == tuple(known[suite] for suite in JUDGED)
    for domain in BOTH:
        alone = dict(zip(SUITES, SCORES[domain], strict=True))
        assert {s: alone[s] for suites in (PAIRS[d, p] for d, p in PAIRS if d == domain) for s in suites} == {
            s: ALONE[s] for s in ALONE if s.startswith("aime" if domain == "math" else "lcb")
        }


@pytest.mark.parametrize(("said", "r"), [("outcome", 0.628), ("process", -0.534)])
def test_the_papers_correlation_is_that_of_its_table_7(said: str, r: float) -> None:
    means = [[sum(row[at :: len(SAID)]) / len(JUDGED) for row in JUDGES.values()] for at in (0, SAID.index(said))]
    assert pearson(*means) == pytest.approx(r, abs=0.01), "of rounded means"


def test_overlaps_are_of_all_pairs_of_five_domains() -> None:
    assert len(OVERLAPS) == 10
    assert {len(row) for row in OVERLAPS.values()} == {len(TYPES)}
    assert all(0.45 <= value <= 0.48 for row in OVERLAPS.values() for value in row), "the text's range"


# ── beside a study ───────────────────────────────────────────────────────────────────────────────────────────────────


def study(reproduces: str | None = "paper") -> Study:
    """Experts are called otherwise than their domains, and a merge of two is no merge of all."""
    rl = {"kind": "rl", "init": "sft", "algorithm": "grpo"}
    stages: dict[str, Any] = {
        "sft": {"kind": "sft", "init": "base", "blend": {"math": {"source": "x.jsonl"}}, "conversations": 640},
        "m": {**rl, "domains": ["math"]},
        "c": {**rl, "domains": ["coding"]},
        "i": {**rl, "domains": ["if"]},
        "all": {"kind": "merge", "base": "sft", "experts": ["m", "c", "i"], "merger": "ties"},
        "pair": {"kind": "merge", "base": "sft", "experts": ["m", "c"], "merger": "ties"},
        "evals": {"kind": "eval", "models": ["m", "c", "pair"]},
        "shift": {"kind": "analyze", "analyzer": "weight-shift"},
        "judges": {"kind": "analyze", "analyzer": "self-verification"},
    }
    domains = {"math": "math", "coding": "coding", "if": "if"}
    plan = {"name": "toy", "reproduces": reproduces, "model": {"base": "./base"}, "domains": domains, "stages": stages}
    return Study.model_validate(plan)


def evidence(root: Path, right: Mapping[tuple[str, str], int], plan: Study) -> Evidence:
    """Finished: evaluations with so many of ten prompts right, and two analyses."""
    pieces = [NodeView("evals", "evals", "eval", root / "evals" / model / suite, 17, (), "") for model, suite in right]
    for piece, count in zip(pieces, right.values(), strict=True):
        piece.folder.mkdir(parents=True)
        rows = [{"prompt": f"{i}", "weight": 1.0, "reward": float(i < count), "reason": ""} for i in range(10)]
        append_jsonl(piece.folder / "samples.jsonl", rows)
        scores = {"domain": "math", "prompts": 10, "failed": 0}
        (piece.folder / "scores.json").write_text(json.dumps(scores))
    overlaps = Table("Jaccard, layer 9", ["domains", *TYPES], [["m - c", *[0.4] * 7], ["random", *[0.18] * 7]])
    names = [f"{suite}: {what}" for suite in JUDGED for what in SAID]
    judged = Table(
        "Judging", ["model", *names], [["c", *map(float, range(11)), "not measurable"], ["pair", *[1.0] * 12]]
    )
    for stage, tables in (("shift", {"jaccard-layer": overlaps}), ("judges", {"self-verification": judged})):
        piece = NodeView(stage, stage, "analyze", root / stage, 17, (), "")
        piece.folder.mkdir()
        write_findings(plain(Findings(tables, {}, [])), piece.folder)
        pieces.append(piece)
    for piece in pieces:
        (piece.folder / "DONE").touch()
    return Evidence(plan, pieces, root)


@pytest.fixture
def there(tmp_path: Path) -> Evidence:
    math = {("m", "aime24"): 7, ("m", "aime25"): 5, ("pair", "aime24"): 8, ("all", "aime24"): 6}
    return evidence(tmp_path, {**math, ("c", "lcb-v5"): 6, ("pair", "lcb-v5"): 5}, study())


@pytest.fixture
def found(there: Evidence) -> Mapping[str, Table]:
    section = beside_paper(there)
    assert section is not None
    return section.tables


def test_table_5_stands_beside_the_analysis(found: Mapping[str, Table]) -> None:
    assert found["paper_overlaps"].rows == [
        ["m - c", "this study", *[0.4] * 7],
        ["m - c", "the paper", 0.47, 0.48, 0.47, 0.48, 0.47, 0.46, 0.46],
    ]
    assert found["paper_overlaps"].columns == ["domains", "of", *TYPES]


def test_table_6_stands_beside_the_merges_of_two(found: Mapping[str, Table]) -> None:
    rows = {(row[1], row[3]): row[4:] for row in found["paper_pairs"].rows}
    assert rows["math", "aime24"] == [80.0, pytest.approx(10.0), 80.29, pytest.approx(2.63)]
    assert rows["coding", "lcb-v5"] == [50.0, pytest.approx(-10.0), 60.42, pytest.approx(-4.58)]
    assert rows["math", "aime25"] == [None, None, 72.44, pytest.approx(2.02)], "not evaluated here"


def test_merges_of_two_are_shown_on_the_suites_that_they_are_meant_for(there: Evidence) -> None:
    section = merges(there)
    assert section is not None
    assert section.tables["some_merges"].columns == ["model", "aime24", "lcb-v5"]
    assert section.tables["merges"].columns == ["model", "aime24", "aime25", "lcb-v5", "mean"]


def test_table_7_stands_beside_the_analysis(found: Mapping[str, Table]) -> None:
    ours, theirs = found["paper_judges"].rows
    assert ours[:2] == ["c", "this study"]
    assert ours[-4:] == ["not measurable", 4.5, 5.5, None], "a mean of all four suites or none"
    assert theirs[:5] == ["c", "the paper", 61.61, 75.8, 82.9]
    assert theirs[-3:] == [
        pytest.approx(62.98, abs=0.006),
        pytest.approx(73.9, abs=0.06),
        pytest.approx(77.5, abs=0.06),
    ]


def test_table_1_stands_beside_the_blend(tmp_path: Path) -> None:
    (tmp_path / "blend").mkdir()
    (tmp_path / "blend" / "math.json").write_text(json.dumps({"rows": {"kept": 5}}))
    (tmp_path / "DONE").touch()
    nodes = [NodeView("sft", "sft", "sft", tmp_path, 17, (), "")]
    section, other = (blend(Evidence(study(whose), nodes, tmp_path)) for whose in ("paper", None))
    assert section is not None
    assert other is not None
    rows = {row[1]: [row[3], *row[-2:]] for row in section.tables["blend"].rows}
    assert rows == {"math": [5, 2_950_525, 20.89], "total": [5, 14_121_873, 100.0]}
    assert other.tables["blend"].columns[-1] == "epochs"
