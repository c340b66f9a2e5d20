"""What a stage writes down, step by step.

``metrics.jsonl`` and ``rollouts.jsonl`` hold deterministic fields only, so that an interrupted and resumed stage
writes the same bytes as an uninterrupted one. Seconds go to ``times.jsonl`` beside them, scalars also to
``tensorboard/`` where the package ``tensorboard`` is installed.

A step's seconds are ``total``, split into ``rollout``, ``score``, ``train``, ``sync``, … and ``idle``.
``rollout/DOMAIN``, … are parts of ``rollout``, …; ``verify/DOMAIN`` is spent beside all of these, in verifiers. Where
several domains are drawn together, ``wait/DOMAIN`` is the time from a domain's last verdict to the last one of all.

Of processes that train together the first writes: its own wall seconds, everyone's CPU and verifier seconds.

Where rollouts are one step ahead, ``rollout`` is the time that training waits for them, but its CPU seconds are those
of the sampler's process; ``sampler`` is that process's time, beside all others.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2rl_core.files import append_jsonl
from m2rl_core.run import team

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

__all__ = ["Clock", "Journal"]

METRICS, ROLLOUTS, TIMES = "metrics.jsonl", "rollouts.jsonl", "times.jsonl"


class Clock:
    """Wall and CPU seconds by kind of work.

    CPU seconds are those of this process, of children that have ended, and of one that still runs and tells.
    """

    def __init__(self) -> None:
        self.before = (0.0, 0.0)
        """(wall, CPU) seconds of earlier attempts at the stage, up to the state that was restored."""
        self.running = 0.0
        """CPU seconds of a child that still runs, as far as it has told; 0 once it has ended and the system counts."""
        self._start = self._lap = self._now()
        self._measured = 0.0
        """Wall seconds of this lap that blocks have measured."""
        self._within = (0.0, 0.0)
        """(wall, CPU) seconds of the blocks within the one that is being measured."""
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def _now(self) -> tuple[float, float]:
        spent = os.times()
        ended = spent.children_user + spent.children_system
        return time.perf_counter(), spent.user + spent.system + ended + self.running

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Charge the block's seconds to ``kind``, but for those of blocks within it, which go to theirs."""
        start, outer, self._within = self._now(), self._within, (0.0, 0.0)
        try:
            yield
        finally:
            wall, cpu = (now - then for now, then in zip(self._now(), start, strict=True))
            own = wall - self._within[0], cpu - self._within[1]
            self._within = outer[0] + wall, outer[1] + cpu
            self._measured += own[0]
            self.charge(kind, *own)

    def charge(self, kind: str, seconds: float, cpu_seconds: float = 0.0) -> None:
        """Add seconds that were measured elsewhere, e.g. in verifier processes."""
        self._spent[kind][0] += seconds
        self._spent[kind][1] += cpu_seconds

    def share(self, kind: str, weights: Mapping[str, float]) -> None:
        """Charge this lap's seconds of ``kind`` once more, as its parts ``kind/NAME`` in proportion to ``weights``."""
        total = sum(weights.values())
        if kind in self._spent and total > 0:
            wall, cpu = self._spent[kind]
            for name, weight in weights.items():
                self.charge(f"{kind}/{name}", wall * weight / total, cpu * weight / total)

    def rest(self) -> None:
        """Charge the wall seconds of this lap that no block has measured to ``idle``. CPU seconds are never idle."""
        passed = self._now()[0] - self._lap[0]
        self.charge("idle", max(0.0, passed - self._measured))

    def lap(self) -> dict[str, Any]:
        """What was charged since the last lap, and the ``total`` that passed; starts the next lap.

        With ``gpus`` where there are any: GPU-seconds are wall seconds times their number.
        """
        now = self._now()
        laps = {"total": [now[0] - self._lap[0], now[1] - self._lap[1]], **self._spent}
        self._lap, self._measured, self._spent = now, 0.0, defaultdict(lambda: [0.0, 0.0])
        return {
            "seconds": {kind: round(spent[0], 6) for kind, spent in laps.items()},
            "cpu_seconds": {kind: round(spent[1], 6) for kind, spent in laps.items()},
            **({"gpus": gpus} if (gpus := _gpus()) else {}),
        }

    @property
    def total(self) -> tuple[float, float]:
        """(wall, CPU) seconds that the stage has cost so far, lost attempts left out."""
        now = self._now()
        # the differences first: rounded, the sums could fall below what was spent before
        return self.before[0] + (now[0] - self._start[0]), self.before[1] + (now[1] - self._start[1])


