"""A lab whose models are known exactly: a token is 1 with a chance that model and domain decide, else 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import DataError
from m2rl_core.seeding import derive
from m2rl_core.types import Block, Divergence, Message, Prompt, Reward, Sample, Sampling, Trajectory, Way

LENGTH = 10


@dataclass
class CoinLab:
    """Every sample is ``LENGTH`` tokens after a prompt of two."""

    chances: Mapping[str, Mapping[str, float]]
    """Model → domain → the probability of token 1."""
    experts: Mapping[str, str]
    arms: Mapping[str, Way] = field(default_factory=dict)
    right: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Model → domain → share of right answers in the domain's suite of 40 prompts."""
    start: str | None = None
    cut: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def models(self) -> Mapping[str, Path]:
        return {name: Path(name) for name in self.chances}

    def prompts(self, domain: str, split: str) -> Sequence[Prompt]:
        self.asked.append(split)
        return [Prompt(f"{split}/{i}", domain, (Message(role="user", content="?"),)) for i in range(20)]

    def scores(self, model: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        if model not in self.right:
            raise DataError(f"there is no evaluation of model '{model}' to analyse")
        return {
            f"{domain}-suite": [
                {"prompt": str(i), "domain": domain, "weight": 1.0, "reward": float(i < 40 * share)} for i in range(40)
            ]
            for domain, share in self.right[model].items()
        }

    def generate(
        self, model: str, prompts: Sequence[Prompt], sampling: Sampling, n: int, *, verify: bool = True
    ) -> list[list[Sample]]:
        return [[self._sample(model, prompt, sampling, i) for i in range(n)] for prompt in prompts]

    def _sample(self, model: str, prompt: Prompt, sampling: Sampling, index: int) -> Sample:
        draw = Random(derive(sampling.seed, prompt.domain, prompt.id, index))
        drawn = [int(draw.random() < self.chances[model][prompt.domain]) for _ in range(LENGTH)]
        return Sample(
            prompt, index, [0, 0, *drawn], [False] * 2 + [True] * LENGTH, [0.0] * (2 + LENGTH), [0] * (2 + LENGTH),
            Trajectory(prompt, (), ""), "length" if self.cut else "stop", Reward(1.0),
        )  # fmt: skip

    def logps(self, model: str, samples: Sequence[Sample]) -> list[Tensor]:
        found = []
        for sample in samples:
            p = self.chances[model][sample.prompt.domain]
            logps = [math.log(p if token else 1 - p) for token in sample.ids_L]
            found.append(torch.tensor(logps) * torch.tensor(sample.sampled_L))
        return found

    def divergences(self, model: str, other: str, samples: Sequence[Sample], kind: Divergence) -> list[Tensor]:
        assert kind == Divergence("reverse")
        return [
            kl(self.chances[model][s.prompt.domain], self.chances[other][s.prompt.domain]) * torch.tensor(s.sampled_L)
            for s in samples
        ]

    def metrics(self, stage: str) -> Sequence[Mapping[str, Any]]:
        raise NotImplementedError

    def samples(self, stage: str, *, limit: int | None = None) -> Iterator[Sample]:
        raise NotImplementedError

    def gradients(self, model: str, stage: str, groups: Sequence[list[Sample]]) -> Iterator[tuple[str, Tensor]]:
        raise NotImplementedError

    def blocks(self, base: str, models: Sequence[str]) -> Iterator[Block]:
        raise NotImplementedError


def kl(p: float, q: float) -> float:
    """Of two coins [nats]."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.fixture
def coins() -> Callable[..., CoinLab]:
    return CoinLab


@pytest.fixture
def coin_kl() -> Callable[[float, float], float]:
    return kl
