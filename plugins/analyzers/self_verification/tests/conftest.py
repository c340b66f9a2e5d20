"""A lab whose judges are known exactly: what each says is a function of what it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Block, Divergence, Prompt, Reward, Sample, Sampling, Trajectory, Way

Judge = Callable[[str, int], str]
"""(what it is shown, index of the sample) → its turn."""


@dataclass
class JudgeLab:
    records: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
    """Model → suite → records of its evaluation."""
    judges: Mapping[str, Judge]
    experts: Mapping[str, str] = field(default_factory=dict)
    arms: Mapping[str, Way] = field(default_factory=dict)
    start: str | None = "sft"
    cut: bool = False
    shown: dict[str, list[str]] = field(default_factory=dict)

    @property
    def models(self) -> Mapping[str, Path]:
        return {name: Path(name) for name in self.judges}

    def prompts(self, domain: str, split: str) -> Sequence[Prompt]:
        raise NotImplementedError

    def scores(self, model: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        if model not in self.records:
            raise DataError(f"there is no evaluation of model '{model}' to analyse")
        return self.records[model]

    def generate(
        self, model: str, prompts: Sequence[Prompt], sampling: Sampling, n: int, *, verify: bool = True
    ) -> list[list[Sample]]:
        assert not verify, "no verifier can judge a verdict"
        assert len({(p.domain, p.id) for p in prompts}) == len(prompts), "noise depends on domain and id"
        self.shown.setdefault(model, []).extend(p.messages[-1]["content"] for p in prompts)
        return [[self._sample(model, prompt, i) for i in range(n)] for prompt in prompts]

    def _sample(self, model: str, prompt: Prompt, index: int) -> Sample:
        turn = self.judges[model](prompt.messages[-1]["content"], index)
        trajectory = Trajectory(prompt, ({"role": "assistant", "content": turn},), turn, self.cut)
        finish = "length" if self.cut else "stop"
        return Sample(prompt, index, [0], [True], [0.0], [0], trajectory, finish, Reward(None))  # type: ignore[arg-type]

    def metrics(self, stage: str) -> Sequence[Mapping[str, Any]]:
        raise NotImplementedError

    def samples(self, stage: str, *, limit: int | None = None) -> Iterator[Sample]:
        raise NotImplementedError

    def logps(self, model: str, samples: Sequence[Sample]) -> list[Any]:
        raise NotImplementedError

    def divergences(self, model: str, other: str, samples: Sequence[Sample], kind: Divergence) -> list[Any]:
        raise NotImplementedError

    def gradients(self, model: str, stage: str, groups: Sequence[list[Sample]]) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError

    def blocks(self, base: str, models: Sequence[str]) -> Iterator[Block]:
        raise NotImplementedError


@pytest.fixture
def judge_lab() -> Callable[..., JudgeLab]:
    return JudgeLab
