"""The one argument of every stage function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, cast

from typing_extensions import TypeVar

from m2rl_core.config import AnalyzeStage, AnyStage, EvalStage, RlStage, Study
from m2rl_core.errors import ShortageError, StageError
from m2rl_core.files import make_folder
from m2rl_core.interfaces import Domain, Engine
from m2rl_core.model_card import complete
from m2rl_core.plugins import Registry
from m2rl_core.redaction import redacted
from m2rl_core.run import team
from m2rl_core.run.journal import Journal
from m2rl_core.run.memory import DOING, remedies, shortage
from m2rl_core.run.origin import made
from m2rl_core.run.randomness import Randomness
from m2rl_core.run.states import Part, States
from m2rl_core.run.trackers import Tracked, Tracker, tracker
from m2rl_core.seeding import derive
from m2rl_core.types import Prompt

__all__ = ["NodeView", "StageRun"]

S = TypeVar("S", default=AnyStage)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A finished node of the study, as later nodes see it."""

    id: str
    stage: str
    """Its stage's name in the study."""
    kind: str
    folder: Path
    seed: int
    """The study's seed that it ran with."""
    inputs: tuple[str, ...]
    """Ids of the nodes that it came from."""
    key: str
    """Hash of all that could change its results."""
    hub: str = ""
    """Of a model that was fetched from the hub, its id there."""


def _discard(fields: Mapping[str, Any]) -> None:
    """Progress that nobody watches."""


