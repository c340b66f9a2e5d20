"""Findings of analyzers in the report: claims after the verdict, a section per stage, nothing of theirs executed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.errors import DataError
from m2rl_core.findings import plain, write_findings
from m2rl_core.report import write_report
from m2rl_core.report.analyses import analyses
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.pooling import pooled_figure, pooled_table, with_intervals
from m2rl_core.report.tables import Measured
from m2rl_core.run import NodeView
from m2rl_core.types import Claim, Figure, Findings, Table

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def study(seeds: Sequence[int]) -> Study:
    rl = {"kind": "rl", "init": "sft", "algorithm": "grpo"}
    stages: dict[str, Any] = {
        "sft": {"kind": "model", "path": "./sft"},
        "math": {**rl, "domains": ["math"]},
        "shift": {"kind": "analyze", "analyzer": {"use": "weight-shift", "layer": 1}},
        "near": {"kind": "analyze", "analyzer": "policy-neighborhood"},
        "report": {"kind": "report"},
    }
    return Study.model_validate({"name": "toy", "seeds": seeds, "domains": {"math": "math"}, "stages": stages})


def shift(seed: int) -> Findings:
    """A table and a figure of each kind, and three claims."""
    both = ["math", "science"]
    figures = {
        "overlap": Figure("Overlap", "heatmap", both, {"math": [1.0, 0.18], "science": [0.18, 1.0]}, note="same"),
        "none": Figure("Nothing known", "bars", ["a"], {"b": [None]}),
        "cosine": Figure("Cosine", "scatter", [0.1, 0.2], {"attention": [0.05 * seed, 0.1]}, "x", "y"),
    }
    claims = [
        Claim("Overlap exceeds chance", "3.3", 0.512345, (0.5, 0.52), "holds", "of 30% masks", ("above", 0.0)),
        Claim(EVIL, "3.10", -0.0012, None, "fails", EVIL),
        Claim("Updates are sparse", "3.3", None, None, "not measurable", "float32"),
    ]
    rows: list[list[Any]] = [["math", 0.31], [EVIL, None]]
    return Findings({"changed": Table("Changed weights", ["model", "share"], rows, EVIL)}, figures, claims)


def near(seed: int) -> Findings:
    """A table with intervals whose numbers grow with the seed, and a text that differs."""
    value, says = 10.0 * seed, "yes" if seed < 3 else "no"
    table = Table("KL", ["model", "KL", "KL, low", "KL, high", "near", "n"], [["math", value, value, value, says, 7]])
    claim = Claim("Neighbours help", "3.4", 12.3456, (1.0, 25.0), "holds" if seed == 2 else "undecided")
    sides = Claim("It grows", "3.4", seed - 0.5, None, "undecided", f"of seed {seed}", ("above", 0.0))
    return Findings({"kl": table}, {}, [claim, *([sides] if seed > 1 else [])])


def written(root: Path, seeds: Sequence[int] = (1,), *, done: Sequence[str] = ("shift", "near")) -> Path:
    """The report's folder."""
    plan, pieces = study(seeds), []
    for seed in seeds:
        for name, stage in plan.stages.items():
            piece = NodeView(name, name, stage.kind, root / f"seed-{seed}" / name, seed, (), "")
            piece.folder.mkdir(parents=True)
            pieces.append(piece)
            if name in done:
                write_findings(plain((shift if name == "shift" else near)(seed)), piece.folder)
                (piece.folder / "DONE").touch()
    write_report(plan, pieces, root / "report")
    return root / "report"


