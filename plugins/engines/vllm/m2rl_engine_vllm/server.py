"""vLLM behind HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from m2rl_core.errors import ConfigError
from m2rl_core.types import Turn
from m2rl_engine_vllm import mapping
from m2rl_engine_vllm.backend import EngineLostError, Pause, Refused
from m2rl_engine_vllm.buckets import files_of
from m2rl_engine_vllm.colocated import check_mode
from m2rl_engine_vllm.wire import ask

__all__ = ["PATIENCE", "Server", "drawn"]

PATIENCE = 600.0
"""Seconds for a server to come up: compiling takes minutes."""
PULSE = 5.0
"""Seconds between two looks at whether a server still answers."""
MISSED = 3
"""Looks in a row without an answer after which a server counts as dead."""


class Server:
    """One server.

    Args:
        process: the server, if it was started here, with what it says.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes] | None = None, said: IO[bytes] | None = None) -> None:
        self.url = url.rstrip("/")
        self._process, self._said = process, said
        self._dead = asyncio.Event()
        self._heart: asyncio.Task[None] | None = None

    async def greet(self, model: Path, context: int) -> None:
        """Wait until it is up, see whether it suits us, and give it the first weights.

        Raises:
            EngineLostError: it did not come up.
            ConfigError: it was started with other settings.
        """
        await self._up()
        self._heart = asyncio.create_task(self._beat())
        try:
            limit = (await ask(self.url, "/v1/models", method="GET"))["data"][0]["max_model_len"]
            await ask(self.url, "/init_weight_transfer_engine", {"init_info": {}})
            await self.update(files_of(model), 0)
            [turn] = await self.draw(mapping.GREETING, mapping.PROBE, "greeting")
        except Refused as error:
            raise ConfigError(
                f"engine.urls: {self.url} cannot be used: {error}",
                then="start it with `python -m m2rl_engine_vllm.serve`; it must see the model and engine.folder",
            ) from error
        if limit < context:
            raise ConfigError(
                f"engine.urls: the contexts of {self.url} are too short", found=limit, allowed=f"{context} or more"
            )
        check_mode(turn)

    async def draw(self, ids: list[int], params: Mapping[str, Any], salt: str) -> list[Turn]:
        reply = await self._ask("/inference/v1/generate", _request(ids, params, salt))
        return [drawn(choice) for choice in sorted(reply["choices"], key=lambda each: int(each["index"]))]

    async def score(self, ids: list[int], salt: str) -> list[float]:
        reply = await self._ask("/inference/v1/generate", _request(ids, mapping.SCORE, salt))
        return [at[str(token)]["logprob"] for token, at in zip(ids[1:], reply["prompt_logprobs"][1:], strict=True)]

    async def pause(self, mode: Pause) -> None:
        await self._ask(f"/pause?mode={mode}")

    async def resume(self) -> None:
        await self._ask("/resume")

    async def update(self, files: Sequence[Path], version: int) -> None:
        await self._ask("/start_weight_update")
        for path in files:
            await self._ask("/update_weights", {"update_info": {"path": str(path)}})
        await self._ask("/finish_weight_update", {"weight_version": str(version)})

    async def sleep(self, level: int) -> None:
        """Its devices are its own."""

    async def wake(self, *, weights_only: bool = False) -> None:
        """It does not sleep."""

    async def close(self) -> None:
        self._dead.set()
        if self._heart is not None:
            self._heart.cancel()
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self._process.stdin is not None:
                self._process.stdin.close()
            await asyncio.to_thread(self._process.wait)
        if self._said is not None:
            self._said.close()

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, path: str, body: object = None) -> Any:
        """A reply, for as long as the server lives. One that says that its engine is dead does not."""
        asking = asyncio.ensure_future(ask(self.url, path, body))
        dying = asyncio.ensure_future(self._dead.wait())
        try:
            await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            raise EngineLostError(f"{self.url} does not answer{self._last_words()}")
        except Refused as error:
            if not await self._healthy():
                raise EngineLostError(f"{self.url} says that its engine is dead: {error}") from error
            raise
        finally:
            asking.cancel()
            dying.cancel()

    async def _healthy(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            return False
        try:
            await ask(self.url, "/health", method="GET", seconds=PULSE)
        except (EngineLostError, Refused):
            return False
        return True

    async def _up(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self._healthy():
                if self._process is not None and self._process.poll() is not None:
                    raise EngineLostError(f"it ended with code {self._process.returncode}{self._last_words()}")
                await asyncio.sleep(0.25)

    async def _beat(self) -> None:
        missed = 0
        while missed < MISSED and not (self._process is not None and self._process.poll() is not None):
            await asyncio.sleep(PULSE)
            missed = 0 if await self._healthy() else missed + 1
        self._dead.set()

    def _last_words(self) -> str:
        if self._said is None or self._process is None or self._process.poll() is None:
            return ""
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return ". Its last words: " + " | ".join(lines[-12:])


def drawn(choice: Mapping[str, Any]) -> Turn:
    """One sample of a reply of ``/inference/v1/generate``.

    Raises:
        ValueError: tokens, log-probs and versions of different lengths.
    """
    content = (choice.get("logprobs") or {}).get("content") or ()
    spans = [(each["version"], each["start"], each["end"]) for each in choice.get("weight_versions") or ()]
    return mapping.turn(
        choice.get("token_ids") or (), [each["logprob"] for each in content], spans, choice["finish_reason"]
    )


def _request(ids: list[int], params: Mapping[str, Any], salt: str) -> dict[str, Any]:
    return {"token_ids": ids, "sampling_params": dict(params), "cache_salt": salt}
