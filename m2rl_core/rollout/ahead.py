"""Where a stage's groups come from: drawn when they are asked for, or one step ahead in a second process.

Ahead, a step goes like this: take the groups of this step, which the older weights have drawn; let the process take the
new weights and begin with the next step; train. What is drawn by which weights is fixed by that, whoever is faster.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from m2rl_core.config import RlStage
from m2rl_core.rollout.collect import collect, gather
from m2rl_core.rollout.episodes import Sampler, open_sampler
from m2rl_core.rollout.mixture import Source
from m2rl_core.rollout.records import from_record, to_record
from m2rl_core.rollout.sampler_process import Recipe, SamplerProcess
from m2rl_core.run import StageRun, team
from m2rl_core.types import Group, Reasoning

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ahead", "OnPolicy", "Rollouts", "Told", "open_rollouts"]

GROUPS = "groups.jsonl"


class Rollouts(Protocol):
    """What a step needs. Its state is saved and loaded before the source's, from which it draws."""

    def __enter__(self) -> Rollouts: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """The policy's weights before the updates of step ``version``."""
        ...

    def collect(self, step: int) -> list[Group]:
        """The groups of ``step``, sampled and verified."""
        ...

    def save_state(self, folder: Path) -> None: ...

    def load_state(self, folder: Path) -> None: ...


class OnPolicy:
    """Draws a step's groups when they are asked for, with the newest weights. Has no state."""

    def __init__(self, run: StageRun[RlStage], sampler: Sampler, source: Source) -> None:
        self._run, self._sampler, self._source = run, sampler, source

    def __enter__(self) -> OnPolicy:
        return self

    def __exit__(self, *error: object) -> None:
        self._sampler.__exit__(*error)

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        self._sampler.load_weights(tensors, version)

    def collect(self, step: int) -> list[Group]:
        return collect(self._run, self._sampler, self._source, step)

    def save_state(self, folder: Path) -> None:
        """Nothing: noise is a hash of what it is for."""

    def load_state(self, folder: Path) -> None: ...


class Ahead:
    """Draws the groups of the next step while this one is trained on.

    One thread puts all questions to the process, in the order in which they come up. A mixture that follows rewards
    learns of them one step later than on policy.
    """

    def __init__(self, run: StageRun[RlStage], process: SamplerProcess, source: Source) -> None:
        self._run, self._process, self._source = run, process, source
        self._thread = ThreadPoolExecutor(1, "m2rl-ahead")
        self._loading: Future[None] = self._thread.submit(process.start)
        self._drawing: Future[list[Group]] | None = None

    def __enter__(self) -> Ahead:
        try:
            self._loading.result()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        self._run.running(self._process.bill.cpu_seconds)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        self._thread.shutdown(cancel_futures=True)
        self._process.close()
        self._run.running(0.0)

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Share the weights; the process takes them when it is done with the groups that it is drawing."""
        self._loading.result()  # it has taken the last ones
        places = self._process.memory.write(tensors)
        self._loading = self._thread.submit(self._process.load_weights, places, version)

    def collect(self, step: int) -> list[Group]:
        """Wait for the groups of ``step``, then have those of the next one drawn with the weights loaded last."""
        groups_P = self._finished(self._drawing or self._begin(step))
        self._drawing = self._begin(step + 1) if step + 1 < self._run.stage.steps else None
        return team.told(groups_P)

    def _begin(self, step: int) -> Future[list[Group]]:
        prompts_P = self._source.next(step)  # here, not in the thread: it must not race with Source.observe
        return self._thread.submit(gather, self._run, self._process, self._source, prompts_P, step)

    def _finished(self, drawing: Future[list[Group]]) -> list[Group]:
        """Wait, and pay."""
        groups_P = drawing.result()
        bill = self._process.bill
        charges, bill.charges = bill.charges, []
        for kind, seconds in charges:
            self._run.charge(kind, seconds)
        self._run.running(bill.cpu_seconds)
        return groups_P

    def save_state(self, folder: Path) -> None:
        """The groups that are being drawn, when they are there; the source is then done with them, too."""
        groups_P: Sequence[Group] = ()
        if self._drawing is not None:
            with self._run.clock("rollout"):
                groups_P = self._finished(self._drawing)
        lines = [json.dumps({"dropped": g.dropped, "samples": [to_record(s) for s in g.samples_G]}) for g in groups_P]
        (folder / GROUPS).write_text("".join(f"{line}\n" for line in lines))

    def load_state(self, folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / GROUPS).read_text().splitlines()]
        if rows:
            self._drawing = Future()
            self._drawing.set_result([_group(row) for row in rows])


class Told:
    """On every process but the first: hears of the groups that the first has had drawn. Its source only looks on."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None: ...

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        for _ in tensors:  # gathered from all processes, this one too
            pass

    def collect(self, step: int) -> list[Group]:
        self._source.shares.setdefault(step, {})
        return team.told(list[Group]())

    def save_state(self, folder: Path) -> None:
        """The first process saves for all."""

    def load_state(self, folder: Path) -> None: ...


def _group(row: Mapping[str, Any]) -> Group:
    samples_G = [from_record(record) for record in row["samples"]]
    return Group(samples_G[0].prompt, samples_G, row["dropped"])


def open_rollouts(run: StageRun[RlStage], model: Path, source: Source, reasoning: Mapping[str, Reasoning]) -> Rollouts:
    """The rollouts of a stage, as its ``staleness`` says, starting from ``model``.

    Of several processes that train, the first has the process that draws ahead, and tells the others what it drew.
    """
    if not run.stage.staleness:
        return OnPolicy(run, open_sampler(run, model, source.prompts, reasoning), source)
    if not team.leads():
        return Told(source)
    recipe = Recipe(run.study, run.name, run.seed, run.folder, model, tuple(source.prompts), dict(reasoning))
    return Ahead(run, SamplerProcess(recipe, run.folder / "sampler.log"), source)
