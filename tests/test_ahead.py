"""Rollouts one step ahead: real sampler processes, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.config import Study
from m2rl_core.errors import StageError
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.policy import Policy
from m2rl_core.run import StageRun
from m2rl_core.train_rl import train_rl

PLUGIN = '''
"""Rewards answers that begin with an early letter or an even digit; masks tokens whose ratio is far from 1."""
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Correction, Prompt, Reward

class Early(Domain):
    name, reference = "early", "test"
    suites = {}
    Config = ComponentConfig
    def __init__(self, config):
        pass
    def prompts(self, split):
        return [Prompt(str(i), "early", ({"role": "user", "content": str(i)},), i) for i in range(40)]
    def verify(self, trajectory):
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))

class Corrected:
    name, reference = "corrected", "test"
    Config = ComponentConfig
    def __init__(self, config):
        pass
    def compose(self):
        return Composition({"use": "centred"}, {"use": "reinforce"}, {"use": "bounded"})

class Centred:
    name, reference, needs = "centred", "test", frozenset()
    Config = ComponentConfig
    def __init__(self, config):
        pass
    def __call__(self, group):
        import torch
        mean = sum(s.reward.value for s in group) / len(group)
        return [torch.full((len(s.ids_L),), s.reward.value - mean) for s in group]

class Reinforce(Centred):
    name, separable, vanishes, divergence = "reinforce", True, True, None
    def __call__(self, logps, batch):
        return -logps * batch.advantage_T

class Bounded(Centred):
    name, needs, separable = "bounded", frozenset({"old_logps"}), False
    def __call__(self, batch):
        ratio = (batch.old_logps_T - batch.sampler_logps_T).exp()
        apart = (ratio - 1).abs().max().item()
        return Correction(ratio, (ratio > 0.5) & (ratio < 2.0), {"apart_max": apart})

@hookimpl
def m2rl_domains():
    return [Early]

@hookimpl
def m2rl_algorithms():
    return [Corrected]

@hookimpl
def m2rl_advantages():
    return [Centred]

@hookimpl
def m2rl_importances():
    return [Bounded]

@hookimpl
def m2rl_losses():
    return [Reinforce]
'''
FILES = ("metrics.jsonl", "rollouts.jsonl", "checkpoint/model.safetensors")
Start = Callable[..., StageRun[Any]]


def build(plugin: Path, model: Path, folder: Path, **changes: Any) -> StageRun[Any]:
    """A run of six steps over two domains that draws new prompts for groups without a signal."""
    stage = {
        "kind": "rl", "init": "start", "domains": ["left", "right"], "algorithm": "corrected", "steps": 6, "prompts": 4,
        "group": 4, "max_tokens": 4, "lr": 0.01, "checkpoint_every": 2, "refill": 2, "staleness": 1, **changes,
    }  # fmt: skip
    domain = {"use": "early", "reasoning": "off"}
    study = Study.model_validate(
        {
            "name": "s",
            "model": {"dtype": "float32"},
            "domains": {"left": domain, "right": domain},
            "stages": {"rl": stage},
            "plugins": [str(plugin)],
        }
    )
    return StageRun(
        name="rl", stage=study.stages["rl"], study=study, seed=11, folder=folder, models={"start": model},
        registry=load_plugins([plugin]), key="k",
    )  # fmt: skip


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Start:
    home = tmp_path_factory.mktemp("ahead")
    (home / "early.py").write_text(PLUGIN)
    return lambda name, **changes: build(home / "early.py", tiny_model, home / name, **changes)


@pytest.fixture(scope="module")
def whole(begin: Start) -> StageRun[Any]:
    """A run that nobody interrupts."""
    train_rl(run := begin("whole"))
    return run


def samplers(parent: int) -> list[int]:
    """Process ids of the samplers among the children of ``parent``."""
    found = []
    for thread in Path(f"/proc/{parent}/task").iterdir():
        for child in _read(thread / "children").split():
            if "sampler_worker" in _read(Path(f"/proc/{child}/cmdline")):
                found.append(int(child))
    return found


def _read(file: Path) -> str:
    """Nothing of a thread or a process that has ended since its name was read."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def lines(run: StageRun[Any]) -> list[dict[str, Any]]:
    return list(read_jsonl(run.folder / "metrics.jsonl"))


def test_tokens_are_one_step_old_from_the_second_step_on(whole: StageRun[Any]) -> None:
    for record in read_jsonl(whole.folder / "rollouts.jsonl"):
        drawn = {v for v, sampled in zip(record["versions"], record["sampled"], strict=True) if sampled}
        assert drawn == {max(0, record["step"] - 1)}
    for line in lines(whole):
        age = float(line["step"] > 0)
        assert line["staleness"] == line["staleness/left"] == line["staleness/right"] == age
        differ = line["step"] > 0 and lines(whole)[line["step"] - 1]["grad_norm"] > 0
        assert (line["apart_max"] > 1e-3) == differ, "the sampler's weights lack the last update, and no other"
    assert sum(line["dropped"] for line in lines(whole)) > 0, "this run shall draw prompts again"


