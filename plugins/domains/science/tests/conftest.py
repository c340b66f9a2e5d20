"""An OpenAI-compatible endpoint on this machine, for the tests of the judge."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_science import ScienceJudged


@dataclass
class Endpoint:
    """A chat endpoint whose replies a test decides on; it remembers what it was asked."""

    reply: Callable[[Endpoint, BaseHTTPRequestHandler], None] = lambda here, web: here.say(web, "INCORRECT")
    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    """The test is over."""

    def say(self, web: BaseHTTPRequestHandler, content: object, finish: object = "stop") -> None:
        self.send(web, json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish}]}).encode())

    def send(self, web: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
        web.send_response(status)
        web.send_header("Content-Length", str(len(body)))
        web.end_headers()
        web.wfile.write(body)

    def quoted(self) -> dict[str, str]:
        """The data of the last request."""
        return dict(json.loads(self.bodies[-1]["messages"][1]["content"]))

    def judged(self, prompt: Prompt, text: str, **settings: Any) -> Reward:
        """The verdict as a stage gets it: awaited by the core, asked again after a failure."""
        config = {"judge": {"url": self.url, "model": "judge-7b", **settings}}
        domain = ScienceJudged(ScienceJudged.Config.model_validate(config))
        with VerifierPool({domain.name: Spec(domain.name, config, remote=domain)}) as pool:
            [found] = pool.verify_all([(domain.name, Trajectory(prompt, (), text))])
        return found.reward


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    here = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            here.paths.append(self.path)
            here.keys.append(self.headers["Authorization"])
            here.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            try:
                here.reply(here, self)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        here.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield here
        here.done.set()
        server.shutdown()
        thread.join()
