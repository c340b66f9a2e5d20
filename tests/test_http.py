"""JSON over real HTTP, against servers that behave and servers that do not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pydantic import TypeAdapter, ValidationError

from m2rl_core.http import Address, HttpError, post


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine stands between."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


Script = Callable[[socket.socket], None]


def answer(status: str = "200 OK", body: bytes = b"{}", *headers: str) -> bytes:
    fields = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body


def request(channel: socket.socket) -> bytes:
    """All of a request with its body."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += channel.recv(65536)
    head, _, body = text.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += channel.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def served(*scripts: Script, port: int = 0) -> Iterator[str]:
    """A server that plays one script per connection, then listens no more."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            for script in scripts:
                channel, _ = listener.accept()
                with channel:
                    script(channel)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/here"
        thread.join()


def says(reply: bytes, seen: list[bytes] | None = None) -> Script:
    def script(channel: socket.socket) -> None:
        asked = request(channel)
        if seen is not None:
            seen.append(asked)
        channel.sendall(reply)

    return script


def drips(channel: socket.socket) -> None:
    request(channel)
    channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(40):
        try:
            channel.sendall(b" ")
        except OSError:
            return
        time.sleep(0.05)


def test_a_value_is_posted_as_json_and_the_reply_comes_whole() -> None:
    seen: list[bytes] = []
    with served(says(answer("200 OK", b'{"a": 1}', "Set-Cookie: x=1", "Set-Cookie: y=2"), seen)) as url:
        reply = post(url, {"é": [1, None]}, seconds=5.0, headers={"Authorization": "Bearer key"})
    assert (reply.status, reply.body) == (200, b'{"a": 1}')
    assert reply.headers.get_all("Set-Cookie") == ["x=1", "y=2"]
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /here HTTP/1.1\r\n")
    assert b"Content-Type: application/json" in head.replace(b"Content-type", b"Content-Type")
    assert b"Authorization: Bearer key" in head
    assert json.loads(body) == {"é": [1, None]}


@pytest.mark.parametrize("status", ["404 Not Found", "422 Unprocessable", "500 Oops", "302 Found"])
def test_any_status_is_a_reply_and_no_redirect_is_followed(status: str) -> None:
    with served(says(answer(status, b"why", "Location: http://127.0.0.1:9/elsewhere"))) as url:
        reply = post(url, {}, seconds=5.0)
    assert (reply.status, reply.body) == (int(status[:3]), b"why")


@pytest.mark.parametrize(
    ("script", "named"),
    [
        (says(answer(body=b"x" * 5000)), "more than 1000 bytes"),
        (says(answer(body=b"x" * 500)[:-100]), "cut"),
        (says(b"SSH-2.0-OpenSSH\r\n"), "BadStatusLine"),
        (says(b""), "RemoteDisconnected"),
        (drips, "does not end in time"),
        (lambda channel: time.sleep(0.8), "TimeoutError"),
    ],
)
def test_what_is_no_whole_reply_is_an_error(script: Script, named: str) -> None:
    started = time.monotonic()
    with served(script) as url, pytest.raises(HttpError, match=named) as caught:
        post(url, {"secret": "s3cret"}, seconds=0.5, headers={"Authorization": "Bearer s3cret"}, largest=1000)
    assert "s3cret" not in str(caught.value)
    assert time.monotonic() - started < 4.0


def test_a_server_that_is_about_to_start_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HttpError, match="ConnectionRefusedError"):
        post(f"http://127.0.0.1:{port}/here", {}, seconds=5.0)
    found: list[int] = []
    waiting = threading.Thread(
        target=lambda: found.append(post(f"http://127.0.0.1:{port}/here", {}, seconds=10.0, wait=True).status)
    )
    waiting.start()
    time.sleep(0.5)
    with served(says(answer()), port=port):
        waiting.join()
    assert found == [200]


def test_waiting_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(HttpError, match="ConnectionRefusedError"):
        post(f"http://127.0.0.1:{port}/", {}, seconds=0.7, wait=True)
    assert 0.4 < time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    "address", ["ftp://host", "http://", "http://user@host/", "http://host/?q=1", "http://a b/", "host:80"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Address).validate_python(address)
