"""One session with an HTTP server: JSON posted, JSON answered, cookies carried and refreshed, everything bounded."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from m2rl_core.http import HttpError, post

__all__ = ["Reply", "ServerError", "Session"]

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
        self._url = url.rstrip("/")
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
                return self._once(route, body, also)
            except (HttpError, ValueError, RecursionError, ServerError) as error:
                if attempt == attempts:
                    raise ServerError(f"resources server, /{route}: {str(error)[:200]}") from error
                time.sleep(PAUSE * attempt)
        raise AssertionError("no attempt")

    def _once(self, route: str, body: Mapping[str, Any], also: Collection[int]) -> Reply:
        cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        url = f"{self._url}/{urllib.parse.quote(route, safe='')}"
        reply = post(url, body, seconds=self._timeout, headers=cookies if self.cookies else {}, wait=True)
        self._refresh(reply.headers.get_all("Set-Cookie", []))
        if reply.status != 200 and reply.status not in also:
            raise ServerError(f"status {reply.status}: {reply.body[:200].decode(errors='replace')}")
        value = json.loads(reply.body)
        if not isinstance(value, dict):
            raise ServerError("the reply is no JSON object")
        return Reply(value, reply.body)

    def _refresh(self, set_cookies: list[str]) -> None:
        for header in set_cookies:
            jar: SimpleCookie = SimpleCookie()
            try:
                jar.load(header)
            except CookieError as error:
                raise ServerError(f"a malformed cookie: {error}") from error
            self.cookies.update({name: morsel.coded_value for name, morsel in jar.items()})
