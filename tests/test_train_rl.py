"""Reinforcement learning end to end: real engine, real verifier processes, a domain in a local file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study
from m2rl_core.errors import VerifierError
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.policy import Policy
from m2rl_core.rollout.records import from_record, mean, workload
from m2rl_core.run import StageRun
from m2rl_core.train_rl import split, train_rl
from m2rl_core.types import Group, Sample

DOMAIN = '''
"""Rewards answers that begin with an even digit; prompts from number `broken` on break the verifier."""
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Correction, Divergence, Prompt, Reward

class Even(Domain):
    name, reference = "even", "test"
    suites = {}
    class Config(ComponentConfig):
        broken: int = 1000
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        return [Prompt(str(i), "even", ({"role": "user", "content": str(i)},), i) for i in range(40)]
    def verify(self, trajectory):
        if trajectory.prompt.ground_truth >= self.config.broken:
            raise RuntimeError("broken on purpose")
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))

class Plain:
    """REINFORCE with the group's mean as baseline, out of this file."""
    name, reference = "plain", "test"
    Config = ComponentConfig
    def __init__(self, config):
        pass
    def compose(self):
        return Composition({"use": "centred"}, {"use": "reinforce"})

class Centred:
    name, reference, needs = "centred", "test", frozenset()
    Config = ComponentConfig
    def __init__(self, config):
        pass
    def __call__(self, group):
        import torch
        mean = sum(s.reward.value for s in group) / len(group)
        return [torch.full((len(s.ids_L),), s.reward.value - mean) for s in group]

class Reinforce:
    name, reference, needs, separable, vanishes, divergence = "reinforce", "test", frozenset(), True, True, None
    Config = ComponentConfig
    def __init__(self, config):
        pass
    def __call__(self, logps, batch):
        return -logps * batch.advantage_T

class Taught(Plain):
    """By the teacher's distribution, by its log-probs, and held to the start."""
    name = "taught"
    def compose(self):
        return Composition([{"use": "liked"}], [{"use": "reinforce"}, {"use": "apart"}], {"use": "halve"})

class Liked(Centred):
    name, needs = "liked", frozenset({"teacher_logps", "reference_logps"})
    def __call__(self, group):
        return [s.teacher_logps_L - s.reference_logps_L for s in group]

class Apart(Reinforce):
    name, vanishes, divergence = "apart", False, Divergence("forward")
    def __call__(self, logps, batch):
        return batch.divergence_T

class Halve(Centred):
    name, needs, separable = "halve", frozenset({"old_logps"}), False
    def __call__(self, batch):
        ratio = (batch.old_logps_T - batch.sampler_logps_T).exp()
        return Correction(ratio / 2, ratio > 0.5, {"ratio": ratio.mean().item()})

@hookimpl
def m2rl_domains():
    return [Even]

@hookimpl
def m2rl_algorithms():
    return [Plain, Taught]

@hookimpl
def m2rl_advantages():
    return [Centred, Liked]

@hookimpl
def m2rl_importances():
    return [Halve]

@hookimpl
def m2rl_losses():
    return [Reinforce, Apart]
