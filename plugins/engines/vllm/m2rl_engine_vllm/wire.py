"""HTTP/1.0 on the event loop: one connection for one request, which can be cancelled.

vLLM aborts a request whose connection closes, so a caller that gives up frees its rows there.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from m2rl_engine_vllm.backend import EngineLostError, Refused

__all__ = ["ask"]


async def ask(url: str, path: str, body: object = None, *, method: str = "POST", seconds: float | None = None) -> Any:
    """The JSON that ``url + path`` answers, or its text where it is no JSON.

    Args:
        seconds: until the whole answer is there; ``None``: as long as it takes.

    Raises:
        EngineLostError: nobody there, no HTTP, a reply that was cut or took too long.
        Refused: a status other than 2xx.
    """
    try:
        async with asyncio.timeout(seconds):
            status, text = await _exchange(url, path, body, method)
    except (OSError, EOFError, ValueError, IndexError, TimeoutError, asyncio.LimitOverrunError) as error:
        raise EngineLostError(f"{url}: {type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        raise Refused(f"{url}{path} answers {status}: {text.decode(errors='replace')[:2000]}")
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


async def _exchange(url: str, path: str, body: object, method: str) -> tuple[int, bytes]:
    """Status and body of the reply."""
    where = urlsplit(url)
    secure = where.scheme == "https"
    port = where.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(where.hostname, port, ssl=secure or None)
    try:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {where.path.rstrip('/')}{path} HTTP/1.0\r\nHost: {where.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        return await _reply(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status_line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    status = int(status_line.split(" ")[1])
    if "content-length" in headers:
        return status, await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding", "identity") != "identity":
        raise ValueError("a reply in pieces to a request in HTTP/1.0")
    return status, await reader.read()
