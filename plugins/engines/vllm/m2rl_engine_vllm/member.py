"""One vLLM under supervision: if it dies it is replaced, its weights are restored, and what was lost is drawn again."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from m2rl_core.errors import DataError, StageError
from m2rl_core.types import Turn
from m2rl_engine_vllm.backend import Backend, EngineLostError, Pause, Refused

__all__ = ["Member"]

T = TypeVar("T")
PAUSES: Mapping[str, Pause] = {"finish": "wait", "abort": "abort", "continue": "keep"}


class Member:
    """A backend and what it takes to have another one in its place.

    Args:
        title: of the vLLM, for messages.
        start: starts a backend with the model's first weights, as version 0.
        files: the first weights.
        in_flight: what becomes of samples at an update.
        sleep: level of sleep between phases; 0 for none.
        restarts: how often it is replaced.
    """

    def __init__(
        self,
        title: str,
        start: Callable[[], Awaitable[Backend]],
        files: Sequence[Path],
        *,
        in_flight: str,
        sleep: int,
        restarts: int,
    ) -> None:
        self.title, self._start, self._level, self._left = title, start, sleep, restarts
        self._pause = PAUSES[in_flight]
        self._allowed = restarts
        self._backend: Backend | None = None
        self._files = self._first = files
        self._version = 0
        self._asleep = False
        self._changing = asyncio.Lock()
        """Held while the backend or its weights change."""
        self._open = asyncio.Event()
        """Set while requests are taken."""
        self.load = 0
        """Requests that are being answered."""

    async def start(self) -> None:
        """Start the backend.

        Raises:
            StageError: it died before it had drawn a token, as it would again.
        """
        try:
            self._backend = await self._start()
        except EngineLostError as error:
            raise StageError(f"{self.title} died at its start: {error}", then="look at its messages above") from error
        self._open.set()

    async def draw(self, ids: list[int], params: Mapping[str, Any]) -> list[Turn]:
        """Continuations of ``ids``, whatever happens to vLLM meanwhile.

        Raises:
            StageError: it has died too often.
        """
        return await self._asked(lambda backend: backend.draw(ids, params, self._salt))

    async def score(self, ids: list[int]) -> list[float]:
        """As :meth:`Backend.score`, of the newest weights."""
        return await self._asked(lambda backend: backend.score(ids, self._salt))

    async def update(self, files: Sequence[Path], version: int) -> None:
        """Load ``files``, as ``in_flight`` says; requests that come meanwhile wait.

        Raises:
            DataError: vLLM refuses a tensor.
        """
        self._open.clear()
        try:
            async with self._changing:
                while True:
                    backend = self._running()
                    try:
                        await self._update(backend, files, version)
                        break
                    except EngineLostError as error:
                        await self._replace(error)
            self._files, self._version = files, version
        finally:
            self._open.set()

    async def rest(self) -> None:
        """Sleep until there is something to do, if nobody is being answered."""
        async with self._changing:
            if self._level and not self._asleep and not self.load:
                with suppress(EngineLostError):  # found out, and mended, by the next request
                    await self._running().sleep(self._level)
                    self._asleep = True

    async def close(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _salt(self) -> str:
        """Prefixes that other weights have computed are not shared."""
        return f"version-{self._version}"

    def _running(self) -> Backend:
        if self._backend is None:
            raise StageError(f"{self.title} is not started, or was closed while drawing")
        return self._backend

    async def _asked(self, ask: Callable[[Backend], Awaitable[T]]) -> T:
        self.load += 1
        try:
            while True:
                await self._open.wait()
                backend = await self._awake()
                try:
                    return await ask(backend)
                except EngineLostError as error:
                    async with self._changing:
                        if self._backend is backend:  # else somebody has replaced it already
                            await self._replace(error)
        finally:
            self.load -= 1

    async def _awake(self) -> Backend:
        if self._asleep:
            async with self._changing:
                if self._asleep:
                    await self._wake(self._running())
        return self._running()

    async def _wake(self, backend: Backend) -> None:
        """As it fell asleep; weights that were freed come from the files."""
        try:
            await backend.wake(weights_only=self._level == 2)
            if self._level == 2:
                await backend.update(self._files, self._version)
                await backend.wake()
            self._asleep = False
        except EngineLostError as error:
            await self._replace(error)

    async def _update(self, backend: Backend, files: Sequence[Path], version: int) -> None:
        if self._asleep:
            await backend.wake(weights_only=True)
        else:
            await backend.pause(self._pause)
        try:
            await backend.update(files, version)
        except Refused as error:
            raise DataError(f"{self.title} refuses the new weights: {error}") from error
        if self._asleep:
            await backend.wake()
            self._asleep = False
        else:
            await backend.resume()

    async def _replace(self, error: Exception) -> None:
        """Another backend with the newest weights. To be called with ``_changing`` held."""
        while True:
            if not self._left:
                raise StageError(
                    f"{self.title} died {self._allowed + 1} times: {error}",
                    then="look at its messages; engine.restarts says how often it is replaced",
                ) from error
            self._left -= 1
            count = self._allowed - self._left
            warnings.warn(
                f"{self.title} died ({error}): restart {count} of {self._allowed}; what it was drawing is drawn again",
                stacklevel=2,
            )
            await self._running().close()
            try:
                self._backend = await self._start()
                if self._files != self._first:
                    await self._backend.update(self._files, self._version)
                self._asleep = False
                return
            except EngineLostError as again:
                error = again