class StageRun(Generic[S]):
    """One run of one stage.

    A stage with steps calls :meth:`restore` once, then :meth:`log` and :meth:`checkpoint` after every step, and
    :meth:`finish` at the end. Steps are counted from 0; :meth:`checkpoint` and :meth:`keep` take the number of steps
    done. Where several processes train together all of them call these; the first writes the journal and reports.

    Args:
        name: the stage's name in the study.
        stage: its section.
        study: the study, reduced to what the stage's key covers: its own domains and its own section.
        seed: seed of the stage, to be hashed on with what each random draw is for.
        folder: where it writes.
        models: input models as Hugging Face folders, by the names that its section uses.
        registry: builds components.
        suite: what an ``eval`` node measures.
        nodes: everything that it came from, in topological order; for a report, everything.
        key: hash of all that could change the results; a state of another key is never restored.
        covered: what it is the hash of, for the card of the model.
        shared: folder that the study's stages share, for what is addressed by its content; its own where there is none.
        send: takes progress to whoever watches.
    """

    def __init__(
        self,
        *,
        name: str,
        stage: S,
        study: Study,
        seed: int,
        folder: Path,
        models: Mapping[str, Path],
        registry: Registry,
        suite: str = "",
        nodes: Sequence[NodeView] = (),
        key: str = "",
        covered: Mapping[str, Any] | None = None,
        shared: Path | None = None,
        send: Callable[[Mapping[str, Any]], None] = _discard,
    ) -> None:
        self.name, self.stage, self.study, self.seed = name, stage, study, seed
        self.folder, self.models, self.registry = folder, models, registry
        self.suite, self.nodes, self.key, self.covered = suite, nodes, key, covered or {}
        self.shared = folder if shared is None else shared
        self._send = send if team.leads() else _discard
        self._journal = Journal(folder)
        self._randomness = Randomness()
        self._states = States(folder / "state", self._unusable, self.note)
        self._trackers = self._tracked_by() if team.leads() else []
        self._observers = [*registry.observers, *(each.observer for each in self._trackers)] if team.leads() else []
        self._domains: dict[str, Domain] = {}
        self._begun = False
        make_folder(folder)

    def _tracked_by(self) -> list[Tracker]:
        settings: dict[str, Any] = cast("Any", self.stage).model_dump(mode="json")
        tracked = Tracked(
            study=self.study.name,
            stage=f"{self.name}-{self.suite}" if self.suite else self.name,
            kind=settings["kind"],
            key=self.key,
            seed=self.study.seed,
            settings=settings,
            folder=self.folder,
        )
        return [tracker(section, tracked) for section in self.study.trackers]

    # ── components ───────────────────────────────────────────────────────────────────────────────────────────────────

    def domain(self, name: str) -> Domain:
        """The domain that the study calls ``name``; built once."""
        if name not in self._domains:
            section = self.study.domains[name]
            self._domains[name] = self.registry.create(
                "domain", {"use": section.use, **section.config}, f"domains.{name}"
            )
        return self._domains[name]

    def prompts(self, domain: str, split: str) -> Iterator[Prompt]:
        """A domain's prompts under the name that the study gives it, which need not be its plugin's."""
        return (replace(prompt, domain=domain) for prompt in self.domain(domain).prompts(split))

    def engine(self) -> Engine:
        """A new engine, not started."""
        return self.registry.create("engine", self.study.engine, "engine")

    # ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def report(self, **fields: Any) -> None:
        """Show progress to whoever watches: ``step``, ``steps``, ``reward``, ``tokens_per_second``, ``text``, …"""
        self._send(fields)

    def note(self, text: str) -> None:
        """Say something that the user must not miss."""
        self._send({"note": redacted(text)})

    @contextmanager
    def clock(self, kind: str) -> Iterator[None]:
        """Charge the block's wall and CPU seconds to ``kind``: rollout, score, train, sync, …

        A block within another one takes its seconds out of it.

        Raises:
            ShortageError: instead of the block's own error, where memory ran out.
        """
        with self._journal.clock.measure(kind), self.enough_memory(kind):
            yield

    @contextmanager
    def enough_memory(self, kind: str) -> Iterator[None]:
        """Name the settings to change where the block, work of ``kind``, runs out of memory.

        Raises:
            ShortageError: instead of the block's own error.
        """
        try:
            yield
        except ShortageError:
            raise
        except Exception as error:
            if not (what := shortage(error)):
                raise
            engine: Mapping[str, Any] = {}
            if isinstance(self.stage, RlStage | EvalStage | AnalyzeStage):
                engine = self.registry.configure("engine", self.study.engine, "engine").model_dump()
            then = remedies(kind, self.name, self.stage, self.study.model, engine)
            raise ShortageError(
                f"out of memory while {DOING.get(kind, 'working')}: {what}",
                then=f"{then}; m2rl check estimates what fits",
            ) from error

    def charge(self, kind: str, seconds: float, cpu_seconds: float = 0.0) -> None:
        """Charge seconds that were measured elsewhere, e.g. in verifier processes, to ``kind``."""
        self._journal.clock.charge(kind, seconds, cpu_seconds)

    def running(self, cpu_seconds: float) -> None:
        """Count the CPU seconds that a child process has spent so far; 0 after it has ended, for then all count."""
        self._journal.clock.running = cpu_seconds

    @property
    def spent(self) -> tuple[float, float]:
        """(wall, CPU) seconds that the stage has cost so far; work that a kill undid is left out. Collective."""
        totals = team.gathered(self._journal.clock.total)
        return totals[0][0], sum(cpu for _, cpu in totals)

    def log(
        self,
        step: int,
        metrics: Mapping[str, float | int | str | None],
        *,
        samples: Iterable[Mapping[str, Any]] = (),
        workload: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Write down a finished step and show it to the observers.

        Args:
            metrics: deterministic numbers, for ``metrics.jsonl``.
            samples: records for ``rollouts.jsonl``; deterministic too.
            workload: kind of work → domain → its tokens. The step's seconds of that kind are shared among the domains
                in this proportion, as ``KIND/DOMAIN``.

        Raises:
            RunError: the disk is full.
        """
        if not self._begun:
            self.restore()
        seconds = self._journal.write(step, metrics, samples, workload or {})
        for observer in list(self._observers):
            try:
                observer(self.name, step, metrics)
            except StageError as error:
                self._observers.remove(observer)
                self.note(f"{error} It is not called again.")
        steps = getattr(self.stage, "steps", None)
        speed = {"tokens_per_second": tokens / seconds} if isinstance(tokens := metrics.get("tokens"), int) else {}
        self._send({**metrics, **speed, "step": step + 1, **({"steps": steps} if steps else {})})

    # ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def checkpoint(self, step: int, *parts: Part, every: int | None = 1) -> None:
        """Save a state to resume from, where ``step`` is a multiple of ``every``.

        Raises:
            RunError: the disk is full; the earlier states are whole.
        """
        if every and step % every == 0:
            seconds, cpu_seconds = self.spent
            facts = {"key": self.key, "seconds": seconds, "cpu_seconds": cpu_seconds, "sizes": self._journal.sizes()}
            self._states.save(step, (*parts, self._randomness), facts)

    def restore(self, *parts: Part) -> int:
        """Load the newest state that is whole, and cut the journal to what it was then.

        Returns:
            The first step still to do; 0 where nothing can be resumed.
        """
        self._begun = True
        self._randomness.seed(derive(self.seed, "generators"))
        step, facts = self._states.load((*parts, self._randomness)) or (0, {})
        if team.leads():  # whose account holds what all have spent
            self._journal.clock.before = (facts.get("seconds", 0.0), facts.get("cpu_seconds", 0.0))
        self._journal.cut(step, facts.get("sizes", {}))
        return step

    def _unusable(self, facts: Mapping[str, Any]) -> str:
        return "made with other settings" if facts["key"] != self.key else self._journal.too_short(facts["sizes"])

    def keep(self, step: int, save: Callable[[Path], None], *, every: int | None = 1) -> None:
        """Keep the model after ``step`` steps for good, as ``NAME@STEP``, where ``step`` is a multiple of ``every``."""
        if every and step % every == 0:
            self._write_model(f"kept/{step:06d}", save, step)

    def finish(self, save: Callable[[Path], None]) -> None:
        """Write the stage's model to ``checkpoint/``."""
        self._write_model("checkpoint", save)

    def leave(self, name: str, save: Callable[[Path], None]) -> None:
        """Leave ``NAME/`` in the stage's folder for whoever looks into it."""
        self._write(name, save)

    def _write_model(self, name: str, save: Callable[[Path], None], step: int | None = None) -> None:
        def with_card(folder: Path) -> None:
            save(folder)
            if team.leads():
                complete(folder, made(self, step))

        self._write(name, with_card)

    def _write(self, name: str, save: Callable[[Path], None]) -> None:
        with team.shared_folder(self.folder / name) as folder:
            save(folder)

    def close(self) -> None:
        """Write down what was spent after the last step. Called once, after the stage function has returned."""
        if not self._begun:
            self.restore()
        self._journal.end()
        for each in self._trackers:
            try:
                each.close()
            except StageError as error:
                self.note(str(error))
