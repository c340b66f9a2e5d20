"""One session with an HTTP server: JSON posted, JSON answered, cookies carried and refreshed, everything bounded."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

__all__ = ["Reply", "ServerError", "Session"]

LARGEST = 16 << 20
"""Bytes of a reply: a verdict echoes the whole row."""
CHUNK = 1 << 16
PAUSE = 0.2
"""Seconds before the second attempt; doubled before the third."""


class ServerError(RuntimeError):
    """The server did not do its part: unreachable, slow, or with a reply that is none."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON object as it came."""

    value: Mapping[str, Any]
    body: bytes


class Session:
    """The cookies of one session. Used by one thread at a time."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urllib.parse.urlsplit(url.rstrip("/"))
        self._secure, self._host, self._base = parts.scheme == "https", parts.netloc, parts.path
        self._timeout = timeout
        self.cookies: dict[str, str] = {}

    def post(self, route: str, body: Mapping[str, Any], *, also: Collection[int] = (), attempts: int = 1) -> Reply:
        """Post ``body`` to a route. Blocks.

        Args:
            also: statuses that are as good as 200: the request's fault, and said back to whoever wrote it.
            attempts: more than 1 only where the server may carry the request out twice.

        Raises:
            ServerError: it names the route and the reason.
        """
        for attempt in range(1, attempts + 1):
            try:
                return self._once(route, json.dumps(body).encode(), also)
            except (OSError, http.client.HTTPException, ValueError, RecursionError, ServerError) as error:
                if attempt == attempts:
                    what = str(error) or type(error).__name__
                    raise ServerError(f"resources server, /{route}: {type(error).__name__}: {what[:200]}") from error
                time.sleep(PAUSE * attempt)
        raise AssertionError("no attempt")

    def _once(self, route: str, body: bytes, also: Collection[int]) -> Reply:
        deadline = time.monotonic() + self._timeout
        connection = self._connected(deadline)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            if self.cookies:
                headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request("POST", f"{self._base}/{urllib.parse.quote(route, safe='')}", body, headers)
            with connection.getresponse() as response:
                text = _bounded(response, deadline)
        finally:
            connection.close()
        self._refresh(response.headers.get_all("Set-Cookie", []))
        if response.status != 200 and response.status not in also:
            raise ServerError(f"status {response.status}: {text[:200].decode(errors='replace')}")
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ServerError("the reply is no JSON object")
        return Reply(value, text)

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        """Tries until the deadline where nobody listens: nothing has been sent yet, and a server may be restarting."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        while True:
            connection = kind(self._host, timeout=max(0.01, deadline - time.monotonic()))
            try:
                connection.connect()
                return connection
            except ConnectionRefusedError:
                connection.close()
                if time.monotonic() + PAUSE > deadline:
                    raise
                time.sleep(PAUSE)

    def _refresh(self, set_cookies: list[str]) -> None:
        for header in set_cookies:
            jar: SimpleCookie = SimpleCookie()
            try:
                jar.load(header)
            except CookieError as error:
                raise ServerError(f"a malformed cookie: {error}") from error
            self.cookies.update({name: morsel.coded_value for name, morsel in jar.items()})


def _bounded(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, piece by piece: a socket's own timeout would begin anew with every byte that drips in."""
    body = b""
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > LARGEST:
            raise ServerError(f"a reply of more than {LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the reply drips in")
    return body
