"""pytest fixtures, loaded as a pytest plugin wherever m2rl-core is installed. Heavy imports wait until used."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from m2rl_core.types import Prompt, Sample, Sampling, Trajectory, Turn

if TYPE_CHECKING:
    from torch import Tensor

    from m2rl_core.plugins import Registry
    from m2rl_core.policy import Policy

CORPUS = ["user\nWhat is 12 + 34?", "assistant\n<think>2+4=6, 1+3=4</think>\\boxed{46}", "system\ntool\n"] * 4


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: a two-layer Qwen3 of 60k parameters with tokenizer and chat template."""
    return _write(tmp_path_factory.mktemp("tiny"), seed=1)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like :func:`tiny_model`, with other weights."""
    return _write(tmp_path_factory.mktemp("other"), seed=2)


def _write(folder: Path, seed: int) -> Path:
    from m2rl_core.config import InitStage
    from m2rl_core.init import fresh_model, fresh_tokenizer

    stage = InitStage(kind="init", domains=[], vocab=384, hidden=32, layers=2, heads=4, kv_heads=2, ffn=64, context=256)
    tokenizer = fresh_tokenizer(iter(CORPUS), stage.vocab, stage.context)
    fresh_model(stage, tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_policy(tiny_model: Path) -> Policy:
    """A float32 policy on :func:`tiny_model` with an optimizer."""
    from m2rl_core.config import OptimSection
    from m2rl_core.policy import Policy

    return Policy.load(tiny_model, dtype="float32", optim=OptimSection())


@pytest.fixture
def registry() -> Registry:
    """An empty registry: no entry point is looked at."""
    from m2rl_core.plugins import Registry

    return Registry()


class FakeEngine:
    """An engine that says what ``script`` returns for (context, sample index): ids without the stop token."""

    name = "fake"
    reference = "m2rl_core.testing"

    def __init__(self, script: Callable[[list[int], int], list[int]]) -> None:
        self.script = script
        self.version = 0
        self.contexts: list[list[int]] = []

    async def start(self, model: Path, *, max_tokens: int, trust_remote_code: bool = False) -> None: ...

    async def generate(self, ids: list[int], sampling: Sampling, n: int) -> list[Turn]:
        self.contexts.append(list(ids))
        turns = []
        for index in range(sampling.sample, sampling.sample + n):
            said = [*self.script(ids, index), sampling.stop_ids[0]]
            cut = said[: sampling.max_tokens]
            finish = "stop" if len(cut) == len(said) else "length"
            turns.append(Turn(cut, [-0.5] * len(cut), [self.version] * len(cut), finish))  # type: ignore[arg-type]
        return turns

    async def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        self.version = version

    async def rest(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def fake_engine() -> type[FakeEngine]:
    """The class :class:`FakeEngine`; build it with a script."""
    return FakeEngine


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    """Builds a sample of ``length`` tokens, the last ``sampled`` of which were drawn, from a seed."""

    def make(length: int, sampled: int, seed: int = 0, *, domain: str = "math", vocab: int = 384) -> Sample:
        draw = random.Random(seed)
        prompt = Prompt(f"p{seed}", domain, ({"role": "user", "content": "?"},))
        drawn = [False] * (length - sampled) + [True] * sampled
        return Sample(
            prompt=prompt,
            index=0,
            ids_L=[draw.randrange(vocab) for _ in range(length)],
            sampled_L=drawn,
            logps_L=[-draw.random() if d else 0.0 for d in drawn],
            versions_L=[0 if d else -1 for d in drawn],
            trajectory=Trajectory(prompt, (), ""),
            finish="stop",
        )

    return make
