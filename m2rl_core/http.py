"""JSON posted to a service: bounded in bytes and in time, whatever it does. For domains that ask a server.

Redirects are not followed: what is sent, a key perhaps, goes where the settings say and nowhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Annotated, Any, cast

from pydantic import Field

__all__ = ["Address", "HttpError", "Reply", "post"]

Address = Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$")]
"""Of a service, e.g. ``http://localhost:8000/v1``: no credentials, no query."""
LARGEST = 16 << 20
"""Bytes of a reply."""
CHUNK = 1 << 16
PAUSE = 0.2
"""Seconds before the next attempt to connect."""


class HttpError(Exception):
    """No whole reply: nobody there, too slow, too large, cut, or no HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, whatever its status; of one that is an error, the text may be missing."""

    status: int
    headers: Message
    body: bytes


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def post(
    url: str,
    value: object,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    largest: int = LARGEST,
    wait: bool = False,
) -> Reply:
    """Post ``value`` as JSON. Blocks.

    Args:
        seconds: until the last byte of the reply.
        largest: bytes of a reply.
        wait: try again until the time is over where nobody listens. Nothing has been sent then, and a server may be
            about to start.

    Raises:
        HttpError: no whole reply. Its text quotes nothing that was sent.
    """
    fields = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
    request = urllib.request.Request(url, json.dumps(value).encode(), fields, method="POST")
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _reply(request, deadline, largest)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if not (wait and isinstance(reason, ConnectionRefusedError) and time.monotonic() + PAUSE < deadline):
                raise HttpError(_described(reason)) from error
            time.sleep(PAUSE)


def _reply(request: urllib.request.Request, deadline: float, largest: int) -> Reply:
    left = max(0.01, deadline - time.monotonic())
    try:
        with _OPENER.open(request, timeout=left) as response:
            return Reply(response.status, response.headers, _body(response, deadline, largest))
    except urllib.error.HTTPError as error:  # a reply, too; its status says enough where its text cannot be had
        text = b""
        with error, contextlib.suppress(HttpError, OSError, http.client.HTTPException):
            text = _body(cast(http.client.HTTPResponse, error.fp), deadline, largest)
        return Reply(error.code, error.headers, text)


def _body(response: http.client.HTTPResponse, deadline: float, largest: int) -> bytes:
    """Piece by piece: a socket's own timeout would begin anew with every byte that drips in."""
    body = bytearray()
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > largest:
            raise HttpError(f"a reply of more than {largest} bytes")
        if time.monotonic() > deadline:
            raise HttpError("a reply that does not end in time")
    if response.length:  # read1 does not raise where the connection is cut
        raise HttpError("a reply that was cut")
    return bytes(body)


def _described(error: object) -> str:
    """The system's own errors in full; of others, which may quote a header, the kind."""
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
