"""The engine with a server: started by it, killed, and reached at a URL."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm", reason="`make test-vllm` installs vLLM and runs this")


from m2rl_core.errors import ConfigError
from m2rl_core.types import Turn
from m2rl_engine_vllm.engine import VllmEngine
from m2rl_engine_vllm.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def engine(driver: Any) -> Iterator[VllmEngine]:
    started = driver.start(placement="server", in_flight="continue")
    yield started
    driver.run(started.close())


def server_of(engine: VllmEngine) -> Server:
    backend = engine.members[0]._backend
    assert isinstance(backend, Server)
    return backend


def test_what_a_server_draws_and_takes(driver: Any, engine: VllmEngine) -> None:
    driver.expect_equal(engine, None, 0)
    weights = driver.other_weights(2)
    driver.run(engine.load_weights(iter(weights), 2))
    assert engine.difference is not None
    assert engine.difference < 1e-5
    driver.expect_equal(engine, weights, 2)


def test_a_servers_tokens_know_their_version(driver: Any, engine: VllmEngine) -> None:
    weights = driver.other_weights(3)
    turns, _ = driver.run(driver.updated_meanwhile(engine, weights, 3))
    for turn in turns:
        switch = turn.versions.index(3)
        assert turn.versions == [2] * switch + [3] * (450 - switch)
    driver.expect_equal(engine, weights, 3)


def test_a_server_at_a_url(driver: Any, engine: VllmEngine) -> None:
    url = server_of(engine).url
    other = VllmEngine(VllmEngine.Config(placement="server", urls=(url,), dtype="float32", rows=64))
    driver.run(other.start(driver.model, max_tokens=512))
    driver.expect_equal(other, None, 0)
    driver.run(other.close())
    assert driver.greedy(engine, driver.prompts[:1]), "it was not ours to stop"
    with pytest.raises(ConfigError, match=r"contexts of http://127.* are too short"):
        driver.run(other.start(driver.model, max_tokens=1024))


def test_a_killed_server_is_replaced(driver: Any, engine: VllmEngine) -> None:
    weights = driver.other_weights(4)
    driver.run(engine.load_weights(iter(weights), 4))
    expected = driver.run(engine.generate(driver.prompts[2], driver.long, 4))

    async def killed() -> list[Turn]:
        drawing = asyncio.create_task(engine.generate(driver.prompts[2], driver.long, 4))
        await asyncio.sleep(0.3)
        assert not drawing.done()
        process = server_of(engine)._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        return await drawing

    with pytest.warns(UserWarning, match="the vLLM server died .*restart 1 of 3"):
        turns = driver.run(killed())
    assert [turn.ids for turn in turns] == [turn.ids for turn in expected]
    driver.expect_equal(engine, weights, 4)
