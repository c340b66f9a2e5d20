"""The engine beside the trainer, with real vLLM on a CPU: tokens, log-probs, noise, updates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="`make test-vllm` installs vLLM and runs this")

import torch

from m2rl_core.errors import DataError
from m2rl_core.types import Sampling
from m2rl_engine_vllm.engine import VllmEngine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def engine(driver: Any) -> Iterator[VllmEngine]:
    started = driver.start(sleep=1)
    yield started
    driver.run(started.close())


def test_the_trainers_process_stays_as_it_was(driver: Any) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    engine = driver.start(sleep=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(threads)
    assert not torch.distributed.is_initialized()
    driver.run(engine.close())


def test_greedy_tokens_are_the_embedded_engines(driver: Any, engine: VllmEngine) -> None:
    driver.expect_equal(engine, None, version=0)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"temperature": 1.3, "top_k": 9}])
def test_log_probs_are_of_the_distribution_drawn_from(
    driver: Any, engine: VllmEngine, settings: dict[str, Any]
) -> None:
    sampling, ids = Sampling(40, seed=3, **settings), driver.prompts[5]
    turns = driver.run(engine.generate(ids, sampling, 3))
    assert len({tuple(turn.ids) for turn in turns}) == 3
    for turn in turns:
        assert turn.finish == "length"
        assert turn.logps == pytest.approx(driver.logps_under(ids, turn, sampling), abs=1e-4)


def test_noise_depends_on_seed_sample_and_position_alone(driver: Any, engine: VllmEngine) -> None:
    sampling, ids = Sampling(24, seed=3), driver.prompts[2]

    async def crowd() -> Any:
        others = [engine.generate(each, Sampling(24, seed=i), 8) for i, each in enumerate(driver.prompts)]
        first, *_ = await asyncio.gather(engine.generate(ids, sampling, 8), *others)
        return first

    turns = driver.run(crowd())
    [alone] = driver.run(engine.generate(ids, Sampling(24, seed=3, sample=5), 1))
    assert alone.ids == turns[5].ids
    assert driver.run(engine.generate(ids, Sampling(24, seed=4), 1))[0].ids != turns[0].ids
    [later] = driver.run(engine.generate(ids + turns[0].ids[:2], Sampling(24, seed=3), 1))
    assert later.ids[:8] != turns[0].ids[2:10], "a later turn has noise of its own"


def test_more_samples_than_rows_and_equal_greedy_ones(driver: Any, engine: VllmEngine) -> None:
    turns = driver.run(engine.generate(driver.prompts[0], Sampling(2, seed=1), 70))
    assert len(turns) == 70
    assert driver.run(engine.generate(driver.prompts[0], Sampling(2, seed=1, sample=66), 1)) == [turns[66]]
    greedy = driver.run(engine.generate(driver.prompts[0], Sampling(2, temperature=0.0), 3))
    assert greedy[0] == greedy[1] == greedy[2]
    assert greedy[0].ids is not greedy[1].ids


def test_samples_end_with_a_stop_id_or_where_the_context_is_full(driver: Any, engine: VllmEngine) -> None:
    [whole] = driver.greedy(engine, [driver.prompts[3]])
    stop = whole.ids[4]
    cut = Sampling(24, temperature=0.0, stop_ids=(stop,))
    [stopped] = driver.run(engine.generate(driver.prompts[3], cut, 1))
    assert (stopped.ids, stopped.finish) == (whole.ids[: whole.ids.index(stop) + 1], "stop")
    nearly = [1] * (driver.context - 3)
    [full] = driver.run(engine.generate(nearly, Sampling(24), 1))
    assert (len(full.ids), full.finish) == (3, "length")
    [none] = driver.run(engine.generate([1] * driver.context, Sampling(24), 1))
    assert (none.ids, none.finish) == ([], "length")


def test_an_update_changes_what_is_drawn_as_it_does_in_the_embedded_engine(driver: Any, engine: VllmEngine) -> None:
    for version in (3, 4):  # the second over the first
        weights = driver.other_weights(version)
        driver.run(engine.load_weights(iter(weights), version))
        assert engine.difference is not None
        assert engine.difference < 1e-5
        driver.expect_equal(engine, weights, version)


def test_rest_and_wake(driver: Any, engine: VllmEngine) -> None:
    driver.run(engine.rest())
    [before] = driver.greedy(engine, [driver.prompts[4]])
    driver.run(engine.rest())
    weights = driver.other_weights(5)
    driver.run(engine.load_weights(iter(weights), 5))
    driver.expect_equal(engine, weights, 5)
    assert before.ids


def test_tensors_that_do_not_fit_are_refused_and_change_nothing(driver: Any, engine: VllmEngine) -> None:
    weights = driver.other_weights(6)
    before = driver.greedy(engine, driver.prompts)
    name, tensor = weights[3]
    for wrong, message in (
        ([*weights, ("model.layer", tensor)], "no tensor 'model.layer'"),
        ([*weights[:3], (name, tensor[:1])], "another shape"),
        ([*weights, weights[3]], "given twice"),
        (weights[:-1], "were not given"),
    ):
        with pytest.raises(DataError, match=message):
            driver.run(engine.load_weights(iter(wrong), 6))
    assert driver.greedy(engine, driver.prompts) == before


def test_compiled_and_in_bfloat16(driver: Any) -> None:
    """The defaults, which are not what the other tests compare numbers with."""
    compiled = driver.start(dtype="bfloat16", eager=False)
    for version in (1, 2):
        driver.run(compiled.load_weights(iter(driver.other_weights(version)), version))
        assert compiled.difference is not None
        assert 0 < compiled.difference < 0.1
    turns = driver.run(compiled.generate(driver.prompts[3], Sampling(32, seed=1), 4))
    for turn in turns:
        assert turn.versions == [2] * 32
    driver.run(compiled.close())
