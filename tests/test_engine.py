"""The embedded engine against plain transformers, and against itself in other company."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from m2rl_core.engine.embedded import EmbeddedEngine
from m2rl_core.errors import ConfigError, DataError, StageError
from m2rl_core.interfaces import Engine
from m2rl_core.types import Sampling, Turn

SIZE: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(**SIZE, tie_word_embeddings=True),
    "qwen3-untied": Qwen3Config(**SIZE | {"num_attention_heads": 8}, tie_word_embeddings=False),
    "llama": LlamaConfig(**SIZE | {"num_key_value_heads": 4}),
    "qwen2": Qwen2Config(**SIZE),
    "mistral": MistralConfig(**SIZE, sliding_window=16),
}
CONTEXT = 200

T = TypeVar("T")
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Architecture → a folder with random weights, biases included."""

    def folder(name: str) -> Path:
        path = tmp_path_factory.getbasetemp() / f"engine-{name}"
        if not path.exists():
            torch.manual_seed(1)
            model = AutoModelForCausalLM.from_config(CONFIGS[name])
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    torch.nn.init.normal_(parameter, 1.0, 0.2)
            model.save_pretrained(path)
        return path

    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prompt(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(f"{length} {seed}")
    return [draw.randrange(SIZE["vocab_size"]) for _ in range(length)]


def drive(folder: Path, use: Callable[[EmbeddedEngine], Awaitable[T]], **config: Any) -> T:
    """What ``use`` returns for a started engine."""

    async def main() -> T:
        engine = EmbeddedEngine(EmbeddedEngine.Config(device="cpu", **config))
        await engine.start(folder, max_tokens=CONTEXT)
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


def reference_logps(folder: Path, ids: list[int], turn: Turn) -> torch.Tensor:
    """Log-probs of the turn's tokens from one plain forward pass."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    full = torch.tensor([ids + turn.ids])
    with torch.no_grad():
        logp = model(full).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    return logp.gather(1, full[0, len(ids) :, None])[:, 0]


def test_it_is_an_engine() -> None:
    engine = EmbeddedEngine(EmbeddedEngine.Config())
    assert isinstance(engine, Engine)
    assert EmbeddedEngine.Config().model_dump() == {"device": "auto", "dtype": "float32", "rows": 256, "cache_gib": 4.0}


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probs_equal_transformers(folders: Folders, name: str) -> None:
    prompts = [prompt(length) for length in (1, 2, 31, 32, 33, 70)]
    sampling = Sampling(max_tokens=40, seed=3)

    async def use(engine: EmbeddedEngine) -> list[list[Turn]]:
        return await asyncio.gather(*(engine.generate(ids, sampling, 2) for ids in prompts))

    for ids, turns in zip(prompts, drive(folders(name), use), strict=True):
        for turn in turns:
            assert len(turn.ids) == len(turn.logps) == len(turn.versions) == 40
            expected = reference_logps(folders(name), ids, turn)
            torch.testing.assert_close(torch.tensor(turn.logps), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_equal_those_of_generate(folders: Folders, name: str) -> None:
    ids = prompt(20)
    [turn] = drive(folders(name), lambda e: e.generate(ids, Sampling(max_tokens=30, temperature=0.0), 1))
    model = AutoModelForCausalLM.from_pretrained(folders(name), dtype=torch.float32)
    inputs = torch.tensor([ids])
    peer = model.generate(inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=30)
    assert turn.ids == peer[0, 20:].tolist()
    expected = reference_logps(folders(name), ids, turn)
    torch.testing.assert_close(torch.tensor(turn.logps), expected, rtol=0, atol=1e-5)


Call = tuple[list[int], Sampling, int]


def calls(seed: int) -> list[Call]:
    """Calls of all kinds: lengths around the shelves' edges, one or many samples, every kind of sampling."""
    draw = random.Random(seed)
    made = []
    for _ in range(10):
        sampling = Sampling(
            max_tokens=draw.choice([1, 2, 9, 30]),
            temperature=draw.choice([1.0, 1.0, 0.7, 0.0]),
            top_p=draw.choice([1.0, 0.9]),
            top_k=draw.choice([0, 0, 7]),
            stop_ids=(draw.randrange(160),),
            seed=draw.randrange(2**63),
            sample=draw.randrange(4),
        )
        length = draw.choice([1, 3, 16, 17, 31, 33, 47, 65, 97, 130, 185])
        made.append((prompt(length, draw.randrange(99)), sampling, draw.choice([1, 1, 2, 8])))
    return made


async def alone(engine: EmbeddedEngine, call: Call) -> list[Turn]:
    """Every sample of a call by itself."""
    ids, sampling, n = call
    samples = [replace(sampling, sample=sampling.sample + i) for i in range(n)]
    return [turn for sample in samples for turn in await engine.generate(ids, sample, 1)]


async def crowded(engine: EmbeddedEngine, some: list[Call], draw: random.Random) -> list[list[Turn]]:
    """All calls together, in random order and at random times, beside strangers, some of whom give up."""

    async def later(call: Call, turns_of_the_loop: int) -> list[Turn]:
        for _ in range(turns_of_the_loop):
            await asyncio.sleep(0)
        return await engine.generate(*call)

    strangers = [
        (prompt(draw.randrange(1, 60), i), Sampling(max_tokens=40, seed=i), draw.choice([1, 5])) for i in range(6)
    ]
    tasks: dict[int, asyncio.Task[list[Turn]]] = {}
    order = list(range(len(some) + len(strangers)))
    draw.shuffle(order)
    for index in order:
        call = (some + strangers)[index]
        tasks[index] = asyncio.create_task(later(call, draw.choice([0, 0, 0, 3, 20])))
    for _ in range(10):
        await asyncio.sleep(0)
    for index in order[::2]:
        if index >= len(some):
            tasks[index].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return [tasks[index].result() for index in range(len(some))]


def check_company(folder: Path, dtype: str, seed: int, rows: Sequence[int]) -> None:
    """Every sample of 10 calls alone and in crowds of at most so many rows."""
    some = calls(seed)

    async def by_itself(engine: EmbeddedEngine) -> list[list[Turn]]:
        assert engine.exact
        return [await alone(engine, call) for call in some]

    expected = drive(folder, by_itself, dtype=dtype)
    for most in rows:
        found = drive(folder, lambda e: crowded(e, some, random.Random(seed)), dtype=dtype, rows=most)
        assert found == expected


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in CONFIGS), ("qwen3", "bfloat16")])
def test_samples_are_bit_identical_in_any_company(folders: Folders, name: str, dtype: str) -> None:
    check_company(folders(name), dtype, seed=5, rows=(256, 4))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_samples_are_bit_identical_in_much_company(folders: Folders, name: str, dtype: str) -> None:
    for seed in range(10, 14):
        check_company(folders(name), dtype, seed, rows=(256, 24))


