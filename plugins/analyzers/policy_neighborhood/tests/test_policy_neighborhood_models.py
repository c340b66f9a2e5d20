"""The same through the real laboratory: small models that are drawn from and scored with, against float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from m2rl_analyzer_policy_neighborhood import PolicyNeighborhood
from m2rl_analyzer_policy_neighborhood.measure import measure
from m2rl_core.analyze import Laboratory
from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun
from m2rl_core.types import Sample, Sampling

DOMAIN = '''
"""Every answer is right."""
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Prompt, Reward

class Any(Domain):
    name, reference, suites = "any", "test", {}
    class Config(ComponentConfig):
        start: int = 0
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        numbers = range(self.config.start, self.config.start + 3)
        return [Prompt(f"{split}/{i}", "any", ({"role": "user", "content": f"What is {i}?"},), i) for i in numbers]
    def verify(self, trajectory):
        return Reward(1.0)

@hookimpl
def m2rl_domains():
    return [Any]
'''
CONFIG = {"models": ("two",), "max_tokens": 6, "samples": 2}


@pytest.fixture
def lab(tmp_path: Path, tiny_model: Path, other_model: Path) -> Laboratory:
    plugin = tmp_path / "any.py"
    plugin.write_text(DOMAIN)
    tree: dict[str, Any] = {
        "name": "small",
        "model": {"dtype": "float32"},
        "plugins": [str(plugin)],
        "domains": {"a": {"use": "any"}, "b": {"use": "any", "start": 10}},
        "stages": {"look": {"kind": "analyze", "analyzer": "none", "tokens_per_device": 256}},
    }
    study, models = Study.model_validate(tree), {"one": tiny_model, "two": other_model}
    stage = study.stages["look"]
    assert isinstance(stage, AnalyzeStage)
    run = StageRun(
        name="look", stage=stage, study=study, seed=1, folder=tmp_path / "look", models=models,
        registry=load_plugins(study.plugins), nodes=(), key="k",
    )  # fmt: skip
    return Laboratory(run, experts={"a": "one", "b": "two"})


def log_probs(folder: Path, sample: Sample) -> Tensor:
    """Float64 [L − 1, V]: of tokens 1 and on."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        found: Tensor = model(torch.tensor([sample.ids_L])).logits[0, :-1].log_softmax(-1)
    return found


def test_divergences_of_small_models(lab: Laboratory, tiny_model: Path, other_model: Path) -> None:
    prompts = {domain: list(lab.prompts(domain, "train")) for domain in ("a", "b")}
    sampling = Sampling(6, seed=4)
    cell = measure(lab, ["two"], prompts, sampling, 2)["two"]["a", "a"]
    samples = [s for group in lab.generate("one", prompts["a"] + prompts["b"], sampling, 2)[:3] for s in group]
    full, sampled = [], []
    for sample in samples:
        own, other = log_probs(tiny_model, sample), log_probs(other_model, sample)
        drawn, ids = torch.tensor(sample.sampled_L[1:]), torch.tensor(sample.ids_L[1:])[:, None]
        full.append(float((own.exp() * (own - other)).sum(-1)[drawn].sum()))
        sampled.append(float((own - other).gather(1, ids)[drawn].sum()))
    assert cell.samples == 6
    assert cell.full.points[0] == pytest.approx([(full[i] + full[i + 1]) / 2 for i in (0, 2, 4)], rel=1e-3)
    assert cell.sampled.points[0] == pytest.approx([(sampled[i] + sampled[i + 1]) / 2 for i in (0, 2, 4)], rel=1e-3)
    assert cell.tokens.points[0] == pytest.approx([sum(s.length for s in samples[i : i + 2]) / 2 for i in (0, 2, 4)])


def test_the_model_that_is_an_expert_has_no_divergence_from_it(lab: Laboratory) -> None:
    found = PolicyNeighborhood(PolicyNeighborhood.Config.model_validate(CONFIG)).run(lab)
    rows = {(row[0], row[1]): row for row in found.tables["kl-two"].rows}
    assert rows["b", "a"][2:14] == [0.0] * 12
    assert float(rows["a", "b"][2] or 0) > 0
    assert rows["a", "a"][14:17] == [None] * 3, "nothing was evaluated"
