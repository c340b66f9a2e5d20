"""vLLM beside the trainer: its ``AsyncLLM``, whose engine is a child process on the same devices.

A child, not this very process: vLLM sets up ``torch.distributed`` and takes over ``torch.set_num_threads``, both of
which belong to the trainer here; and a child can die alone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from m2rl_core.errors import ConfigError, StageError
from m2rl_core.types import Turn
from m2rl_engine_vllm import mapping
from m2rl_engine_vllm.arguments import arguments, environment
from m2rl_engine_vllm.backend import Backend, EngineLostError, Pause, Refused
from m2rl_engine_vllm.config import VllmConfig

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["Colocated", "open_colocated"]

T = TypeVar("T")
PULSE = 1.0
"""Seconds between looks at whether vLLM still lives, while waiting for it."""


async def open_colocated(config: VllmConfig, model: Path, context: int) -> Backend:
    """Start vLLM in a child process. Blocks the event loop meanwhile: nothing else can be done without an engine.

    Raises:
        StageError: vLLM did not start.
    """
    import torch

    cuda = torch.cuda.is_available()
    os.environ.update(environment(cuda=cuda))
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    given = arguments(config, model, context, cuda=cuda)
    try:
        args = AsyncEngineArgs(**given, skip_tokenizer_init=True, disable_log_stats=True)
        llm = AsyncLLM.from_engine_args(args)
    except Exception as error:
        raise StageError(
            f"vLLM did not start: {type(error).__name__}: {error}",
            then="look at its messages; engine.memory and engine.cache_gib say what it takes",
        ) from error
    backend = Colocated(llm)
    await backend.greet()
    return backend


class Colocated:
    """An ``AsyncLLM``."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self._numbers = itertools.count()

    async def greet(self) -> None:
        """Set up what m2rl needs.

        Raises:
            ConfigError: vLLM's log-probs are not those of the distribution that it draws from.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._watched(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info={})))
        await self._watched(self._llm.update_weight_version("0"))
        [turn] = await self.draw(mapping.GREETING, mapping.PROBE, "greeting")
        check_mode(turn)

    async def draw(self, ids: list[int], params: Mapping[str, Any], salt: str) -> list[Turn]:
        output = await self._ask(ids, {**params, "flat_logprobs": True}, salt)
        return [drawn(each) for each in output.outputs]

    async def score(self, ids: list[int], salt: str) -> list[float]:
        output = await self._ask(ids, mapping.SCORE, salt)
        return [at[token].logprob for token, at in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]

    async def _ask(self, ids: list[int], params: Mapping[str, Any], salt: str) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        wanted = SamplingParams(**params, output_kind=RequestOutputKind.FINAL_ONLY)
        prompt = {"prompt_token_ids": ids, "cache_salt": salt}

        async def only() -> Any:
            [output] = [each async for each in self._llm.generate(prompt, wanted, str(next(self._numbers)))]
            return output

        return await self._watched(only())

    async def pause(self, mode: Pause) -> None:
        await self._watched(self._llm.pause_generation(mode=mode))

    async def resume(self) -> None:
        await self._watched(self._llm.resume_generation())

    async def update(self, files: Sequence[Path], version: int) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._told(self._llm.start_weight_update())
        for path in files:
            await self._told(self._llm.update_weights(WeightTransferUpdateRequest(update_info={"path": str(path)})))
        await self._told(self._llm.finish_weight_update(str(version)))

    async def sleep(self, level: int) -> None:
        await self._watched(self._llm.sleep(level))

    async def wake(self, *, weights_only: bool = False) -> None:
        await self._watched(self._llm.wake_up(["weights"] if weights_only else None))

    async def close(self) -> None:
        self._llm.shutdown(timeout=2.0)
        # it does so once more when it is deleted, which may be while the interpreter ends, and then complains
        vars(self._llm)["shutdown"] = lambda *_: None

    async def _told(self, work: Awaitable[T]) -> T:
        """As :meth:`_watched`; whatever vLLM objects to is :class:`Refused`."""
        try:
            return await self._watched(work)
        except EngineLostError:
            raise
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {error}") from error

    async def _watched(self, work: Awaitable[T]) -> T:
        """The result of ``work``, which is not waited for in vain: vLLM may die and leave it unanswered."""
        from vllm.v1.engine.exceptions import EngineDeadError

        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=PULSE))[0]:
                if self._llm.errored:
                    raise EngineLostError("its engine's process ended")
            return task.result()
        except EngineDeadError as error:
            raise EngineLostError("its engine's process ended") from error
        finally:
            task.cancel()


def drawn(output: Any) -> Turn:
    """A ``CompletionOutput`` with flat log-probs, in which the drawn token's comes first at its position."""
    flat = output.logprobs
    logps = [flat.logprobs[first] for first in flat.start_indices] if flat is not None else ()
    spans = [(span.version, span.start, span.end) for span in output.weight_versions or ()]
    return mapping.turn(output.token_ids, logps, spans, output.finish_reason)


def check_mode(turn: Turn) -> None:
    """Whether log-probs are of the distribution that was drawn from, by what :data:`mapping.PROBE` was answered.

    Raises:
        ConfigError: they are not.
    """
    if turn.logps != [0.0]:
        raise ConfigError(
            "vLLM's log-probs are not those of the distribution that it draws from",
            found=f"{turn.logps} for a token without alternative",
            then="start it with --logprobs-mode processed_logprobs, as `python -m m2rl_engine_vllm.serve` does",
        )
