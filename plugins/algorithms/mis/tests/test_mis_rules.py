"""Weights and keeps of both rules: by hand, against a naive version per sample, and against TRL's numbers."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from m2rl_algorithm_mis.rules import Bounds, Mis, Tis
from m2rl_core.types import Sample

Make = Callable[..., Sample]
Weigh = Callable[..., Any]

RATIOS = [[1.0, 4.0, 0.25, 1.5], [0.5, 0.9]]
"""Products 1.5 and 0.45; geometric means 1.5^(1/4) = 1.10668 and 0.45^(1/2) = 0.67082."""


def mis(**config: Any) -> Mis:
    return Mis(Mis.Config.model_validate(config))


def tis(**config: Any) -> Tis:
    return Tis(Tis.Config.model_validate(config))


def flat(rows: list[list[float]]) -> list[float]:
    return [value for row in rows for value in row]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (mis(low=0.4), [[1.0, 0.0, 0.0, 1.5], [0.5, 0.9]]),
        (mis(low=0.4, level="sequence"), [[1.5] * 4, [0.45] * 2]),
        (mis(level="sequence"), [[1.5] * 4, [0.0] * 2]),
        (mis(low=0.7, level="geometric"), [[1.1066819] * 4, [0.0] * 2]),
        (mis(high=1.1, level="geometric"), [[0.0] * 4, [0.6708204] * 2]),
        (tis(), [[1.0, 2.0, 0.25, 1.5], [0.5, 0.9]]),
        (tis(low=0.6), [[1.0, 2.0, 0.6, 1.5], [0.6, 0.9]]),
        (tis(high=1.2, level="sequence"), [[1.2] * 4, [0.45] * 2]),
        (tis(low=0.8, high=1.1, level="geometric"), [[1.1] * 4, [0.8] * 2]),
    ],
    ids=lambda value: f"{value.name}-{value.config.level}" if hasattr(value, "name") else "",
)
def test_weights_by_hand(rule: Mis | Tis, expected: list[list[float]], sample_of: Make, weigh: Weigh) -> None:
    found = weigh(rule, [sample_of(ratios, seed=i) for i, ratios in enumerate(RATIOS)])
    assert flat(found.weights) == pytest.approx(flat(expected), rel=1e-6)
    assert all(flat(found.keeps))


def test_bounds_belong_to_the_range(sample_of: Make, weigh: Weigh) -> None:
    samples = [sample_of([1.0, 1.001, 0.999])]
    assert weigh(mis(low=1.0, high=1.0), samples).weights == [[1.0, 0.0, 0.0]]


def test_the_defaults_are_the_papers_reading() -> None:
    assert Mis.Config().model_dump() == {"level": "token", "low": 0.5, "high": 2.0, "veto": None, "shrink": False}
    assert Tis.Config().model_dump() == {"level": "token", "low": 0.0, "high": 2.0, "veto": None}
    assert Mis.needs == Tis.needs == {"old_logps"}


@pytest.mark.parametrize(
    "config", [{"low": 3.0}, {"low": -0.1}, {"low": math.nan}, {"veto": 0.0}, {"veto": 2.0}, {"level": "group"}]
)
@pytest.mark.parametrize("model", [Mis.Config, Tis.Config])
def test_impossible_settings_are_refused(model: type[Bounds], config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        model.model_validate(config)


def test_a_threshold_may_be_written_as_yaml_reads_it() -> None:
    assert Mis.Config.model_validate({"veto": "1e-4"}).veto == 1e-4  # to YAML 1.1, 1e-4 is a string


def test_every_preset_of_the_readme_is_valid() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    presets = [yaml.safe_load(line)["importance"] for line in re.findall(r"^importance: .*", readme, re.MULTILINE)]
    assert len(presets) == 7
    for preset in presets:
        {"mis": mis, "tis": tis}[preset.pop("use")](**preset)


def test_shrinking_drops_what_is_masked(sample_of: Make, weigh: Weigh) -> None:
    samples = [sample_of([1.0, 4.0, 0.25, 1.5]), sample_of([0.4, 0.9])]
    assert weigh(mis(shrink=True), samples).keeps == [[True, False, False, True], [False, True]]
    assert weigh(mis(shrink=True, level="sequence"), samples).keeps == [[True] * 4, [False] * 2]


@pytest.mark.parametrize("rule", [mis(veto=1e-4), tis(veto=1e-4), mis(veto=1e-4, level="geometric", low=0)])
def test_a_catastrophic_token_takes_its_sample_along(rule: Mis | Tis, sample_of: Make, weigh: Weigh) -> None:
    found = weigh(rule, [sample_of([1.0, 9e-5, 1.2]), sample_of([1.1e-4, 1.0])])
    assert found.weights[0] == [0.0] * 3
    assert found.keeps == [[False] * 3, [True] * 2]
    assert found.weights[1][1] > 0


def test_the_veto_looks_at_tokens_at_every_level(sample_of: Make, weigh: Weigh) -> None:
    compensated = [sample_of([5e-5, 2e4])]  # product 1, geometric mean 1
    for level in ("sequence", "geometric"):
        assert weigh(mis(level=level), compensated).weights[0] == pytest.approx([1.0] * 2, rel=1e-5)
        assert weigh(mis(level=level, veto=1e-4), compensated).weights == [[0.0] * 2]


@pytest.mark.parametrize("level", ["sequence", "geometric"])
def test_a_sample_in_two_pieces_is_one_sample(level: str, sample_of: Make, weigh: Weigh) -> None:
    whole = sample_of([1.3, 0.8, 1.1, 1.2, 0.7])
    split = sample_of([1.3, 0.8, 1.1, 1.2, 0.7], starts=[0, 3])
    other = sample_of([0.9, 0.95], seed=3)
    expected = weigh(mis(level=level), [other, whole])
    assert weigh(mis(level=level), [other, split]).weights == expected.weights
    power = 1.0 if level == "sequence" else 1 / 5
    assert expected.weights[1] == pytest.approx([(1.3 * 0.8 * 1.1 * 1.2 * 0.7) ** power] * 5, rel=1e-6)


def test_a_veto_in_one_piece_removes_all_pieces(sample_of: Make, weigh: Weigh) -> None:
    found = weigh(mis(veto=0.1), [sample_of([0.01, 1.0, 1.0, 1.0], starts=[0, 2]), sample_of([1.0])])
    assert found.keeps == [[False] * 4, [True]]


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("side", ["logps_L", "old_logps_L"])
def test_an_unknown_ratio_trains_nothing(bad: float, side: str, sample_of: Make, weigh: Weigh) -> None:
    samples = [sample_of([1.0, 1.0, 1.5]), sample_of([1.2, 1.0], seed=1)]
    values = getattr(samples[0], side)
    values[2] = bad
    for rule in (mis(), tis(), mis(shrink=True)):
        found = weigh(rule, samples)
        assert found.weights[0] == pytest.approx([1.0, 0.0, 1.5], rel=1e-6)
        assert found.keeps == [[True, False, True], [True, True]]
        assert found.metrics["ratio_unknown"] == pytest.approx(1 / 5)
        assert all(math.isfinite(value) for value in found.metrics.values())
    for level in ("sequence", "geometric"):
        found = weigh(mis(level=level), samples)
        assert found.weights[0] == [0.0] * 3
        assert found.keeps == [[False] * 3, [True] * 2]
        assert found.metrics["ratio_unknown"] == pytest.approx(3 / 5)


def test_no_log_probs_at_all_are_an_error(sample_of: Make, weigh: Weigh) -> None:
    with pytest.raises(ValueError, match="none of 2 tokens has finite log-probs"):
        weigh(mis(), [sample_of([1.0, 1.0], logps_L=[0.0, math.nan, math.nan])])


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_extreme_ratios_do_not_overflow(level: str, sample_of: Make, weigh: Weigh) -> None:
    logs = torch.tensor([0.0, *[300.0] * 40])
    samples = [sample_of([1.0] * 40, old_logps_L=logs), sample_of([1.0] * 40, old_logps_L=-logs, seed=1)]
    assert flat(weigh(tis(level=level), samples).weights) == pytest.approx([2.0] * 40 + [math.exp(-20)] * 40)
    assert weigh(mis(level=level), samples).weights == [[0.0] * 40] * 2


def test_a_minibatch_without_trained_tokens_is_no_error(sample_of: Make, weigh: Weigh) -> None:
    found = weigh(mis(level="geometric", veto=1e-4), [sample_of([])])
    assert found.weights == [[]]
    assert found.metrics == {}


def naive(rule: Mis | Tis, sampler: list[float], trainer: list[float]) -> list[tuple[float, bool]]:
    """(weight, keep) of one sample's tokens, in plain Python."""
    config, n = rule.config, len(sampler)
    own = [math.exp(t - s) for t, s in zip(trainer, sampler, strict=True)]
    product = math.exp(sum(trainer) - sum(sampler))
    ratios = {"token": own, "sequence": [product] * n, "geometric": [product ** (1 / n)] * n}[config.level]
    if config.veto is not None and min(own) < config.veto:
        return [(0.0, False)] * n
    if isinstance(rule, Tis):
        return [(min(max(r, config.low), config.high), True) for r in ratios]
    inside = [config.low <= r <= config.high for r in ratios]
    return [(r if i else 0.0, i or not rule.config.shrink) for r, i in zip(ratios, inside, strict=True)]


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("veto", [None, 0.3])
@pytest.mark.parametrize("make", [mis, lambda **c: mis(shrink=True, **c), tis, lambda **c: tis(low=0.9, **c)])
def test_a_random_minibatch_against_the_naive_version(
    make: Callable[..., Mis | Tis], veto: float | None, level: str, sample_of: Make, weigh: Weigh
) -> None:
    rule, draw = make(level=level, veto=veto), random.Random(5)
    lengths = [draw.randint(1, 30) for _ in range(40)]
    samples = [
        sample_of([math.exp(draw.gauss(0, 0.4)) for _ in range(n)], seed=i, starts=[0] + [2] * (n > 9))
        for i, n in enumerate(lengths)
    ]
    found = weigh(rule, samples)
    sides = [(s.logps_L[1:], s.old_logps_L.tolist()[1:]) for s in samples if s.old_logps_L is not None]
    expected = [naive(rule, *side) for side in sides]
    assert flat(found.keeps) == [keep for row in expected for _, keep in row]
    assert flat(found.weights) == pytest.approx([weight for row in expected for weight, _ in row], rel=1e-5)
    assert len(set(flat(found.weights))) > 2  # else the case would tell nothing


