"""The HTTP client, against real small servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from m2rl_engine_vllm.backend import EngineLostError, Refused
from m2rl_engine_vllm.wire import ask

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def served(answer: Answer, use: Callable[[str], Awaitable[Any]]) -> Any:
    """What ``use`` makes of the address of a server that gives ``answer`` to every request."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await answer(head + await reader.readexactly(length), writer)
        writer.close()
        over.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        try:
            return await use(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base")
        finally:
            await over.wait()


def reply(raw: bytes) -> Answer:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return answer


def test_json_goes_there_and_back() -> None:
    seen: list[bytes] = []

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a": 12}')

    assert asyncio.run(served(answer, lambda url: ask(url, "/x?y=1", {"ids": [1]}))) == {"a": 12}
    assert seen[0].startswith(b"POST /base/x?y=1 HTTP/1.0\r\n")
    assert seen[0].endswith(b'{"ids": [1]}')


def test_a_reply_may_end_with_its_connection() -> None:
    answer = reply(b"HTTP/1.0 200 OK\r\n\r\n[1, 2]")
    assert asyncio.run(served(answer, lambda url: ask(url, "/", method="GET"))) == [1, 2]


def test_text_stays_text() -> None:
    assert asyncio.run(served(reply(b"HTTP/1.0 200 OK\r\n\r\nfine"), lambda url: ask(url, "/"))) == "fine"


def test_a_refusal_says_what_the_server_says() -> None:
    answer = reply(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nno such")
    with pytest.raises(Refused, match="/tensor answers 400: no such"):
        asyncio.run(served(answer, lambda url: ask(url, "/tensor")))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"what?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_no_whole_reply_is_a_lost_server(raw: bytes) -> None:
    with pytest.raises(EngineLostError):
        asyncio.run(served(reply(raw), lambda url: ask(url, "/")))


def test_nobody_there_and_nothing_said() -> None:
    async def silent(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)

    with pytest.raises(EngineLostError, match="TimeoutError"):
        asyncio.run(served(silent, lambda url: ask(url, "/", seconds=0.05)))
    with pytest.raises(EngineLostError, match="ConnectionRefusedError"):
        asyncio.run(ask("http://127.0.0.1:9", "/"))
