"""Alarms at lengths that grow and rewards that fall, once each time, the same after a resume."""

from __future__ import annotations

from pathlib import Path

from m2rl_core.rollout.alarms import Alarms


def run(alarms: Alarms, steps: list[tuple[float, float]]) -> None:
    for length, reward in steps:
        alarms.watch({"length": 1.0, "length/math": length, "reward/math": reward, "truncated/math": 0.25})


def test_lengths_that_double_are_told_of_once_a_doubling() -> None:
    told: list[str] = []
    run(alarms := Alarms(told.append), [(10, 0.5)] * 20)
    assert told == []
    run(alarms, [(30, 0.5)] * 30)  # running mean after k steps: 10 + 20 · (1 − 0.8^k), above 20 at k = 4
    assert told == ["responses of 'math' grow: 22 tokens, 2.2 times what they began with; 25% are cut off"]
    run(alarms, [(90, 0.5)] * 30)
    assert len(told) == 2  # 2.2 doubled is 4.4, and 5.2 doubled more than 9


def test_a_reward_that_falls_is_told_of_and_again_after_a_recovery() -> None:
    told: list[str] = []
    run(alarms := Alarms(told.append), [(10, 0.8)] * 10 + [(10, 0.1)] * 20)
    assert told == ["the reward of 'math' has fallen to 0.39 from 0.80: lower lr, or stop here"]
    run(alarms, [(10, 0.8)] * 20 + [(10, 0.0)] * 20)
    assert len(told) == 2


def test_noise_and_small_rewards_are_no_alarm() -> None:
    told: list[str] = []
    run(Alarms(told.append), [(10 + 5 * (i % 2), 0.02 * (i % 3)) for i in range(50)])
    run(Alarms(told.append), [(10 + 5 * (i % 2), 0.4 + 0.2 * (i % 3)) for i in range(50)])
    assert told == []


def test_a_resumed_run_sounds_the_same_alarms(tmp_path: Path) -> None:
    steps = [(10.0, 0.8)] * 7 + [(10.0 + 2 * i, 0.8 - 0.03 * i) for i in range(26)]
    for cut in (3, 9, 20):
        whole: list[str] = []
        run(Alarms(whole.append), steps)
        told: list[str] = []
        run(first := Alarms(told.append), steps[:cut])
        first.save_state(tmp_path)
        second = Alarms(told.append)
        second.load_state(tmp_path)
        run(second, steps[cut:])
        assert told == whole
        assert len(whole) >= 3