def _gpus() -> int:
    """Number of CUDA devices that this process works with; asks torch only where the stage has imported it."""
    torch = sys.modules.get("torch")
    return torch.cuda.device_count() if torch is not None and torch.cuda.is_initialized() else 0


def _together(laps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One lap of all ranks: they pass the same time side by side, but each works on a processor of its own."""
    first = dict(laps[0])
    for field, among in (("seconds", "verify/"), ("cpu_seconds", "")):
        kinds = dict.fromkeys(kind for lap in laps for kind in lap[field] if kind.startswith(among))
        total = {kind: round(sum(lap[field].get(kind, 0.0) for lap in laps), 6) for kind in kinds}
        first[field] = {**first[field], **total}
    return {**first, "gpus": len(laps)} if "gpus" in first and len(laps) > 1 else first


class Journal:
    """The lines of one stage, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self._first = 0
        self._board: EventFileWriter | None = None

    def write(
        self,
        step: int,
        metrics: Mapping[str, Any],
        samples: Iterable[Mapping[str, Any]],
        workload: Mapping[str, Mapping[str, float]],
    ) -> float:
        """One line of metrics and of times, and one line per sample; returns the seconds that the step took."""
        if team.leads():
            append_jsonl(self.folder / ROLLOUTS, ({"step": step, **sample} for sample in samples))
            append_jsonl(self.folder / METRICS, [{"step": step, **metrics}])
        for kind, tokens in workload.items():
            self.clock.share(kind, tokens)
        lap = self._lap(step)
        if team.leads():
            self._draw(step, metrics)
        return float(lap["seconds"]["total"])

    def end(self) -> None:
        """Write down what the stage spent after its last step, and close the event file."""
        self._lap(None)
        if self._board is not None:
            self._board.close()

    def _lap(self, step: int | None) -> Mapping[str, Any]:
        """What all spent since the last lap, written down. Collective."""
        self.clock.rest()
        lap = _together(team.gathered(self.clock.lap()))
        if team.leads():
            append_jsonl(self.folder / TIMES, [{"step": step, **lap}])
        return lap

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, all of them flushed to the disk."""
        return {name: _flushed_size(self.folder / name) for name in (METRICS, ROLLOUTS, TIMES)}

    def too_short(self, sizes: Mapping[str, int]) -> str:
        """Which file holds fewer bytes than it had, as a sentence; or nothing."""
        short = [name for name, size in sizes.items() if _size(self.folder / name) < size]
        return f"{short[0]} is shorter than it was" if short else ""

    def cut(self, step: int, sizes: Mapping[str, int]) -> None:
        """Forget everything after ``step`` steps, when the files had ``sizes`` bytes, and go on from there."""
        for name in (METRICS, ROLLOUTS, TIMES) if team.leads() else ():
            path = self.folder / name
            if path.exists():
                os.truncate(path, sizes.get(name, 0))
        self._first = step
        if step == 0 and team.leads():
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)

    def _draw(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the numbers in TensorBoard. Its writer is used without torch's wrapper, which would import torch."""
        if find_spec("tensorboard") is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._board is None:
            self._board = EventFileWriter(str(self.folder / "tensorboard"))
            # tells readers that events from this step on, of an attempt that was killed, are void
            start = SessionLog(status=SessionLog.START)
            self._board.add_event(Event(wall_time=time.time(), step=self._first, session_log=start))
        values = [Summary.Value(tag=k, simple_value=v) for k, v in metrics.items() if isinstance(v, int | float)]
        self._board.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._board.flush()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _flushed_size(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
