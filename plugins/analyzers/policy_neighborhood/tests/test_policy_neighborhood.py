"""Policy neighbourhoods against coins, whose divergences are known, and hand-made matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from m2rl_analyzer_policy_neighborhood import PolicyNeighborhood
from m2rl_analyzer_policy_neighborhood.claims import claims
from m2rl_analyzer_policy_neighborhood.evidence import Subject
from m2rl_analyzer_policy_neighborhood.measure import Cell, Cells
from m2rl_analyzer_policy_neighborhood.neighbors import asymmetric, counts, neighbors, pairs
from m2rl_core.errors import DataError
from m2rl_core.interfaces import Lab
from m2rl_core.statistics.scores import Estimate, Grid
from m2rl_core.testing import AnalyzerContract
from m2rl_core.types import Claim, Findings

README = Path(__file__).parents[1] / "README.md"
DOMAINS = ("math", "coding", "science", "if")
CHANCES: dict[str, dict[str, float]] = {
    "m": {"math": 0.7, "coding": 0.5, "science": 0.4, "if": 0.5},
    "c": {"math": 0.69, "coding": 0.8, "science": 0.5, "if": 0.5},
    "s": {"math": 0.4, "coding": 0.5, "science": 0.2, "if": 0.5},
    "i": {"math": 0.5, "coding": 0.4, "science": 0.5, "if": 0.9},
    "multi": {"math": 0.6, "coding": 0.7, "science": 0.25, "if": 0.8},
    "sum": {"math": 0.65, "coding": 0.6, "science": 0.3, "if": 0.7},
    "worse": {"math": 0.5, "coding": 0.5, "science": 0.5, "if": 0.5},
    "student": {"math": 0.7, "coding": 0.8, "science": 0.2, "if": 0.9},
    "m+c": {"math": 0.7, "coding": 0.8, "science": 0.3, "if": 0.5},
    "m+s": {"math": 0.5, "coding": 0.5, "science": 0.3, "if": 0.5},
}
RIGHT = {
    "m": {"math": 0.8, "coding": 0.4, "science": 0.4, "if": 0.4},
    "c": {"math": 0.6, "coding": 0.7, "science": 0.4, "if": 0.4},
    "s": {"math": 0.5, "coding": 0.4, "science": 0.6, "if": 0.4},
    "i": {"math": 0.5, "coding": 0.4, "science": 0.4, "if": 0.9},
    "multi": {"math": 0.7, "coding": 0.7, "science": 0.6, "if": 0.8},
    "sum": {"math": 0.8, "coding": 0.6, "science": 0.5, "if": 0.7},
    "worse": {"math": 0.1, "coding": 0.1, "science": 0.1, "if": 0.1},
    "student": {"math": 0.8, "coding": 0.6, "science": 0.6, "if": 0.8},
    "m+c": {"math": 0.9, "coding": 0.6},
    "m+s": {"math": 0.7, "science": 0.5},
}
EXPERTS = {"math": "m", "coding": "c", "science": "s", "if": "i"}
WAYS = {"multi": "mix", "worse": "merge", "sum": "merge", "student": "distil"}

Coins = Callable[..., Any]


class TestPolicyNeighborhood(AnalyzerContract):
    analyzer = PolicyNeighborhood(PolicyNeighborhood.Config(merges={"m+c": ("math", "coding")}))

    @pytest.fixture(autouse=True)
    def _made(self, coins: Coins) -> None:
        self._lab = coins(CHANCES, EXPERTS, WAYS, RIGHT)

    def lab(self) -> Lab:
        return self._lab  # type: ignore[no-any-return]


def run(lab: Lab, **config: Any) -> Findings:
    return PolicyNeighborhood(PolicyNeighborhood.Config.model_validate(config)).run(lab)


def column(found: Findings, table: str, name: str) -> list[Any]:
    at = list(found.tables[table].columns).index(name)
    return [row[at] for row in found.tables[table].rows]


def stated(found: Findings, *words: str) -> Claim:
    [one] = [claim for claim in found.claims if all(word in claim.statement for word in words)]
    return one


@pytest.fixture
def study(coins: Coins) -> Lab:
    return coins(CHANCES, EXPERTS, WAYS, RIGHT)  # type: ignore[no-any-return]


def test_one_grid_for_the_mixed_the_best_merged_and_the_distilled_model(study: Lab) -> None:
    found = run(study)
    assert [name for name in found.figures if name.startswith("kl-")] == ["kl-multi", "kl-sum", "kl-student"]
    assert [len(found.tables[f"kl-{m}"].rows) for m in ("multi", "sum", "student")] == [16] * 3


def test_a_coin_has_the_divergence_that_it_has(study: Lab, coin_kl: Callable[[float, float], float]) -> None:
    found = run(study, models=["multi"], samples=20)
    wanted = [coin_kl(CHANCES[EXPERTS[e]][d], CHANCES["multi"][d]) for e in DOMAINS for d in DOMAINS]
    assert column(found, "kl-multi", "KL per token") == pytest.approx(wanted, rel=1e-5)
    assert column(found, "kl-multi", "KL per sequence") == pytest.approx([10 * w for w in wanted], rel=1e-5)
    for unit, scale in (("token", 1), ("sequence", 10)):
        value, low, high = (column(found, "kl-multi", f"sampled KL per {unit}{x}") for x in ("", ", low", ", high"))
        inside = sum(a <= scale * w <= b for a, w, b in zip(low, wanted, high, strict=True))
        assert inside >= 14, "95% intervals hold the truth"
        assert value == pytest.approx([scale * w for w in wanted], abs=0.1 * scale)
    assert column(found, "kl-multi", "samples") == [400.0] * 16


def test_a_model_has_no_divergence_from_itself(coins: Coins) -> None:
    lab = coins({"a": {"x": 0.3, "y": 0.6}, "b": {"x": 0.5, "y": 0.5}}, {"x": "a", "y": "b"}, {"a": "mix"})
    found = run(lab)
    for name in ("KL per token", "sampled KL per token", "KL per sequence", "sampled KL per sequence"):
        assert column(found, "kl-a", name)[:2] == [0.0, 0.0]
    assert column(found, "neighbors-a", "neighbour at τ = 0.25") == ["undefined", "yes"]
    assert column(found, "neighbors-a", "ratio") == [None, 0.0]
    assert column(found, "neighbor-sets", "τ = 2") == ["none", "x"]


def test_changes_are_against_the_rows_expert(study: Lab) -> None:
    rows = {(r[0], r[1]): r[14] for r in run(study).tables["kl-multi"].rows}
    assert rows["math", "math"] == pytest.approx(-10.0)
    assert rows["coding", "math"] == pytest.approx(10.0)
    assert rows["if", "science"] == pytest.approx(20.0)
    assert run(study).figures["kl-multi"].beneath["math expert"] == pytest.approx([-10, 30, 20, 40])


def test_without_scores_there_are_distances_and_no_changes(coins: Coins) -> None:
    found = run(coins(CHANCES, EXPERTS, {"multi": "mix"}))
    assert column(found, "kl-multi", "ΔPerf, points") == [None] * 16
    assert stated(found, "does not correlate").verdict == "not measurable"
    assert "correlation-multi" not in found.figures
    assert not found.figures["kl-multi"].beneath


def cells(matrix: Mapping[tuple[str, str], Sequence[float]]) -> Cells:
    """Expert, domain → nats of each prompt; ten tokens each."""
    return {at: _cell(values) for at, values in matrix.items()}


def _cell(values: Sequence[float]) -> Cell:
    return Cell(_grid([10.0] * len(values)), _grid(values), _grid(values), len(values), 0.0)


def _grid(values: Sequence[float]) -> Grid:
    return Grid((0,), tuple(map(str, range(len(values)))), np.array([values], float), np.ones(len(values)))


MATRIX: dict[tuple[str, str], Sequence[float]] = {
    ("a", "a"): [1, 1, 1, 1], ("b", "a"): [1.2, 1.2, 1.2, 1.2], ("c", "a"): [0.5, 0.5, 0.5, 0.5],
    ("a", "b"): [3, 3, 3, 3], ("b", "b"): [2, 2, 2, 2], ("c", "b"): [2.5, 2.5, 2.5, 2.5],
    ("a", "c"): [4, 4, 4, 4], ("b", "c"): [4, 0, 4, 0], ("c", "c"): [1.5, 1.5, 1.5, 1.5],
}  # fmt: skip


def test_neighbour_sets_of_a_known_matrix() -> None:
    found = pairs(cells(MATRIX))
    assert neighbors(found, "a", 0.25) == ["c", "b"]
    assert neighbors(found, "a", 0.1) == ["c"]
    assert neighbors(found, "a", -0.5) == [], "Eq. 1 is strict"
    assert neighbors(found, "b", 0.25) == [], "Eq. 1 is strict"
    assert neighbors(found, "b", 0.5) == ["c"]
    assert neighbors(found, "b", 0.51) == ["c", "a"]
    assert neighbors(found, "c", 0.25) == []
    assert counts(found, [0.1, 0.25, 0.26, 0.51, 10]) == [1, 2, 3, 5, 6]
    assert [(one.domain, one.other) for one, _ in asymmetric(found, 0.25)] == [("a", "b"), ("a", "c")]
    least = {(p.domain, p.other): p.least_tau for p in found}
    assert least["a", "b"] == pytest.approx(0.2)
    assert least["a", "c"] == pytest.approx(-0.5)


def test_what_the_prompts_disagree_about_is_uncertain() -> None:
    says = {(p.domain, p.other): p.says(0.25) for p in pairs(cells(MATRIX))}
    assert says["a", "b"] == "yes"
    assert says["b", "a"] == "no"
    assert says["c", "b"] == "no, uncertain"


def test_the_curve_over_tau_never_falls_and_ends_with_all(study: Lab) -> None:
    curve = [value or 0.0 for value in run(study, tau=0.1).figures["neighbors-by-tau"].series["multi (mix)"]]
    assert curve == sorted(curve)
    assert curve[0] < curve[-1]


def test_claims_of_coins(study: Lab) -> None:
    """Math is 0.7 for its expert, 0.69 for coding's, 0.6 for the mixed model."""
    found = run(study)
    assert stated(found, "closest to multi").verdict == "fails"
    assert "coding of math" in stated(found, "neighbours by multi").note
    assert stated(found, "neighbours by multi").verdict == "holds"
    assert stated(found, "by multi (mix) is asymmetric").verdict == "holds"


