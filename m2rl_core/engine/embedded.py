"""``EmbeddedEngine``: the engine that needs no server, on one event loop.

``generate`` calls of many coroutines are gathered: a background task steps the :class:`~.decoder.Decoder` while
anything is pending, and gives the loop a turn after every token, so that new calls join while others are being drawn.

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
from m2rl_core.errors import ConfigError, DataError, M2rlError, StageError, boundary
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Sampling, Turn

__all__ = ["EmbeddedEngine"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EmbeddedEngine:
    """Continuous batching (Orca, OSDI 2022, section 3.2) around a transformers causal LM, in this process."""

    name: ClassVar[str] = "embedded"
    reference: ClassVar[str] = "https://www.usenix.org/conference/osdi22/presentation/yu"

    class Config(ComponentConfig):
        """``engine: {use: embedded, ...}``. The paper used vLLM and is silent on all of these."""

        device: Literal["auto", "cpu", "cuda"] = "auto"
        """``auto``: CUDA where there is a device."""
        dtype: Literal["float32", "bfloat16"] = "float32"
        """Of weights and linear layers; attention runs in float32 on the CPU, where bfloat16 gains little."""
        rows: PositiveInt = 256
        """Most samples that are drawn together; others wait."""
        cache_gib: PositiveFloat = 4.0
        """Most memory [GiB] for keys and values; samples that might not fit wait."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.exact = False
        """True where the start-up test found samples bit-identical in any company."""
        self._decoder: Decoder | None = None
        self._pending: dict[Job, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self, model: Path, *, max_tokens: int, trust_remote_code: bool = False) -> None:
        """Load the Hugging Face folder ``model`` as policy version 0; contexts end at ``max_tokens``.

        Raises:
            DataError: no safetensors weights, or an architecture that this engine cannot decode correctly.
            StageError: on this CPU a sample would depend on what is drawn beside it. On CUDA that is a warning.
        """
        await self.close()
        device = self.config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        lm = open_model(
            model,
            device=device,
            dtype=DTYPES[self.config.dtype],
            context=max_tokens,
            trust_remote_code=trust_remote_code,
        )
        cache = Cache()
        selftest.check_parity(lm, cache)
        self.exact = selftest.is_exact(lm, cache)
        if not self.exact:
            _report_inexact(type(lm).__name__, device)
        cache.shelves.clear()
        cache.limit = self.config.cache_gib * 2**30
        self._decoder = Decoder(lm, cache, context=max_tokens, rows=self.config.rows)

    async def generate(self, ids: list[int], sampling: Sampling, n: int) -> list[Turn]:
        """Draw ``n`` continuations of ``ids``; number i takes the noise of sample ``sampling.sample + i``.

        A turn ends with a stop id, which it includes (``stop``), after ``max_tokens`` or where the context is full
        (``length``; at once and with no token if ``ids`` fill it). Cancelling the awaiting coroutine frees its rows
        and concerns nobody else.

        Raises:
            DataError: no ids, or ids or settings outside their ranges.
            ConfigError: a single sample may outgrow ``cache_gib``.
            StageError: the engine is not started, was closed meanwhile, or failed while drawing.
        """
        decoder = self._started()
        _check(decoder, ids, sampling, n)
        if len(ids) >= decoder.context:
            return [Turn([], [], [], "length") for _ in range(n)]
        jobs = self._jobs(decoder, ids, sampling, n)
        try:
            await asyncio.gather(*(self._submit(decoder, job) for job in jobs))
        finally:
            for job in jobs:
                self._pending.pop(job, None)
                decoder.drop(job)
        return [turn for job in jobs for turn in job.turns()]

    async def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copy ``tensors`` (Hugging Face names; all of them, a tied head once); ``version`` labels tokens from now on.

        Raises:
            DataError: an unknown, missing, doubled or misshapen tensor. The engine is closed then, as its weights are
                neither old nor new.
            StageError: the engine is not started.
        """
        decoder = self._started()
        try:
            copy_weights(decoder.model, tensors)
        except BaseException:
            await self.close()
            raise
        decoder.version = version

    async def rest(self) -> None:
        """Keys and values are freed when a sample ends, and the weights are needed again soon."""

    async def close(self) -> None:
        """Free the model. Whoever still waits gets a :class:`StageError`."""
        if self._decoder is not None:
            self._decoder.reset()
        self._decoder = self._task = None
        self._fail(StageError("the embedded engine was closed while drawing"))

    def _started(self) -> Decoder:
        if self._decoder is None:
            raise StageError("the embedded engine is not started")
        return self._decoder

    def _jobs(self, decoder: Decoder, ids: list[int], sampling: Sampling, n: int) -> list[Job]:
        """Many samples of one prompt go in parts, so that a part finds room before the whole batch is empty."""
        one = decoder.row_bytes(Job(ids, sampling, 1))
        if one > decoder.cache.limit:
            raise ConfigError(
                f"engine.cache_gib: a sample of {len(ids)} tokens and {sampling.max_tokens} more may not fit",
                found=self.config.cache_gib,
                allowed=f"{one / 2**30:.3g} or more",
                then="raise it or lower max_tokens",
            )
        size = min(int(decoder.cache.limit // one), max(1, decoder.rows // 4))
        parts = [(first, min(size, n - first)) for first in range(0, n, size)]
        return [Job(ids, replace(sampling, sample=sampling.sample + first), rows) for first, rows in parts]

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
            with boundary("the embedded engine", "drawing tokens"):
                while decoder.busy:
                    for job in decoder.step():
                        future = self._pending.pop(job)
                        if not future.done():
                            future.set_result(None)
                    await asyncio.sleep(0)
        except M2rlError as error:
            decoder.reset()
            self._fail(error)

    def _fail(self, error: M2rlError) -> None:
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(error)


def _report_inexact(model: str, device: str) -> None:
    """Samples depend on what is drawn beside them: an error on the CPU, where it need not be, a warning elsewhere."""
    problem = f"embedded engine, {model} on {device}: the start-up test found samples that depend on those beside them"
    if device == "cpu":
        then = "set OMP_NUM_THREADS=1; a mixture of experts needs another engine"
        raise StageError(f"{problem}, so that a resumed run could differ from an uninterrupted one", then=then)
    warnings.warn(f"{problem}; a resumed run may differ from an uninterrupted one", stacklevel=3)


def _check(decoder: Decoder, ids: list[int], sampling: Sampling, n: int) -> None:
    vocab = decoder.model.get_input_embeddings().num_embeddings
    if not ids or min(ids) < 0 or max(ids) >= vocab:
        found = f"{min(ids)} to {max(ids)}" if ids else "none"
        raise DataError("generate: token ids that the model does not have", found=found, allowed=f"0 to {vocab - 1}")
    if (
        n < 1
        or sampling.max_tokens < 1
        or sampling.temperature < 0
        or sampling.top_k < 0
        or not 0 < sampling.top_p <= 1
    ):
        raise DataError(
            "generate: impossible sampling",
            found=f"n={n}, {sampling}",
            allowed="n and max_tokens from 1, temperature and top_k from 0, top_p in (0, 1]",
        )