def test_weights_agree_with_trl(make_sample: Make, weigh: Weigh) -> None:
    """TRL's own statement on the same log-probs; ``benchmarks/peer_importance.py`` made the file."""
    recorded = json.loads((Path(__file__).parent / "trl.json").read_text())
    samples = []
    for sampler, trainer, trained in zip(recorded["sampler"], recorded["trainer"], recorded["trained"], strict=True):
        sample = make_sample(len(sampler), 0)
        sample.sampled_L, sample.logps_L, sample.old_logps_L = trained, sampler, torch.tensor(trainer)
        samples.append(sample)
    assert len(recorded["answers"]) == 12
    for answer in recorded["answers"]:
        config = {name: answer[name] for name in ("level", "low", "high")}
        found = weigh({"mis": mis, "tis": tis}[answer["rule"]](**config), samples)
        rows = zip(answer["weights"], recorded["trained"], strict=True)
        theirs = [[w for w, t in zip(*row, strict=True) if t] for row in rows]
        assert flat(found.weights) == pytest.approx(flat(theirs), rel=1e-6, abs=1e-6), answer["mode"]


def test_sequence_ratios_degrade_with_length(sample_of: Make, weigh: Weigh) -> None:
    """The same mismatch per token masks few tokens, but nearly every long sample."""
    draw = random.Random(2)
    shares = []
    for length in (16, 256, 1024):
        samples = [sample_of([math.exp(draw.gauss(0, 0.06)) for _ in range(length)], seed=i) for i in range(60)]
        metrics = [weigh(mis(level=level), samples).metrics for level in ("token", "sequence", "geometric")]
        masked = [m["ratio_masked_low"] + m["ratio_masked_high"] for m in metrics]
        assert masked[0] == masked[2] == 0.0
        shares.append(masked[1])
    assert all(short < long for short, long in pairwise(shares))


@pytest.mark.parametrize(
    ("rule", "separable"),
    [
        (mis(), True),
        (tis(), True),
        (tis(low=0.5), True),
        (mis(shrink=True), False),
        (mis(veto=1e-3), False),
        (tis(level="sequence"), False),
        (mis(level="geometric"), False),
    ],
)
def test_token_rules_say_what_they_keep_before_the_trainer_speaks(
    rule: Mis | Tis, separable: bool, sample_of: Make, weigh: Weigh
) -> None:
    """By its own ratio alone, and kept whatever that is: what ``separable`` promises, and no other rule does."""
    assert rule.separable == separable
    drawn = [sample_of([0.1, 1.0, 5.0, 1.5]), sample_of([1e-5, 0.7], seed=1)]
    agreed = [sample_of([1.0] * 4), sample_of([1.0] * 2, seed=1)]
    together = weigh(rule, drawn)
    kept = flat(together.keeps) == flat(weigh(rule, agreed).keeps)
    [[first]] = weigh(rule, [sample_of([0.1])]).weights
    assert (kept and together.weights[0][0] == pytest.approx(first, rel=1e-5)) == separable
