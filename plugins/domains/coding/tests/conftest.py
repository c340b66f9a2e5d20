"""A SandboxFusion server on this machine, for the tests of its client: the protocol over real HTTP, programs run."""

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
from m2rl_domain_coding import Coding
from m2rl_domain_coding.sandbox import open_backend
from m2rl_domain_coding.sandbox.backend import Backend, Limits, Program


@dataclass
class Server:
    """Answers ``/run_code`` as SandboxFusion does, or as a test decides; it remembers what it was asked."""

    sandbox: Backend
    reply: Callable[[Server, BaseHTTPRequestHandler, dict[str, Any]], None] = lambda here, web, asked: here.say(
        web, here.executed(asked)
    )
    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    """The test is over."""

    def executed(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The reply after the program has really run."""
        limits = Limits(asked["run_timeout"], asked["memory_limit_MB"] << 20)
        outcome = self.sandbox.run(Program(asked["code"], asked["stdin"]), limits)
        late = outcome.status == "timeout"
        code = None if late else int(outcome.status != "finished")
        return {
            "status": "Success" if code == 0 else "Failed",
            "message": "",
            "compile_result": None,
            "run_result": {
                "status": "TimeLimitExceeded" if late else "Finished",
                "execution_time": outcome.seconds,
                "return_code": code,
                "stdout": outcome.stdout,
                "stderr": outcome.stderr,
            },
            "executor_pod_name": None,
            "files": {},
        }

    def say(self, web: BaseHTTPRequestHandler, reply: object, status: int = 200) -> None:
        self.send(web, json.dumps(reply).encode(), status)

    def send(self, web: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
        web.send_response(status)
        web.send_header("Content-Length", str(len(body)))
        web.end_headers()
        web.wfile.write(body)

    def domain(self, **settings: Any) -> Coding:
        sandbox = {"use": "sandbox-fusion", "url": self.url, "pause": 0.0}
        return Coding(Coding.Config.model_validate({"sandbox": sandbox, **settings}))

    def judged(self, prompt: Prompt, answer: str, **settings: Any) -> Reward:
        """The verdict as a stage gets it: awaited by the core, asked again after a failure."""
        domain = self.domain(**settings)
        spec = Spec("coding", domain.config.model_dump(mode="json"), seconds=domain.verify_seconds, remote=domain)
        with VerifierPool({"coding": spec}) as pool:
            [found] = pool.verify_all([("coding", Trajectory(prompt, (), answer))])
        return found.reward


@pytest.fixture(scope="session")
def embedded() -> Iterator[Backend]:
    backend = open_backend("auto", allow_weak_isolation=False)
    yield backend
    backend.close()


@pytest.fixture
def fusion(monkeypatch: pytest.MonkeyPatch, embedded: Backend) -> Iterator[Server]:
    here = Server(embedded)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            here.paths.append(self.path)
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            here.bodies.append(asked)
            try:
                here.reply(here, self, asked)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        here.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield here
        here.done.set()
        server.shutdown()
        thread.join()