def test_nothing_of_a_sampler_is_left(whole: StageRun[Any]) -> None:
    assert samplers(os.getpid()) == []
    assert not (whole.folder / "sampler.log").exists(), "it had nothing to say"


def test_waiting_and_drawing_are_told_apart(whole: StageRun[Any]) -> None:
    rows = list(read_jsonl(whole.folder / "times.jsonl"))
    for row in rows:
        seconds, cpu = row["seconds"], row["cpu_seconds"]
        assert sum(seconds[k] for k in ("rollout", "score", "train", "sync", "idle")) == pytest.approx(
            seconds["total"], rel=0.01, abs=1e-3
        )
        assert seconds["sampler"] > 0
        assert 0 < cpu["rollout"] <= cpu["total"] + 0.02


@pytest.mark.slow
def test_killed_and_resumed_at_several_points_it_repeats_the_bytes(
    whole: StageRun[Any], begin: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before there is a state, while the sampler is dead, and between two states."""
    original, left = Policy.step, 0

    def interrupt() -> None:
        raise KeyboardInterrupt

    def kill_the_sampler() -> None:
        [child] = samplers(os.getpid())
        os.kill(child, signal.SIGKILL)

    def step(policy: Policy, lr: float) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            fault()
        original(policy, lr)

    monkeypatch.setattr(Policy, "step", step)
    for left, fault, raises in (  # noqa: B007
        (2, interrupt, pytest.raises(KeyboardInterrupt)),
        (
            3,
            kill_the_sampler,
            pytest.raises(StageError, match=r"sampler's process was killed by SIGKILL.*sampler\.log"),
        ),
        (3, interrupt, pytest.raises(KeyboardInterrupt)),
    ):
        with raises:
            train_rl(begin("killed"))
        assert samplers(os.getpid()) == []
    train_rl(again := begin("killed"))
    for name in FILES:
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.slow
def test_shares_that_follow_rewards_do_so_one_step_later_and_resume(
    begin: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    lagging = {"use": "worst-task", "references": {"left": 0.1, "right": 0.9}, "rate": 0.3, "warmup": 1}
    train_rl(undisturbed := begin("lagging", mixture=lagging, refill=0))
    shares = [line["share/right"] for line in lines(undisturbed)]
    assert shares[:2] == [0.5, 0.5], "step 1 is drawn before the rewards of step 0 are there"
    assert shares[1:] == sorted(set(shares)), "and every later one after those of the step before the last"
    original, left = Policy.step, 4

    def step(policy: Policy, lr: float) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        original(policy, lr)

    monkeypatch.setattr(Policy, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_rl(begin("lagging-again", mixture=lagging, refill=0))
    train_rl(again := begin("lagging-again", mixture=lagging, refill=0))
    for name in FILES:
        assert (again.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes(), name


@pytest.mark.slow
def test_no_sampler_outlives_a_killed_trainer(whole: StageRun[Any], begin: Start, tiny_model: Path) -> None:
    run = begin("kill9")
    here, plugin = Path(__file__).parent, whole.folder.parent / "early.py"
    code = f"""import sys; sys.path.insert(0, {str(here)!r})
from pathlib import Path
from test_ahead import build
from m2rl_core.train_rl import train_rl
train_rl(build(Path({str(plugin)!r}), Path({str(tiny_model)!r}), Path({str(run.folder)!r})))
"""
    trainer = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: (run.folder / "state" / "step-000002").exists())
    found = samplers(trainer.pid)
    trainer.kill()
    trainer.wait()
    assert len(found) == 1
    until(lambda: not Path(f"/proc/{found[0]}").exists())
    train_rl(run)
    for name in FILES:
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_reward_rises_on_stale_tokens(begin: Start) -> None:
    train_rl(run := begin("learn", steps=25, lr=0.02, group=8, refill=0))
    rewards = [line["reward"] for line in lines(run)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3


def test_what_fails_in_the_sampler_is_said_by_the_stage(begin: Start, tmp_path: Path) -> None:
    from m2rl_core.rollout.ahead import Ahead
    from m2rl_core.rollout.mixture import open_source
    from m2rl_core.rollout.sampler_process import Recipe, SamplerProcess

    run = begin("broken")
    recipe = Recipe(run.study, "rl", 11, run.folder, tmp_path / "nothing", ("left",), {"left": "off"})
    log = tmp_path / "sampler.log"
    with (
        pytest.raises(StageError, match=r"in the sampler's process: FileNotFoundError.*nothing"),
        Ahead(run, SamplerProcess(recipe, log), open_source(run)),
    ):
        pass
    assert "Traceback" in log.read_text()
    assert samplers(os.getpid()) == []
