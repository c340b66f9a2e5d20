"""A domain's verifier over HTTP, so that any trainer can use it: bounded in bytes, in time and in connections.

``POST /verify`` takes a row as ``m2rl verify`` reads it (``response``, ``ground_truth``, perhaps ``id`` and
``metadata``), or a list of rows, and answers with the verdict, or the list of verdicts. ``reward`` is ``null`` where
the *verifier* failed, which is no reason for a reward of 0. ``GET /health`` says whose verifier it is. What is wrong
with a request is answered with 4xx and ``{"error": …}``.

Only ``application/json`` is taken, so that no page in a browser on this machine can have anything verified.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import m2rl_core
from m2rl_core.errors import DataError, RunError, UserError
from m2rl_core.rollout.judging import judged
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Reasoning
from m2rl_core.verify import row_case, scored

__all__ = ["Limits", "Server", "open_server"]

CHUNK = 1 << 16
LINGER = 2.0
"""Seconds in which a client that was refused may go on sending before it reads why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask for."""

    size: int = 16 << 20
    """Bytes of a request."""
    seconds: float = 30.0
    """Until a request has arrived. How long a verification may take is the domain's business."""
    connections: int = 256
    """At a time; more are answered with 503."""


class RequestError(Exception):
    """A request that is answered with a status of 4xx or 5xx; nothing more is read from its connection."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Server(ThreadingHTTPServer):
    """Listens; made by :func:`open_server`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], spec: Spec, pool: VerifierPool, reasoning: Reasoning | None, limits: Limits
    ) -> None:
        self.spec, self.pool, self.reasoning, self.limits = spec, pool, reasoning, limits
        self.seats = threading.BoundedSemaphore(limits.connections)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        host, port, *_ = self.socket.getsockname()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of its request is no event."""


@contextlib.contextmanager
def open_server(
    spec: Spec,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    expose: bool = False,
    workers: int = 1,
    reasoning: Reasoning | None = None,
    limits: Limits = Limits(),
) -> Iterator[Server]:
    """A server that listens, with the verifier's workers; ``serve_forever`` it. Nothing is left when the block ends.

    Args:
        spec: of the domain.
        port: 0 takes a free one.
        expose: let it listen where other machines can reach it. There is no authentication.
        workers: verifications at a time.
        reasoning: as for :func:`m2rl_core.verify.row_case`.

    Raises:
        UserError: ``host`` is no loopback address, and ``expose`` is False.
        RunError: the address cannot be had.
    """
    if not expose and not _is_loopback(host):
        raise UserError(
            f"--host: whoever reaches {host} could have anything verified, without a password",
            allowed="127.0.0.1, ::1, localhost",
            then="set --expose on a network that you trust",
        )
    with VerifierPool({spec.use: spec}, workers) as pool:
        try:
            server = Server((host, port), spec, pool, reasoning, limits)
        except (OSError, OverflowError) as error:
            raise RunError(f"--port: {host}:{port} cannot be listened at: {error}", then="choose another") from error
        with server:
            yield server


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"m2rl/{m2rl_core.__version__}"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.limits.seconds)  # of one wait; the body has a deadline beside

    def handle(self) -> None:
        if not self.server.seats.acquire(blocking=False):
            self.request_version, self.requestline, self.command = "HTTP/1.1", "", ""
            self._refuse(RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections: ask again later"))
            return
        try:
            super().handle()
        finally:
            self.server.seats.release()

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(HTTPStatus.OK, {"status": "ok", "domain": self.server.spec.use, "m2rl": m2rl_core.__version__})
        else:
            self._refuse(self._elsewhere())

    def do_POST(self) -> None:
        try:
            if self.path != "/verify":
                raise self._elsewhere()
            verdicts = self._verdicts(self._body())
        except RequestError as error:
            self._refuse(error)
        else:
            self._answer(HTTPStatus.OK, verdicts)

    def _elsewhere(self) -> RequestError:
        known = self.path in ("/verify", "/health")
        status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
        return RequestError(status, "there are POST /verify and GET /health")

    def _body(self) -> Any:
        """What was posted, as JSON.

        Raises:
            RequestError: it is none, too large, or too slow.
        """
        if self.headers.get_content_type() != "application/json":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type should be application/json")
        length, limits = self.headers.get("Content-Length", ""), self.server.limits
        if not (length.isascii() and length.isdigit()):
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "Content-Length should say how many bytes follow")
        if len(length) > 18 or int(length) > limits.size:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {limits.size} bytes are taken")
        body, deadline = bytearray(), time.monotonic() + limits.seconds
        while len(body) < int(length):
            try:
                chunk = self.rfile.read1(min(CHUNK, int(length) - len(body)))
            except OSError:
                chunk = b""
            if not chunk or time.monotonic() > deadline:
                raise RequestError(HTTPStatus.REQUEST_TIMEOUT, f"{length} bytes did not come in {limits.seconds:g} s")
            body += chunk
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from error

    def _verdicts(self, posted: Any) -> Any:
        """The verdict on a row, or the list of those on several."""
        server = self.server
        rows = posted if isinstance(posted, list) else [posted]
        try:
            cases = [
                row_case({"id": number, **row} if isinstance(row, Mapping) else row, server.spec.use, server.reasoning)
                for number, row in enumerate(rows)
            ]
        except DataError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
        found = [scored(key, verdicts) for key, verdicts in judged(cases, server.pool)]
        return found if isinstance(posted, list) else found[0]

    def _refuse(self, error: RequestError) -> None:
        self.close_connection = True  # what else it holds would be read as the next request
        self._answer(error.status, {"error": str(error)})
        with contextlib.suppress(OSError):  # closed with bytes unread, the connection would lose the answer
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER)
            deadline = time.monotonic() + LINGER
            while time.monotonic() < deadline and self.rfile.read1(CHUNK):
                pass

    def _answer(self, status: HTTPStatus, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request, as JSON too."""
        self._refuse(RequestError(HTTPStatus(code), message or HTTPStatus(code).phrase))

    def log_message(self, *_: Any, **__: Any) -> None:
        """A line for every request would bury what matters."""
