"""``m2rl serve-verifier`` over real HTTP: right, wrong and failed verdicts, and whatever else a client may send."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from m2rl_core.cli import app
from m2rl_core.errors import RunError, UserError
from m2rl_core.http import post
from m2rl_core.serve import Limits, Server, open_server
from m2rl_core.verify import build_domain

QUIZ = """
import os, time
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Reward

class Quiz(Domain):
    name, reference, verify_seconds, suites = "quiz", "a test", 0.5, {}
    class Config(ComponentConfig):
        right: str = "="
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        return []
    def verify(self, trajectory):
        if trajectory.answer == "hang":
            time.sleep(60)
        if trajectory.answer == "crash":
            os._exit(1)
        return Reward(float(trajectory.answer == f"{self.config.right}{trajectory.prompt.ground_truth}"), "looked")

m2rl_domains = hookimpl(lambda: [Quiz])
"""

Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """``with serve(limits=...) as server:``"""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    plugin = tmp_path / "quiz.py"
    plugin.write_text(QUIZ)
    _, spec = build_domain("quiz", {}, [plugin])

    @contextmanager
    def served(**options: Any) -> Iterator[Server]:
        with open_server(spec, **{"workers": 2, **options}) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()

    return served


def row(response: object, gold: object = "1", **more: object) -> dict[str, object]:
    return {"response": response, "ground_truth": gold, **more}


def asked(server: Server, value: object) -> tuple[int, Any]:
    reply = post(f"{server.url}/verify", value, seconds=60)
    return reply.status, json.loads(reply.body)


def said(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    """What the server answers to a request that need not be a sound one."""
    connection = http.client.HTTPConnection(*server.socket.getsockname()[:2], timeout=60)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, {"Content-Type": "application/json", **fields})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_three_verdicts(serve: Serve) -> None:
    """A verifier that hangs or dies has failed: that is no reward of 0, and the next request is judged."""
    with serve() as server:
        assert said(server, "GET", "/health")[1]["domain"] == "quiz"
        status, found = asked(server, row("=1", id="a"))
        assert (status, found["id"], found["reward"], found["verdict"], found["reason"]) == (
            200, "a", 1.0, "right", "looked",
        )  # fmt: skip
        assert asked(server, row("=2"))[1]["reward"] == 0.0
        status, found = asked(server, row("hang"))
        assert (status, found["reward"], found["verdict"]) == (200, None, "failed")
        assert "exceeded 1 s" in found["reason"]
        status, found = asked(server, [row("crash"), row("=1"), row("=2")])
        assert status == 200
        assert [(each["id"], each["reward"]) for each in found] == [(0, None), (1, 1.0), (2, 0.0)]
        assert asked(server, [])[1] == []


def test_the_format_gate(serve: Serve) -> None:
    with serve() as server:
        assert asked(server, row("=1", metadata={"reasoning": "think"}))[1]["verdict"] == "wrong"
        assert asked(server, row("<think>x</think>=1", metadata={"reasoning": "think"}))[1]["verdict"] == "right"
    with serve(reasoning="required") as server:
        assert asked(server, row("=1"))[1]["reason"] == "the reasoning is not closed by </think>"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "the body is no JSON"),
        (b"", "the body is no JSON"),
        (b"\xff\xfe\x00", "the body is no JSON"),
        (b"[" * 200_000, "the body is no JSON"),
        (b"5", "a row is an object"),
        (b"[5]", "a row is an object"),
        (b'{"response": "=1"}', "the row has no 'ground_truth'"),
        (b'{"response": 1, "ground_truth": 1}', "'response' is neither text nor a list"),
        (b'{"response": "=1", "ground_truth": 1, "metadata": 3}', "'metadata' is no object"),
        (
            b'[{"response": "=1", "ground_truth": 1}, {"id": null, "response": "", "ground_truth": 1}]',
            "'id' is neither",
        ),
    ],
)
def test_junk_is_refused_with_a_reason(serve: Serve, body: bytes, reason: str) -> None:
    with serve() as server:
        status, found = said(server, "POST", "/verify", body, Content_Length=str(len(body)))
        assert status == 400
        assert reason in found["error"]
        assert asked(server, row("=1"))[1]["verdict"] == "right"


def test_requests_that_cannot_be_are_refused(serve: Serve) -> None:
    with serve(limits=Limits(size=1000)) as server:
        assert said(server, "GET", "/")[0] == 404
        assert said(server, "POST", "/verify/all", b"{}")[0] == 404
        assert said(server, "GET", "/verify")[0] == 405
        assert said(server, "POST", "/health", b"{}")[0] == 405
        assert said(server, "DELETE", "/verify")[0] == 501
        assert said(server, "POST", "/verify", b"{}", Content_Type="text/plain")[0] == 415
        assert said(server, "POST", "/verify", b"{}", Content_Length="two")[0] == 411
        assert said(server, "POST", "/verify", b"{}", Content_Length="-1")[0] == 411
        assert said(server, "POST", "/verify", b"{}", Content_Length="9" * 5000)[0] == 413


def test_what_is_too_large_is_not_read_and_the_client_is_told(serve: Serve) -> None:
    with serve(limits=Limits(size=1 << 20)) as server:
        status, found = asked(server, row("x" * (8 << 20)))
        assert (status, found) == (413, {"error": "at most 1048576 bytes are taken"})
        assert asked(server, row("=1" + " " * 1000))[0] == 200


def test_a_client_that_drips_or_stops_is_given_up(serve: Serve) -> None:
    head = b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with serve(limits=Limits(seconds=0.5)) as server:
        with socket.create_connection(server.socket.getsockname(), timeout=60) as stops:
            stops.sendall(head)
            assert stops.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(server.socket.getsockname(), timeout=60) as silent:
            assert silent.recv(1) == b""
        assert asked(server, row("=1"))[1]["verdict"] == "right"


def test_many_at_a_time_and_no_more_than_there_are_seats(serve: Serve) -> None:
    with serve() as server, ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: asked(server, row(f"={n}", str(n - n % 2), id=n))[1], range(64)))
        assert [(each["id"], each["reward"]) for each in found] == [(n, float(n % 2 == 0)) for n in range(64)]
    with serve(limits=Limits(connections=1)) as server:
        with socket.create_connection(server.socket.getsockname(), timeout=60) as first:
            first.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert first.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            assert said(server, "GET", "/health")[0] == 503
        while said(server, "GET", "/health")[0] == 503:  # until the server has seen that the first one has gone
            pass


def test_other_machines_are_let_in_only_where_that_was_said(serve: Serve) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "a-machine"):
        with pytest.raises(UserError, match=r"--host: whoever reaches .* Next: set --expose"), serve(host=host):
            pass
    with serve(host="0.0.0.0", expose=True) as server:
        assert server.socket.getsockname()[0] == "0.0.0.0"


def test_a_port_that_is_taken(serve: Serve) -> None:
    with (
        serve() as server,
        pytest.raises(RunError, match="cannot be listened at"),
        serve(port=server.socket.getsockname()[1]),
    ):
        pass


def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "quiz.py").write_text(QUIZ)
    code = "import sys; sys.argv[0] = 'm2rl'; from m2rl_core.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "serve-verifier", "quiz", "--plugin", str(tmp_path / "quiz.py")]
    with subprocess.Popen([*command, "--port", "0", "--set", "right=+"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            match = re.fullmatch(r"Serving 'quiz' at (http://127\.0\.0\.1:\d+): .*\n", first)
            assert match, first
            reply = post(f"{match[1]}/verify", row("+1"), seconds=60)
            assert json.loads(reply.body)["verdict"] == "right"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_command_refuses_to_be_reached(tmp_path: Path) -> None:
    (tmp_path / "quiz.py").write_text(QUIZ)
    options = ["--plugin", str(tmp_path / "quiz.py"), "--host", "0.0.0.0"]
    result = CliRunner().invoke(app, ["serve-verifier", "quiz", *options])
    assert result.exit_code == 2
    assert "set --expose" in result.stderr
