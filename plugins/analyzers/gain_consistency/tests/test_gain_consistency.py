"""Gain vectors by hand, corrections on simulated answers whose truth is known, and what every analyzer must do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2rl_analyzer_gain_consistency import GainConsistency
from m2rl_analyzer_gain_consistency.answers import Answers, Floats, aligned, rewards
from m2rl_analyzer_gain_consistency.consistency import consistency, cosine
from m2rl_analyzer_gain_consistency.gains import Gains, plain, quarters, splits, valued
from m2rl_analyzer_gain_consistency.null import PERMUTATIONS, permuted
from m2rl_core.errors import DataError
from m2rl_core.interfaces import Lab
from m2rl_core.testing import AnalyzerContract
from m2rl_core.types import Claim, Findings, Way


def drawn(rates_I: Floats, k: int, seed: int) -> Floats:
    """0 or 1, [prompts, k]."""
    return (np.random.default_rng(seed).random((len(rates_I), k)) < rates_I[:, None]).astype(np.float64)


def simulated(
    base_I: Floats, experts_EI: Sequence[Floats], arm_I: Floats, *, k: int, seed: int = 0, arm_k: int | None = None
) -> Answers:
    names = [str(i) for i in range(len(base_I))]
    experts = [drawn(rates, k, 100 * seed + e + 1) for e, rates in enumerate(experts_EI)]
    return Answers(names, drawn(base_I, k, 100 * seed), experts, drawn(arm_I, arm_k or k, 100 * seed + 50))


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_cosine_by_hand() -> None:
    """Base 0, ½, 1, 0; two experts; the union gains 1, ½, 0, ½ and the arm ½, 0, 0, 1."""
    base = np.array([[0, 0], [0, 1], [1, 1], [0, 0]], float)
    math = np.array([[1, 1], [0, 0], [1, 1], [0, 0]], float)
    code = np.array([[0, 1], [1, 1], [0, 0], [0, 1]], float)
    arm = np.array([[0, 1], [0, 1], [0, 1], [1, 1]], float)
    union, gains = plain(Answers("abcd", base, [math, code], arm))
    assert union.tolist() == [1, 0.5, 0, 0.5]
    assert gains.tolist() == [0.5, 0, 0, 1]
    assert cosine(union, gains) == pytest.approx(1 / np.sqrt(1.5 * 1.25))


def test_choosing_on_one_part_and_valuing_on_the_other_by_hand() -> None:
    """First half: part 0 chooses expert 1 (worth 0 on part 1); part 1 chooses both alike (worth −½ and 1 on part 0)."""
    base = np.full((4, 1), 0.5)
    first, second = (np.array(parts, float)[:, None] for parts in ([0, 1, 0, 0], [1.5, 1, 0.5, 0]))
    found = valued(base, [first, second], first)
    chosen_by_0, chosen_by_1 = 0.5, (-0.5 + 1) / 2
    assert found.union_HI[:, 0].tolist() == [(chosen_by_0 + chosen_by_1) / 2, 0]
    assert found.arm_HI[:, 0].tolist() == [(0 - 0.5) / 2, 0]


def test_failed_verdicts_and_prompts_with_too_few_are_left_out() -> None:
    def records(prompt: str, *values: float | None) -> list[dict[str, Any]]:
        return [{"prompt": prompt, "reward": value} for value in values]

    full = rewards(records("a", 1, 0, 1, 1) + records("b", 0, 0, 0, 0) + records("c", 1, 1, 1, 1) + records("d", 1))
    holes = rewards(records("c", 1, None, 0, 1, 1) + records("a", None, 0, 1, 1) + records("b", 0, 1, 1, 1, 0, 1))
    holes |= rewards(records("d", None))
    some = aligned(full, [full, full], holes)
    assert some.prompts == ["a", "b", "c"]
    found = some.enough
    assert found.prompts == ["b", "c"]
    assert np.nansum(found.arm_IK, axis=1).tolist() == [4, 3]
    assert np.isnan(found.arm_IK).sum() == 2


def test_parts_of_samples_are_disjoint_and_use_every_verdict() -> None:
    values = np.arange(16.0).reshape(2, 8) ** 2
    values[1, 3:5] = np.nan
    found = quarters(values, np.random.default_rng(0))
    assert found[:, 0].sum() * 2 == np.nansum(values[0])
    assert np.isfinite(found).all()


# ── noise ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def truth(prompts: int, seed: int = 0) -> tuple[Floats, list[Floats], Floats]:
    """Right-answer rates: two experts that each help on some prompts, and an arm that has learned most of both."""
    draw = np.random.default_rng(seed)
    base = draw.uniform(0.1, 0.6, prompts)
    helps = [draw.random(prompts) < 0.4 for _ in range(3)]
    experts = [base + 0.35 * helps[0], base + 0.2 * helps[1]]
    return base, experts, base + 0.3 * (helps[0] & (draw.random(prompts) < 0.7)) + 0.2 * (helps[2] & ~helps[0])


def true_cosine(base: Floats, experts: Sequence[Floats], arm: Floats) -> float:
    return cosine(np.max(np.stack(experts) - base, axis=0).clip(0), (arm - base).clip(0))


def test_the_corrected_cosine_nears_the_truth() -> None:
    base, experts, arm = truth(2000)
    wanted = true_cosine(base, experts, arm)
    found = consistency(simulated(base, experts, arm, k=32), "suite", "arm")
    assert found.corrected == pytest.approx(wanted, abs=0.04)
    low, high = np.percentile(found.draws, [2.5, 97.5])
    assert low < found.corrected < high < low + 0.1
    few = consistency(simulated(base, experts, arm, k=8), "suite", "arm")
    assert few.corrected == pytest.approx(wanted, abs=0.15)
    assert few.halves < few.paper, "the base's luck is in both vectors of the paper"


def test_gains_on_different_prompts_have_a_corrected_cosine_of_zero() -> None:
    """The paper's cosine is high all the same: sampling noise looks like gains, and the base's is in both vectors."""
    base = np.full(2000, 0.4)
    prompts = np.arange(2000)
    expert, arm = (base + 0.4 * (prompts % 4 == rest) for rest in (0, 1))
    assert true_cosine(base, [expert], arm) == 0
    found = consistency(simulated(base, [expert], arm, k=8), "suite", "arm")
    assert found.paper > 0.4
    assert found.corrected == pytest.approx(0, abs=0.05)


def test_the_ceiling_is_the_cosine_of_a_model_with_its_own_equal() -> None:
    """An arm with the very rates of the only expert: halves reach the ceiling, and the corrected cosine is 1."""
    base, [expert, _], _ = truth(1500)
    found = consistency(simulated(base, [expert], expert, k=8), "suite", "twin")
    assert found.halves == pytest.approx(found.ceiling, abs=0.02)
    assert found.ceiling < 0.9, "eight samples are noisy"
    assert found.corrected == pytest.approx(1, abs=0.06)
    many = consistency(simulated(base, [expert], expert, k=100), "suite", "twin")
    assert many.ceiling > found.ceiling + 0.1


def test_the_union_of_experts_that_gained_nothing_is_worth_nothing() -> None:
    base = np.random.default_rng(1).uniform(0.2, 0.8, 3000)
    answers = simulated(base, [base] * 5, base, k=8)
    union, _ = plain(answers)
    worth = np.mean([each.union_HI.mean() for _, each in splits(answers)])
    assert union.mean() > 0.2, "the largest of five lucky draws"
    assert abs(worth) < 0.01


def test_independent_gains_of_one_difficulty_are_as_consistent_as_by_chance() -> None:
    """Over many suites, p is spread evenly, and the excess over chance is centred on zero."""
    draw = np.random.default_rng(3)
    excess, ps = [], []
    for seed in range(40):
        base = np.full(80, 0.4)
        expert, arm = (base + 0.4 * (draw.random(80) < 0.3) for _ in range(2))
        answers = simulated(base, [expert], arm, k=8, seed=seed)
        pairs = [each for each, _ in splits(answers)][:4]
        observed = np.mean([cosine(g.union_HI[h], g.arm_HI[1 - h]) for g in pairs for h in (0, 1)])
        null = permuted(pairs, np.zeros(80), str(seed))
        excess.append(observed - null.mean)
        ps.append(null.p(float(observed)))
    assert abs(np.mean(excess)) < 3 * np.std(excess) / np.sqrt(40)
    assert 0.35 < np.mean(ps) < 0.65


def test_the_null_by_hand() -> None:
    """Two prompts in the same stratum change places in half of the orders, in different strata never."""
    gains = Gains(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    free, fixed = permuted([gains], np.zeros(2), "x"), permuted([gains], np.arange(2.0), "x")
    assert set(free.values.tolist()) == {0.0, 1.0}
    assert free.mean == pytest.approx(0.5, abs=0.05)
    assert fixed.values.tolist() == [1.0] * PERMUTATIONS
    assert fixed.p(1.0) == 1
    assert free.p(1.0) == pytest.approx(0.5, abs=0.05)


def test_equally_hard_prompts_explain_what_difficulty_alone_explains() -> None:
    """Nobody can gain on solved prompts, which looks like consistency, but not among equally hard prompts."""
    draw = np.random.default_rng(4)
    base = np.where(np.arange(600) < 400, 1.0, 0.3)
    expert, arm = (np.where(base < 1, base + 0.5 * (draw.random(600) < 0.5), 1.0) for _ in range(2))
    found = consistency(simulated(base, [expert], arm, k=8), "suite", "arm")
    assert found.null.p(found.halves) < 0.01
    assert found.level_null.p(found.halves) > 0.05
    assert found.level_null.mean > found.null.mean + 0.1


# ── the analyzer ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Files(Lab):
    """A lab whose scores are files as an evaluation writes them."""

    folder: Path
    experts: Mapping[str, str]
    arms: Mapping[str, Way]
    start: str | None = "sft"
    models: Mapping[str, Path] = field(default_factory=dict)

    def scores(self, model: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        files = sorted((self.folder / model).glob("*/samples.jsonl"))
        if not files:
            raise DataError(f"no evaluation of '{model}'")
        return {file.parent.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def evaluation(folder: Path, model: str, suite: str, domain: str, rates_I: Floats, k: int = 8) -> None:
    seed = sum(map(ord, model + suite))
    path = folder / model / suite / "samples.jsonl"
    path.parent.mkdir(parents=True)
    rows = [
        {"prompt": f"{suite}-{i}", "domain": domain, "suite": suite, "sample": j, "reward": value, "weight": 1.0}
        for i, row in enumerate(drawn(rates_I, k, seed))
        for j, value in enumerate(row.tolist())
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def study(folder: Path, prompts: int = 40, k: int = 8) -> Files:
    """The merge learns what the experts know; the mix something else in coding; the distilled model is not scored."""
    for number, (suite, domain) in enumerate({"aime": "math", "lcb": "coding"}.items()):
        base, experts, arm = truth(prompts, seed=number)
        union = np.max(np.stack(experts), axis=0)
        models = {"sft": base, "math": experts[0], "coding": experts[1], "ties": union}
        models["multi"] = union if domain == "math" else base + 0.4 * (arm == base)
        for model, rates in models.items():
            evaluation(folder, model, suite, domain, rates, k)
    arms: dict[str, Way] = {"multi": "mix", "ties": "merge", "opd": "distil"}
    return Files(folder, {"math": "math", "coding": "coding"}, arms)


def analyse(lab: Files, **settings: object) -> Findings:
    return GainConsistency(GainConsistency.Config.model_validate(settings)).run(lab)


def claim(found: Findings, words: str) -> Claim:
    [one] = [each for each in found.claims if words in each.statement]
    return one


class TestGainConsistency(AnalyzerContract):
    analyzer = GainConsistency(GainConsistency.Config())

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.study = study(tmp_path)

    def lab(self) -> Lab:
        return self.study


def test_a_study_whose_truth_is_known(tmp_path: Path) -> None:
    found = analyse(study(tmp_path, 200, 32))
    rows = {(row[0], row[1]): row for row in found.tables["gain-consistency"].rows}
    assert set(rows) == {(suite, arm) for suite in ("aime", "lcb") for arm in ("multi", "ties", "opd")}
    assert rows["lcb", "opd"][3:] == [None] * 11, "not evaluated: shown as missing"
    assert rows["lcb", "ties"][6] == pytest.approx(1, abs=0.1)
    low = rows["lcb", "multi"][8]
    assert isinstance(low, float)
    assert low < 0.7
    assert found.figures["gain-consistency"].series["opd"] == [None, None]
    assert claim(found, "most consistent in math").verdict == "holds"
    assert claim(found, "no expert does").verdict == "holds"
    assert claim(found, "Merged").verdict == "holds"
    overlap = claim(found, "more than by chance")
    assert overlap.interval is not None
    assert "multi" in overlap.note
    [union, _] = found.tables["gain-union"].rows
    assert union[2] == "math"
    assert isinstance(union[4], float)
    assert isinstance(union[5], float)
    assert union[4] > union[5] > 0


def test_one_sample_per_prompt_gives_the_papers_cosine_alone(tmp_path: Path) -> None:
    found = analyse(study(tmp_path, k=1))
    [first, *_] = found.tables["gain-consistency"].rows
    assert first[3:5] == [40, 0]
    assert isinstance(first[5], float)
    assert first[6:] == [None] * 8
    assert {(each.verdict, "no prompt has 4 samples" in each.note) for each in found.claims} == {
        ("not measurable", True)
    }
    assert [row[-1] for row in found.tables["gain-union"].rows] == [None, None]


def test_what_a_study_lacks_is_not_measurable(tmp_path: Path) -> None:
    lab = study(tmp_path, 20)
    lab.arms = {"opd": "distil"}
    assert {each.verdict for each in analyse(lab).claims} == {"not measurable"}


def test_a_study_without_base_experts_arms_or_common_suites_is_refused(tmp_path: Path) -> None:
    lab = study(tmp_path, 10)
    with pytest.raises(DataError, match="needs a base"):
        analyse(Files(tmp_path, lab.experts, lab.arms, start=None))
    with pytest.raises(DataError, match="no expert of one domain"):
        analyse(Files(tmp_path, {}, lab.arms))
    with pytest.raises(DataError, match="no mixed, merged or distilled"):
        analyse(Files(tmp_path, lab.experts, {}))
    with pytest.raises(DataError, match="no evaluation of 'if'"):
        analyse(Files(tmp_path, {**lab.experts, "if": "if"}, lab.arms))
    evaluation(tmp_path, "if", "ifeval", "if", np.full(5, 0.5))
    with pytest.raises(DataError, match="no suite on which 'sft' and all experts"):
        analyse(Files(tmp_path, {**lab.experts, "if": "if"}, lab.arms))


def test_another_base_may_be_named(tmp_path: Path) -> None:
    lab = study(tmp_path, 20)
    lab.start = None
    assert analyse(lab, base="sft").tables["gain-consistency"].rows
