"""Findings as files: they read back equal, hold no NaN, and malformed ones are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m2rl_core.errors import DataError
from m2rl_core.findings import plain, read_findings, to_csv, write_findings
from m2rl_core.types import Claim, Figure, Findings, Table


def found() -> Findings:
    """Of every kind, with what libraries and careless analyzers put into cells."""
    rows: list[list[Any]] = [
        ["math", np.float32(0.5), math.nan],
        ["=1+1", torch.tensor(2), None],
        ["ünï", math.inf, -0.25],
    ]
    return Findings(
        {"kl": Table("KL", ["domain", "mean", "low"], rows, "nats")},
        {
            "map": Figure("Map", "heatmap", ["a", "b"], {"a": [1.0, None], "b": (np.float64(0.5), math.nan)}, "x", "y"),
            "both": Figure("Both", "heatmap", ["a"], {"m": [1.0]}, beneath={"m": [np.float32(-0.5)]}),
            "line": Figure("Line", "lines", range(2), {"a": [0.1, 0.2]}),
        },
        [
            Claim("One", "3.3", 0.5, (0.25, 0.75), "holds", "note", expected=("above", np.float64(0.1))),
            Claim("Two", "3.4", math.nan, (math.nan, 1.0), "not measurable"),
            Claim("Three", "3.5", None, None, "undecided"),
        ],
    )


def test_findings_read_back_equal(tmp_path: Path) -> None:
    kept = plain(found())
    write_findings(kept, tmp_path)
    assert read_findings(tmp_path) == kept
    assert plain(kept) == kept
    json.loads((tmp_path / "findings.json").read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))


def test_numbers_are_pythons_own_and_finite() -> None:
    kept = plain(found())
    assert kept.tables["kl"].rows == (("math", 0.5, None), ("=1+1", 2, None), ("ünï", None, -0.25))
    assert kept.figures["map"].series == {"a": (1.0, None), "b": (0.5, None)}
    assert kept.figures["line"].x == (0, 1)
    assert [(c.statistic, c.interval) for c in kept.claims] == [(0.5, (0.25, 0.75)), (None, None), (None, None)]


def test_a_table_is_a_csv_that_no_spreadsheet_runs(tmp_path: Path) -> None:
    write_findings(plain(found()), tmp_path)
    text = (tmp_path / "tables" / "kl.csv").read_text()
    assert text == "domain,mean,low\nmath,0.5,\n'=1+1,2,\nünï,,-0.25\n"
    third = Table("t", ["-x"], [[1 / 3]])
    assert to_csv(third) == f"'-x\n{1 / 3!r}\n"


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        (Findings({"t": Table("T", ["a"], [["x"], ["x", 1]])}), "table 't': row 1 has 2 cells for 1 columns"),
        (Findings({"t": Table("T", ["a"], [[[1]]])}), r"table 't': \[1\] is neither text nor a number"),  # type: ignore[list-item]
        (Findings({"../t": Table("T", ["a"], [])}), "table '../t' cannot name a file"),
        (Findings({}, {"f": Figure("F", "bars", ["a"], {"s": [1, 2]})}), "figure 'f': 's' has 2 values for 1 places"),
        (Findings({}, {"f": Figure("F", "lines", [math.nan], {})}), "figure 'f': a place along x is no number"),
        (Findings({}, {"f": Figure("F", "lines", [1], {"s": [1]}, beneath={"s": [1]})}), "'f': values beneath .* heat"),
        (Findings({}, {"f": Figure("F", "heatmap", [1], {"s": [1]}, beneath={"t": [1]})}), "with these rows"),
        (Findings({}, {"f": Figure("F", "heatmap", [1], {"s": [1]}, beneath={"s": []})}), "'s' has 0 values for 1"),
        (Findings(claims=[Claim("C", "3", "x", None, "holds")]), "claim 'C': 'x' is neither"),  # type: ignore[arg-type]
    ],
)
def test_malformed_findings_are_refused(malformed: Findings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain(malformed)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tables": {"t": {"titel": 1}}, "figures": {}, "claims": []}'])
def test_a_file_without_findings_is_named(tmp_path: Path, text: Any) -> None:
    (tmp_path / "findings.json").write_text(text)
    with pytest.raises(DataError, match="holds no findings"):
        read_findings(tmp_path)
