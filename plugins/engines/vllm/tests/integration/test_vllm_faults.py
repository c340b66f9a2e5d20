"""Updates while samples are being drawn, stale weights, and the death of vLLM."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="`make test-vllm` installs vLLM and runs this")


from m2rl_core.errors import StageError
from m2rl_core.types import Turn
from m2rl_engine_vllm import arguments
from m2rl_engine_vllm.engine import VllmEngine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def engine(driver: Any, request: pytest.FixtureRequest) -> Iterator[VllmEngine]:
    started = driver.start(**request.param)
    yield started
    driver.run(started.close())


@pytest.mark.parametrize("engine", [{"in_flight": "finish"}], indirect=True)
def test_samples_in_flight_finish_first(driver: Any, engine: VllmEngine) -> None:
    weights = driver.other_weights(1)
    turns, late = driver.run(driver.updated_meanwhile(engine, weights, 1))
    assert all(turn.versions == [0] * 450 and turn.finish == "length" for turn in turns)
    assert set(late[0].versions) <= {0, 1}
    driver.expect_equal(engine, weights, 1)


@pytest.mark.parametrize("engine", [{"in_flight": "abort"}], indirect=True)
def test_samples_in_flight_are_given_up(driver: Any, engine: VllmEngine) -> None:
    weights = driver.other_weights(1)
    turns, _ = driver.run(driver.updated_meanwhile(engine, weights, 1))
    assert all(turn.finish == "abort" and len(turn.ids) < 450 for turn in turns)
    driver.expect_equal(engine, weights, 1)


@pytest.mark.parametrize("engine", [{"in_flight": "continue"}], indirect=True)
def test_samples_in_flight_go_on_and_every_token_knows_its_version(driver: Any, engine: VllmEngine) -> None:
    before = driver.run(engine.generate(driver.prompts[2], driver.long, 8))
    weights = driver.other_weights(1)
    turns, _ = driver.run(driver.updated_meanwhile(engine, weights, 1))
    for turn, old in zip(turns, before, strict=True):
        assert turn.finish == "length"
        switch = turn.versions.index(1)
        assert turn.versions == [0] * switch + [1] * (450 - switch)
        assert turn.ids[:switch] == old.ids[:switch]
        assert turn.ids[switch:] != old.ids[switch:]
    # no prefix that the old weights computed is used by what is drawn now
    driver.expect_equal(engine, weights, 1)


def test_a_head_that_stays_stale_is_found_out(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "EXTENSION", "stale_worker.Extension")
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
    engine = driver.start()
    with pytest.raises(StageError, match=r"stale or wrong.*mean difference of"):
        driver.run(engine.load_weights(iter(driver.other_weights(1)), 1))
    with pytest.raises(StageError, match="not started"):
        driver.run(engine.generate([1], driver.long, 1))


def kill_engine() -> None:
    """Kill vLLM's engine process as the system does when memory runs out."""
    [child] = [each for each in multiprocessing.active_children() if "EngineCore" in each.name]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("engine", [{"restarts": 2}], indirect=True)
def test_a_killed_engine_is_replaced_and_what_was_lost_is_drawn_again(driver: Any, engine: VllmEngine) -> None:
    weights = driver.other_weights(1)
    driver.run(engine.load_weights(iter(weights), 1))
    expected = driver.run(engine.generate(driver.prompts[2], driver.long, 4))

    async def killed() -> list[list[Turn]]:
        drawing = [asyncio.create_task(engine.generate(driver.prompts[2], driver.long, 4)) for _ in range(2)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in drawing)
        kill_engine()
        return list(await asyncio.gather(*drawing))

    with pytest.warns(UserWarning, match=r"vLLM died .*: restart 1 of 2; what it was drawing is drawn again"):
        first, second = driver.run(killed())
    assert [turn.ids for turn in first] == [turn.ids for turn in second] == [turn.ids for turn in expected]
    driver.expect_equal(engine, weights, 1)

    async def idle() -> None:
        kill_engine()
        await asyncio.sleep(0.5)
        await engine.load_weights(iter(weights), 2)

    with pytest.warns(UserWarning, match="restart 2 of 2"):
        driver.run(idle())
    driver.expect_equal(engine, weights, 2)

    async def once_too_often() -> None:
        kill_engine()
        await asyncio.sleep(0.5)
        await engine.generate(driver.prompts[2], driver.long, 4)

    with pytest.raises(StageError, match=r"vLLM died 3 times.*engine\.restarts"):
        driver.run(once_too_often())


ORPHAN = """
import asyncio, multiprocessing, os, pathlib, signal, sys
from m2rl_engine_vllm.engine import VllmEngine

async def start():
    engine = VllmEngine(VllmEngine.Config(dtype="float32", cache_gib=0.25, eager=True))
    await engine.start(pathlib.Path(sys.argv[1]), max_tokens=256)
    print("pids", *(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(start())
"""


def test_vllm_does_not_outlive_a_killed_trainer(vllm_model: Path, tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    command = [sys.executable, str(tmp_path / "orphan.py"), str(vllm_model)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    [pid] = map(int, done.stdout.splitlines()[-1].removeprefix("pids ").split())
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
