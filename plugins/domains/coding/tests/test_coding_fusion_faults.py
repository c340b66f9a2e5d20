"""A SandboxFusion server that fails, hangs or talks nonsense: a failed verdict, never a reward of 0."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from m2rl_core.types import Prompt
from m2rl_domain_coding import fusion as client
from m2rl_domain_coding.fusion import TRIES, Fusion, SandboxFusion
from m2rl_domain_coding.sandbox.backend import Limits, Program, SandboxError

if TYPE_CHECKING:
    from conftest import Server

PROMPT = Prompt("p", "coding", (), None, {"unit_tests": {"inputs": [""], "outputs": ["6"]}})
ANSWER = "```python\nprint(6)\n```"
ASKED = 2 * TRIES
"""The core asks once more."""


def ran(**changes: Any) -> dict[str, Any]:
    result = {"status": "Finished", "execution_time": 0.1, "return_code": 0, "stdout": "6\n", "stderr": ""}
    return {"status": "Success", "message": "", "run_result": {**result, **changes}}


def test_the_reply_that_the_others_differ_from_is_right(fusion: Server) -> None:
    fusion.reply = lambda here, web, _: here.say(web, ran())
    assert fusion.judged(PROMPT, ANSWER).value == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        {"status": "SandboxError", "message": "no cgroups left", "run_result": None},
        {**ran(), "status": "SandboxError"},
        {**ran(), "status": "Failed"},
        {**ran(), "status": "Finished"},
        {**ran(), "status": None},
        {**ran(), "run_result": None},
        {**ran(), "run_result": "6"},
        {"run_result": {}},
        ran(status="Error"),
        ran(status="TimeLimitExceeded"),
        ran(return_code=1),
        ran(return_code=None),
        ran(return_code="0"),
        ran(stdout=6),
        {**ran(return_code=1, status="Error"), "status": "Failed"},
        {},
        [],
        None,
        "Success",
        6,
    ],
)
def test_a_reply_that_leaves_a_doubt_is_a_failed_verdict(fusion: Server, reply: object) -> None:
    fusion.reply = lambda here, web, _: here.say(web, reply)
    reward = fusion.judged(PROMPT, ANSWER)
    assert reward.value is None
    assert "sandbox-fusion, asked 3 times" in reward.reason
    assert len(fusion.bodies) == ASKED


@pytest.mark.parametrize(
    "body", [b"", b"6", b"<html>busy</html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"status": "Success"']
)
@pytest.mark.parametrize("status", [200, 500, 503])
def test_garbage_is_a_failed_verdict(fusion: Server, body: bytes, status: int) -> None:
    fusion.reply = lambda here, web, _: here.send(web, body, status)
    reward = fusion.judged(PROMPT, ANSWER)
    assert reward.value is None
    assert len(fusion.bodies) == ASKED


@pytest.mark.parametrize("status", [301, 307, 400, 404, 422])
def test_a_refusal_is_not_asked_again_and_no_redirect_is_followed(fusion: Server, status: int) -> None:
    def elsewhere(_: Server, web: BaseHTTPRequestHandler, __: object) -> None:
        web.send_response(status)
        web.send_header("Location", fusion.url + "/other")
        web.send_header("Content-Length", "0")
        web.end_headers()

    fusion.reply = elsewhere
    reward = fusion.judged(PROMPT, ANSWER)
    assert reward.value is None
    assert f"HTTP status {status}" in reward.reason
    assert fusion.paths == ["/run_code"] * 2


@pytest.mark.parametrize("fault", [lambda here, web: here.send(web, b"busy", 503), lambda _, web: web.wfile.close()])
def test_a_hiccup_is_asked_again(fusion: Server, fault: Any) -> None:
    fusion.reply = lambda here, web, _: here.say(web, ran()) if len(here.bodies) > 2 else fault(here, web)
    assert fusion.judged(PROMPT, ANSWER).value == 1.0
    assert len(fusion.bodies) == 3


def test_an_endless_reply_is_not_read_to_its_end(fusion: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LARGEST", 1 << 18)
    sent = [0]

    def endless(_: Server, web: BaseHTTPRequestHandler, __: object) -> None:
        web.send_response(200)
        web.end_headers()
        for _chunk in range(1000):
            sent[0] += web.wfile.write(b" " * (1 << 16))

    fusion.reply = endless
    reward = fusion.judged(PROMPT, ANSWER)
    assert reward.value is None
    assert "more than 262144 bytes" in reward.reason
    assert sent[0] < ASKED * (16 << 20)


def test_a_cut_reply_is_a_failed_verdict(fusion: Server) -> None:
    def cut(_: Server, web: BaseHTTPRequestHandler, __: object) -> None:
        web.send_response(200)
        web.send_header("Content-Length", "1000")
        web.end_headers()
        web.wfile.write(b'{"status": "Success"}')
        web.close_connection = True

    fusion.reply = cut
    assert fusion.judged(PROMPT, ANSWER).value is None


@pytest.mark.parametrize("drips", [False, True])
def test_silence_and_dripping_end_in_time(fusion: Server, monkeypatch: pytest.MonkeyPatch, drips: bool) -> None:
    monkeypatch.setattr(client, "COMPILE", 0.0)
    monkeypatch.setattr(client, "GRACE", 0.1)

    def slow(here: Server, web: BaseHTTPRequestHandler, _: object) -> None:
        if not drips:
            here.done.wait(5)
            return
        web.send_response(200)
        web.send_header("Content-Length", "1000")
        web.end_headers()
        while not here.done.wait(0.02):
            web.wfile.write(b" ")
            web.wfile.flush()

    fusion.reply = slow
    started = time.monotonic()
    with pytest.raises(SandboxError, match="asked 3 times"):
        Fusion(SandboxFusion(use="sandbox-fusion", url=fusion.url, pause=0.0)).run(Program("print(6)"), Limits(0.1))
    assert time.monotonic() - started < 4.0


def test_a_refused_connection_is_a_failed_verdict() -> None:
    nobody = SandboxFusion(use="sandbox-fusion", url="http://127.0.0.1:9", pause=0.01)
    with pytest.raises(SandboxError, match="refused"):
        Fusion(nobody).run(Program("print(6)"), Limits())


def test_a_pause_comes_before_every_other_try(fusion: Server) -> None:
    fusion.reply = lambda here, web, _: here.send(web, b"busy", 503)
    patient = SandboxFusion(use="sandbox-fusion", url=fusion.url, pause=0.1)
    started = time.monotonic()
    with pytest.raises(SandboxError, match="HTTP status 503"):
        Fusion(patient).run(Program("print(6)"), Limits())
    assert time.monotonic() - started > 0.3
