"""A model that vLLM takes on a CPU, engines on an event loop of their own, and what they are compared with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from m2rl_core.config import InitStage
from m2rl_core.engine.embedded import EmbeddedEngine
from m2rl_core.init import fresh_model, fresh_tokenizer
from m2rl_core.types import Sampling, Turn
from m2rl_engine_vllm.engine import VllmEngine

T = TypeVar("T")
CORPUS = ["user\nWhat is 12 + 34?", "assistant\n<think>2+4=6, 1+3=4</think>\\boxed{46}", "system\ntool\n"] * 4
CONTEXT = 512
PROMPTS = [[(31 * i + 7 * j + 3) % 512 for j in range(length)] for i, length in enumerate((1, 2, 15, 16, 17, 130, 200))]
"""Shorter and longer than a block of vLLM's cache, which has 128 tokens on a CPU."""


@pytest.fixture(scope="session")
def vllm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``tiny_model``, with heads of 32: vLLM's attention on a CPU has no smaller ones."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"vocab": 512, "hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 384, "context": CONTEXT}
    stage = InitStage(kind="init", domains=[], **sizes)
    tokenizer = fresh_tokenizer(iter(CORPUS), stage.vocab, stage.context)
    fresh_model(stage, tokenizer, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Driver:
    """Runs an engine's coroutines, as the core's sampler does: on one event loop."""

    context = CONTEXT
    prompts = PROMPTS
    long = Sampling(450, seed=9)
    """Takes long enough to be interfered with."""

    def __init__(self, runner: asyncio.Runner, model: Path) -> None:
        self.runner, self.model = runner, model

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def start(self, **config: Any) -> VllmEngine:
        """An engine in float32 with little memory."""
        settings = {"dtype": "float32", "cache_gib": 0.25, "rows": 64, "eager": True, **config}
        engine = VllmEngine(VllmEngine.Config(**settings))
        self.run(engine.start(self.model, max_tokens=CONTEXT))
        return engine

    def embedded(self, weights: list[tuple[str, Tensor]] | None = None) -> EmbeddedEngine:
        engine = EmbeddedEngine(EmbeddedEngine.Config(device="cpu"))
        self.run(engine.start(self.model, max_tokens=CONTEXT))
        if weights is not None:
            self.run(engine.load_weights(weights, 1))
        return engine

    def other_weights(self, seed: int) -> list[tuple[str, Tensor]]:
        """The model's tensors, moved far enough to change what it says; a tied head once."""
        lm = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        noise = torch.Generator().manual_seed(seed)
        return [(name, p.detach() + 0.05 * torch.randn(p.shape, generator=noise)) for name, p in lm.named_parameters()]

    def logps_under(self, ids: list[int], turn: Turn, sampling: Sampling) -> list[float]:
        """Log-probs of a sample's tokens by transformers, under the distribution that ``sampling`` says."""
        lm = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        with torch.no_grad():
            logits = lm(torch.tensor([ids + turn.ids])).logits[0, len(ids) - 1 : -1].double() / sampling.temperature
        for row in logits:
            ranked = row.sort(descending=True)
            if sampling.top_k:
                row[row < ranked.values[sampling.top_k - 1]] = -torch.inf
            before = ranked.values.softmax(-1).cumsum(-1) - ranked.values.softmax(-1)
            row[ranked.indices[before >= sampling.top_p]] = -torch.inf
        found: list[float] = logits.log_softmax(-1).gather(1, torch.tensor(turn.ids)[:, None])[:, 0].tolist()
        return found

    async def updated_meanwhile(
        self, engine: VllmEngine, weights: list[tuple[str, Tensor]], version: int
    ) -> tuple[list[Turn], list[Turn]]:
        """Samples that were being drawn when new weights came, and one that was asked for during the update."""
        drawing = asyncio.create_task(engine.generate(PROMPTS[2], self.long, 8))
        await asyncio.sleep(0.4)
        assert not drawing.done(), "too fast to be caught in the act"
        updating = asyncio.create_task(engine.load_weights(iter(weights), version))
        await asyncio.sleep(0.02)
        late = await engine.generate(PROMPTS[2], Sampling(8, temperature=0.0), 1)
        await updating
        return await drawing, late

    def greedy(self, engine: Any, prompts: list[list[int]], tokens: int = 24) -> list[Turn]:
        """One greedy sample of every prompt, all at once."""
        sampling = Sampling(tokens, temperature=0.0)

        async def all_of_them() -> list[list[Turn]]:
            return list(await asyncio.gather(*(engine.generate(ids, sampling, 1) for ids in prompts)))

        return [turn for [turn] in self.run(all_of_them())]

    def expect_equal(self, engine: Any, weights: list[tuple[str, Tensor]] | None, version: int) -> None:
        """Greedy samples are the embedded engine's with the same weights, log-probs within 1e-4 nats."""
        found, expected = self.greedy(engine, PROMPTS), self.greedy(self.embedded(weights), PROMPTS)
        assert [turn.ids for turn in found] == [turn.ids for turn in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.logps == pytest.approx(theirs.logps, abs=1e-4)
            assert ours.versions == [version] * len(ours.ids)


@pytest.fixture(scope="module")
def driver(vllm_model: Path) -> Iterator[Driver]:
    os.environ.setdefault("VLLM_CACHE_ROOT", str(vllm_model.parent / "vllm-cache"))
    with asyncio.Runner() as runner:
        yield Driver(runner, vllm_model)
