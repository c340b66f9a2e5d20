"""What a running vLLM must be able to do, whichever way it is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from m2rl_core.types import Turn

__all__ = ["Backend", "EngineLostError", "Pause", "Refused"]

Pause = Literal["wait", "abort", "keep"]
"""vLLM's words for what becomes of samples in flight: they end first, are given up, or freeze until it goes on."""


class EngineLostError(Exception):
    """vLLM is dead or out of reach: what it was drawing is lost."""


class Refused(Exception):  # noqa: N818 - not a failure of vLLM
    """vLLM lives and says no; the message is its own."""


class Backend(Protocol):
    """One vLLM with one model. Every method raises :class:`EngineLostError` where vLLM is no longer there."""

    async def draw(self, ids: list[int], params: Mapping[str, Any], salt: str) -> list[Turn]:
        """Continuations of ``ids``, as many as ``params`` (of vLLM's ``SamplingParams``) say.

        Args:
            salt: prefixes are shared only among requests with the same one.
        """
        ...

    async def score(self, ids: list[int], salt: str) -> list[float]:
        """Log-probs [nats] at temperature 1 of all tokens of ``ids`` but the first."""
        ...

    async def pause(self, mode: Pause) -> None: ...

    async def resume(self) -> None: ...

    async def update(self, files: Sequence[Path], version: int) -> None:
        """Load safetensors, which together hold every tensor, and label tokens from now on with ``version``.

        Raises:
            Refused: some tensor does not fit; the weights are then neither old nor new.
        """
        ...

    async def sleep(self, level: int) -> None: ...

    async def wake(self, *, weights_only: bool = False) -> None:
        """Take memory back. ``weights_only``: not yet that of keys and values."""
        ...

    async def close(self) -> None: ...