def test_a_small_memory_makes_samples_wait_but_changes_none(folders: Folders) -> None:
    some = calls(seed=6)
    most = 0.0

    async def use(engine: EmbeddedEngine) -> list[list[Turn]]:
        nonlocal most
        decoder = engine._decoder
        assert decoder is not None
        waiting = [asyncio.create_task(engine.generate(*call)) for call in some]
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0)
            most = max(most, sum(shelf.nbytes for shelf in decoder.cache.shelves.values()) / 2**30)
        return [task.result() for task in waiting]

    roomy = drive(folders("qwen3"), use)
    assert most > 0.0009
    most = 0.0
    assert drive(folders("qwen3"), use, cache_gib=0.0004) == roomy
    assert 0 < most <= 0.0004


def test_stop_ids_and_limits(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> None:
        ids, sampling = prompt(10), Sampling(max_tokens=50, seed=1)
        [free] = await engine.generate(ids, sampling, 1)
        assert (len(free.ids), free.finish) == (50, "length")
        stop = free.ids[7]
        [stopped] = await engine.generate(ids, replace(sampling, stop_ids=(stop, -1)), 1)
        first = free.ids.index(stop) + 1
        assert stopped == Turn(free.ids[:first], free.logps[:first], [0] * first, "stop")
        [last] = await engine.generate(ids, replace(sampling, stop_ids=(stop,), max_tokens=first), 1)
        assert last.finish == "stop"
        [full] = await engine.generate(prompt(CONTEXT - 3), sampling, 1)
        assert (len(full.ids), full.finish) == (3, "length")
        for length in (CONTEXT, CONTEXT + 1):
            assert await engine.generate(prompt(length), sampling, 2) == [Turn([], [], [], "length")] * 2

    drive(folders("qwen3"), use)


def test_a_longer_context_continues_a_turn(folders: Folders) -> None:
    """Noise goes by absolute position, so what was drawn does not repeat itself and is found again."""

    async def use(engine: EmbeddedEngine) -> tuple[Turn, Turn]:
        [whole] = await engine.generate(prompt(12), Sampling(max_tokens=20, seed=4), 1)
        [rest] = await engine.generate(prompt(12) + whole.ids[:9], Sampling(max_tokens=11, seed=4), 1)
        return whole, rest

    whole, rest = drive(folders("qwen3"), use)
    assert rest.ids == whole.ids[9:]
    assert rest.logps == pytest.approx(whole.logps[9:], abs=1e-5)


def test_new_calls_join_and_leave_while_others_are_drawn(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> list[str]:
        ended: list[str] = []

        async def call(name: str, tokens: int) -> None:
            await engine.generate(prompt(5), Sampling(max_tokens=tokens), 2)
            ended.append(name)

        long = asyncio.create_task(call("long", 60))
        for _ in range(5):
            await asyncio.sleep(0)
        await call("short", 10)
        await long
        return ended

    assert drive(folders("qwen3"), use) == ["short", "long"]


def test_a_prompt_is_prefilled_once_for_its_samples_and_finished_rows_leave(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> list[int]:
        decoder = engine._decoder
        assert decoder is not None
        sizes: list[int] = []
        decoder.model.register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        lengths = [1, 2, 2, 3, 30]
        same = engine.generate(prompt(40), Sampling(max_tokens=2), 20)
        others = [engine.generate(prompt(20, n), Sampling(max_tokens=n), 1) for n in lengths]
        await asyncio.gather(same, *others)
        return sizes

    sizes = drive(folders("qwen3"), use)
    assert sizes[0] == 144, "one pass for six prompts: 40 + 5 · 20, filled up to a multiple of 8"
    assert sizes[1] == 24, "then 20 + 4 rows"
    assert sizes[2:] == [8] * 28


def test_weights_take_effect_between_steps_and_tokens_are_labelled(folders: Folders) -> None:
    torch.manual_seed(2)
    other = AutoModelForCausalLM.from_config(CONFIGS["qwen3"])
    sampling = Sampling(max_tokens=30, seed=9)

    async def use(engine: EmbeddedEngine) -> tuple[Turn, Turn, Turn]:
        [old] = await engine.generate(prompt(8), sampling, 1)
        running = asyncio.create_task(engine.generate(prompt(8), sampling, 1))
        for _ in range(7):
            await asyncio.sleep(0)
        await engine.load_weights(iter(other.named_parameters()), version=5)
        [mixed] = await running
        [new] = await engine.generate(prompt(8), sampling, 1)
        return old, mixed, new

    old, mixed, new = drive(folders("qwen3"), use)
    change = mixed.versions.index(5)
    assert 0 < change < 29
    assert mixed.versions == [0] * change + [5] * (30 - change)
    assert (mixed.ids[:change], mixed.logps[:change]) == (old.ids[:change], old.logps[:change])
    assert new.versions == [5] * 30
    full = torch.tensor([prompt(8) + new.ids])
    logp = other(full).logits[0, 7:-1].log_softmax(-1).gather(1, full[0, 8:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(new.logps), logp.detach(), rtol=0, atol=1e-5)


def test_an_incomplete_set_of_weights_closes_the_engine(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> None:
        running = asyncio.create_task(engine.generate(prompt(8), Sampling(max_tokens=30), 1))
        await asyncio.sleep(0)
        with pytest.raises(DataError, match="were not given"):
            await engine.load_weights(iter([("model.norm.weight", torch.ones(64))]), version=1)
        with pytest.raises(StageError, match="closed"):
            await running
        with pytest.raises(StageError, match="not started"):
            await engine.generate(prompt(8), Sampling(max_tokens=3), 1)

    drive(folders("qwen3"), use)


def test_cancelling_frees_the_rows(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> None:
        decoder = engine._decoder
        assert decoder is not None
        task = asyncio.create_task(engine.generate(prompt(8), Sampling(max_tokens=90), 3))
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(decoder.cache) == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(decoder.cache) == 0
        assert not decoder.busy

    drive(folders("qwen3"), use)


def test_errors_reach_every_caller_and_the_engine_recovers(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> None:
        decoder = engine._decoder
        assert decoder is not None
        norm = decoder.model.model.norm.weight
        good = norm.clone()
        before = await engine.generate(prompt(8), Sampling(max_tokens=5), 2)
        norm.fill_(torch.nan)
        calls = [engine.generate(prompt(8, i), Sampling(max_tokens=5), 2) for i in range(3)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(error) for error in errors] == ["the policy's logits are not finite (version 0)."] * 3
        norm.copy_(good)
        assert await engine.generate(prompt(8), Sampling(max_tokens=5), 2) == before
        hook = decoder.model.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(StageError, match="embedded engine failed while drawing tokens: ZeroDivisionError"):
            await engine.generate(prompt(8), Sampling(max_tokens=5), 2)
        hook.remove()
        assert await engine.generate(prompt(8), Sampling(max_tokens=5), 2) == before

    drive(folders("qwen3"), use)


def test_impossible_calls_are_refused(folders: Folders) -> None:
    async def use(engine: EmbeddedEngine) -> None:
        fine = Sampling(max_tokens=3)
        for ids in ([], [160], [-1, 3]):
            with pytest.raises(DataError, match="token ids"):
                await engine.generate(ids, fine, 1)
        for sampling, n in ((fine, 0), (replace(fine, max_tokens=0), 1), (replace(fine, top_p=0.0), 1)):
            with pytest.raises(DataError, match="impossible sampling"):
                await engine.generate([1], sampling, n)

    drive(folders("qwen3"), use)

    async def too_large(engine: EmbeddedEngine) -> None:
        with pytest.raises(ConfigError, match="cache_gib"):
            await engine.generate(prompt(100), Sampling(max_tokens=90), 1)

    drive(folders("qwen3"), too_large, cache_gib=0.0001)


def test_it_can_be_started_again_and_on_another_loop(folders: Folders) -> None:
    engine = EmbeddedEngine(EmbeddedEngine.Config(device="cpu"))
    sampling = Sampling(max_tokens=5)

    async def abandoned() -> None:
        await engine.start(folders("llama"), max_tokens=CONTEXT)
        task = asyncio.create_task(engine.generate(prompt(4), sampling, 1))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(abandoned())
    first = asyncio.run(engine.generate(prompt(4), sampling, 1))

    async def again() -> list[Turn]:
        running = asyncio.create_task(engine.generate(prompt(4), replace(sampling, max_tokens=50), 1))
        await asyncio.sleep(0)
        await engine.start(folders("llama"), max_tokens=CONTEXT)
        turns = await engine.generate(prompt(4), sampling, 1)
        with pytest.raises(StageError, match="closed"):
            await running
        return turns

    assert asyncio.run(again()) == first