@pytest.mark.parametrize(
    ("slope", "noise", "verdict"), [(0.0, 1.0, "holds"), (1.0, 0.0, "fails"), (0.6, 1.0, "undecided")]
)
def test_no_correlation_needs_a_narrow_interval(slope: float, noise: float, verdict: str) -> None:
    """Eighteen models on eighteen domains are many; three on three decide nothing."""
    size = 3 if verdict == "undecided" else 18
    draw = np.random.default_rng(5)
    subjects = []
    for m in range(size):
        x = draw.normal(size=size) + 5
        y = slope * x + noise * draw.normal(size=size)
        kl = {(str(d), str(d)): _cell([10 * x[d], 10 * x[d]]) for d in range(size)}
        change = {(str(d), str(d)): Estimate(y[d], y[d], y[d], 0.0) for d in range(size)}
        subjects.append(Subject(str(m), None, kl, change))
    *_, claim = claims(subjects, 0.25)
    assert claim.verdict == verdict
    assert claim.interval is not None


def test_the_correlation_is_that_of_the_cells(study: Lab) -> None:
    found = run(study)
    kl, change = column(found, "kl-multi", "KL per sequence"), column(found, "kl-multi", "ΔPerf, points")
    at = [row[:3] for row in found.tables["correlation"].rows].index(["multi", "sequence", "all"])
    assert found.tables["correlation"].rows[at][3] == pytest.approx(float(np.asarray(np.corrcoef(kl, change))[0, 1]))
    own = [
        (row[8], row[14])
        for m in ("multi", "sum", "student")
        for row in found.tables[f"kl-{m}"].rows
        if row[0] == row[1]
    ]
    by_hand = float(np.asarray(np.corrcoef(np.array(own, float).T))[0, 1])
    assert found.tables["correlation"].rows[-1][:3] == ["all of them", "token", "own domain"]
    assert found.tables["correlation"].rows[-1][3] == pytest.approx(by_hand)
    assert stated(found, "does not correlate").statistic == pytest.approx(by_hand)
    scatter = found.figures["correlation-multi"]
    assert sum(value is not None for value in scatter.series["own domain"]) == 4
    assert sum(value is not None for value in scatter.series["other domains"]) == 12