class Page(HTMLParser):
    """Tags, anchors and the text of the page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def rows(out: Path, name: str) -> list[list[str]]:
    return list(csv.reader((out / "tables" / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def test_claims_come_right_after_the_verdict_in_the_papers_order(tmp_path: Path) -> None:
    out = written(tmp_path)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.ids.index("table-claims") < page.ids.index("table-arms")
    head, *found = rows(out, "claims")
    assert head == [
        "finding", "in this study", "statistic", "statistic low", "statistic high", "section", "tested by",
    ]  # fmt: skip
    places = [row[-2] for row in found]
    assert places == sorted(places, key=lambda text: [int(part) for part in text.split(".")])
    analysed = [row for row in found if row[1] != "not tested"]
    assert [row[-2] for row in analysed] == ["3.3", "3.3", "3.4", "3.10"]
    assert analysed[0] == ["Overlap exceeds chance", "holds", "0.512345", "0.5", "0.52", "3.3", "shift"]
    assert "1 holds, 1 fails, 1 is undecided, 1 is not measurable" in page.text
    for text in ("0.512", "0.500–0.520", "−0.00120", "12.3", "1.0–25.0"):
        assert text in page.text
    assert "#analysis-shift" in page.links
    assert "../seed-1/shift/findings.json" in page.links
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert markdown.index("The paper's findings") < markdown.index("## The arms") < markdown.index("## Stage graph")


def test_what_nobody_tests_is_listed_with_what_it_takes(tmp_path: Path) -> None:
    found = {row[0]: row for row in rows(written(tmp_path, done=("shift",)), "claims")}
    takes = {name: row[-1] for name, row in found.items() if row[1] == "not tested"}
    assert takes["Gains are most consistent in math"] == "takes the analyzer gain-consistency, not in this study"
    neighbours = "Experts of other domains are neighbours, and being one is asymmetric"
    assert takes[neighbours] == "takes the analyzer policy-neighborhood, not finished"
    assert takes["The reasoning domains improve each other"] == "takes experts of two of math, coding and science"
    assert not [row for row in found.values() if "weight-shift" in row[-1]]
    assert all(row[2] == "" for row in found.values() if row[1] == "not tested")


def test_every_analysis_has_its_section(tmp_path: Path) -> None:
    out = written(tmp_path)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert [name for name in page.ids if name.startswith("analysis-")] == ["analysis-shift", "analysis-near"]
    assert "found with layer = 1 (section 3.3, Table 5 and Figure 3 of the paper)." in page.text
    assert rows(out, "shift.changed")[1] == ["math", "0.31"]
    assert rows(out, "shift.claims")[1][-1] == "of 30% masks"
    drawn = {path.name for path in (out / "figures").glob("shift.*")}
    assert drawn == {"shift.overlap.svg", "shift.cosine.svg"}
    assert rows(out, "analyses")[1] == ["shift", "1", "done", "", "findings.json", ""]


def test_what_analyzers_say_is_text(tmp_path: Path) -> None:
    out = written(tmp_path)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "<script" not in (out / "report.md").read_text(encoding="utf-8").replace("\\<script", "")


def test_statistics_of_seeds_are_pooled(tmp_path: Path) -> None:
    out = written(tmp_path, (1, 2))
    head, *found = rows(out, "claims")
    assert head == [
        "finding", "in this study", "statistic", "statistic low", "statistic high", "section", "tested by",
    ]  # fmt: skip
    by_name = {row[0]: row for row in found}
    assert by_name["Overlap exceeds chance"][1:3] == ["holds", "0.512345"]
    low, high = map(float, by_name["Overlap exceeds chance"][3:5])
    assert 0.49 < low < 0.505 < 0.515 < high < 0.53
    assert by_name["Neighbours help"][1] == "undecided; seeds differ: holds 1, undecided 1"
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "1 holds, 1 fails, 2 are undecided, 1 is not measurable" in page.text
    head, *found = rows(out, "shift.claims")
    assert [name for name in head if name.startswith("seed") and " l" not in name and " h" not in name] == [
        "seed 1",
        "seed 2",
    ]


def test_where_a_side_is_expected_the_pooled_interval_decides(tmp_path: Path) -> None:
    """By hand: 1.5 and 2.5, each undecided by itself; resamples of one seed of two are one or the other."""
    [row] = [row for row in rows(written(tmp_path, (2, 3)), "claims") if row[0] == "It grows"]
    assert row[1:5] == ["holds", "2", "1.5", "2.5"]


def test_tables_and_figures_of_seeds_become_one(tmp_path: Path) -> None:
    """By hand: 10, 20 and 30 have the mean 20; resamples of two of three reach from 10 to 30."""
    out = written(tmp_path, (1, 2, 3))
    assert rows(out, "near.kl") == [
        ["model", "KL", "KL low", "KL high", "near", "n"],
        ["math", "20", "10.0", "30.0", "yes (2) / no (1)", "7"],
    ]
    assert rows(out, "shift.changed")[1] == ["math", "0.31"]
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "Means of 3 seeds with 95% intervals." in page.text
    drawn = {path.name for path in (out / "figures").glob("shift.*")}
    assert drawn == {"shift.overlap.svg", "shift.cosine.svg"}


def test_what_does_not_fit_together_stands_side_by_side() -> None:
    one, other = (Table("t", ["model", "n"], [[name, 1.0]]) for name in ("math", "code"))
    assert pooled_table([one, other]) is None
    assert pooled_table([one, replace(one, columns=["model", "m"])]) is None
    mean = pooled_table([one, replace(one, rows=[["math", None]])])
    assert mean is not None
    assert mean.rows == [["math", 1.0]]
    figures = [Figure("f", "scatter", [x], {"a": [1.0]}) for x in (1.0, 2.0)]
    assert pooled_figure(figures) is None
    whole = pooled_figure([figures[0], replace(figures[0], series={"a": [4.0]})])
    assert whole is not None
    assert whole.series == {"a": [2.5]}
    map_ = Figure("f", "heatmap", ["x"], {"a": [1.0]}, beneath={"a": [-2.0]})
    whole = pooled_figure([map_, replace(map_, beneath={"a": [-3.0]})])
    assert whole is not None
    assert (whole.series, whole.beneath) == ({"a": [1.0]}, {"a": [-2.5]})
    assert pooled_figure([map_, replace(map_, beneath={})]) is None


def test_intervals_of_a_number_with_a_unit_are_found() -> None:
    table = Table("t", ["model", "ΔPerf, points", "ΔPerf, low", "ΔPerf, high"], [["m", 0.5, 0.25, 0.75]])
    assert with_intervals(table).columns == ["model", "ΔPerf, points"]


def test_settings_read_as_words(tmp_path: Path) -> None:
    found = AnalyzeStage.model_validate({"kind": "analyze", "analyzer": {"use": "x", "k": 2, "of": {"a": ["b", "c"]}}})
    plan = study((1,))
    plan = plan.model_copy(update={"stages": {**plan.stages, "near": found}})
    piece = NodeView("near", "near", "analyze", tmp_path, 1, (), "")
    write_findings(plain(near(1)), tmp_path)
    (tmp_path / "DONE").touch()
    [section] = analyses(Evidence(plan, [piece], tmp_path / "report"))
    assert section.text == "What the analyzer x found with k = 2, of = (a: b, c)."


def test_intervals_move_into_the_cells_of_their_numbers() -> None:
    table = Table(
        "t",
        ["model", "r", "low", "high", "KL", "KL, low", "KL, high", "low"],
        [["m", 0.5, 0.25, 0.75, *[None] * 3, 1.0]],
    )
    found = with_intervals(table)
    assert found.columns == ["model", "r", "KL", "low"]
    [[name, r, kl, low]] = found.rows
    assert isinstance(r, Measured)
    assert (name, r, r.interval, kl, low) == ("m", 0.5, (0.25, 0.75), None, 1.0)


def test_what_is_not_done_is_missing(tmp_path: Path) -> None:
    out = written(tmp_path, done=())
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "claims" not in page.ids
    assert [row[0] for row in rows(out, "missing")[1:]] == ["sft", "math", "shift", "near"]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    out = written(tmp_path)
    (tmp_path / "seed-1" / "near" / "findings.json").write_text("{")
    plan = study((1,))
    pieces = [NodeView(n, n, s.kind, tmp_path / "seed-1" / n, 1, (), "") for n, s in plan.stages.items()]
    with pytest.raises(DataError, match=r"near/findings\.json holds no findings"):
        write_report(plan, pieces, out)