'''


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path, other_model: Path) -> Callable[..., StageRun[Any]]:
    plugin = tmp_path / "even.py"
    plugin.write_text(DOMAIN)
    registry = load_plugins([plugin])

    def build(folder: str = "rl", *, broken: int = 1000, domain: str = "even", **changes: Any) -> StageRun[Any]:
        stage = {
            "kind": "rl", "init": "start", "domains": [domain], "algorithm": "plain", "steps": 6, "prompts": 4,
            "group": 8, "max_tokens": 4, "lr": 0.01, "checkpoint_every": 2, **changes,
        }  # fmt: skip
        study = Study.model_validate(
            {
                "name": "s",
                "model": {"dtype": "float32"},
                "domains": {domain: {"use": "even", "reasoning": "off", "broken": broken}},
                "stages": {"rl": stage},
                "plugins": [str(plugin)],
            }
        )
        return StageRun(
            name="rl", stage=study.stages["rl"], study=study, seed=11, folder=tmp_path / folder,
            models={"start": tiny_model, "other": other_model}, registry=registry, key="k",
        )  # fmt: skip

    return build


def metrics(run: StageRun[Any]) -> list[dict[str, Any]]:
    return list(read_jsonl(run.folder / "metrics.jsonl"))


def test_reward_rises(start: Any) -> None:
    run = start(steps=25, lr=0.02)
    train_rl(run)
    rewards = [line["reward"] for line in metrics(run)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
    Policy.load(run.folder / "checkpoint", dtype="float32")


TAUGHT = {"algorithm": "taught", "teachers": {"even": "other"}}


@pytest.mark.parametrize(("updates", "changes"), [(1, {}), (2, {}), (2, {"refill": 3}), (2, TAUGHT)])
def test_a_resumed_run_repeats_the_bytes(
    start: Any, updates: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = partial(start, updates=updates, **changes)
    train_rl(whole := start("whole"))
    original, left = Policy.step, 3 * updates

    def step(policy: Policy, lr: float) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        original(policy, lr)

    monkeypatch.setattr(Policy, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_rl(start("killed"))
    monkeypatch.setattr(Policy, "step", original)
    train_rl(again := start("killed"))
    for name in ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_student_comes_to_its_teacher(start: Any) -> None:
    run = start(steps=6, lr=0.02, **TAUGHT)
    train_rl(run)
    lines = metrics(run)
    assert lines[-1]["divergence"] < 0.8 * lines[0]["divergence"]
    assert lines[-1]["teacher_kl"] < 0.8 * lines[0]["teacher_kl"]
    assert lines[0]["teacher_kl/even"] == lines[0]["teacher_kl"]
    assert lines[0]["ratio"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"use": "grpo", "importance": "mis"},
        {"use": "grpo", "loss": {"use": "gspo"}, "kl": 0.1, "importance": {"use": "tis", "level": "geometric"}},
        {"use": "grpo", "loss": ["sapo", {"use": "cispo", "weight": 0.5}], "reduction": "constant"},
        {"use": "opd"},
        {"use": "opd", "mode": "full", "divergence": "js", "reward": 0.5},
        {"use": "opd", "mode": "top-k", "k": 8, "importance": "mis", "reduction": "token"},
    ],
    ids=str,
)
def test_every_installed_algorithm_trains(start: Any, tiny_model: Path, algorithm: dict[str, Any]) -> None:
    teachers = {"even": "other"} if algorithm["use"] == "opd" else {}
    run = start(steps=2, updates=2, algorithm=algorithm, teachers=teachers)
    train_rl(run)
    for line in metrics(run):
        assert line["grad_norm"] > 0
        assert all(math.isfinite(value) for value in line.values() if value is not None)
        assert ("ratio_k3/even" in line) == ("importance" in algorithm)
        assert ("divergence" in line) == ("mode" in algorithm)
        assert ("teacher_kl/even" in line) == (algorithm == {"use": "opd"})
    seconds = [row["seconds"] for row in read_jsonl(run.folder / "times.jsonl")]
    assert all(("importance" in algorithm) <= (each["score"] > 0) for each in seconds)


def test_refilled_groups_are_recorded_and_counted(start: Any) -> None:
    run = start(steps=3, refill=3)
    train_rl(run)
    lines, records = metrics(run), list(read_jsonl(run.folder / "rollouts.jsonl"))
    assert sum(line["dropped"] for line in lines) > 0
    for step, line in enumerate(lines):
        drawn = [record for record in records if max(record["versions"]) == step]
        assert line["samples"] == len(drawn) == 8 * (4 + line["dropped"])


def test_what_is_stored_is_what_was_sampled(start: Any, tiny_model: Path) -> None:
    run = start(steps=1)
    train_rl(run)
    records = list(read_jsonl(run.folder / "rollouts.jsonl"))
    assert len(records) == 4 * 8
    samples = [from_record(record) for record in records]
    policy = Policy.load(tiny_model, dtype="float32")
    from m2rl_core.packing import pack, unpack

    for batch in pack(samples, 512, policy.device):
        unpack(batch, policy.logps(batch), samples, "old_logps_L")
    for sample in samples:
        assert sample.old_logps_L is not None
        assert sample.old_logps_L.tolist() == pytest.approx(sample.logps_L, abs=1e-4)
        assert {v for v, drawn in zip(sample.versions_L, sample.sampled_L, strict=True) if drawn} == {0}


def test_models_of_kept_steps_can_be_opened(start: Any) -> None:
    run = start(steps=4, keep_every=2)
    train_rl(run)
    assert sorted(p.name for p in (run.folder / "kept").iterdir()) == ["000002", "000004"]
    Policy.load(run.folder / "kept" / "000002", dtype="float32")


def test_failed_verdicts_leave_their_group(start: Any) -> None:
    run = start(steps=2, broken=38, verifier_failures=1.0)
    train_rl(run)
    for record in read_jsonl(run.folder / "rollouts.jsonl"):
        assert (record["reward"] is None) == (record["ground_truth"] >= 38)


def test_failed_verdicts_are_told_of(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, told = start(steps=2, broken=20, verifier_failures=1.0), list[str]()
    monkeypatch.setattr(run, "note", told.append)
    train_rl(run)
    assert told
    assert all(
        re.search(r"^\d+ of 32 verdicts failed, .*broken on purpose.*the others are used$", each) for each in told
    )


def test_too_many_failed_verdicts_stop_the_run(start: Any) -> None:
    run = start(broken=0)
    with pytest.raises(
        VerifierError, match=r"32 of 32 verdicts failed.*broken on purpose.*stages.rl.verifier_failures"
    ):
        train_rl(run)
    assert not (run.folder / "checkpoint").exists()


def test_minibatches_take_from_every_group() -> None:
    assert split(list(range(7)), 3) == [[0, 3, 6], [1, 4], [2, 5]]  # type: ignore[arg-type, comparison-overlap]
    assert split([0], 3) == [[0]]  # type: ignore[list-item, comparison-overlap]


def test_metrics_hold_no_time(start: Any) -> None:
    run = start(steps=1)
    train_rl(run)
    [line] = metrics(run)
    assert {"reward", "reward/even", "loss", "entropy", "grad_norm", "zero_variance/even"} <= set(line)
    assert not [name for name in line if "second" in name or "time" in name]
    times = [json.loads(t) for t in (run.folder / "times.jsonl").read_text().splitlines()]
    assert {"rollout", "score", "train", "sync", "verify/even"} <= set(times[0]["seconds"])


def test_seconds_add_up_and_belong_to_domains(start: Any) -> None:
    run = start(steps=2)
    train_rl(run)
    for row in read_jsonl(run.folder / "times.jsonl"):
        seconds = row["seconds"]
        whole = sum(seconds[kind] for kind in ("rollout", "score", "train", "sync", "idle"))
        assert whole == pytest.approx(seconds["total"], rel=0.01, abs=1e-3)
        assert seconds["rollout/even"] == seconds["rollout"]
        assert seconds["train/even"] == seconds["train"]


def test_a_domain_may_have_another_name_than_its_plugin(start: Any) -> None:
    run = start(domain="digits", steps=2)
    train_rl(run)
    assert [line["reward/digits"] for line in metrics(run)] == [line["reward"] for line in metrics(run)]
    assert {record["domain"] for record in read_jsonl(run.folder / "rollouts.jsonl")} == {"digits"}


def test_domains_share_a_step_by_tokens(make_sample: Callable[..., Sample]) -> None:
    math = [make_sample(10, 4, domain="math"), make_sample(12, 6, domain="math")]
    science = [make_sample(20, 5, domain="science")]
    groups = [Group(samples[0].prompt, samples) for samples in (math, science)]
    assert workload(groups, [*math, *science], [math[1]]) == {
        "rollout": {"math": 10, "science": 5},
        "score": {"math": 22, "science": 20},
        "train": {"math": 12},
    }


def test_a_metric_that_some_updates_lack_is_kept() -> None:
    updates = [{"ratio": 1.0, "ratio_max": 2.0}, {"ratio": 3.0, "ratio_max/math": 5.0, "ratio_max": 1.5}]
    assert mean(updates) == {"ratio": 2.0, "ratio_max": 2.0, "ratio_max/math": 5.0}
    assert mean([]) == {}