def test_a_merge_of_two_is_no_candidate_and_only_shared_suites_choose(coins: Coins) -> None:
    right = {**RIGHT, "m+s": {"math": 1.0, "science": 1.0}, "sum": {"math": 0.8}, "worse": {"math": 0.7, "if": 1.0}}
    lab = coins(CHANCES, EXPERTS, {**WAYS, "m+s": "merge"}, right)
    found = run(lab, merges={"m+s": ("math", "science")}, prompts=4, samples=1)
    assert [name for name in found.figures if name.startswith("kl-")] == ["kl-multi", "kl-sum", "kl-student"]


def test_merges_of_two(study: Lab) -> None:
    """Coding is a neighbour of math by the mixed model; science is not."""
    merges = {"m+c": ("math", "coding"), "m+s": ("math", "science")}
    found = run(study, models=["multi"], merges=merges, tau=0.25)
    changes = column(found, "merges", "change")
    assert changes == pytest.approx([10.0, -10.0, -10.0, -10.0])
    assert [says.partition(",")[0] for says in column(found, "merges", "neighbour at τ = 0.25")] == ["yes", *["no"] * 3]
    claim = stated(found, "Merging an expert with a policy neighbour")
    assert claim.statistic == pytest.approx(20.0)
    assert claim.verdict == "holds"
    only = run(study, models=["multi"], merges={"m+s": ("math", "science")})
    assert stated(only, "Merging an expert").verdict == "not measurable"


