"""A small study: reinforcement learning with rollouts by vLLM, once through the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="`make test-vllm` installs vLLM and runs this")

from m2rl_core.config import Study
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun
from m2rl_core.train_rl import train_rl

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PLUGIN = '''
"""Rewards answers that begin with an even digit or an early letter; REINFORCE with the group's mean as baseline."""
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Prompt, Reward

class Even(Domain):
    name, reference, suites, Config = "even", "test", {}, ComponentConfig
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        return [Prompt(str(i), "even", ({"role": "user", "content": str(i)},), i) for i in range(40)]
    def verify(self, trajectory):
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))

class Plain:
    name, reference, Config = "plain", "test", ComponentConfig
    def __init__(self, config):
        pass
    def compose(self):
        return Composition({"use": "centred"}, {"use": "reinforce"})

class Centred:
    name, reference, needs, Config = "centred", "test", frozenset(), ComponentConfig
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

@hookimpl
def m2rl_domains():
    return [Even]

@hookimpl
def m2rl_algorithms():
    return [Plain]

@hookimpl
def m2rl_advantages():
    return [Centred]

@hookimpl
def m2rl_losses():
    return [Reinforce]
'''


def trained(tmp_path: Path, model: Path, engine: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of twelve steps."""
    plugin = tmp_path / "even.py"
    plugin.write_text(PLUGIN)
    registry = load_plugins([plugin])
    stage = {
        "kind": "rl", "init": "start", "domains": ["even"], "algorithm": "plain", "steps": 12, "prompts": 6,
        "group": 8, "max_tokens": 4, "lr": 0.004, "checkpoint_every": 20,
    }  # fmt: skip
    study = Study.model_validate(
        {
            "name": "s",
            "engine": engine,
            "model": {"dtype": "float32"},
            "domains": {"even": {"use": "even", "reasoning": "off"}},
            "stages": {"rl": stage},
            "plugins": [str(plugin)],
        }
    )
    run = StageRun(
        name="rl", stage=study.stages["rl"], study=study, seed=11, folder=tmp_path / engine["use"],
        models={"start": model}, registry=registry, key="k",
    )  # fmt: skip
    train_rl(run)
    return list(read_jsonl(run.folder / "metrics.jsonl"))


def test_the_reward_rises_with_either_engine(tmp_path: Path, vllm_model: Path) -> None:
    vllm = {"use": "vllm", "dtype": "float32", "cache_gib": 0.25, "eager": True}
    for engine in (vllm, {"use": "embedded"}):
        rewards = [line["reward"] for line in trained(tmp_path, vllm_model, engine)]
        assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2, rewards
