"""A server with NeMo-Gym's resources-server protocol on this machine, built over our own workplace."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest

from m2rl_domain_agent.calls import Call
from m2rl_domain_agent.workplace import TOOLS, Workplace, answered, company, replayed


@dataclass
class Resources:
    """The server: sessions by the one value that its cookie has now, and what a test wants to go wrong."""

    fault: Callable[[Resources, BaseHTTPRequestHandler, str], bool] = lambda here, web, route: False
    """Sees every request first; True: it has been dealt with."""
    url: str = ""
    sessions: dict[str, Workplace] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """(route, body) of all requests."""
    cookies: list[str | None] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    """Kill the server."""
    start: Callable[[], None] = lambda: None
    """Start it again, at the same address."""
    done: threading.Event = field(default_factory=threading.Event)
    """The test is over."""

    def routes(self) -> list[str]:
        return [route for route, _ in self.asked]

    def answer(self, web: BaseHTTPRequestHandler, route: str, body: Any) -> None:
        self.asked.append((route, body))
        self.cookies.append(web.headers["Cookie"])
        if self.fault(self, web, route):
            return
        session = self.session(web)
        if route == "seed_session":
            self.send(web, {}, session=company().copy())
        elif session is None:
            self.send(web, {"detail": "Session not initialized."}, 400)
        elif route == "verify":
            self.send(web, {**body, "reward": self.reward(body)}, session=session)
        elif route in TOOLS:
            self.send(web, json.loads(answered(session, Call(route, body))), session=session)
        else:
            self.send(web, {"detail": "Not Found"}, 404)

    def session(self, web: BaseHTTPRequestHandler) -> Workplace | None:
        """The request's session; its cookie is spent by that."""
        jar: SimpleCookie = SimpleCookie(web.headers["Cookie"] or "")
        return self.sessions.pop(jar["gym"].value, None) if "gym" in jar else None

    def reward(self, body: Any) -> float:
        def state(made: list[dict[str, str]]) -> Workplace:
            return replayed(company(), [Call(c["name"], json.loads(c["arguments"])) for c in made])[0]

        made = [item for item in body["response"]["output"] if item["type"] == "function_call"]
        return float(not state(made).difference(state(body["ground_truth"])))

    def send(
        self, web: BaseHTTPRequestHandler, value: Any, status: int = 200, session: Workplace | None = None
    ) -> None:
        text = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        web.send_response(status)
        web.send_header("Content-Length", str(len(text)))
        if session is not None:
            key = uuid4().hex
            self.sessions[key] = session
            web.send_header("Set-Cookie", f"gym={key}; path=/; Max-Age=1209600; httponly; samesite=lax")
        web.end_headers()
        web.wfile.write(text)


class Server(ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    here = Resources()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                here.answer(self, self.path.removeprefix("/"), body)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    port, running = 0, list[tuple[Server, threading.Thread]]()

    def start() -> None:
        server = Server(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))

    def stop() -> None:
        while running:
            server, thread = running.pop()
            server.shutdown()
            server.server_close()
            thread.join()

    here.start, here.stop = start, stop
    start()
    port = running[0][0].server_address[1]
    here.url = f"http://127.0.0.1:{port}"
    yield here
    here.done.set()
    stop()
