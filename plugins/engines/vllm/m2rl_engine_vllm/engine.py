"""``VllmEngine``: the component that a study names."""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from m2rl_core.errors import ConfigError, DataError, StageError
from m2rl_core.types import Sampling, Turn
from m2rl_engine_vllm import buckets, mapping, parity
from m2rl_engine_vllm.backend import Backend
from m2rl_engine_vllm.config import VllmConfig
from m2rl_engine_vllm.member import Member

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VllmEngine"]


class VllmEngine:
    """Draws with one vLLM beside the trainer, or with servers."""

    name: ClassVar[str] = "vllm"
    reference: ClassVar[str] = "https://arxiv.org/abs/2309.06180"
    Config = VllmConfig

    def __init__(self, config: VllmConfig) -> None:
        self.config = config
        self.members: list[Member] = []
        self.difference: float | None = None
        """Mean difference [nats] that the check after the last update found."""
        self._folder = Path()
        self._updates = itertools.count()

    async def start(self, model: Path, *, max_tokens: int, trust_remote_code: bool = False) -> None:
        """Start vLLM, or reach its servers, with the Hugging Face folder ``model`` as version 0.

        Raises:
            DataError: no safetensors weights, or a model that vLLM does not take.
            ConfigError: settings that do not fit each other, the machine or the servers; a model's own code.
            StageError: vLLM did not start.
        """
        if trust_remote_code:
            raise ConfigError(
                "model.trust_remote_code: the engine 'vllm' runs no code that lies in a model's folder",
                found=True,
                then="leave it out where vLLM knows the architecture itself, or use engine: embedded",
            )
        await self.close()
        self._model, self._context = model.resolve(), max_tokens
        self._shapes = await asyncio.to_thread(buckets.shapes_of, model)
        self._reference = parity.Reference(model) if self.config.parity_tokens else None
        self._vocab = parity.vocabulary(model)
        if self.config.folder is not None:
            self.config.folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="m2rl-weights-", dir=self.config.folder))
        self.members = [self._member(title, start) for title, start in self._starts()]
        try:
            await asyncio.gather(*(member.start() for member in self.members))
        except BaseException:
            await self.close()
            raise

    async def generate(self, ids: list[int], sampling: Sampling, n: int) -> list[Turn]:
        """Draw ``n`` continuations of ``ids``; number i takes the seed of sample ``sampling.sample + i``.

        A turn ends with a stop id, which it includes, after ``max_tokens`` or where the context is full. A sample's
        noise does not depend on its company, but its log-probs do, in their last digits: so a token may now and then
        come out otherwise beside other samples. See the README.

        Raises:
            DataError: ids or settings outside their ranges.
            StageError: the engine is not started, was closed meanwhile, or died too often.
        """
        self._check(ids, sampling, n)
        if len(ids) >= self._context:
            return [Turn([], [], [], "length") for _ in range(n)]
        member = min(self._started(), key=lambda each: each.load)
        rows = self.config.rows
        parts = [(replace(sampling, sample=sampling.sample + i), min(rows, n - i)) for i in range(0, n, rows)]
        requests = [mapping.params(part, count, len(ids), self._context) for part, count in parts]
        drawn = await asyncio.gather(*(member.draw(ids, request) for request in requests))
        turns = [turn for part in drawn for turn in part]
        return turns if len(turns) == n else [copy.deepcopy(turns[0]) for _ in range(n)]

    async def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Update vLLM's weights in place and check that it computes with them; see ``Config.in_flight``.

        Raises:
            DataError: an unknown, missing, doubled or misshapen tensor; vLLM keeps its weights. Or vLLM refuses one.
            RunError: no room for them in ``Config.folder``; vLLM keeps its weights.
            StageError: the engine is not started, or vLLM's log-probs are not those of ``tensors``.

        The engine is closed where vLLM's weights are neither the old nor the new.
        """
        members = self._started()
        folder = self._folder / f"{next(self._updates):06d}"
        given = buckets.checked(tensors, self._shapes)
        files = await asyncio.to_thread(buckets.write, given, folder, self.config.dtype)
        try:
            await asyncio.gather(*(member.update(files, version) for member in members))
            await self._check_parity(files, version)
        except BaseException:
            await self.close()
            raise
        for old in self._folder.iterdir():
            if old != folder:
                await asyncio.to_thread(shutil.rmtree, old)

    async def rest(self) -> None:
        """Nothing will be drawn for a while: give memory back, as ``Config.sleep`` says."""
        await asyncio.gather(*(member.rest() for member in self.members))

    async def close(self) -> None:
        """Stop what was started here. Whoever still waits gets a :class:`StageError`."""
        members, self.members = self.members, []
        await asyncio.gather(*(member.close() for member in members))
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = Path()

    # ── within ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _started(self) -> list[Member]:
        if not self.members:
            raise StageError("the vLLM engine is not started")
        return self.members

    def _starts(self) -> list[tuple[str, Callable[[], Awaitable[Backend]]]]:
        """What each member is called, and how it is started."""
        config, model, context = self.config, self._model, self._context
        if config.placement == "colocated":
            from m2rl_engine_vllm.colocated import open_colocated

            return [("vLLM", functools.partial(open_colocated, config, model, context))]
        from m2rl_engine_vllm.launch import own_server, reach_server

        if not config.urls:
            return [("the vLLM server", functools.partial(own_server, config, model, context))]
        return [
            (f"the vLLM server at {url}", functools.partial(reach_server, url, model, context)) for url in config.urls
        ]

    def _member(self, title: str, start: Callable[[], Awaitable[Backend]]) -> Member:
        config = self.config
        level = sleep_level(config) if config.placement == "colocated" else 0
        first = buckets.files_of(self._model)
        return Member(title, start, first, in_flight=config.in_flight, sleep=level, restarts=config.restarts)

    def _check(self, ids: list[int], sampling: Sampling, n: int) -> None:
        self._started()
        if not ids or min(ids) < 0 or max(ids) >= self._vocab:
            found = f"{min(ids)} to {max(ids)}" if ids else "none"
            raise DataError(
                "generate: token ids that the model does not have", found=found, allowed=f"0 to {self._vocab - 1}"
            )
        low = min(n - 1, sampling.max_tokens - 1, sampling.temperature, sampling.top_k)
        if low < 0 or not 0 < sampling.top_p <= 1:
            raise DataError(
                "generate: impossible sampling",
                found=f"n={n}, {sampling}",
                allowed="n and max_tokens from 1, temperature and top_k from 0, top_p in (0, 1]",
            )

    async def _check_parity(self, files: list[Path], version: int) -> None:
        if self._reference is None:
            return
        ids = parity.probe(min(self.config.parity_tokens + 1, self._context - 1), self._vocab)
        expected, *found = await asyncio.gather(
            asyncio.to_thread(self._reference.logps, files, ids), *(member.score(ids) for member in self.members)
        )
        self.difference = max(parity.compare(each, expected, self.config.dtype, version) for each in found)


def sleep_level(config: VllmConfig) -> int:
    """The level of sleep between phases on this machine."""
    import torch

    if torch.cuda.is_available():
        return 1 if config.sleep is None else config.sleep
    if config.sleep:
        warnings.warn(
            "engine.sleep: on a CPU vLLM has no memory to give back, so sleeping changes nothing", stacklevel=2
        )
    return config.sleep or 0
