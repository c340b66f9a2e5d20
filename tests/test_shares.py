"""Shares of the domains: by their data, and by who lags behind; hand cases, bounds, resumption, and long runs."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from m2rl_core.errors import ConfigError
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.plugins import load_plugins
from m2rl_core.rollout.mixture import BITS, UNIT, Source
from m2rl_core.rollout.shares import Fixed, Proportional, WorstTask, bounded
from m2rl_core.types import Prompt

PAPER = {"math": 22056, "coding": 19169, "science": 19670, "if": 16575, "agent": 10229}
"""Training prompts of each domain, section 3.1."""


def worst(**settings: object) -> WorstTask:
    return WorstTask(WorstTask.Config.model_validate({"warmup": 1, **settings}))


def source(mixture: Fixed | Proportional | WorstTask, sizes: Mapping[str, int], count: int) -> Source:
    found = {
        d: [Prompt(f"{d}-{i}", d, ({"role": "user", "content": str(i)},)) for i in range(n)] for d, n in sizes.items()
    }
    return Source(found, mixture, count, 5)


# ── proportional ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_data_give_the_papers_shares() -> None:
    mixed = source(Proportional(ComponentConfig()), PAPER, 128)
    drawn = [p.domain for step in range(200) for p in mixed.next(step)]
    shares = {domain: round(100 * drawn.count(domain) / len(drawn), 1) for domain in PAPER}
    assert shares == {"math": 25.1, "coding": 21.9, "science": 22.4, "if": 18.9, "agent": 11.7}


def test_proportional_domains_begin_their_epochs_together() -> None:
    mixed = source(Proportional(ComponentConfig()), {"math": 30, "science": 10}, 8)
    for epoch in range(3):
        taken = [p.id for step in range(5) for p in mixed.next(5 * epoch + step)]
        assert len(set(taken)) == 40, "every prompt once"


# ── who lags behind ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_domain_that_gained_least_gets_more() -> None:
    mixture, sizes = worst(rate=2.0, floor=0.1), {"math": 9, "science": 9}
    assert mixture.weights(0, sizes, {}) == {"math": 0.5, "science": 0.5}
    assert mixture.weights(1, sizes, {"math": 0.2, "science": 0.4}) == pytest.approx({"math": 0.5, "science": 0.5})
    found = mixture.weights(2, sizes, {"math": 0.6, "science": 0.5})  # gains 0.4 and 0.1, so e^(2 · 0.3) to 1
    assert found == pytest.approx({"math": 1 / (1 + math.exp(0.6)), "science": 1 / (1 + math.exp(-0.6))})
    again = mixture.weights(3, sizes, {"math": 0.6, "science": 0.5})
    assert again["science"] == pytest.approx(1 / (1 + math.exp(-1.2))), "steps add up"


def test_with_references_what_is_missing_to_them_counts() -> None:
    mixture = worst(
        rate=1.0, references={"math": 0.9, "science": 0.5, "if": 0.3}, shares={"math": 2, "science": 1, "if": 1}
    )
    found = mixture.weights(1, dict.fromkeys(("math", "science", "if"), 9), {"math": 0.4, "science": 0.4, "if": 0.8})
    parts = {"math": 2 * math.exp(0.5), "science": math.exp(0.1), "if": 1.0}  # above the reference is as good as at it
    assert found == pytest.approx({name: part / sum(parts.values()) for name, part in parts.items()})


def test_nothing_moves_before_every_domain_is_known() -> None:
    mixture, sizes = worst(warmup=3), {"math": 9, "science": 9}
    for step, rewards in enumerate([{}, {"math": 0.9}, {"math": 0.9, "science": 0.1}, {"math": 0.9}]):
        assert mixture.weights(step, sizes, rewards) == {"math": 0.5, "science": 0.5}
        assert not mixture.start
    mixture.weights(4, sizes, {"math": 0.9, "science": 0.1})
    assert mixture.start == {"math": 0.9, "science": 0.1}


def test_no_domain_starves_and_who_caught_up_leaves_its_bound_at_once() -> None:
    mixture, sizes = worst(rate=1.0, floor=0.25), dict.fromkeys("abcde", 9)
    rewards = dict.fromkeys(sizes, 0.0)
    for step in range(1, 300):
        rewards |= {"a": min(1.0, step / 100), "b": min(1.0, step / 90)}
        shares = mixture.weights(step, sizes, rewards)
        assert math.fsum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0.05 - 1e-12
    assert [shares["a"], shares["b"]] == pytest.approx([0.05, 0.05])
    rewards |= dict.fromkeys("cde", 2.0)
    for step in range(300, 304):
        shares = mixture.weights(step, sizes, rewards)
    assert shares["a"] > 0.2, "weights without a bound would need as long as they had fallen"


def test_worst_task_lifts_the_worst_domain_of_a_simulated_study() -> None:
    """Domains learn in proportion to their prompts, at different speeds."""

    def trained(mixture: Fixed | WorstTask) -> dict[str, float]:
        speeds = {"quick": 0.03, "fair": 0.01, "slow": 0.003}
        ability = dict.fromkeys(speeds, 0.1)
        for step in range(200):
            shares = mixture.weights(step, dict.fromkeys(speeds, 100), ability)
            total = sum(shares.values())
            ability = {d: a + speeds[d] * shares[d] / total * (1 - a) for d, a in ability.items()}
        return ability

    equal = trained(Fixed(Fixed.Config(shares={"quick": 1, "fair": 1, "slow": 1})))
    adapted = trained(WorstTask(WorstTask.Config()))
    assert min(equal, key=lambda d: equal[d]) == min(adapted, key=lambda d: adapted[d]) == "slow"
    assert adapted["slow"] > equal["slow"] + 0.1
    assert max(adapted.values()) - min(adapted.values()) < 0.7 * (max(equal.values()) - min(equal.values()))


@pytest.mark.parametrize("seed", range(30))
def test_bounded_is_the_closest_distribution_within_the_bounds(seed: int) -> None:
    """Against random neighbours: none within the bounds has less relative entropy."""
    draw, names = random.Random(seed), "abcde"
    weights = {n: draw.random() ** 4 + 1e-6 for n in names}
    floors = {n: draw.choice([0.02, 0.1, 0.19]) for n in names}
    found = bounded(weights, floors)
    assert math.fsum(found.values()) == pytest.approx(1)
    assert all(found[n] >= floors[n] for n in names)

    def apart(shares: Mapping[str, float]) -> float:
        return sum(s * math.log(s * sum(weights.values()) / weights[n]) for n, s in shares.items())

    for _ in range(200):
        one, other = draw.sample(names, 2)
        moved = min(draw.random() * 0.01, found[one] - floors[one])
        assert apart(found | {one: found[one] - moved, other: found[other] + moved}) >= apart(found) - 1e-12


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ({"use": "worst-task", "references": {"math": 0.5}}, "references: names all domains .* lacks science"),
        ({"use": "worst-task", "shares": {"math": 1, "science": 1, "if": 1}}, "shares: if is no domain of the stage"),
        ({"use": "fixed", "shares": {"math": 1}}, "shares: names all domains .* lacks science"),
        ({"use": "proportional"}, ""),
    ],
)  # fmt: skip
def test_settings_must_fit_the_stages_domains(use: dict[str, object], words: str) -> None:
    mixture = load_plugins().create("mixture", use, "stages.multi.mixture")
    if words:
        with pytest.raises(ValueError, match=words):
            mixture.check(["math", "science"])
    else:
        mixture.check(["math", "science"])


@pytest.mark.parametrize("settings", [{"floor": 0}, {"floor": 1}, {"rate": 0}, {"warmup": 0}, {"shares": {"a": 0}}])
def test_settings_without_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        load_plugins().create("mixture", {"use": "worst-task", **settings}, "x")


# ── drawn ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rewarded(mixed: Source, steps: range, *, seed: int = 3) -> Iterator[tuple[list[str], dict[str, float]]]:
    """(prompts, shares) of steps whose rewards are noise."""
    for step in steps:
        taken = mixed.next(step)
        draw = random.Random(seed * 10_000 + step)
        mixed.rewards |= {domain: draw.random() for domain in mixed.prompts}
        yield [p.id for p in taken], mixed.metrics(step)


class Restless(Fixed):
    """Weights of a plugin that change and do not add up to 1."""

    def weights(self, step: int, sizes: Mapping[str, int], rewards: Mapping[str, float]) -> Mapping[str, float]:
        return {domain: 0.1 + reward for domain, reward in rewards.items()} or self.config.shares


@pytest.mark.parametrize("mixture", [Restless(Fixed.Config(shares={"a": 1, "b": 1, "c": 1})), worst(rate=0.5)])
def test_changing_shares_are_dealt_exactly_in_a_long_run(tmp_path: Path, mixture: Fixed | WorstTask) -> None:
    """Without rounding, the fractions of the first would have 50 binary digits more after every step."""
    sizes = dict.fromkeys("abc", 500)
    mixed = source(mixture, sizes, 16)
    drawn, owed = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0.0)
    for taken, shares in rewarded(mixed, range(800)):
        assert len(taken) == 16
        for domain in sizes:
            drawn[domain] += sum(name.startswith(domain) for name in taken)
            owed[domain] += 16 * shares[f"share/{domain}"]
            assert abs(drawn[domain] - owed[domain]) < 1.001
    assert sum(mixed.owed.values()) == 0
    assert all(value.denominator.bit_length() <= BITS + 128 for value in mixed.owed.values())
    mixed.save_state(tmp_path)
    assert (tmp_path / "source.json").stat().st_size < 3000


def test_fixed_shares_are_never_rounded() -> None:
    mixed = source(Fixed(Fixed.Config(shares={"a": 25.1, "b": 0.3, "c": 1e-3})), dict.fromkeys("abc", 50), 7)
    for step in range(300):
        mixed.next(step)
    assert any(value.denominator > UNIT for value in mixed.owed.values())


def test_a_saved_worst_task_continues_exactly(tmp_path: Path) -> None:
    sizes = dict.fromkeys("abc", 50)
    expected = list(rewarded(source(worst(), sizes, 7), range(30)))
    assert len({json.dumps(shares) for _, shares in expected}) > 20
    first = source(worst(), sizes, 7)
    list(rewarded(first, range(11)))
    first.next(11)  # drawn ahead, and not yet trained on
    first.save_state(tmp_path)
    second = source(worst(), sizes, 7)
    second.load_state(tmp_path)
    assert second.metrics(11) == expected[11][1]
    draw = random.Random(30_011)
    second.rewards |= {domain: draw.random() for domain in sizes}
    assert list(rewarded(second, range(12, 30))) == expected[12:]


def test_one_domain_has_no_share_to_log() -> None:
    mixed = source(Fixed(Fixed.Config(shares={"a": 1})), {"a": 5}, 2)
    mixed.next(0)
    assert mixed.metrics(0) == {}
