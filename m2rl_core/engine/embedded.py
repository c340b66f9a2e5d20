"""``EmbeddedEngine``: the engine that needs no server, on one event loop.

``generate`` calls of many coroutines are gathered: a background task steps the :class:`~.decoder.Decoder` while anything
is pending and gives the loop a turn after every token, so that new requests join while others are being drawn.

New weights arrive between two steps. Running samples then continue: their keys and values stay as the old policy made
them, and every token records the version that drew it.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from m2rl_core.engine import selftest
from m2rl_core.engine.cache import Cache
from m2rl_core.engine.checkpoint import copy_weights, open_model
from m2rl_core.engine.decoder import Decoder
from m2rl_core.engine.rows import Job
from m2rl_core.errors import ConfigError, DataError, M2rlError, StageError
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Sampling, Turn

__all__ = ["EmbeddedEngine"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EmbeddedEngine:
    """Continuous batching around a transformers causal LM, in this process."""

    name: ClassVar[str] = "embedded"
    reference: ClassVar[str] = "https://www.usenix.org/conference/osdi22/presentation/yu"

    class Config(ComponentConfig):
        """``engine: {use: embedded, ...}``. Paper silent; it used vLLM."""

        device: Literal["auto", "cpu", "cuda"] = "auto"
        """``auto``: CUDA where there is a device."""
        dtype: Literal["float32", "bfloat16"] = "float32"
        """Of weights and linear layers. On the CPU attention is always computed in float32."""
        rows: PositiveInt = 256
        """Most samples that are drawn together."""
        cache_gib: PositiveFloat = 4.0
        """Most memory [GiB] for keys and values; samples that may not fit wait."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.exact = False
        """True where the start-up test found samples bit-identical in any company."""
        self._decoder: Decoder | None = None
        self._pending: dict[Job, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self, model: Path, *, max_tokens: int) -> None:
        """Load the Hugging Face folder ``model`` as policy version 0; contexts end at ``max_tokens``.

        Raises:
            DataError: no safetensors weights, or an architecture that this engine cannot decode correctly.
            StageError: on this CPU a sample would depend on what is drawn beside it.
        """
        await self.close()
        device = self.config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        lm = open_model(model, device=device, dtype=DTYPES[self.config.dtype], context=max_tokens)
        cache = Cache()
        selftest.check_parity(lm, cache)
        self.exact = selftest.is_exact(lm, cache)
        if not self.exact:
            _not_exact(device)
        self._decoder = Decoder(
            lm, cache, context=max_tokens, rows=self.config.rows, cache_bytes=self.config.cache_gib * 2**30
        )

    async def generate(self, ids: list[int], sampling: Sampling, n: int) -> list[Turn]:
        """Draw ``n`` continuations of ``ids``; sample i takes the noise of ``sampling.sample + i``.

        A turn ends with a stop id, which it includes ("stop"), after ``max_tokens``, or where the context is full ("length").
        Cancelling the awaiting coroutine frees its rows and concerns nobody else.

        Raises:
            DataError: no ids, or ids or settings outside their ranges.
            ConfigError: a single sample is larger than ``cache_gib``.
            StageError: the engine is not started, was closed meanwhile, or failed while drawing.
        """
        decoder = self._ready()
        _check(decoder, ids, sampling, n)
        if len(ids) >= decoder.context:
            return [Turn([], [], [], "length") for _ in range(n)]
        size = self._rows_per_job(decoder, Job(ids, sampling, 1))
        parts = [replace(sampling, sample=sampling.sample + first) for first in range(0, n, size)]
        jobs = [Job(ids, part, min(size, n + sampling.sample - part.sample)) for part in parts]
        try:
            await asyncio.gather(*(self._submit(decoder, job) for job in jobs))
        finally:
            for job in jobs:
                self._pending.pop(job, None)
                decoder.drop(job)
        return [turn for job in jobs for turn in job.turns()]

    async def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copy ``tensors`` (Hugging Face names; all of them, a tied head once) and label tokens with ``version`` from now on.

        Raises:
            DataError: an unknown, missing, doubled or misshapen tensor. The engine is closed then: its weights are mixed.
        """
        decoder = self._ready()
        try:
            copy_weights(decoder.model, tensors)
        except BaseException:
            await self.close()
            raise
        decoder.version = version

    async def close(self) -> None:
        """Free the model; whoever still waits gets a :class:`StageError`."""
        if self._decoder is not None:
            self._decoder.reset()
        self._decoder = None
        self._fail(StageError("the embedded engine was closed while drawing"))

    def _ready(self) -> Decoder:
        if self._decoder is None:
            raise StageError("the embedded engine is not started")
        return self._decoder

    def _rows_per_job(self, decoder: Decoder, job: Job) -> int:
        """Many samples of one prompt go in parts, so that a part finds room before the whole batch is empty."""
        fitting = int(decoder.cache_bytes // decoder.bytes(job))
        if not fitting:
            raise ConfigError(
                f"engine.cache_gib: a sample of {len(job.ids)} + {job.sampling.max_tokens} tokens does not fit",
                found=self.config.cache_gib,
                allowed=f"at least {decoder.bytes(job) / 2**30:.2f}",
                then="raise it or lower max_tokens",
            )
        return min(fitting, max(1, decoder.rows // 4))

    def _submit(self, decoder: Decoder, job: Job) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        self._pending[job] = future = loop.create_future()
        decoder.add(job)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drive(decoder))
        return future

    async def _drive(self, decoder: Decoder) -> None:
        """Step while there is work; an error reaches every caller."""
        try:
            while decoder.busy:
                for job in decoder.step():
                    if (future := self._pending.pop(job, None)) and not future.done():
                        future.set_result(None)
                await asyncio.sleep(0)
        except Exception as error:
            decoder.reset()
            if not isinstance(error, M2rlError):
                error = StageError(f"the embedded engine failed while drawing: {type(error).__name__}: {error}")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(error)


def _not_exact(device: str) -> None:
    """What it means that samples depend on their company: an error on the CPU, a warning elsewhere."""
    problem = "samples depend on what is drawn beside them: a resumed run may differ from an uninterrupted one"
    if device == "cpu":
        raise StageError(
            f"embedded engine, start-up test: {problem}", then="OMP_NUM_THREADS=1, or another build of torch"
        )
    warnings.warn(f"embedded engine on {device}: {problem}", stacklevel=3)


def _check(decoder: Decoder, ids: list[int], sampling: Sampling, n: int) -> None:
    vocab = decoder.model.get_input_embeddings().num_embeddings
    if not ids or min(ids) < 0 or max(ids) >= vocab:
        raise DataError(
            "generate: ids do not fit the model", found=f"{len(ids)} ids", allowed=f"1 or more, 0 to {vocab - 1}"
        )
    if (
        n < 1
        or sampling.max_tokens < 1
        or sampling.temperature < 0
        or not 0 < sampling.top_p <= 1
        or sampling.top_k < 0
    ):
        raise DataError(
            "generate: impossible sampling",
            found=f"n={n}, {sampling}",
            allowed="n and max_tokens from 1, temperature and top_k from 0, top_p in (0, 1]",
        )
