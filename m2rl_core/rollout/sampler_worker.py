"""The process that a sampler runs in: ``python -m m2rl_core.rollout.sampler_worker CHANNEL MEMORY PARENT``.

Its parent is :mod:`m2rl_core.rollout.sampler_process`. It answers one question after the other: first how to build the
sampler, then ``load_weights`` and ``rollout``, until the channel is closed.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from m2rl_core.errors import M2rlError, StageError
from m2rl_core.plugins import load_plugins
from m2rl_core.processes import die_with_parent
from m2rl_core.rollout.episodes import Sampler, open_sampler
from m2rl_core.rollout.sampler_process import Answer, Recipe
from m2rl_core.run import StageRun
from m2rl_core.weights import SharedWeights

__all__: list[str] = []

T = TypeVar("T")


class Worker:
    """Answers questions, and adds up what the answers cost."""

    def __init__(self, channel: Connection) -> None:
        self.channel = channel
        self.charges: list[tuple[str, float]] = []

    def charge(self, kind: str, seconds: float) -> None:
        self.charges.append((kind, seconds))

    def answer(self, work: Callable[[], Any]) -> Any:
        """Send what ``work`` returns or raises; a sampler stays here."""
        failure, value = None, None
        try:
            value = work()
        except Exception as error:
            traceback.print_exc()
            failure = _described(error)
        charges, self.charges = self.charges, []
        sent = None if isinstance(value, Sampler) else value
        self.channel.send(Answer(sent, charges, time.process_time(), failure))
        return value

    def timed(self, work: Callable[[], T]) -> T:
        """Charge the seconds of ``work`` to ``sampler``."""
        started = time.perf_counter()
        try:
            return work()
        finally:
            self.charge("sampler", time.perf_counter() - started)

    def open(self, recipe: Recipe) -> Sampler:
        """The sampler of the stage, charging here."""
        study = recipe.study
        run = StageRun(
            name=recipe.stage,
            stage=study.stages[recipe.stage],
            study=study,
            seed=recipe.seed,
            folder=recipe.folder,
            models={},
            registry=load_plugins(study.plugins),
        )
        sampler = open_sampler(run, recipe.model, recipe.domains, recipe.reasoning)
        sampler.charge = self.charge
        return sampler


def _described(error: Exception) -> tuple[str, str]:
    """The class of the core that an error is of, and its message."""
    if not isinstance(error, M2rlError):
        return StageError.__name__, f"{type(error).__name__}: {error}"
    return error.kind, str(error)


def serve(channel: Connection, memory: SharedWeights) -> None:
    """Answer until the other side hangs up."""
    worker = Worker(channel)
    [recipe] = channel.recv()
    sampler = worker.answer(lambda: worker.open(recipe))
    if sampler is None:
        return
    with sampler:
        while True:
            match channel.recv():
                case "load_weights", places, version:
                    worker.answer(lambda: sampler.load_weights(memory.read(places), version))
                case "rollout", prompts_P, sampling, n:
                    worker.answer(lambda: worker.timed(lambda: sampler.rollout(prompts_P, sampling, n)))


def main(channel: int, memory: int, parent: int) -> None:
    """Serve on inherited file descriptors."""
    die_with_parent(parent)
    for handle in (channel, memory):
        os.set_inheritable(handle, False)  # verifiers have no business here
    import torch

    torch.set_num_threads(1)  # samples must not depend on the number of cores
    with suppress(EOFError):  # the parent has hung up
        serve(Connection(channel), SharedWeights(memory))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)  # all is closed, and taking torch apart takes a second in which the stage would wait
