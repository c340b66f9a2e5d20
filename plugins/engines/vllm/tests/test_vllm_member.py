"""Supervision, with a small backend in vLLM's place that dies on command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError, StageError
from m2rl_core.types import Turn
from m2rl_engine_vllm.backend import EngineLostError, Pause, Refused
from m2rl_engine_vllm.member import Member

FIRST, NEW = (Path("first"),), (Path("new"),)


class Small:
    """Draws its version, in a while; ``dies`` names the methods that find it dead, once each."""

    def __init__(self, log: list[Any], dies: list[str]) -> None:
        self.log, self.dies, self.version, self.dead = log, dies, 0, False

    def did(self, *what: Any) -> None:
        if self.dead or what[0] in self.dies:
            if not self.dead:
                self.dies.remove(what[0])
            self.dead = True
            raise EngineLostError(f"dead in {what[0]}")
        self.log.append(what)

    async def draw(self, ids: list[int], params: Mapping[str, Any], salt: str) -> list[Turn]:
        self.did("draw", salt)
        await asyncio.sleep(0.01)
        return [Turn(ids, [0.0] * len(ids), [self.version] * len(ids), "stop")]

    async def score(self, ids: list[int], salt: str) -> list[float]:
        return [0.0]

    async def pause(self, mode: Pause) -> None:
        self.did("pause", mode)

    async def resume(self) -> None:
        self.did("resume")

    async def update(self, files: Sequence[Path], version: int) -> None:
        self.did("update", files, version)
        if files == (Path("wrong"),):
            raise Refused("KeyError: wrong")
        await asyncio.sleep(0.01)
        self.version = version

    async def sleep(self, level: int) -> None:
        self.did("sleep", level)

    async def wake(self, *, weights_only: bool = False) -> None:
        self.did("wake", weights_only)

    async def close(self) -> None:
        self.log.append(("close",))


def member(log: list[Any], dies: list[str], *, sleep: int = 0, restarts: int = 2, in_flight: str = "finish") -> Member:
    async def start() -> Small:
        small = Small(log, dies)
        small.did("start")
        return small

    return Member("vLLM", start, FIRST, in_flight=in_flight, sleep=sleep, restarts=restarts)


def play(
    script: Callable[[Member], Awaitable[Any]], dies: Sequence[str] = (), **settings: Any
) -> tuple[Any, list[Any]]:
    """What ``script`` returns, and what the backend was asked."""
    log: list[Any] = []

    async def whole() -> Any:
        under = member(log, list(dies), **settings)
        await under.start()
        return await script(under)

    return asyncio.run(whole()), log


@pytest.mark.parametrize(("in_flight", "mode"), [("finish", "wait"), ("abort", "abort"), ("continue", "keep")])
def test_an_update_pauses_as_the_settings_say(in_flight: str, mode: str) -> None:
    _, log = play(lambda under: under.update(NEW, 1), in_flight=in_flight)
    assert log == [("start",), ("pause", mode), ("update", NEW, 1), ("resume",)]


def test_requests_wait_for_the_end_of_an_update_and_share_no_prefix_with_the_old() -> None:
    async def script(under: Member) -> Any:
        before = await under.draw([1], {})
        updating = asyncio.create_task(under.update(NEW, 1))
        await asyncio.sleep(0)
        after = await under.draw([1], {})
        await updating
        return before[0].versions, after[0].versions

    versions, log = play(script)
    assert versions == ([0], [1])
    assert [each for each in log if each[0] == "draw"] == [("draw", "version-0"), ("draw", "version-1")]


def test_the_lost_are_drawn_again_with_the_newest_weights() -> None:
    async def script(under: Member) -> Any:
        await under.update(NEW, 4)
        under._backend.dies.append("draw")  # type: ignore[union-attr]
        return await asyncio.gather(*(under.draw([i], {}) for i in range(3)))

    with pytest.warns(UserWarning, match=r"vLLM died \(dead in draw\): restart 1 of 2"):
        drawn, log = play(script)
    assert [turns[0].ids for turns in drawn] == [[0], [1], [2]]
    assert all(turns[0].versions == [4] for turns in drawn)
    assert log.count(("start",)) == 2
    assert log.count(("update", NEW, 4)) == 2


@pytest.mark.parametrize("when", ["pause", "update", "resume"])
def test_a_death_during_an_update(when: str) -> None:
    async def script(under: Member) -> Any:
        await under.update(NEW, 1)
        return await under.draw([1], {})

    with pytest.warns(UserWarning, match=f"dead in {when}"):
        drawn, _ = play(script, [when])
    assert drawn[0].versions == [1]


def test_a_replacement_that_dies_is_replaced_until_there_are_none_left() -> None:
    async def script(under: Member) -> Any:
        under._backend.dies.extend(["draw", "start", "start"])  # type: ignore[union-attr]
        return await under.draw([1], {})

    with (
        pytest.warns(UserWarning, match="restart [12] of 2"),
        pytest.raises(StageError, match=r"vLLM died 3 times: dead in start.*engine\.restarts"),
    ):
        play(script)


def test_a_death_at_the_start_is_not_tried_again() -> None:
    with pytest.raises(StageError, match="died at its start: dead in start"):
        play(lambda under: under.draw([1], {}), ["start"])


def test_a_refusal_is_the_users_and_the_next_update_may_succeed() -> None:
    async def script(under: Member) -> Any:
        with pytest.raises(DataError, match="vLLM refuses the new weights: KeyError: wrong"):
            await under.update((Path("wrong"),), 1)

    _, log = play(script)
    assert ("resume",) not in log, "its weights are neither old nor new"


@pytest.mark.parametrize("level", [1, 2])
def test_sleep_between_phases(level: int) -> None:
    async def script(under: Member) -> Any:
        await under.rest()
        await under.update(NEW, 1)
        await under.rest()
        await under.draw([1], {})

    _, log = play(script, sleep=level)
    update = [("sleep", level), ("wake", True), ("update", NEW, 1), ("wake", False)]
    wake = {1: [("wake", False)], 2: [("wake", True), ("update", NEW, 1), ("wake", False)]}
    assert log == [("start",), *update, ("sleep", level), *wake[level], ("draw", "version-1")]


def test_nobody_sleeps_while_somebody_draws() -> None:
    async def script(under: Member) -> Any:
        drawing = asyncio.create_task(under.draw([1], {}))
        await asyncio.sleep(0)
        await under.rest()
        await drawing

    _, log = play(script, sleep=1)
    assert not [each for each in log if each[0] == "sleep"]


def test_who_waits_at_the_end_is_told() -> None:
    async def script(under: Member) -> Any:
        await under.close()
        with pytest.raises(StageError, match="not started, or was closed"):
            await under.draw([1], {})

    play(script)
