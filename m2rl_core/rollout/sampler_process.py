"""A sampler in a process of its own, as its parent sees it: start it, ask it, end it.

The other side is :mod:`m2rl_core.rollout.sampler_worker`. Questions and answers go through a socket, weights through
shared memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2rl_core import errors
from m2rl_core.config import Study
from m2rl_core.errors import StageError
from m2rl_core.types import Group, Prompt, Reasoning, Sampling
from m2rl_core.weights import Place, SharedWeights

__all__ = ["Answer", "Recipe", "SamplerProcess"]

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""As of the trainer's own process: one thread, because samples must not depend on how many there are."""
FAREWELL = 10.0
"""Seconds that the process has to exit after it was asked to."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build the sampler of a stage; arguments of ``StageRun`` and of ``open_sampler``."""

    study: Study
    stage: str
    seed: int
    folder: Path
    model: Path
    domains: tuple[str, ...]
    reasoning: Mapping[str, Reasoning]


@dataclass(frozen=True, slots=True)
class Answer:
    """To one question."""

    value: Any = None
    charges: Sequence[tuple[str, float]] = ()
    """(kind of work, seconds) of what went on while it was worked out."""
    cpu_seconds: float = 0.0
    """Of the process, since it began."""
    failure: tuple[str, str] | None = None
    """(class, message) of the error, if it failed."""


@dataclass(slots=True)
class Bill:
    """What a sampler's process has cost."""

    charges: list[tuple[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0


class SamplerProcess:
    """Starts at once and is ready when :meth:`start` returns. For one thread at a time.

    It dies with the thread that constructs this. What it prints goes to ``log``.
    """

    def __init__(self, recipe: Recipe, log: Path) -> None:
        self.log, self.bill = log, Bill()
        self.memory = SharedWeights()
        self._recipe = recipe
        self._channel, theirs = multiprocessing.Pipe()
        handles = theirs.fileno(), self.memory.handle
        arguments = [str(number) for number in (*handles, os.getpid())]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "m2rl_core.rollout.sampler_worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=handles,
                env={**os.environ, **ENVIRONMENT, **_other_device()},
            )
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Wait until the engine has started with the recipe's model."""
        self._ask(self._recipe)

    def load_weights(self, places: Sequence[Place], version: int) -> None:
        """Give the engine what :attr:`memory` holds at ``places``."""
        self._ask("load_weights", places, version)

    def rollout(self, prompts_P: Sequence[Prompt], sampling: Sampling, n: int) -> list[Group]:
        """As :meth:`m2rl_core.rollout.episodes.Sampler.rollout`."""
        groups: list[Group] = self._ask("rollout", prompts_P, sampling, n)
        return groups

    def _ask(self, *question: Any) -> Any:
        """The answer's value.

        Raises:
            M2rlError: as it was raised there; what m2rl did not raise is a :class:`StageError`, as is the process's
                end.
        """
        try:
            self._channel.send(question)
            answer: Answer = self._channel.recv()
        except (EOFError, OSError):
            raise StageError(f"the sampler's process {self._death()}", then=self._advice()) from None
        self.bill.charges += answer.charges
        self.bill.cpu_seconds = answer.cpu_seconds
        if answer.failure is not None:
            kind, message = answer.failure
            raise getattr(errors, kind)(f"in the sampler's process: {message}")
        return answer.value

    def kill(self) -> None:
        """End the process at once, and with it its verifiers; whoever waits for an answer gets an error."""
        self._process.kill()

    def close(self) -> None:
        """Have the process end, where it has not yet. Nobody may be waiting for an answer."""
        self._channel.close()
        self._death()
        self.memory.close()
        if self.log.exists() and not self.log.stat().st_size:
            self.log.unlink()

    def _death(self) -> str:
        """Wait for the end, and say how it ended."""
        try:
            code = self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "hung up"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _advice(self) -> str:
        return f"see its output in {self.log}, then run the same command again to resume"


def _other_device() -> dict[str, str]:
    """``CUDA_VISIBLE_DEVICES`` of the process: the last of several devices, for the trainer works on the first."""
    import torch

    if torch.cuda.device_count() < 2:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[-1]}
