"""A sandbox behind SandboxFusion's HTTP API, in the place of the embedded one.

Source of the protocol: ``sandbox/server/sandbox_api.py`` of https://github.com/bytedance/SandboxFusion. The HTTP status
is 200 even where the sandbox has failed, so the reply's own status and the exit code are both looked at. Whatever else
happens, a refused connection, a slow or strange reply, is the sandbox's fault.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from m2rl_core.http import Address, HttpError, post
from m2rl_core.interfaces import ComponentConfig
from m2rl_domain_coding.calls import calling, returned
from m2rl_domain_coding.sandbox.backend import Limits, Outcome, Program, SandboxError

__all__ = ["Fusion", "SandboxFusion"]

TRIES = 3
"""Times that a program is sent until the sandbox is found at fault."""
COMPILE = 10.0
"""Seconds; Python needs none of them."""
GRACE = 10.0
"""Seconds of a request beyond the time limit of its program, for the queue of the server."""
LARGEST = 1 << 24
"""Bytes of a reply. SandboxFusion keeps 1 MiB of each stream, six times as much in JSON at worst."""
TAIL = 2000
"""Characters of standard error that are kept."""


class SandboxFusion(ComponentConfig):
    """Where a SandboxFusion server is, and how it is used."""

    use: Literal["sandbox-fusion"]
    url: Address
    """Of the server, e.g. ``http://localhost:8080``. Redirects are not followed."""
    parallel: int = Field(64, gt=0, le=1024)
    """Answers that are judged at the same time."""
    pause: float = Field(0.5, ge=0.0, le=30.0)
    """Seconds before a program is sent again; twice as long before the third time."""


class _FaultError(Exception):
    """The sandbox has failed once."""

    def __init__(self, what: str, *, again: bool = True) -> None:
        super().__init__(what)
        self.again = again


class Fusion:
    """See :class:`~m2rl_domain_coding.sandbox.backend.Backend`."""

    def __init__(self, settings: SandboxFusion) -> None:
        self._settings = settings

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Run ``program`` on the server."""
        script, marker = calling(program) if program.call is not None else (program.source, "")
        request = _request(script, program.stdin, limits)
        for tried in range(1, TRIES + 1):
            try:
                outcome = _outcome(self._post(request, COMPILE + limits.seconds + GRACE), limits)
                return returned(outcome, marker) if marker else outcome
            except _FaultError as error:
                if tried == TRIES or not error.again:
                    raise SandboxError(f"sandbox-fusion, asked {tried} times: {error}") from error
                time.sleep(self._settings.pause * tried)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Nothing is held open."""

    def _post(self, request: Mapping[str, Any], seconds: float) -> bytes:
        try:
            reply = post(self._settings.url.rstrip("/") + "/run_code", request, seconds=seconds, largest=LARGEST)
        except HttpError as error:
            raise _FaultError(str(error)) from error
        if reply.status != 200:
            raise _FaultError(f"HTTP status {reply.status}", again=reply.status == 429 or reply.status >= 500)
        return reply.body


def _request(script: str, stdin: str, limits: Limits) -> Mapping[str, Any]:
    return {
        "code": script,
        "language": "python",
        "stdin": stdin,
        "compile_timeout": COMPILE,
        "run_timeout": limits.seconds,
        "memory_limit_MB": max(1, limits.memory >> 20),
    }


def _outcome(reply: bytes, limits: Limits) -> Outcome:
    """What came of the program, where the reply leaves no doubt."""
    status, ran = _run_result(reply)
    output, errors = ran.get("stdout") or "", ran.get("stderr") or ""
    if not isinstance(output, str) or not isinstance(errors, str):
        raise _FaultError("a run_result without text")
    seconds = ran.get("execution_time")
    used = float(seconds) if isinstance(seconds, int | float) and 0.0 <= seconds < 1e6 else limits.seconds
    code = ran.get("return_code")
    if status == "Failed" and ran.get("status") == "TimeLimitExceeded":
        return Outcome("timeout", output[: limits.output], errors[-TAIL:], None, used)
    is_whole = ran.get("status") == "Finished" and isinstance(code, int) and (code == 0) == (status == "Success")
    if not is_whole:
        raise _FaultError(f"status {status!r} with run_result {ran.get('status')!r} and return code {code!r}")
    if len(output.encode()) > limits.output:
        return Outcome("output", output[: limits.output], errors[-TAIL:], None, used)
    return Outcome("error" if code else "finished", output, errors[-TAIL:], None, used)


def _run_result(reply: bytes) -> tuple[str, Mapping[str, Any]]:
    """The status and ``run_result``, where the sandbox has done its work."""
    try:
        read = json.loads(reply)
        status, ran, message = read["status"], read.get("run_result"), str(read.get("message"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _FaultError("a reply that is none of /run_code") from error
    if status not in ("Success", "Failed"):
        raise _FaultError(f"status {str(status)[:40]}: {message[-200:]}")
    if not isinstance(ran, dict):
        raise _FaultError(f"status {status} without a run_result")
    return status, ran