def test_the_papers_merges_of_two() -> None:
    """Table 6: what a claim's note says of neighbours and others, from the table's own changes."""
    with_neighbour = [2.63, 2.02, 1.49, 4.00]
    without = [-2.59, -2.77, 0.45, -1.38, -4.72, -7.11, -4.58, -1.69, -1.16, 1.14, -5.70, 0.57]
    assert np.mean(with_neighbour) == pytest.approx(2.5, abs=0.05)
    assert np.mean(without) == pytest.approx(-2.5, abs=0.05)


def test_prompts_of_the_split_that_is_named(study: Any) -> None:
    run(study, split={"math": "math-suite"}, prompts=5)
    assert study.asked == ["math-suite", "train", "train", "train"]
    found = run(study, split="if-suite", prompts=5, samples=2)
    assert column(found, "kl-multi", "samples") == [10.0] * 16


def test_cut_trajectories_are_counted(coins: Coins) -> None:
    lab = coins(CHANCES, EXPERTS, {"multi": "mix"}, RIGHT, cut=True)
    assert column(run(lab), "kl-multi", "cut off, %") == [100.0] * 16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"models": ["mulit"]}, r"models names 'mulit'.*Did you mean 'multi'"),
        ({"merges": {"m+x": ["math", "coding"]}}, r"merges names 'm\+x'"),
        ({"merges": {"m+c": ["math", "chess"]}}, "no expert of 'chess'"),
        ({"split": {"chess": "train"}}, "no expert of 'chess'"),
    ],
)
def test_unknown_names_are_refused(study: Lab, config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(study, **config)


def test_nothing_to_compare_is_refused(coins: Coins) -> None:
    with pytest.raises(DataError, match="no model combines domains"):
        run(coins(CHANCES, EXPERTS))
    with pytest.raises(DataError, match="no expert"):
        run(coins(CHANCES, {}, WAYS))


@pytest.mark.parametrize("bad", [{"tau": -2}, {"prompts": 1}, {"samples": 0}, {"merges": {"x": ["a"]}}, {"taus": 1}])
def test_wrong_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyNeighborhood.Config.model_validate(bad)


def test_no_number_of_a_table_is_nan(study: Lab) -> None:
    numbers = [cell for table in run(study).tables.values() for row in table.rows for cell in row]
    assert not [x for x in numbers if isinstance(x, float) and not math.isfinite(x)]


def test_the_readme_tells_true_settings() -> None:
    """The fragments of studies are YAML that validates, and every setting has a line with its default."""
    text = README.read_text(encoding="utf-8")
    stages = [
        s for block in re.findall(r"```yaml\n(.*?)```", text, re.S) for s in yaml.safe_load(block)["stages"].items()
    ]
    analyses = [dict(stage["analyzer"]) for _, stage in stages if stage["kind"] == "analyze"]
    assert len(analyses) == 2
    for settings in analyses:
        assert settings.pop("use") == PolicyNeighborhood.name
        found = PolicyNeighborhood.Config.model_validate(settings)
        assert set(found.merges) <= {name for name, stage in stages if stage["kind"] == "merge"}
    for name in PolicyNeighborhood.Config.model_fields:
        assert f"| `{name}` |" in text, name
